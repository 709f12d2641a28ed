//! Generated schemas and values, encoded by apache-avro: our rows equal what apache-avro reads, also
//! through schema resolution.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::collections::HashMap;

use apache_avro::types::Value as Avro;
use apache_avro::{
    Days, Decimal, Duration, Millis, Months, Schema, from_avro_datum, to_avro_datum,
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use support::{Plain, block, decoder, expected, framed, row, sorted};

/// An Avro type to be written as JSON; named types get their names then.
#[derive(Debug, Clone)]
enum Ty {
    Plain(&'static str),
    Logical(&'static str, &'static str),
    Enum(usize),
    Fixed(usize),
    Decimal {
        fixed: Option<usize>,
        precision: usize,
        scale: usize,
    },
    Duration,
    Array(Box<Ty>),
    Map(Box<Ty>),
    /// Branches of different kinds; `null` is one of `Plain`.
    Union(Vec<Ty>),
    Record(Vec<Ty>),
}

const LOGICAL: [(&str, &str); 10] = [
    ("int", "date"),
    ("int", "time-millis"),
    ("long", "time-micros"),
    ("long", "timestamp-millis"),
    ("long", "timestamp-micros"),
    ("long", "timestamp-nanos"),
    ("long", "local-timestamp-millis"),
    ("long", "local-timestamp-micros"),
    ("long", "local-timestamp-nanos"),
    ("string", "uuid"),
];

fn ty() -> impl Strategy<Value = Ty> {
    let plain = prop::sample::select(vec![
        "boolean", "int", "long", "float", "double", "string", "bytes", "null",
    ]);
    let leaf = prop_oneof![
        4 => plain.prop_map(Ty::Plain),
        4 => prop::sample::select(LOGICAL.to_vec()).prop_map(|(base, name)| Ty::Logical(base, name)),
        1 => (1usize..5).prop_map(Ty::Enum),
        1 => (1usize..20).prop_map(Ty::Fixed),
        1 => (1usize..39).prop_flat_map(|p| (Just(p), 0..=p)).prop_map(|(precision, scale)| {
            Ty::Decimal { fixed: None, precision, scale }
        }),
        1 => (0usize..=9).prop_map(|scale| Ty::Decimal { fixed: Some(4), precision: 9, scale }),
        1 => Just(Ty::Duration),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| Ty::Array(Box::new(t))),
            inner.clone().prop_map(|t| Ty::Map(Box::new(t))),
            prop::collection::vec(inner.clone(), 1..5).prop_map(union),
            prop::collection::vec(inner, 0..5).prop_map(Ty::Record),
        ]
    })
}

/// A union of those of the branches that may stand beside each other.
fn union(branches: Vec<Ty>) -> Ty {
    let mut seen = Vec::new();
    let keep = |branch: &Ty| {
        let kind = match branch {
            Ty::Union(_) => return false,
            Ty::Plain(name) | Ty::Logical(name, _) => *name,
            // apache-avro takes all decimals for one branch, and all durations.
            Ty::Decimal { .. } => "bytes",
            Ty::Duration => "duration",
            Ty::Array(_) => "array",
            Ty::Map(_) => "map",
            // Named types may, each has a name of its own.
            _ => return true,
        };
        let new = !seen.contains(&kind);
        seen.push(kind);
        new
    };
    let kept: Vec<Ty> = branches.into_iter().filter(keep).collect();
    if kept.is_empty() { Ty::Union(vec![Ty::Plain("null")]) } else { Ty::Union(kept) }
}

/// The type with only such branches in its unions as apache-avro tells apart when it resolves: it
/// takes the first branch a value would fit, whatever the writer's branch was named.
fn distinct(ty: Ty) -> Ty {
    let class = |branch: &Ty| match branch {
        Ty::Plain("null") => 0,
        Ty::Plain("boolean") => 1,
        Ty::Plain("string") | Ty::Logical("string", _) | Ty::Enum(_) => 2,
        Ty::Plain("bytes") | Ty::Fixed(_) | Ty::Decimal { .. } | Ty::Duration => 2,
        Ty::Plain(_) | Ty::Logical(..) => 3,
        Ty::Array(_) => 4,
        Ty::Map(_) | Ty::Record(_) | Ty::Union(_) => 5,
    };
    match ty {
        Ty::Array(inner) => Ty::Array(Box::new(distinct(*inner))),
        Ty::Map(inner) => Ty::Map(Box::new(distinct(*inner))),
        Ty::Record(fields) => Ty::Record(fields.into_iter().map(distinct).collect()),
        Ty::Union(branches) => {
            let mut seen = std::collections::BTreeSet::new();
            let kept = branches.into_iter().filter(|b| seen.insert(class(b))).map(distinct);
            Ty::Union(kept.collect())
        }
        leaf => leaf,
    }
}

struct Names(usize);

impl Names {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("N{}", self.0)
    }

    fn json(&mut self, ty: &Ty) -> Json {
        match ty {
            Ty::Plain(name) => json!(name),
            Ty::Logical(base, name) => json!({"type": base, "logicalType": name}),
            Ty::Enum(n) => {
                let symbols: Vec<String> = (0..*n).map(|i| format!("S{i}")).collect();
                json!({"type": "enum", "name": self.next(), "symbols": symbols})
            }
            Ty::Fixed(size) => json!({"type": "fixed", "name": self.next(), "size": size}),
            Ty::Decimal { fixed, precision, scale } => {
                let mut json = match fixed {
                    Some(size) => json!({"type": "fixed", "name": self.next(), "size": size}),
                    None => json!({"type": "bytes"}),
                };
                json["logicalType"] = json!("decimal");
                json["precision"] = json!(precision);
                json["scale"] = json!(scale);
                json
            }
            Ty::Duration => json!({
                "type": "fixed", "name": self.next(), "size": 12, "logicalType": "duration"
            }),
            Ty::Array(inner) => json!({"type": "array", "items": self.json(inner)}),
            Ty::Map(inner) => json!({"type": "map", "values": self.json(inner)}),
            Ty::Union(branches) => branches.iter().map(|b| self.json(b)).collect(),
            Ty::Record(fields) => {
                let name = self.next();
                let fields: Vec<Json> = (0..)
                    .zip(fields)
                    .map(
                        |(i, f): (usize, _)| json!({"name": format!("f{i}"), "type": self.json(f)}),
                    )
                    .collect();
                json!({"type": "record", "name": name, "fields": fields})
            }
        }
    }
}

fn text_of(ty: &Ty) -> String {
    Names(0).json(ty).to_string()
}

/// Numbers without end from a seed (an xorshift), to make values of.
struct Tape(u64);

impl Tape {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn long(&mut self) -> i64 {
        // Numbers of any length.
        let shift = self.below(64);
        self.next() as i64 >> shift
    }

    fn text(&mut self) -> String {
        let n = self.below(8);
        (0..n).map(|_| ['a', 'B', 'ß', '日', '🦀'][self.below(5)]).collect()
    }

    fn value(&mut self, ty: &Ty) -> Avro {
        match ty {
            Ty::Plain("null") => Avro::Null,
            Ty::Plain("boolean") => Avro::Boolean(self.below(2) == 1),
            Ty::Plain("int") => Avro::Int((self.long() >> 32) as i32),
            Ty::Plain("long") => Avro::Long(self.long()),
            Ty::Plain("float") => Avro::Float(self.long() as f32),
            Ty::Plain("double") => Avro::Double(self.long() as f64 / 3.0),
            Ty::Plain("string") => Avro::String(self.text()),
            Ty::Plain(_) => Avro::Bytes(self.text().into_bytes()),
            Ty::Logical(_, name) => self.logical(name),
            Ty::Enum(n) => {
                let i = self.below(*n);
                Avro::Enum(i as u32, format!("S{i}"))
            }
            Ty::Fixed(size) => Avro::Fixed(*size, (0..*size).map(|_| self.next() as u8).collect()),
            Ty::Decimal { precision, .. } => {
                let wide = i128::from(self.long()) * i128::from(self.long());
                let number = wide % 10i128.pow(*precision as u32);
                let bytes = number.to_be_bytes();
                // As few bytes as hold it.
                let spare = (0..15)
                    .take_while(|i| {
                        bytes[*i] == if number < 0 { 255 } else { 0 }
                            && (bytes[i + 1] >= 128) == (number < 0)
                    })
                    .count();
                Avro::Decimal(Decimal::from(&bytes[spare..]))
            }
            Ty::Duration => Avro::Duration(Duration::new(
                Months::new(self.next() as u32),
                Days::new(self.next() as u32),
                Millis::new(self.next() as u32),
            )),
            Ty::Array(inner) => {
                let n = self.below(4);
                Avro::Array((0..n).map(|_| self.value(inner)).collect())
            }
            Ty::Map(inner) => {
                let n = self.below(4);
                Avro::Map(
                    (0..n).map(|_| (self.text(), self.value(inner))).collect::<HashMap<_, _>>(),
                )
            }
            Ty::Union(branches) => {
                let i = self.below(branches.len());
                Avro::Union(i as u32, Box::new(self.value(&branches[i])))
            }
            Ty::Record(fields) => Avro::Record(
                (0..)
                    .zip(fields)
                    .map(|(i, f): (usize, _)| (format!("f{i}"), self.value(f)))
                    .collect(),
            ),
        }
    }

    fn logical(&mut self, name: &str) -> Avro {
        match name {
            "date" => Avro::Date((self.long() >> 32) as i32),
            "time-millis" => Avro::TimeMillis(self.below(86_400_000) as i32),
            "time-micros" => Avro::TimeMicros(self.below(86_400_000_000) as i64),
            "timestamp-millis" => Avro::TimestampMillis(self.long() / 1000),
            "timestamp-micros" => Avro::TimestampMicros(self.long()),
            "timestamp-nanos" => Avro::TimestampNanos(self.long()),
            "local-timestamp-millis" => Avro::LocalTimestampMillis(self.long() / 1000),
            "local-timestamp-micros" => Avro::LocalTimestampMicros(self.long()),
            "local-timestamp-nanos" => Avro::LocalTimestampNanos(self.long()),
            _ => Avro::Uuid(uuid::Uuid::from_u128(
                u128::from(self.next()) << 64 | u128::from(self.next()),
            )),
        }
    }

    /// A type values of `ty` can be read as: promoted, reordered is left to the table-driven tests.
    fn evolved(&mut self, ty: &Ty) -> Ty {
        let evolved = match ty {
            Ty::Plain("int") => Ty::Plain(["int", "long", "double"][self.below(3)]),
            Ty::Plain("long") => Ty::Plain(["long", "double"][self.below(2)]),
            Ty::Plain("float") => Ty::Plain(["float", "double"][self.below(2)]),
            Ty::Plain("string") => Ty::Plain(["string", "bytes"][self.below(2)]),
            Ty::Array(inner) => Ty::Array(Box::new(self.evolved(inner))),
            Ty::Map(inner) => Ty::Map(Box::new(self.evolved(inner))),
            Ty::Record(fields) => {
                // Fields may go from the end.
                let keep = fields.len() - self.below(fields.len() + 1) / 2;
                Ty::Record(fields[..keep].iter().map(|f| self.evolved(f)).collect())
            }
            other => other.clone(),
        };
        let nullable = matches!(evolved, Ty::Union(_) | Ty::Plain("null"));
        if !nullable && self.below(4) == 0 {
            Ty::Union(vec![Ty::Plain("null"), evolved])
        } else {
            evolved
        }
    }
}

/// What the table shows of a value, column by column.
fn columns(value: &Avro, reader: &str) -> Vec<Plain> {
    let ty = isk_schema::parse(reader, &[]).unwrap();
    let shown = sorted(expected(value, &ty));
    match (value, shown) {
        (Avro::Record(fields), _) if fields.is_empty() => Vec::new(),
        (Avro::Record(_), Plain::Struct(columns)) => columns,
        (_, shown) => vec![shown],
    }
}

fn record() -> impl Strategy<Value = Ty> {
    prop_oneof![4 => prop::collection::vec(ty(), 0..6).prop_map(Ty::Record), 1 => ty()]
}

/// Records of so few fields that apache-avro does not refuse most of them for one of them.
fn small_record() -> impl Strategy<Value = Ty> {
    prop::collection::vec(ty(), 1..3).prop_map(Ty::Record)
}

fn config() -> ProptestConfig {
    // `PROPTEST_CASES` asks for more.
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(400), ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rows_are_what_apache_avro_wrote(ty in record(), seeds in prop::collection::vec(1u64.., 1..8)) {
        let schema = text_of(&ty);
        let apache = Schema::parse_str(&schema).unwrap();
        let values: Vec<Avro> = seeds.iter().map(|seed| Tape(*seed).value(&ty)).collect();
        let payloads: Vec<Vec<u8>> =
            values.iter().map(|v| to_avro_datum(&apache, v.clone()).unwrap()).collect();
        let batch =
            decoder(&[&schema]).decode(&block(payloads.iter().map(|p| Some(framed(1, p))))).unwrap();
        prop_assert!(batch.failures.is_empty(), "{:?}", batch.failures);
        for (i, value) in values.iter().enumerate() {
            let row: Vec<Plain> = row(&batch, i).into_iter().map(sorted).collect();
            prop_assert_eq!(row, columns(value, &schema));
        }
    }

    #[test]
    fn rows_of_older_writers_are_what_apache_avro_resolves(ty in small_record(), seed in 1u64..) {
        let ty = distinct(ty);
        let mut tape = Tape(seed);
        let value = tape.value(&ty);
        let (old, new) = (text_of(&ty), text_of(&tape.evolved(&ty)));
        let (writer, reader) = (Schema::parse_str(&old).unwrap(), Schema::parse_str(&new).unwrap());
        let payload = to_avro_datum(&writer, value).unwrap();
        let batch = decoder(&[&old, &new]).decode(&block([Some(framed(1, &payload))])).unwrap();
        // Where apache-avro refuses what we show, the specification is on neither side alone; what both
        // show must be the same.
        if let Ok(resolved) = from_avro_datum(&writer, &mut payload.as_slice(), Some(&reader)) {
            prop_assert!(batch.failures.is_empty(), "{:?}", batch.failures);
            let row: Vec<Plain> = row(&batch, 0).into_iter().map(sorted).collect();
            prop_assert_eq!(row, columns(&resolved, &new));
        }
    }

    #[test]
    fn any_bytes_under_any_schema_are_a_row_or_a_failure(
        ty in record(), payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20),
    ) {
        let schema = text_of(&ty);
        let batch =
            decoder(&[&schema]).decode(&block(payloads.iter().map(|p| Some(framed(1, p))))).unwrap();
        prop_assert_eq!(batch.batch.num_rows(), payloads.len());
        // A failed record is null in every column, and what apache-avro reads to the end we read as well.
        for failure in &batch.failures {
            let row = row(&batch, failure.offset.0 as usize);
            prop_assert!(row.iter().all(|column| *column == Plain::Null));
        }
    }
}
