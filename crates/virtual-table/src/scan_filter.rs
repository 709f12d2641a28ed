//! A query's predicate, and whether a data file may hold rows that meet it. Pure.
//!
//! Only a certain no prunes: what is not understood (a column that is not there, a transform, a value of
//! another form) may match.

use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType, Schema, Type};
use serde_json::Value;

/// A predicate as the client sent it.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Always or never.
    Constant(bool),
    /// Both.
    And(Box<Filter>, Box<Filter>),
    /// One or both.
    Or(Box<Filter>, Box<Filter>),
    /// Not so.
    Not(Box<Filter>),
    /// A column compared with values.
    Test {
        /// The column's name.
        column: String,
        /// How it is compared.
        test: Test,
        /// With what: one value, for `in` several.
        values: Vec<Value>,
    },
    /// Something that is not understood here: it may be true, and it may be false.
    Unknown,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// `=`, and `in`.
    In,
    /// `<>`, and `not in`.
    NotIn,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// Whether a text begins so.
    StartsWith,
    /// Whether there is no value.
    IsNull,
    /// Whether there is a value.
    NotNull,
    /// What says nothing that bounds could answer.
    Other,
}

impl Test {
    /// The test that is true where this one is false, for a column that is not null.
    fn negated(self) -> Self {
        match self {
            Self::In => Self::NotIn,
            Self::NotIn => Self::In,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
            Self::IsNull => Self::NotNull,
            Self::NotNull => Self::IsNull,
            Self::StartsWith | Self::Other => Self::Other,
        }
    }
}

/// A predicate over a table's columns, negations pushed down to its tests.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bound {
    Constant(bool),
    And(Box<Bound>, Box<Bound>),
    Or(Box<Bound>, Box<Bound>),
    Test { field: i32, test: Test, values: Vec<Datum> },
}

/// What is known of a column in a file.
#[derive(Debug, Clone, Default)]
pub struct ColumnFacts {
    /// No value is less, if known.
    pub lower: Option<Datum>,
    /// No value is greater, if known.
    pub upper: Option<Datum>,
    /// How many values are null, if known.
    pub nulls: Option<u64>,
    /// How many values there are, nulls included, if known.
    pub values: Option<u64>,
}

impl Filter {
    /// Whether a file may hold a row that meets the predicate; `facts` says what is known of its columns by field id.
    pub fn may_match(
        &self,
        schema: &Schema,
        case_sensitive: bool,
        facts: &impl Fn(i32) -> ColumnFacts,
    ) -> bool {
        Bound::new(self, schema, case_sensitive).may_match(facts)
    }
}

impl Bound {
    /// The predicate over the columns of a schema.
    pub(crate) fn new(filter: &Filter, schema: &Schema, case_sensitive: bool) -> Self {
        bind(filter, schema, case_sensitive, true)
    }

    /// Whether a file may hold a row that meets the predicate.
    pub(crate) fn may_match(&self, facts: &impl Fn(i32) -> ColumnFacts) -> bool {
        match self {
            Self::Constant(holds) => *holds,
            Self::And(a, b) => a.may_match(facts) && b.may_match(facts),
            Self::Or(a, b) => a.may_match(facts) || b.may_match(facts),
            Self::Test { field, test, values } => test_may_match(*test, values, &facts(*field)),
        }
    }

    /// The milliseconds before which no row of a timestamp column is wanted, wherever the predicate
    /// names such; sorted.
    pub(crate) fn floors_ms(&self, field: i32) -> Vec<i64> {
        let mut found = Vec::new();
        self.add_floors(field, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn add_floors(&self, field: i32, found: &mut Vec<i64>) {
        match self {
            Self::And(a, b) | Self::Or(a, b) => {
                a.add_floors(field, found);
                b.add_floors(field, found);
            }
            Self::Test { field: of, test, values } if *of == field => {
                let micros = values.iter().filter_map(|value| match value.literal() {
                    PrimitiveLiteral::Long(micros) => Some(*micros),
                    _ => None,
                });
                match test {
                    Test::In | Test::GreaterOrEqual => {
                        found
                            .extend(micros.map(|us| {
                                us.div_euclid(1000) + i64::from(us.rem_euclid(1000) > 0)
                            }));
                    }
                    Test::Greater => found.extend(micros.map(|us| us.div_euclid(1000) + 1)),
                    _ => {}
                }
            }
            Self::Constant(_) | Self::Test { .. } => {}
        }
    }
}

fn bind(filter: &Filter, schema: &Schema, case_sensitive: bool, wanted: bool) -> Bound {
    let side = |filter| Box::new(bind(filter, schema, case_sensitive, wanted));
    match (filter, wanted) {
        (Filter::Constant(holds), _) => Bound::Constant(*holds == wanted),
        (Filter::Not(child), _) => bind(child, schema, case_sensitive, !wanted),
        (Filter::And(a, b), true) | (Filter::Or(a, b), false) => Bound::And(side(a), side(b)),
        (Filter::Or(a, b), true) | (Filter::And(a, b), false) => Bound::Or(side(a), side(b)),
        (Filter::Unknown, _) => Bound::Constant(true),
        (Filter::Test { column, test, values }, _) => {
            let field = match case_sensitive {
                true => schema.field_by_name(column),
                false => schema.field_by_name_case_insensitive(column),
            };
            let test = if wanted { *test } else { test.negated() };
            let Some((id, Type::Primitive(kind))) =
                field.map(|field| (field.id, field.field_type.as_ref()))
            else {
                return Bound::Constant(true);
            };
            match values.iter().map(|value| datum(kind, value)).collect() {
                Some(values) => Bound::Test { field: id, test, values },
                None => Bound::Constant(true),
            }
        }
    }
}

/// A value in the column's type. Timestamps come as microseconds or as text, with an offset or without.
/// Types that come in more forms than it is worth to know prune nothing.
fn datum(kind: &PrimitiveType, value: &Value) -> Option<Datum> {
    // A number beyond the column's type is told by no bound of the file.
    let int = || value.as_i64().and_then(|n| i32::try_from(n).ok());
    match (kind, value) {
        (PrimitiveType::Timestamptz, Value::String(text)) => Datum::timestamptz_from_str(text)
            .or_else(|_| Datum::timestamptz_from_str(format!("{text}+00:00")))
            .ok(),
        (PrimitiveType::Timestamptz, _) => value.as_i64().map(Datum::timestamptz_micros),
        (PrimitiveType::Timestamp, Value::String(text)) => Datum::timestamp_from_str(text).ok(),
        (PrimitiveType::Timestamp, _) => value.as_i64().map(Datum::timestamp_micros),
        (PrimitiveType::Date, Value::String(text)) => Datum::date_from_str(text).ok(),
        (PrimitiveType::Date, _) => int().map(Datum::date),
        (PrimitiveType::Int, _) => int().map(Datum::int),
        (PrimitiveType::Long, _) => value.as_i64().map(Datum::long),
        (PrimitiveType::Boolean, _) => value.as_bool().map(Datum::bool),
        (PrimitiveType::String, _) => value.as_str().map(Datum::string),
        _ => None,
    }
}

fn test_may_match(test: Test, values: &[Datum], facts: &ColumnFacts) -> bool {
    let only_nulls = facts.nulls.is_some() && facts.nulls == facts.values;
    let above_all = |value: &Datum| facts.upper.as_ref().is_some_and(|upper| value > upper);
    let below_all = |value: &Datum| facts.lower.as_ref().is_some_and(|lower| value < lower);
    match test {
        Test::IsNull => facts.nulls != Some(0),
        Test::NotNull => !only_nulls,
        Test::NotIn | Test::Other | Test::StartsWith => true,
        _ if only_nulls => false,
        Test::In => values.iter().any(|value| !above_all(value) && !below_all(value)),
        Test::Less => {
            values.iter().all(|value| facts.lower.as_ref().is_none_or(|lower| lower < value))
        }
        Test::LessOrEqual => !values.iter().any(below_all),
        Test::Greater => {
            values.iter().all(|value| facts.upper.as_ref().is_none_or(|upper| upper > value))
        }
        Test::GreaterOrEqual => !values.iter().any(above_all),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::NestedField;
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let field =
            |id, name: &str, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
        let fields = [
            field(1, "n", PrimitiveType::Long),
            field(2, "at", PrimitiveType::Timestamptz),
            field(3, "s", PrimitiveType::String),
            field(4, "blob", PrimitiveType::Binary),
        ];
        Schema::builder().with_fields(fields).build().unwrap()
    }

    fn test(column: &str, test: Test, values: &[Value]) -> Filter {
        Filter::Test { column: column.into(), test, values: values.to_vec() }
    }

    /// A file whose `n` lies in 10..=20, whose `at` is at most 2024-01-01 and whose `s` is only null.
    fn facts(field: i32) -> ColumnFacts {
        match field {
            1 => ColumnFacts {
                lower: Some(Datum::long(10)),
                upper: Some(Datum::long(20)),
                nulls: Some(0),
                values: None,
            },
            2 => ColumnFacts {
                upper: Some(Datum::timestamptz_from_str("2024-01-01T00:00:00+00:00").unwrap()),
                ..ColumnFacts::default()
            },
            3 => ColumnFacts { nulls: Some(5), values: Some(5), ..ColumnFacts::default() },
            _ => ColumnFacts::default(),
        }
    }

    fn may(filter: &Filter) -> bool {
        filter.may_match(&schema(), true, &facts)
    }

    #[test]
    fn bounds_answer_every_comparison() {
        for (op, value, expected) in [
            (Test::In, 9, false),
            (Test::In, 10, true),
            (Test::In, 20, true),
            (Test::In, 21, false),
            (Test::Less, 10, false),
            (Test::Less, 11, true),
            (Test::LessOrEqual, 9, false),
            (Test::LessOrEqual, 10, true),
            (Test::Greater, 20, false),
            (Test::Greater, 19, true),
            (Test::GreaterOrEqual, 21, false),
            (Test::GreaterOrEqual, 20, true),
            (Test::NotIn, 15, true),
        ] {
            let filter = test("n", op, &[json!(value)]);
            assert_eq!(may(&filter), expected, "{op:?} {value}");
        }
        assert!(!may(&test("n", Test::In, &[json!(1), json!(30)])));
        assert!(!may(&test("n", Test::IsNull, &[])));
        assert!(!may(&test("s", Test::NotNull, &[])) && !may(&test("s", Test::In, &[json!("a")])));
    }

    #[test]
    fn times_come_in_every_form() {
        for (value, expected) in [
            (json!("2024-01-01T00:00:00+00:00"), true),
            (json!("2024-01-01T00:00:00"), true),
            (json!("2024-01-01T00:00:00.000001"), false),
            (json!("2024-01-01T01:00:00+02:00"), true),
            (json!(1_704_067_200_000_000_i64), true),
            (json!(1_704_067_200_000_001_i64), false),
            (json!("yesterday"), true),
        ] {
            let filter = test("at", Test::GreaterOrEqual, std::slice::from_ref(&value));
            assert_eq!(may(&filter), expected, "{value}");
            let not = Filter::Not(Box::new(test("at", Test::Less, std::slice::from_ref(&value))));
            assert_eq!(may(&not), expected, "not before {value}");
        }
    }

    #[test]
    fn only_a_certain_no_prunes() {
        let no = || Box::new(test("n", Test::In, &[json!(1)]));
        let unknown = || Box::new(Filter::Unknown);
        assert!(!may(&Filter::And(no(), unknown())));
        assert!(may(&Filter::Or(no(), unknown())));
        assert!(may(&Filter::Not(unknown())));
        for filter in [
            test("none", Test::In, &[json!(1)]),
            test("N", Test::In, &[json!(1)]),
            test("blob", Test::In, &[json!("00")]),
            test("n", Test::In, &[json!("x")]),
            test("n", Test::Other, &[]),
        ] {
            assert!(may(&filter), "{filter:?}");
            assert!(may(&Filter::Not(Box::new(filter))));
        }
        // De Morgan: not (n = 15 or s is null) needs a value in s.
        let either = Filter::Or(
            Box::new(test("n", Test::In, &[json!(15)])),
            Box::new(test("s", Test::IsNull, &[])),
        );
        assert!(!may(&Filter::Not(Box::new(either))));
        let blind = Bound::new(&test("N", Test::In, &[json!(1)]), &schema(), false);
        assert!(!blind.may_match(&facts));
    }

    #[test]
    fn floors_are_whole_milliseconds() {
        let at = |op, value: i64| test("at", op, &[json!(value)]);
        let filter = Filter::And(
            Box::new(at(Test::GreaterOrEqual, 5_000)),
            Box::new(Filter::And(
                Box::new(at(Test::GreaterOrEqual, 6_001)),
                Box::new(Filter::Not(Box::new(at(Test::LessOrEqual, 8_000)))),
            )),
        );
        let bound = Bound::new(&filter, &schema(), true);
        assert_eq!(bound.floors_ms(2), [5, 7, 9]);
        assert!(bound.floors_ms(1).is_empty());
    }
}
