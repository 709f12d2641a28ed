//! Several types of record side by side in one topic: which columns they are.
//!
//! Each type is a column of its own, under its short name, and a table of its own can show the records of one alone.
//! A type is known by its full name: Avro's, Protobuf's, or the title of a JSON Schema. Its versions follow each other
//! as those of a subject do, whatever the other types' do in between, so its field ids do not depend on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::{NestedField, NestedFieldRef, Schema, Type};
use isk_model::{SchemaFormat, SchemaVersion};

use crate::avro::{Kind, ValueType, last_segment};
use crate::error::SchemaError;
use crate::ids::{FieldIdMap, Part};
use crate::mapping::{self, Columns, PartType};
use crate::metadata;
use crate::names;
use crate::protobuf::ProtoSchema;
use crate::table::{SchemaText, TableSchema, ValueKind, digest, key_column};

/// One version of one type of record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedSchema {
    /// The type's full name.
    pub record_type: String,
    /// The schema that has it. Its version counts those of all types.
    pub schema: SchemaText,
}

/// A type of record that a topic has beside others.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordKind {
    /// Its full name.
    pub name: String,
    /// Its column's name, and what a table of its own is called by.
    pub column: String,
    /// What its schema is written in.
    pub format: SchemaFormat,
    /// The type of its records.
    pub ty: Arc<ValueType>,
}

impl RecordKind {
    /// Whether records of a type of this name are of this one, by its name of now or one that it had before.
    fn matches(&self, name: &str) -> bool {
        self.name == name || self.ty.aliases().iter().any(|alias| alias == name)
    }

    /// The place of the type that records of a name are of.
    pub fn find(kinds: &[Self], name: &str) -> Option<usize> {
        let exact = kinds.iter().position(|kind| kind.name == name);
        exact.or_else(|| kinds.iter().position(|kind| kind.matches(name)))
    }
}

impl SchemaText {
    /// The full names of the types of record that it describes, as a subject's: of a Protobuf file the message that
    /// the subject is called by, else those at its top that no other message of it holds.
    ///
    /// # Errors
    /// It is no schema, or its type has no name.
    pub fn record_types(&self, subject: &str) -> Result<Vec<String>, SchemaError> {
        match self.format {
            SchemaFormat::Protobuf => {
                let file = ProtoSchema::parse(&self.text, &self.references)?;
                let called = |name: &String| {
                    let before = subject.strip_suffix(name.as_str());
                    before.is_some_and(|before| before.is_empty() || before.ends_with(['-', ':']))
                };
                let all = file.names();
                Ok(match all.into_iter().find(called) {
                    Some(name) => vec![name],
                    None => file.free_names(),
                })
            }
            SchemaFormat::Json => Ok(vec![json_title(&self.text).ok_or_else(|| {
                SchemaError::of(
                    SchemaFormat::Json,
                    "the top",
                    "it has no title, by which its records could be told from those of other types",
                )
            })?]),
            SchemaFormat::Avro | SchemaFormat::Plain => {
                let ty = self.parse()?;
                Ok(vec![ty.full_name().unwrap_or(ty.short_name()).to_owned()])
            }
        }
    }
}

/// The title of a JSON Schema: what its records' type is called.
pub fn json_title(text: &str) -> Option<String> {
    let schema: serde_json::Value = serde_json::from_str(text).ok()?;
    let title = schema.get("title")?.as_str()?;
    (!title.is_empty()).then(|| title.to_owned())
}

impl TypedSchema {
    fn parse(&self) -> Result<ValueType, SchemaError> {
        match self.schema.format {
            SchemaFormat::Protobuf => {
                ProtoSchema::parse(&self.schema.text, &self.schema.references)?
                    .named(&self.record_type)
            }
            _ => self.schema.parse(),
        }
    }

    fn part<'a>(&'a self, ty: &'a ValueType) -> mapping::Part<'a> {
        mapping::Part {
            name: &self.record_type,
            column: last_segment(&self.record_type),
            aliases: ty.aliases(),
            doc: None,
            ty: PartType::Avro(ty),
        }
    }

    /// Its type, and the ids of its fields.
    fn walk(
        &self,
        ids: &mut FieldIdMap,
    ) -> Result<(ValueType, BTreeMap<String, i32>), SchemaError> {
        let ty = self.parse()?;
        let name = format!("{} {}", digest(&self.schema, Part::Value), self.record_type);
        if ids.walked(&name).is_none() {
            let mut walk = ids.walk(Part::Value);
            mapping::assign_parts(&[self.part(&ty)], Part::Value.root(), &mut walk)?;
            *ids = walk.finish(name.clone());
        }
        let given = ids.walked(&name).cloned().unwrap_or_default();
        // Its columns may have names that none can have.
        Columns { ids: &given }.fields(&[self.part(&ty)], Part::Value.root(), &[], "")?;
        Ok((ty, given))
    }
}

/// One type as of its last version.
struct Shown<'a> {
    version: &'a TypedSchema,
    ty: Arc<ValueType>,
    ids: BTreeMap<String, i32>,
}

/// The table schema of a topic with several types of record, in the order in which they were first seen: see
/// [`crate::table_schema`]. `history` has the versions of all types; a version that is no valid schema leaves its
/// type as it was before, unless it is the last.
///
/// # Errors
/// As [`crate::table_schema`].
pub fn record_types_schema(
    history: &[TypedSchema],
    key_history: &[SchemaText],
    ids: &mut FieldIdMap,
) -> Result<TableSchema, SchemaError> {
    let mut shown: Vec<Shown<'_>> = Vec::new();
    for (at, version) in history.iter().enumerate() {
        let (ty, given) = match version.walk(ids) {
            Ok(walked) => walked,
            Err(error) if at + 1 == history.len() => return Err(error),
            Err(_) => continue,
        };
        let next = Shown { version, ty: Arc::new(ty), ids: given };
        let named = |name: &str| shown.iter().position(|s| s.version.record_type == name);
        // A type that had another name before is the same column.
        let before = named(&version.record_type)
            .or_else(|| next.ty.aliases().iter().find_map(|alias| named(alias)));
        match before.and_then(|place| shown.get_mut(place)) {
            Some(place) => *place = next,
            None => shown.push(next),
        }
    }
    let all: BTreeMap<String, i32> = shown.iter().flat_map(|s| s.ids.clone()).collect();
    let parts: Vec<mapping::Part<'_>> = shown.iter().map(|s| s.version.part(&s.ty)).collect();
    let columns = Columns { ids: &all };
    let mut fields = columns.fields(&parts, Part::Value.root(), &metadata::RESERVED_NAMES, "")?;
    let kinds = shown.iter().zip(&fields).map(|(shown, field)| RecordKind {
        name: shown.version.record_type.clone(),
        column: field.name.clone(),
        format: shown.version.schema.format,
        ty: Arc::clone(&shown.ty),
    });
    let kinds = kinds.collect();
    let (key, key_type) = key_column(key_history, ids)?;
    fields.extend(metadata::columns(key_type));
    Ok(TableSchema {
        version: SchemaVersion {
            value: history.last().map_or(0, |version| version.schema.version),
            key: key_history.last().map_or(0, |version| version.version),
        },
        iceberg: schema(fields)?,
        value: ValueKind::Several(kinds),
        key,
    })
}

fn schema(fields: Vec<NestedFieldRef>) -> Result<Arc<Schema>, SchemaError> {
    let schema = Schema::builder().with_fields(fields).build();
    schema.map(Arc::new).map_err(|e| SchemaError::Iceberg(e.to_string()))
}

impl TableSchema {
    /// The types of record that stand side by side in it.
    pub fn record_kinds(&self) -> &[RecordKind] {
        match &self.value {
            ValueKind::Several(kinds) => kinds,
            _ => &[],
        }
    }

    /// The table of one type's records alone, its fields as columns under the ids that they have here. `None` where
    /// there is no column of this name, whatever the case of its letters.
    ///
    /// # Errors
    /// [`SchemaError::Iceberg`] where the columns make no schema: a defect of this crate.
    pub fn of_type(&self, column: &str) -> Result<Option<Self>, SchemaError> {
        let same = |kind: &&RecordKind| kind.column.to_lowercase() == column.to_lowercase();
        let Some(kind) = self.record_kinds().iter().find(same) else { return Ok(None) };
        let (values, kafka) = self.iceberg.as_struct().fields().split_at(self.record_kinds().len());
        let Some(own) = values.iter().find(|field| field.name == kind.column) else {
            return Ok(None);
        };
        let inner: Vec<NestedFieldRef> = match (&kind.ty.kind, own.field_type.as_ref()) {
            (Kind::Record(_), Type::Struct(inner)) => inner.fields().to_vec(),
            // A record without fields.
            (Kind::Record(_), _) => Vec::new(),
            (_, ty) => vec![Arc::new(NestedField::optional(own.id, "value", ty.clone()))],
        };
        let wanted: Vec<(i32, String)> = inner.iter().map(|f| (f.id, f.name.clone())).collect();
        let names = names::distinct(&wanted, &metadata::RESERVED_NAMES);
        let renamed = inner
            .iter()
            .zip(names)
            .map(|(field, name)| Arc::new(NestedField { name, ..field.as_ref().clone() }));
        Ok(Some(Self {
            version: self.version,
            iceberg: schema(renamed.chain(kafka.iter().cloned()).collect())?,
            value: ValueKind::OneOf(kind.clone()),
            key: self.key.clone(),
        }))
    }
}
