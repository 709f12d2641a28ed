//! The table schema of a topic, from the version histories of its subjects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use iceberg::spec::{PrimitiveType, Schema, SchemaRef, Type};
use isk_model::{RegistrySchemaId, SchemaFormat, SchemaReference, SchemaVersion};
use sha2::{Digest, Sha256};

use crate::avro::{Kind, ValueType};
use crate::error::SchemaError;
use crate::ids::{FieldIdMap, Part, Walk};
use crate::json_schema;
use crate::mapping::{self, Columns, PartType};
use crate::metadata;
use crate::parse::parse;
use crate::plain;
use crate::protobuf::ProtoSchema;
use crate::record_types::RecordKind;

/// The id of schemas that no registry knows, since the configuration names them: their records are bare.
pub const CONFIGURED: RegistrySchemaId = RegistrySchemaId(-1);

/// One registered version of a subject's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaText {
    /// The version within its subject, from 1; 0 where it is not known (a writer schema got by id).
    pub version: u32,
    /// The id records name it by.
    pub id: RegistrySchemaId,
    /// What kind of schema it is.
    pub format: SchemaFormat,
    /// The schema as registered.
    pub text: String,
    /// The schemas it refers to by name, each after those it refers to itself.
    pub references: Vec<SchemaReference>,
}

impl SchemaText {
    /// The type it describes.
    ///
    /// # Errors
    /// The text is no schema of its format, or one that no table can follow.
    pub fn parse(&self) -> Result<ValueType, SchemaError> {
        match self.format {
            SchemaFormat::Avro => parse(&self.text, &self.references),
            SchemaFormat::Json => json_schema::parse(&self.text, &self.references),
            SchemaFormat::Protobuf => ProtoSchema::parse(&self.text, &self.references)?.root(),
            SchemaFormat::Plain => plain::parse(&self.text),
        }
    }
}

/// What a topic's values are.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueKind {
    /// No schema: one column `kafka_value` of bytes.
    None,
    /// One column `kafka_value` of JSON text, whatever schema a value was written with.
    JsonText,
    /// Records of a format in Confluent framing, shown under this type.
    Framed(SchemaFormat, Arc<ValueType>),
    /// Written with this schema, and nothing else in the bytes.
    Bare(SchemaText, Arc<ValueType>),
    /// Of several types in Confluent framing, each in a column of its own.
    Several(Arc<[RecordKind]>),
    /// The values of one of several types alone.
    OneOf(RecordKind),
}

/// What a topic's keys are.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyKind {
    /// No schema: `kafka_key` is bytes.
    Bytes,
    /// `kafka_key` is JSON text, whatever schema a key was written with.
    JsonText,
    /// A format in Confluent framing, shown under this type in `kafka_key`.
    Framed(SchemaFormat, Arc<ValueType>),
    /// Written with this schema, and nothing else in the bytes.
    Bare(SchemaText, Arc<ValueType>),
}

/// A table's columns as of one version of its topic's subjects.
#[derive(Debug, Clone)]
pub struct TableSchema {
    /// The versions it follows.
    pub version: SchemaVersion,
    /// The columns: the value's first, then the metadata columns.
    pub iceberg: SchemaRef,
    /// What values are. The value's columns are the first ones of `iceberg`: for a record one per field
    /// in the schema's order, else one.
    pub value: ValueKind,
    /// What keys are.
    pub key: KeyKind,
}

impl TableSchema {
    /// How many of the first columns are the value's.
    pub fn value_columns(&self) -> usize {
        match &self.value {
            ValueKind::None | ValueKind::JsonText => 1,
            ValueKind::Framed(_, ty) | ValueKind::Bare(_, ty) => columns_of(ty),
            ValueKind::Several(kinds) => kinds.len(),
            ValueKind::OneOf(kind) => columns_of(&kind.ty),
        }
    }
}

fn columns_of(value: &ValueType) -> usize {
    match &value.kind {
        Kind::Record(record) => record.fields.len(),
        _ => 1,
    }
}

/// The table schema as of the last versions of a topic's value and key subjects; an empty history
/// means there is no such subject.
///
/// Versions `ids` does not know yet are walked in order and noted in it, whether or not the whole
/// succeeds. A version that is no valid schema is passed over, unless it is the last. The same
/// histories, from an empty map, give the same ids everywhere and however often this is called in
/// between.
///
/// # Errors
/// The last version of a subject is not valid, too large, or has names no column can have.
pub fn table_schema(
    value_history: &[SchemaText],
    key_history: &[SchemaText],
    ids: &mut FieldIdMap,
) -> Result<TableSchema, SchemaError> {
    let value = newest(value_history, Part::Value, ids)?;
    let (key, key_type) = key_column(key_history, ids)?;
    let version = SchemaVersion {
        value: value_history.last().map_or(0, |v| v.version),
        key: key_history.last().map_or(0, |v| v.version),
    };

    let mut fields = match &value {
        None => vec![metadata::value_column(Type::Primitive(PrimitiveType::Binary))],
        Some((_, ty, ids)) => value_fields(ty, ids)?,
    };
    fields.extend(metadata::columns(key_type));
    let iceberg = Schema::builder()
        .with_fields(fields)
        .build()
        .map_err(|e| SchemaError::Iceberg(e.to_string()))?;
    Ok(TableSchema {
        version,
        iceberg: Arc::new(iceberg),
        value: value.map_or(ValueKind::None, |(text, ty, _)| match text.id {
            CONFIGURED => ValueKind::Bare(text.clone(), ty),
            _ => ValueKind::Framed(text.format, ty),
        }),
        key,
    })
}

/// What keys are as of the last version of their subject, and the type of their column.
pub(crate) fn key_column(
    history: &[SchemaText],
    ids: &mut FieldIdMap,
) -> Result<(KeyKind, Type), SchemaError> {
    let Some((text, ty, ids)) = newest(history, Part::Key, ids)? else {
        return Ok((KeyKind::Bytes, Type::Primitive(PrimitiveType::Binary)));
    };
    let (root, columns) = (Part::Key.root(), Columns { ids: &ids });
    let column = columns.column(&mapping::layout(&ty), root, metadata::KAFKA_KEY.name)?;
    Ok(match text.id {
        CONFIGURED => (KeyKind::Bare(text.clone(), ty), column),
        _ => (KeyKind::Framed(text.format, ty), column),
    })
}

/// The columns of a topic whose values and keys are shown as JSON text. They follow no version of a schema.
///
/// # Errors
/// Iceberg refuses the columns: a defect.
pub fn json_text_schema() -> Result<TableSchema, SchemaError> {
    let text = Type::Primitive(PrimitiveType::String);
    let mut fields = vec![metadata::value_column(text.clone())];
    fields.extend(metadata::columns(text));
    let schema = Schema::builder().with_fields(fields).build();
    Ok(TableSchema {
        version: SchemaVersion::default(),
        iceberg: Arc::new(schema.map_err(|e| SchemaError::Iceberg(e.to_string()))?),
        value: ValueKind::JsonText,
        key: KeyKind::JsonText,
    })
}

/// The path of the one column of a value that is no record; no field of a record has it.
const WHOLE_VALUE: &str = "whole value";

fn value_fields(
    ty: &ValueType,
    ids: &BTreeMap<String, i32>,
) -> Result<Vec<iceberg::spec::NestedFieldRef>, SchemaError> {
    let columns = Columns { ids };
    match &ty.kind {
        Kind::Record(record) => columns.fields(
            &mapping::record_parts(record),
            Part::Value.root(),
            &metadata::RESERVED_NAMES,
            "",
        ),
        _ => {
            let part = whole_value(ty);
            let fields = columns.fields(&[part], WHOLE_VALUE, &[], "")?;
            Ok(fields)
        }
    }
}

fn whole_value(ty: &ValueType) -> mapping::Part<'_> {
    mapping::Part {
        name: "value",
        column: "value",
        aliases: &[],
        doc: None,
        ty: PartType::Avro(ty),
    }
}

type Newest<'a> = Option<(&'a SchemaText, Arc<ValueType>, BTreeMap<String, i32>)>;

/// Walks a subject's history; gives the last version's type and the ids of its fields.
fn newest<'a>(
    history: &'a [SchemaText],
    part: Part,
    ids: &mut FieldIdMap,
) -> Result<Newest<'a>, SchemaError> {
    let Some((last, older)) = history.split_last() else { return Ok(None) };
    for version in older {
        // What could not be a table then gives no ids; the versions after it stand on their own.
        let _ = walk(version, part, ids);
    }
    let ty = walk(last, part, ids)?;
    let given = ids.walked(&digest(last, part)).cloned().unwrap_or_default();
    Ok(Some((last, Arc::new(ty), given)))
}

fn walk(version: &SchemaText, part: Part, ids: &mut FieldIdMap) -> Result<ValueType, SchemaError> {
    let ty = version.parse()?;
    let digest = digest(version, part);
    if ids.walked(&digest).is_none() {
        let mut walk = ids.walk(part);
        assign(&ty, part, &mut walk)?;
        *ids = walk.finish(digest);
    }
    Ok(ty)
}

fn assign(ty: &ValueType, part: Part, walk: &mut Walk) -> Result<(), SchemaError> {
    match (part, &ty.kind) {
        (Part::Value, Kind::Record(record)) => {
            mapping::assign_parts(&mapping::record_parts(record), part.root(), walk)
        }
        (Part::Value, _) => mapping::assign_parts(&[whole_value(ty)], WHOLE_VALUE, walk),
        (Part::Key, _) => mapping::assign_nested(&mapping::layout(ty), part.root(), walk),
    }
}

/// Names a schema text in the id map.
pub(crate) fn digest(version: &SchemaText, part: Part) -> String {
    let mut hash = Sha256::new();
    let mut texts = vec![part.root()];
    // What names an Avro schema in maps that are kept must stay as it is.
    let names = version.format != SchemaFormat::Avro;
    if names {
        texts.push(version.format.name());
    }
    for reference in &version.references {
        if names {
            texts.push(&reference.name);
        }
        texts.push(&reference.text);
    }
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    hash.update(&version.text);
    let mut out = String::new();
    for byte in &hash.finalize()[..16] {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maps that are kept name texts by these: another one would give new field ids.
    #[test]
    fn avro_texts_keep_their_digests() {
        let mut text = SchemaText {
            version: 1,
            id: RegistrySchemaId(1),
            format: SchemaFormat::Avro,
            text: "\"int\"".to_owned(),
            references: vec![SchemaReference { name: "n".to_owned(), text: "R".to_owned() }],
        };
        let avro = digest(&text, Part::Value);
        assert_eq!(avro, "b9bfba046efd53a2e190ffcfb6431160");
        text.format = SchemaFormat::Json;
        assert_ne!(digest(&text, Part::Value), avro);
    }
}
