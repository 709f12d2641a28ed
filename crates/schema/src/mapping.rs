//! Avro types to Iceberg types: the layout of each type's columns, their ids and names.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::{
    ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, StructType, Type,
};

use crate::avro::{Branches, Kind, Logical, RecordType, ValueType};
use crate::error::SchemaError;
use crate::ids::{Candidate, Shape, Walk, child};
use crate::names;

/// The columns of one Avro type.
pub(crate) enum Layout<'a> {
    Primitive(PrimitiveType),
    /// A struct of these parts; the name tells kinds of structs apart.
    Struct(&'static str, Vec<Part<'a>>),
    List(&'a ValueType),
    Map(&'a ValueType),
}

/// One field of a struct of columns.
pub(crate) struct Part<'a> {
    /// What tells it from its siblings, and its field id is kept under: a name, or Protobuf's number.
    pub name: &'a str,
    /// The name its column would like to have.
    pub column: &'a str,
    /// Names it had before.
    pub aliases: &'a [String],
    pub doc: Option<&'a str>,
    pub ty: PartType<'a>,
}

pub(crate) enum PartType<'a> {
    Avro(&'a ValueType),
    Long,
}

/// The names of the parts of a duration.
const DURATION_PARTS: [&str; 3] = ["months", "days", "milliseconds"];

/// What columns a type has.
pub(crate) fn layout(ty: &ValueType) -> Layout<'_> {
    if let Some(layout) = ty.logical.and_then(logical_layout) {
        return layout;
    }
    Layout::Primitive(match &ty.kind {
        Kind::Null | Kind::String | Kind::Enum(_) | Kind::Recursive(_) => PrimitiveType::String,
        Kind::Boolean => PrimitiveType::Boolean,
        Kind::Int => PrimitiveType::Int,
        Kind::Long => PrimitiveType::Long,
        Kind::Float => PrimitiveType::Float,
        Kind::Double => PrimitiveType::Double,
        Kind::Bytes => PrimitiveType::Binary,
        Kind::Fixed(t) if t.size == 0 => PrimitiveType::Binary,
        Kind::Fixed(t) => PrimitiveType::Fixed(t.size as u64),
        Kind::Array(element) => return Layout::List(element),
        Kind::Map(value) => return Layout::Map(value),
        Kind::Record(record) if record.fields.is_empty() => PrimitiveType::Boolean,
        Kind::Record(record) => return Layout::Struct("struct", record_parts(record)),
        Kind::Union(branches) => match Branches::of(branches) {
            Branches::Nothing => PrimitiveType::String,
            Branches::One(branch) => return layout(branch),
            Branches::Many => return Layout::Struct("union", branch_parts(branches)),
        },
    })
}

/// `None` where a logical type has the columns of what it stands on.
fn logical_layout(logical: Logical) -> Option<Layout<'static>> {
    Some(Layout::Primitive(match logical {
        Logical::Date => PrimitiveType::Date,
        Logical::Time(_) => PrimitiveType::Time,
        Logical::Timestamp(_) => PrimitiveType::Timestamptz,
        Logical::LocalTimestamp(_) => PrimitiveType::Timestamp,
        Logical::Decimal { precision, scale } => PrimitiveType::Decimal { precision, scale },
        Logical::Uuid => PrimitiveType::Uuid,
        Logical::Duration => {
            let part =
                |name| Part { name, column: name, aliases: &[], doc: None, ty: PartType::Long };
            return Some(Layout::Struct("duration", DURATION_PARTS.map(part).into()));
        }
        Logical::Json | Logical::Rest => return None,
    }))
}

/// The fields of a record as parts.
pub(crate) fn record_parts(record: &RecordType) -> Vec<Part<'_>> {
    let fields = record.fields.iter();
    fields
        .map(|field| Part {
            name: field.proto.as_ref().map_or(&field.name, |proto| &proto.path),
            column: &field.name,
            aliases: &field.aliases,
            doc: field.doc.as_deref(),
            ty: PartType::Avro(&field.ty),
        })
        .collect()
}

fn branch_parts(branches: &[ValueType]) -> Vec<Part<'_>> {
    let real = branches.iter().filter(|b| !b.is_null());
    real.map(|branch| Part {
        name: branch.full_name().unwrap_or(branch.short_name()),
        column: branch.short_name(),
        aliases: branch.aliases(),
        doc: None,
        ty: PartType::Avro(branch),
    })
    .collect()
}

impl<'a> PartType<'a> {
    pub(crate) fn layout(&self) -> Layout<'a> {
        match self {
            Self::Avro(ty) => layout(ty),
            Self::Long => Layout::Primitive(PrimitiveType::Long),
        }
    }
}

impl Layout<'_> {
    fn shape(&self) -> Shape {
        match self {
            Self::Primitive(PrimitiveType::Decimal { precision, scale }) => {
                Shape::Decimal(*precision, *scale)
            }
            Self::Primitive(primitive) => Shape::Primitive(primitive.to_string()),
            Self::Struct(name, _) => Shape::Nested((*name).to_owned()),
            Self::List(_) => Shape::Nested("list".to_owned()),
            Self::Map(_) => Shape::Nested("map".to_owned()),
        }
    }
}

// ---- ids ---------------------------------------------------------------------------------------

/// Gives ids to a struct's parts and all that is nested in them.
pub(crate) fn assign_parts(
    parts: &[Part<'_>],
    path: &str,
    walk: &mut Walk,
) -> Result<(), SchemaError> {
    let layouts: Vec<Layout<'_>> = parts.iter().map(|part| part.ty.layout()).collect();
    let candidates: Vec<Candidate> = parts
        .iter()
        .zip(&layouts)
        .map(|(part, layout)| Candidate {
            names: std::iter::once(part.name.to_owned())
                .chain(part.aliases.iter().cloned())
                .collect(),
            shape: layout.shape(),
        })
        .collect();
    walk.siblings(path, &candidates)?;
    for (part, layout) in parts.iter().zip(&layouts) {
        assign_nested(layout, &child(path, part.name), walk)?;
    }
    Ok(())
}

/// Gives ids to all that is nested in a column.
pub(crate) fn assign_nested(
    layout: &Layout<'_>,
    path: &str,
    walk: &mut Walk,
) -> Result<(), SchemaError> {
    let (parts, inner) = match layout {
        Layout::Primitive(_) => return Ok(()),
        Layout::Struct(_, parts) => return assign_parts(parts, path, walk),
        Layout::List(element) => (vec![(ELEMENT, crate::mapping::layout(element))], ELEMENT),
        Layout::Map(value) => (
            vec![
                (KEY, Layout::Primitive(PrimitiveType::String)),
                (VALUE, crate::mapping::layout(value)),
            ],
            VALUE,
        ),
    };
    let candidates: Vec<Candidate> = parts
        .iter()
        .map(|(name, layout)| Candidate { names: vec![(*name).to_owned()], shape: layout.shape() })
        .collect();
    walk.siblings(path, &candidates)?;
    match parts.last() {
        Some((_, layout)) => assign_nested(layout, &child(path, inner), walk),
        None => Ok(()),
    }
}

const ELEMENT: &str = "element";
const KEY: &str = "key";
const VALUE: &str = "value";

// ---- columns -----------------------------------------------------------------------------------

/// Makes columns from layouts and the ids given to their paths.
pub(crate) struct Columns<'a> {
    pub ids: &'a BTreeMap<String, i32>,
}

impl Columns<'_> {
    /// The fields of a struct whose parts lie at `path`.
    pub(crate) fn fields(
        &self,
        parts: &[Part<'_>],
        path: &str,
        reserved: &[&str],
        at: &str,
    ) -> Result<Vec<NestedFieldRef>, SchemaError> {
        let wanted: Vec<(i32, String)> = parts
            .iter()
            .map(|part| {
                let id = self.id(&child(path, part.name))?;
                Ok((id, names::column_name(part.column, at)?))
            })
            .collect::<Result<_, SchemaError>>()?;
        let names = names::distinct(&wanted, reserved);
        parts
            .iter()
            .zip(wanted)
            .zip(names)
            .map(|((part, (id, _)), name)| {
                let ty = self.column(
                    &part.ty.layout(),
                    &child(path, part.name),
                    &join(at, part.column),
                )?;
                let field = NestedField::optional(id, name, ty);
                Ok(Arc::new(match part.doc {
                    Some(doc) => field.with_doc(doc),
                    None => field,
                }))
            })
            .collect()
    }

    /// The type of a column at `path`.
    pub(crate) fn column(
        &self,
        layout: &Layout<'_>,
        path: &str,
        at: &str,
    ) -> Result<Type, SchemaError> {
        Ok(match layout {
            Layout::Primitive(primitive) => Type::Primitive(primitive.clone()),
            Layout::Struct(_, parts) => {
                Type::Struct(StructType::new(self.fields(parts, path, &[], at)?))
            }
            Layout::List(element) => {
                let path = child(path, ELEMENT);
                let ty =
                    self.column(&crate::mapping::layout(element), &path, &join(at, ELEMENT))?;
                let field = NestedField::list_element(self.id(&path)?, ty, false);
                Type::List(ListType::new(Arc::new(field)))
            }
            Layout::Map(value) => {
                let key = self.id(&child(path, KEY))?;
                let path = child(path, VALUE);
                let ty = self.column(&crate::mapping::layout(value), &path, &join(at, VALUE))?;
                Type::Map(MapType::new(
                    Arc::new(NestedField::map_key_element(
                        key,
                        Type::Primitive(PrimitiveType::String),
                    )),
                    Arc::new(NestedField::map_value_element(self.id(&path)?, ty, false)),
                ))
            }
        })
    }

    fn id(&self, path: &str) -> Result<i32, SchemaError> {
        // A persisted map that another version of the mapping wrote can lack a path.
        self.ids.get(path).copied().ok_or_else(|| {
            SchemaError::Iceberg(format!(
                "the persisted field ids know no {path:?}; they do not belong to this schema"
            ))
        })
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}
