//! What a schema registry calls its schemas.

use std::fmt;

/// The kind of a registered schema, which is the kind of the records written with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaFormat {
    /// Apache Avro.
    Avro,
    /// JSON Schema.
    Json,
    /// Protocol Buffers.
    Protobuf,
    /// Not registered anywhere: what Kafka's own serializers write, one plain value. The schema's text is the
    /// value's type.
    Plain,
}

impl SchemaFormat {
    /// The registry's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Json => "JSON",
            Self::Protobuf => "PROTOBUF",
            Self::Plain => "PLAIN",
        }
    }

    /// The format of a registry's name, whatever its case.
    pub fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Avro, Self::Json, Self::Protobuf];
        all.into_iter().find(|format| name.eq_ignore_ascii_case(format.name()))
    }
}

impl fmt::Display for SchemaFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A schema that another one refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaReference {
    /// What it is called by the one that refers to it: a full name in Avro, a `$ref` in JSON Schema, an
    /// import in Protobuf.
    pub name: String,
    /// Its text.
    pub text: String,
}
