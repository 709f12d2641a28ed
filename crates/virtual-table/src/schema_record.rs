//! What is kept of a topic's schemas across restarts.

use std::collections::BTreeMap;

use isk_kafka::RegisteredSchema;
use isk_model::{RegistrySchemaId, SchemaFormat, SchemaReference, SchemaVersion};
use isk_schema::{FieldIdMap, SchemaText};
use serde::{Deserialize, Serialize};

use crate::record_types::TypeHistory;

/// What is kept of a topic's schemas across restarts. The field ids are the truth; the histories
/// allow to read a file of an older schema version without asking the registry again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SchemaRecord {
    pub mapping_version: u32,
    pub value: BTreeMap<u32, StoredSchema>,
    pub key: BTreeMap<u32, StoredSchema>,
    pub ids: FieldIdMap,
    /// The versions of the value's types of record, where it has several.
    #[serde(default)]
    pub types: TypeHistory,
    /// The versions that the columns followed last.
    #[serde(default)]
    pub shown: (u32, u32),
}

/// A registered schema as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredSchema {
    id: i32,
    /// The registry's name of its type; what was kept before there were several is Avro.
    #[serde(default = "avro")]
    format: String,
    text: String,
    /// The texts of the schemas it refers to, and what it calls them.
    references: Vec<String>,
    #[serde(default)]
    reference_names: Vec<String>,
}

fn avro() -> String {
    SchemaFormat::Avro.name().to_owned()
}

impl StoredSchema {
    pub(crate) fn new(schema: SchemaText) -> Self {
        let (references, reference_names) =
            schema.references.into_iter().map(|reference| (reference.text, reference.name)).unzip();
        let format = schema.format.name().to_owned();
        Self { id: schema.id.0, format, text: schema.text, references, reference_names }
    }

    pub(crate) fn text(&self, version: u32) -> SchemaText {
        // Only Avro, which goes by the names in the texts, was ever kept without names.
        let names = self.reference_names.iter().map(String::as_str).chain(std::iter::repeat(""));
        let references = self.references.iter().zip(names);
        SchemaText {
            version,
            id: RegistrySchemaId(self.id),
            format: match SchemaFormat::of_name(&self.format) {
                Some(format) => format,
                None if self.format == SchemaFormat::Plain.name() => SchemaFormat::Plain,
                None => SchemaFormat::Avro,
            },
            text: self.text.clone(),
            references: references
                .map(|(text, name)| SchemaReference { name: name.to_owned(), text: text.clone() })
                .collect(),
        }
    }
}

impl SchemaRecord {
    /// The histories up to a version.
    pub(crate) fn histories(&self, version: SchemaVersion) -> (Vec<SchemaText>, Vec<SchemaText>) {
        (up_to(&self.value, version.value), up_to(&self.key, version.key))
    }

    /// Whether the schemas of a version are known.
    pub(crate) fn has(&self, version: SchemaVersion) -> bool {
        let known = |history: &BTreeMap<u32, StoredSchema>, v| v == 0 || history.contains_key(&v);
        (self.types.has(version.value) || known(&self.value, version.value))
            && known(&self.key, version.key)
    }
}

fn up_to(history: &BTreeMap<u32, StoredSchema>, version: u32) -> Vec<SchemaText> {
    history.range(..=version).map(|(&version, schema)| schema.text(version)).collect()
}

/// A schema as the registry gives it.
pub(crate) fn registered(schema: RegisteredSchema) -> SchemaText {
    let RegisteredSchema { version, id, format, text, references } = schema;
    SchemaText { version, id, format, text, references }
}

/// Keeps what was not known yet.
pub(crate) fn remember(known: &mut BTreeMap<u32, StoredSchema>, history: Vec<SchemaText>) {
    for schema in history {
        // A version never changes; one that was deleted for good is remembered.
        known.entry(schema.version).or_insert_with(|| StoredSchema::new(schema));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_was_kept_before_there_were_formats_is_avro() {
        let old: StoredSchema =
            serde_json::from_str(r#"{"id":3,"text":"T","references":["R"]}"#).unwrap();
        let text = old.text(2);
        assert_eq!((text.version, text.id.0, text.format), (2, 3, SchemaFormat::Avro));
        assert_eq!(text.references[0].text, "R");

        let schema = RegisteredSchema {
            version: 4,
            id: RegistrySchemaId(5),
            format: SchemaFormat::Protobuf,
            text: "P".to_owned(),
            references: vec![SchemaReference { name: "a.proto".to_owned(), text: "A".to_owned() }],
        };
        let kept = serde_json::to_string(&StoredSchema::new(registered(schema.clone()))).unwrap();
        let text = serde_json::from_str::<StoredSchema>(&kept).unwrap().text(4);
        assert_eq!((text.format, text.text), (schema.format, schema.text));
        assert_eq!(text.references, schema.references);
    }
}
