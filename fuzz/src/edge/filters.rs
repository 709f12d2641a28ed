//! Predicates of scans: a file that holds a row which meets one is never left out.

use axum::body::Body;
use http::{Request, header};
use iceberg::spec::{Datum, NestedField, PrimitiveType, Schema, Type};
use isk_virtual_table::{ColumnFacts, Filter, Test};
use serde_json::Value;

use crate::edge::catalog::{Answered, ask};

/// A value of one of the columns below.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Cell {
    Number(i64),
    Text(String),
    Flag(bool),
}

/// Columns by their field ids, from 1 on.
const COLUMNS: [(&str, PrimitiveType); 5] = [
    ("n", PrimitiveType::Long),
    ("at", PrimitiveType::Timestamptz),
    ("s", PrimitiveType::String),
    ("i", PrimitiveType::Int),
    ("b", PrimitiveType::Boolean),
];

type Row = [Option<Cell>; 5];

fn row(n: Option<i64>, at: Option<i64>, s: Option<&str>, i: Option<i64>, b: Option<bool>) -> Row {
    let number = |value: Option<i64>| value.map(Cell::Number);
    [number(n), number(at), s.map(|s| Cell::Text(s.to_owned())), number(i), b.map(Cell::Flag)]
}

/// The rows of some files.
fn files() -> Vec<Vec<Row>> {
    const AT: i64 = 1_704_067_200_000_000;
    vec![
        vec![
            row(Some(10), Some(AT), Some("a"), Some(-1), Some(true)),
            row(Some(20), Some(AT + 1), Some("b"), Some(7), Some(false)),
        ],
        vec![row(Some(15), None, Some(""), Some(i64::from(i32::MAX)), Some(true))],
        vec![
            row(None, Some(0), None, None, None),
            row(Some(-5), Some(-1), Some("é"), Some(0), Some(false)),
        ],
        vec![row(None, None, None, None, None)],
        vec![row(Some(i64::MAX), Some(i64::MIN), Some("zz"), Some(i64::from(i32::MIN)), None)],
    ]
}

fn schema() -> Schema {
    let fields = COLUMNS.iter().zip(1..).map(|((name, kind), id)| {
        NestedField::optional(id, *name, Type::Primitive(kind.clone())).into()
    });
    Schema::builder().with_fields(fields).build().unwrap()
}

fn datum(kind: &PrimitiveType, cell: &Cell) -> Datum {
    match (kind, cell) {
        (PrimitiveType::Int, Cell::Number(n)) => Datum::int(i32::try_from(*n).unwrap()),
        (PrimitiveType::Timestamptz, Cell::Number(n)) => Datum::timestamptz_micros(*n),
        (_, Cell::Number(n)) => Datum::long(*n),
        (_, Cell::Text(s)) => Datum::string(s),
        (_, Cell::Flag(b)) => Datum::bool(*b),
    }
}

/// What a manifest knows of a file's column; of some columns nothing is counted.
fn facts(rows: &[Row], field: i32, counted: bool) -> ColumnFacts {
    let Some(at) = usize::try_from(field - 1).ok().filter(|at| *at < COLUMNS.len()) else {
        return ColumnFacts::default();
    };
    let mut values: Vec<&Cell> = rows.iter().filter_map(|row| row[at].as_ref()).collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let bound = |cell: Option<&&Cell>| cell.map(|cell| datum(&COLUMNS[at].1, cell));
    let count = |count: usize| counted.then_some(count as u64);
    ColumnFacts {
        lower: bound(values.first()),
        upper: bound(values.last()),
        nulls: count(rows.len() - values.len()),
        values: count(rows.len()),
    }
}

/// A predicate as a client sends it; the first byte says whether names are taken as they are written.
pub(crate) fn predicates(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let case_sensitive = first & 1 == 1;
    let body = format!(r#"{{"case-sensitive":{case_sensitive},"filter":{text}}}"#);
    let request = Request::post("/v1/namespaces/hotset/tables/t/plan")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .unwrap();
    let Answered { answer, scans, .. } = ask(request);
    let status = answer.status().as_u16();
    assert!(status == 400 || (status == 200 && scans.len() == 1), "{status}");
    let Some(scan) = scans.first() else { return };
    let schema = schema();
    for rows in files() {
        for counted in [true, false] {
            let of = |field| facts(&rows, field, counted);
            let read = scan.filter.may_match(&schema, scan.case_sensitive, &of);
            let met = |row: &Row| certain(&scan.filter, row, scan.case_sensitive) == Some(true);
            assert!(read || !rows.iter().any(met), "{:?} leaves out {rows:?}", scan.filter);
        }
    }
}

/// Whether a row meets a predicate, where that is certain.
fn certain(filter: &Filter, row: &Row, case_sensitive: bool) -> Option<bool> {
    let of = |filter: &Filter| certain(filter, row, case_sensitive);
    match filter {
        Filter::Constant(holds) => Some(*holds),
        Filter::Not(child) => of(child).map(|holds| !holds),
        Filter::And(a, b) => match (of(a), of(b)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        Filter::Or(a, b) => match (of(a), of(b)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        Filter::Test { column, test, values } => {
            let is = |name: &str| match case_sensitive {
                true => name == column,
                false => name.eq_ignore_ascii_case(column),
            };
            let at = COLUMNS.iter().position(|(name, _)| is(name))?;
            tested(&row[at], *test, &COLUMNS[at].1, values)
        }
        Filter::Unknown => None,
    }
}

fn tested(cell: &Option<Cell>, test: Test, kind: &PrimitiveType, values: &[Value]) -> Option<bool> {
    match test {
        Test::IsNull => return Some(cell.is_none()),
        Test::NotNull => return Some(cell.is_some()),
        _ => {}
    }
    let cell = cell.as_ref()?;
    let values = values.iter().map(|value| meant(kind, value)).collect::<Option<Vec<Cell>>>()?;
    let one = match &values[..] {
        [one] => Some(one),
        _ => None,
    };
    match test {
        Test::In => Some(values.contains(cell)),
        Test::NotIn => Some(!values.contains(cell)),
        Test::Less => Some(cell < one?),
        Test::LessOrEqual => Some(cell <= one?),
        Test::Greater => Some(cell > one?),
        Test::GreaterOrEqual => Some(cell >= one?),
        Test::StartsWith => match (cell, one?) {
            (Cell::Text(text), Cell::Text(begin)) => Some(text.starts_with(begin)),
            _ => None,
        },
        _ => None,
    }
}

/// A value of a predicate, where its form leaves no doubt.
fn meant(kind: &PrimitiveType, value: &Value) -> Option<Cell> {
    match kind {
        PrimitiveType::String => value.as_str().map(|text| Cell::Text(text.to_owned())),
        PrimitiveType::Boolean => value.as_bool().map(Cell::Flag),
        _ => value.as_i64().map(Cell::Number),
    }
}
