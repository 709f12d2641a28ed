//! A topic's columns laid over those of a cold table: one set of columns for both.
//!
//! The cold table's columns keep their ids, names and order. A hot column is the cold column it was
//! mapped to before, or the one of the same name, ignoring case where that is unambiguous. Hot columns
//! that cold has not follow under ids from a range of their own, which depend on nothing but the hot id:
//! they stay while cold evolves. Nested fields are matched likewise, each within its parent.
//!
//! Where types differ, the wider one that Iceberg allows to promote to is the column's; where there is
//! none, the error names both sides. Every column is optional: each side may lack what the other has.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, SchemaRef, StructType,
    Type,
};

/// The first id of columns that only the hot side has; a column's is this plus its hot id.
pub const FIRST_HOT_ONLY_ID: i32 = 1_000_000_000;

/// One set of columns for a topic and a cold table.
#[derive(Debug, Clone)]
pub struct MergedSchema {
    /// The table's columns: cold's, then those that only the topic has.
    pub table: Schema,
    /// The columns of a hot file: the topic's, in its order and with its types, under the table's ids and
    /// names.
    pub hot_file: SchemaRef,
    /// Which cold field each hot field is, by their ids: to be given again next time.
    pub matched: BTreeMap<i32, i32>,
}

/// Why two sets of columns do not go together. The text names both sides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The types of a column have no common one.
    #[error(
        "column {column} is {cold} in the cold table and {hot} in the topic, and neither can be \
         promoted to the other: change the type, or rename the column, on one side"
    )]
    Types {
        /// The column's path.
        column: String,
        /// Cold's type.
        cold: String,
        /// The topic's type.
        hot: String,
    },
    /// The cold table's ids reach into the range of the hot columns.
    #[error(
        "the cold table uses the field id {0}; ids from {FIRST_HOT_ONLY_ID} are the topic's own"
    )]
    Ids(i32),
    /// Iceberg does not accept the columns together.
    #[error("the columns of the cold table and the topic together are no schema: {0}")]
    Iceberg(String),
}

/// Lays the columns of a topic over a cold table's. `known` is what an earlier merge of the same two
/// has matched: a column that cold renames stays matched.
///
/// # Errors
/// [`MergeError`] names the column and both sides.
pub fn merge_schemas(
    cold: &Schema,
    hot: &Schema,
    known: &BTreeMap<i32, i32>,
) -> Result<MergedSchema, MergeError> {
    let highest = cold.highest_field_id();
    if highest >= FIRST_HOT_ONLY_ID {
        return Err(MergeError::Ids(highest));
    }
    let mut merge = Merge { known, matched: BTreeMap::new() };
    let columns =
        merge.structs(cold.as_struct().fields(), hot.as_struct().fields(), &mut Vec::new())?;
    let build = |fields: Vec<NestedFieldRef>| {
        let schema = Schema::builder().with_fields(fields).build();
        schema.map_err(|e| MergeError::Iceberg(e.to_string()))
    };
    Ok(MergedSchema {
        table: build(columns.table)?,
        hot_file: Arc::new(build(columns.hot_file)?),
        matched: merge.matched,
    })
}

struct Merge<'a> {
    known: &'a BTreeMap<i32, i32>,
    matched: BTreeMap<i32, i32>,
}

/// The fields of one struct: as the table shows them, and as a hot file has them.
struct Columns {
    table: Vec<NestedFieldRef>,
    hot_file: Vec<NestedFieldRef>,
}

/// One type, likewise.
struct Merged {
    table: Type,
    hot_file: Type,
}

impl Merge<'_> {
    fn structs(
        &mut self,
        cold: &[NestedFieldRef],
        hot: &[NestedFieldRef],
        path: &mut Vec<String>,
    ) -> Result<Columns, MergeError> {
        let partners = self.partners(cold, hot);
        let mut table: Vec<NestedFieldRef> = Vec::new();
        let mut in_file: BTreeMap<i32, NestedFieldRef> = BTreeMap::new();
        for field in cold {
            let partner = hot.iter().find(|h| partners.get(&h.id) == Some(&field.id));
            let Some(partner) = partner else {
                table.push(Arc::new(optional(field, (*field.field_type).clone())));
                continue;
            };
            path.push(field.name.clone());
            let merged = self.types(&field.field_type, &partner.field_type, path)?;
            path.pop();
            self.matched.insert(partner.id, field.id);
            in_file.insert(partner.id, Arc::new(optional(field, merged.hot_file)));
            table.push(Arc::new(optional(field, merged.table)));
        }
        for field in hot.iter().filter(|h| !partners.contains_key(&h.id)) {
            let name = free_name(&field.name, &table);
            let new = Arc::new(NestedField { name, ..hot_only(field) });
            in_file.insert(field.id, Arc::clone(&new));
            table.push(new);
        }
        let hot_file = hot.iter().filter_map(|h| in_file.remove(&h.id)).collect();
        Ok(Columns { table, hot_file })
    }

    /// Hot field id to cold field id: as known, else by exact name, else by name ignoring case.
    fn partners(&self, cold: &[NestedFieldRef], hot: &[NestedFieldRef]) -> BTreeMap<i32, i32> {
        let mut partners: BTreeMap<i32, i32> = BTreeMap::new();
        let same_case = |a: &str, b: &str| a == b;
        let any_case = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        for field in hot {
            let known = self.known.get(&field.id);
            if let Some(id) = known.filter(|&&id| cold.iter().any(|c| c.id == id)) {
                partners.insert(field.id, *id);
            }
        }
        for same in [&same_case as &dyn Fn(&str, &str) -> bool, &any_case] {
            for field in hot {
                if partners.contains_key(&field.id) {
                    continue;
                }
                let taken = |id: i32| partners.values().any(|&t| t == id);
                let mut named = cold.iter().filter(|c| same(&c.name, &field.name) && !taken(c.id));
                let rivals = hot
                    .iter()
                    .filter(|h| !partners.contains_key(&h.id) && same(&h.name, &field.name))
                    .count();
                if let (Some(one), None, 1) = (named.next(), named.next(), rivals) {
                    partners.insert(field.id, one.id);
                }
            }
        }
        partners
    }

    fn types(
        &mut self,
        cold: &Type,
        hot: &Type,
        path: &mut Vec<String>,
    ) -> Result<Merged, MergeError> {
        let differ = |path: &[String]| MergeError::Types {
            column: path.join("."),
            cold: shown(cold),
            hot: shown(hot),
        };
        match (cold, hot) {
            (Type::Primitive(c), Type::Primitive(h)) => {
                let wider = wider(c, h).ok_or_else(|| differ(path))?;
                Ok(Merged { table: Type::Primitive(wider), hot_file: hot.clone() })
            }
            (Type::Struct(c), Type::Struct(h)) => {
                let columns = self.structs(c.fields(), h.fields(), path)?;
                Ok(Merged {
                    table: Type::Struct(StructType::new(columns.table)),
                    hot_file: Type::Struct(StructType::new(columns.hot_file)),
                })
            }
            (Type::List(c), Type::List(h)) => {
                let [table, hot_file] =
                    self.inner(&c.element_field, &h.element_field, "element", path)?;
                Ok(Merged {
                    table: Type::List(ListType { element_field: table }),
                    hot_file: Type::List(ListType { element_field: hot_file }),
                })
            }
            (Type::Map(c), Type::Map(h)) => {
                if c.key_field.field_type != h.key_field.field_type {
                    return Err(differ(path));
                }
                let [key, hot_key] = self.inner(&c.key_field, &h.key_field, "key", path)?;
                let [value, hot_value] =
                    self.inner(&c.value_field, &h.value_field, "value", path)?;
                Ok(Merged {
                    table: Type::Map(MapType { key_field: key, value_field: value }),
                    hot_file: Type::Map(MapType { key_field: hot_key, value_field: hot_value }),
                })
            }
            _ => Err(differ(path)),
        }
    }

    /// The element of a list, or the key or value of a map: always matched with its counterpart.
    fn inner(
        &mut self,
        cold: &NestedFieldRef,
        hot: &NestedFieldRef,
        part: &str,
        path: &mut Vec<String>,
    ) -> Result<[NestedFieldRef; 2], MergeError> {
        path.push(part.to_owned());
        let merged = self.types(&cold.field_type, &hot.field_type, path)?;
        path.pop();
        self.matched.insert(hot.id, cold.id);
        let field = |ty: Type| NestedField {
            // Keys of maps are never null.
            required: part == "key",
            ..optional(cold, ty)
        };
        Ok([Arc::new(field(merged.table)), Arc::new(field(merged.hot_file))])
    }
}

/// A cold field, no longer required: hot rows may lack it.
fn optional(field: &NestedField, ty: Type) -> NestedField {
    NestedField { required: false, field_type: Box::new(ty), ..field.clone() }
}

/// A field that only the topic has, with all that is nested in it, under its own ids.
fn hot_only(field: &NestedField) -> NestedField {
    let inside = |f: &NestedFieldRef| Arc::new(hot_only(f));
    let ty = match field.field_type.as_ref() {
        Type::Primitive(p) => Type::Primitive(p.clone()),
        Type::Struct(s) => Type::Struct(StructType::new(s.fields().iter().map(inside).collect())),
        Type::List(l) => Type::List(ListType { element_field: inside(&l.element_field) }),
        Type::Map(m) => Type::Map(MapType {
            key_field: Arc::new(NestedField { required: true, ..hot_only(&m.key_field) }),
            value_field: inside(&m.value_field),
        }),
    };
    NestedField {
        id: FIRST_HOT_ONLY_ID.saturating_add(field.id),
        // Cold's files lack it.
        required: false,
        field_type: Box::new(ty),
        ..field.clone()
    }
}

/// The name, or the first of `name_2`, `name_3`, ... that no column has, ignoring case.
fn free_name(name: &str, taken: &[NestedFieldRef]) -> String {
    let is_free = |name: &str| taken.iter().all(|f| f.name.to_lowercase() != name.to_lowercase());
    let numbered = (2..).map(|n: u32| format!("{name}_{n}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|n| is_free(n)).unwrap_or_default()
}

/// The type that both can be read as (specification, "Schema Evolution": type promotion).
fn wider(a: &PrimitiveType, b: &PrimitiveType) -> Option<PrimitiveType> {
    use PrimitiveType::{Decimal, Double, Float, Int, Long};
    match (a, b) {
        _ if a == b => Some(a.clone()),
        (Int, Long) | (Long, Int) => Some(Long),
        (Float, Double) | (Double, Float) => Some(Double),
        (Decimal { precision: p, scale: s }, Decimal { precision: q, scale: t }) if s == t => {
            Some(Decimal { precision: *p.max(q), scale: *s })
        }
        _ => None,
    }
}

/// A type in a few words: a nested one by its kind.
fn shown(ty: &Type) -> String {
    match ty {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::Struct(_) => "struct".to_owned(),
        Type::List(_) => "list".to_owned(),
        Type::Map(_) => "map".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(id: i32, name: &str, ty: PrimitiveType) -> NestedFieldRef {
        Arc::new(NestedField::optional(id, name, Type::Primitive(ty)))
    }

    fn schema(fields: Vec<NestedFieldRef>) -> Schema {
        Schema::builder().with_fields(fields).build().unwrap()
    }

    fn merged(cold: Vec<NestedFieldRef>, hot: Vec<NestedFieldRef>) -> MergedSchema {
        merge_schemas(&schema(cold), &schema(hot), &BTreeMap::new()).unwrap()
    }

    fn shown_fields(schema: &Schema) -> Vec<(i32, String, String)> {
        let fields = schema.as_struct().fields().iter();
        fields.map(|f| (f.id, f.name.clone(), f.field_type.to_string())).collect()
    }

    #[test]
    fn cold_columns_stay_and_hot_ones_follow() {
        let both = merged(
            vec![
                field(7, "Amount", PrimitiveType::Double),
                field(3, "id", PrimitiveType::Long),
                field(9, "old", PrimitiveType::String),
            ],
            vec![
                field(100, "id", PrimitiveType::Int),
                field(101, "amount", PrimitiveType::Float),
                field(102, "new", PrimitiveType::String),
            ],
        );
        let expected = [
            (7, "Amount".to_owned(), "double".to_owned()),
            (3, "id".to_owned(), "long".to_owned()),
            (9, "old".to_owned(), "string".to_owned()),
            (1_000_000_102, "new".to_owned(), "string".to_owned()),
        ];
        assert_eq!(shown_fields(&both.table), expected);
        let in_file = [
            (3, "id".to_owned(), "int".to_owned()),
            (7, "Amount".to_owned(), "float".to_owned()),
            (1_000_000_102, "new".to_owned(), "string".to_owned()),
        ];
        assert_eq!(shown_fields(&both.hot_file), in_file);
        assert_eq!(both.matched, BTreeMap::from([(100, 3), (101, 7)]));
    }

    #[test]
    fn a_renamed_cold_column_stays_matched_and_a_dropped_one_does_not() {
        let hot = schema(vec![field(100, "amount", PrimitiveType::Long)]);
        let known = BTreeMap::from([(100, 5)]);
        let renamed = schema(vec![field(5, "total", PrimitiveType::Long)]);
        let both = merge_schemas(&renamed, &hot, &known).unwrap();
        assert_eq!(shown_fields(&both.table), [(5, "total".into(), "long".into())]);
        let dropped = schema(vec![field(6, "other", PrimitiveType::Long)]);
        let both = merge_schemas(&dropped, &hot, &known).unwrap();
        assert_eq!(shown_fields(&both.table)[1], (1_000_000_100, "amount".into(), "long".into()));
    }

    #[test]
    fn required_columns_become_optional() {
        let id = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
        let other = NestedField::required(100, "other", Type::Primitive(PrimitiveType::Int));
        let both = merged(vec![Arc::new(id)], vec![Arc::new(other)]);
        assert!(both.table.as_struct().fields().iter().all(|f| !f.required));
    }

    #[test]
    fn nested_fields_are_matched_within_their_parents() {
        let nested = |id, name: &str, inner: Vec<NestedFieldRef>| {
            let ty = Type::Struct(StructType::new(inner));
            Arc::new(NestedField::optional(id, name, ty))
        };
        let both = merged(
            vec![nested(1, "a", vec![field(2, "x", PrimitiveType::Long)])],
            vec![nested(
                100,
                "a",
                vec![field(101, "y", PrimitiveType::Int), field(102, "x", PrimitiveType::Int)],
            )],
        );
        let Type::Struct(inner) = both.table.as_struct().fields()[0].field_type.as_ref() else {
            panic!("no struct");
        };
        let ids: Vec<i32> = inner.fields().iter().map(|f| f.id).collect();
        assert_eq!(ids, [2, 1_000_000_101]);
        let Type::Struct(inner) = both.hot_file.as_struct().fields()[0].field_type.as_ref() else {
            panic!("no struct");
        };
        let ids: Vec<i32> = inner.fields().iter().map(|f| f.id).collect();
        assert_eq!(ids, [1_000_000_101, 2]);
    }

    #[test]
    fn names_that_differ_in_case_only_are_matched_exactly_or_not_at_all() {
        let both = merged(
            vec![field(1, "id", PrimitiveType::Long)],
            vec![field(100, "ID", PrimitiveType::Long), field(101, "Id", PrimitiveType::Long)],
        );
        assert_eq!(both.matched, BTreeMap::new());
        let names: Vec<String> = shown_fields(&both.table).into_iter().map(|f| f.1).collect();
        assert_eq!(names, ["id", "ID_2", "Id_3"]);
    }

    #[test]
    fn types_without_a_common_one_are_refused_naming_both() {
        let cold = schema(vec![field(1, "at", PrimitiveType::Timestamp)]);
        let hot = schema(vec![field(100, "at", PrimitiveType::Timestamptz)]);
        let error = merge_schemas(&cold, &hot, &BTreeMap::new()).unwrap_err().to_string();
        for part in ["column at", "timestamp in the cold", "timestamptz in the topic"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
