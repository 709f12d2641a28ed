//! Avro schema resolution: the plan that shows a writer's values under the reader's schema
//! (Avro 1.12 specification, "Schema Resolution").

use std::sync::Arc;

use isk_schema::{Branches, Kind, Logical, RecordField, RecordType, TimeUnit, ValueType};

use crate::avro_text::{Definitions, TextPlan};
use crate::default;
use crate::plan::{ElementPlan, Place, Plan, RecordPlan, Step, Symbol, Wire};
use crate::skip::{Skip, min_size};

/// Why a writer's type cannot be shown as the reader's.
type Mismatch = String;

/// The plan for values of type `w`, within a schema of these definitions, in columns of type `r`.
fn resolve(w: &ValueType, r: &ValueType, env: &Arc<Definitions>) -> Result<Plan, Mismatch> {
    if let Kind::Union(branches) = &w.kind {
        return writer_union(branches, r, env);
    }
    if w.is_null() {
        return Ok(Plan::Null);
    }
    if let Kind::Union(branches) = &r.kind {
        return reader_union(w, branches, env);
    }
    match (&w.kind, &r.kind) {
        (Kind::Record(_) | Kind::Recursive(_), Kind::Recursive(_)) => {
            return Ok(Plan::Json(TextPlan { ty: w.clone(), definitions: Arc::clone(env) }));
        }
        // The reader's ends elsewhere.
        (Kind::Recursive(named), _) => {
            let record = env.get(&named.name).ok_or_else(|| describe(w))?;
            let record = ValueType { kind: Kind::Record(Arc::clone(record)), logical: None };
            return resolve(&record, r, env);
        }
        _ => {}
    }
    if let Some(plan) = same_logical(w, r) {
        return Ok(plan);
    }
    match (&w.kind, &r.kind) {
        (Kind::Boolean, Kind::Boolean) => Ok(Plan::Boolean),
        (Kind::Int, Kind::Int | Kind::Long) => Ok(integer(w, Wire::Int, r)),
        (Kind::Long, Kind::Long) => Ok(integer(w, Wire::Long, r)),
        (Kind::Int, Kind::Float) => Ok(Plan::Float(Wire::Int)),
        (Kind::Long, Kind::Float) => Ok(Plan::Float(Wire::Long)),
        (Kind::Float, Kind::Float) => Ok(Plan::Float(Wire::Float)),
        (Kind::Int, Kind::Double) => Ok(Plan::Double(Wire::Int)),
        (Kind::Long, Kind::Double) => Ok(Plan::Double(Wire::Long)),
        (Kind::Float, Kind::Double) => Ok(Plan::Double(Wire::Float)),
        (Kind::Double, Kind::Double) => Ok(Plan::Double(Wire::Double)),
        (Kind::Bytes | Kind::String, Kind::Bytes | Kind::String) => Ok(match r.logical {
            Some(Logical::Decimal { precision, .. }) => {
                Plan::Decimal { size: None, precision, shift: 0 }
            }
            Some(Logical::Uuid) => Plan::UuidText,
            _ if matches!(r.kind, Kind::String) => Plan::Text,
            _ => Plan::Binary,
        }),
        (Kind::Fixed(a), Kind::Fixed(b)) if a.size == b.size => Ok(match r.logical {
            Some(Logical::Decimal { precision, .. }) => {
                Plan::Decimal { size: Some(a.size), precision, shift: 0 }
            }
            Some(Logical::Duration) => Plan::Duration,
            _ if a.size == 0 => Plan::EmptyBinary,
            _ => Plan::Fixed(a.size),
        }),
        (Kind::Enum(a), Kind::Enum(b)) => {
            let known = |s: &String| b.symbols.contains(s).then(|| s.clone());
            let fallback = b.default.clone().filter(|d| b.symbols.contains(d));
            let symbol = |s: &String| Symbol {
                name: s.clone(),
                shown: known(s).or_else(|| fallback.clone()),
            };
            Ok(Plan::Enum(a.symbols.iter().map(symbol).collect()))
        }
        (Kind::Array(a), Kind::Array(b)) => Ok(Plan::List(elements(a, b, 0, env)?)),
        (Kind::Map(a), Kind::Map(b)) => Ok(Plan::Map(elements(a, b, 1, env)?)),
        (Kind::Record(a), Kind::Record(b)) if b.fields.is_empty() => {
            let skip = |field: &RecordField| Skip::of(&field.ty, env);
            Ok(Plan::Present(Skip::Record(a.fields.iter().map(skip).collect())))
        }
        (Kind::Record(a), Kind::Record(b)) => record(a, b, env).map(Plan::Record),
        _ => Err(format!("the writer's {} cannot be read as {}", describe(w), describe(r))),
    }
}

fn describe(ty: &ValueType) -> String {
    ty.full_name().map_or_else(|| ty.short_name().to_owned(), |name| format!("type {name}"))
}

/// Decimals and uuids match whatever they are encoded on.
fn same_logical(w: &ValueType, r: &ValueType) -> Option<Plan> {
    let size = match &w.kind {
        Kind::Fixed(t) => Some(t.size),
        _ => None,
    };
    match (w.logical?, r.logical?) {
        (Logical::Decimal { scale: from, .. }, Logical::Decimal { precision, scale: to }) => {
            let shift = i32::try_from(i64::from(to) - i64::from(from)).ok()?;
            Some(Plan::Decimal { size, precision, shift })
        }
        (Logical::Uuid, Logical::Uuid) => Some(size.map_or(Plan::UuidText, Plan::Fixed)),
        _ => None,
    }
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// An int or long, in a column of int, long, date, time or timestamp.
fn integer(w: &ValueType, wire: Wire, r: &ValueType) -> Plan {
    let (unit, time) = match r.logical {
        Some(Logical::Time(unit)) => (unit, true),
        Some(Logical::Timestamp(unit) | Logical::LocalTimestamp(unit)) => (unit, false),
        _ => {
            return match (wire, &r.kind) {
                (_, Kind::Int) => Plan::Int,
                (Wire::Int, _) => Plan::IntToLong,
                _ => Plan::Long,
            };
        }
    };
    // The writer's own unit counts; a number without one is in the reader's.
    let (mul, div) = match w.logical {
        Some(Logical::Date) if !time => (MICROS_PER_DAY, 1),
        Some(Logical::Time(u) | Logical::Timestamp(u) | Logical::LocalTimestamp(u)) => micros(u),
        _ => micros(unit),
    };
    Plan::Micros { wire, mul, div, time }
}

pub(crate) fn micros(unit: TimeUnit) -> (i64, i64) {
    match unit {
        TimeUnit::Millis => (1000, 1),
        TimeUnit::Micros => (1, 1),
        TimeUnit::Nanos => (1, 1000),
    }
}

fn elements(
    w: &ValueType,
    r: &ValueType,
    key_size: usize,
    env: &Arc<Definitions>,
) -> Result<ElementPlan, Mismatch> {
    Ok(ElementPlan {
        plan: Box::new(resolve(w, r, env)?),
        min_size: key_size + min_size(w),
        cells: cells(r) + key_size as u64,
    })
}

/// How many cells one value of a reader's type unfolds to at most, defaults' bytes included, the
/// elements of lists in it aside.
pub(crate) fn cells(r: &ValueType) -> u64 {
    match &r.kind {
        Kind::Union(branches) => branches.iter().map(cells).fold(1, u64::saturating_add),
        Kind::Record(record) => record.fields.iter().fold(1u64, |sum, field| {
            let default = field.default.as_ref().filter(|d| !d.is_null());
            sum.saturating_add(cells(&field.ty))
                .saturating_add(default.map_or(0, |d| d.to_string().len() as u64))
        }),
        _ => 1,
    }
}

fn writer_union(
    branches: &[ValueType],
    r: &ValueType,
    env: &Arc<Definitions>,
) -> Result<Plan, Mismatch> {
    let plans: Vec<Result<Plan, Mismatch>> = branches.iter().map(|w| resolve(w, r, env)).collect();
    let shown = branches.iter().zip(&plans).any(|(w, plan)| plan.is_ok() && !w.is_null());
    let only_null = branches.iter().all(ValueType::is_null);
    if !shown && !only_null {
        if let Some(Err(mismatch)) = plans.into_iter().find(Result::is_err) {
            return Err(mismatch);
        }
        return Err("no branch of the writer's union can be read".to_owned());
    }
    Ok(Plan::Union(plans.into_iter().map(|plan| plan.unwrap_or_else(Plan::Refuse)).collect()))
}

/// The reader's branch for a writer's type: the same type by full name, else by an alias, else by short
/// name, else the first it can be promoted to.
fn reader_union(
    w: &ValueType,
    branches: &[ValueType],
    env: &Arc<Definitions>,
) -> Result<Plan, Mismatch> {
    let many = matches!(Branches::of(branches), Branches::Many);
    let real: Vec<&ValueType> = branches.iter().filter(|b| !b.is_null()).collect();
    // Each branch is tried once, best first: trying it again for each rank would double the work with
    // each level of nesting.
    let mut order: Vec<usize> = (0..real.len()).collect();
    order.sort_by_key(|i| rank(w, real[*i]));
    for column in order {
        if let Ok(plan) = resolve(w, real[column], env) {
            let plan = Box::new(plan);
            return Ok(if many { Plan::Branch { column, plan } } else { *plan });
        }
    }
    let names: Vec<String> = branches.iter().map(describe).collect();
    Err(format!("the writer's {} is none of the union's [{}]", describe(w), names.join(", ")))
}

/// How well a reader's branch matches a writer's type, 0 best.
fn rank(w: &ValueType, r: &ValueType) -> u8 {
    let is_record = |ty: &ValueType| matches!(ty.kind, Kind::Record(_) | Kind::Recursive(_));
    let same_kind = std::mem::discriminant(&w.kind) == std::mem::discriminant(&r.kind)
        || is_record(w) && is_record(r);
    if same_kind && w.full_name() == r.full_name() {
        0
    } else if w.full_name().is_some_and(|name| r.aliases().iter().any(|alias| alias == name)) {
        1
    } else if same_kind && w.short_name() == r.short_name() {
        2
    } else {
        3
    }
}

/// The plan for values of type `w` as whole rows of a table.
pub(crate) fn rows(w: &ValueType, r: &ValueType, place: Place) -> Result<Plan, Mismatch> {
    let plan = resolve(w, r, &Arc::new(Definitions::of(w)))?;
    let Place::Column { at, of, name } = place else { return Ok(plan) };
    let missing = (0..of).filter(|column| *column != at).map(|column| (column, Plan::Null));
    let steps = vec![Step::Read { column: at, name, plan }];
    Ok(Plan::Record(RecordPlan { steps, missing: missing.collect() }))
}

/// The plan of a record's fields, columns in the reader's order.
fn record(w: &RecordType, r: &RecordType, env: &Arc<Definitions>) -> Result<RecordPlan, Mismatch> {
    // Which writer's field each reader's field is: its own name first, then a name it had before.
    let mut taken = vec![None; w.fields.len()];
    let mut found = vec![false; r.fields.len()];
    let position = |name: &str| w.fields.iter().position(|f| f.name == name);
    for (column, field) in r.fields.iter().enumerate() {
        if let Some(i) = position(&field.name) {
            taken[i] = Some(column);
            found[column] = true;
        }
    }
    for (column, field) in
        r.fields.iter().enumerate().filter(|(c, _)| !found[*c]).collect::<Vec<_>>()
    {
        let by_alias =
            field.aliases.iter().filter_map(|alias| position(alias)).find(|i| taken[*i].is_none());
        if let Some(i) = by_alias {
            taken[i] = Some(column);
            found[column] = true;
        }
    }
    let step = |(field, column): (&RecordField, Option<usize>)| match column {
        None => Ok(Step::Skip(Skip::of(&field.ty, env))),
        Some(column) => {
            let target = &r.fields[column];
            let plan = resolve(&field.ty, &target.ty, env)
                .map_err(|mismatch| format!("field {}: {mismatch}", target.name))?;
            Ok(Step::Read { column, name: target.name.clone(), plan })
        }
    };
    let steps = w.fields.iter().zip(taken).map(step).collect::<Result<_, Mismatch>>()?;
    let missing = r.fields.iter().enumerate().filter(|(column, _)| !found[*column]);
    Ok(RecordPlan { steps, missing: missing.map(|(c, f)| (c, fill(f, env))).collect() })
}

/// What stands in a reader's field that a writer does not have.
fn fill(field: &RecordField, env: &Arc<Definitions>) -> Plan {
    let default = field.default.as_ref().filter(|json| !json.is_null());
    let encoded = default.and_then(|json| default::encode(json, &field.ty));
    match encoded.map(|bytes| (bytes, resolve(&field.ty, &field.ty, env))) {
        Some((bytes, Ok(plan))) => Plan::Default { bytes, plan: Box::new(plan) },
        _ => Plan::Null,
    }
}
