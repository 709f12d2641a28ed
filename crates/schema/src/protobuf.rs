//! Protobuf files to types: which columns a message's fields are, and how they are on the wire.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use base64::Engine as _;
use isk_model::{SchemaFormat, SchemaReference};
use prost_reflect::{
    DescriptorPool, FieldDescriptor, FileDescriptor, Kind as Wire, MessageDescriptor,
};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::avro::{EnumType, Kind, Logical, RecordField, RecordType, TimeUnit, ValueType};
use crate::error::SchemaError;
use crate::protobuf_json::ProtoMessage;

/// The most fields a message may have, those of messages in it counted as often as they are used.
const MAX_FIELDS: usize = 20_000;
/// The deepest nesting of messages. What lies deeper is shown as JSON text.
const MAX_DEPTH: usize = 64;
/// The name the registered text goes by; imports have names of their own.
const MAIN: &str = "registered schema.proto";

/// Where a field is in a message's bytes, and what is there.
#[derive(Debug, Clone, PartialEq)]
pub struct ProtoField {
    /// Its number.
    pub number: u32,
    /// The number as text, which its field id is kept under: it may be renamed.
    pub(crate) path: String,
    /// What its values are; of a map, the map's values.
    pub value: ProtoValue,
    /// Of a map, what its keys are.
    pub key: Option<ProtoValue>,
    /// Whether a value that is absent is null; else it is the type's default.
    pub presence: bool,
    /// The group of fields of which only the last one counts.
    pub oneof: Option<usize>,
}

/// What one value is on the wire.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "they are Protobuf's own names")]
pub enum ProtoValue {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    /// The names of its numbers; the first of several wins.
    Enum(Arc<BTreeMap<i32, String>>),
    /// The fields of a record.
    Message,
    /// As `Message`, between two tags.
    Group,
    /// A message shown as JSON text.
    Json(ProtoMessage),
    /// `google.protobuf.Timestamp`.
    Timestamp,
    /// One of `google.protobuf`'s wrappers of this value.
    Wrapper(Box<ProtoValue>),
}

/// One registered Protobuf file, with what it imports.
#[derive(Debug, Clone)]
pub struct ProtoSchema {
    file: FileDescriptor,
    root: Vec<i32>,
}

impl ProtoSchema {
    /// Reads a file: text, or what Confluent's Python client registers, a descriptor in Base64.
    ///
    /// # Errors
    /// It is neither, an import is missing, or it has no message.
    pub fn parse(text: &str, references: &[SchemaReference]) -> Result<Self, SchemaError> {
        let mut resolver = ChainFileResolver::new();
        resolver.add(Registered::new(text, references));
        resolver.add(GoogleFileResolver::new());
        // The compiler was seen to panic over errors in descriptors.
        let compiled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut compiler = protox::Compiler::with_file_resolver(resolver);
            compiler.include_imports(true).open_file(MAIN).map_err(|e| invalid(e.to_string()))?;
            Ok(compiler.descriptor_pool())
        }));
        let pool: DescriptorPool =
            compiled.unwrap_or_else(|_| Err(invalid("its compiler cannot say what is wrong")))?;
        let file = pool.get_file_by_name(MAIN).ok_or_else(|| invalid("it is lost"))?;
        let root = match (free(&file).next(), file.messages().next()) {
            (Some((index, _)), _) => vec![index],
            // Each is held by another one.
            (None, Some(_)) => vec![0],
            (None, None) => return Err(invalid("it has no message")),
        };
        Ok(Self { file, root })
    }

    /// The type of the message a table shows: the first one at the top that no other message of the file
    /// holds.
    ///
    /// # Errors
    /// It is too large.
    pub fn root(&self) -> Result<ValueType, SchemaError> {
        match self.message(&self.root) {
            Some(message) => message,
            None => Err(invalid("it has no message")),
        }
    }

    /// The type of the message at a path: its index among those at the top, then among those in it.
    pub fn message(&self, path: &[i32]) -> Option<Result<ValueType, SchemaError>> {
        let message = self.descriptor(path)?;
        let mut mapper = Mapper { open: Vec::new(), fields: 0 };
        Some(mapper.record(&message).map(ValueType::plain))
    }

    /// The full name of the message at a path.
    pub fn name(&self, path: &[i32]) -> Option<String> {
        Some(self.descriptor(path)?.full_name().to_owned())
    }

    /// The paths of the messages that a table of messages `name` can show: that of this name, and the
    /// one that this file by itself would be shown as.
    pub fn paths(&self, name: &str) -> Vec<Vec<i32>> {
        let mut paths = vec![self.root.clone()];
        paths.extend(self.path(name).filter(|path| *path != self.root));
        paths
    }

    /// The path of the message of a full name.
    pub fn path(&self, name: &str) -> Option<Vec<i32>> {
        self.all().into_iter().find(|(_, m)| m.full_name() == name).map(|(path, _)| path)
    }

    /// The full names of all its messages.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all().iter().map(|(_, message)| message.full_name().to_owned()).collect()
    }

    /// The full names of the messages at its top that no other one of the file holds, at least one.
    pub(crate) fn free_names(&self) -> Vec<String> {
        let names: Vec<String> = free(&self.file).map(|(_, m)| m.full_name().to_owned()).collect();
        if names.is_empty() { self.name(&self.root).into_iter().collect() } else { names }
    }

    /// The type of the message of a full name.
    pub(crate) fn named(&self, name: &str) -> Result<ValueType, SchemaError> {
        let message = self.path(name).and_then(|path| self.message(&path));
        message.unwrap_or_else(|| Err(invalid(format!("it has no message {name}"))))
    }

    /// All messages with their paths, the outer ones first.
    fn all(&self) -> Vec<(Vec<i32>, MessageDescriptor)> {
        let mut all = indexed(&[], self.file.messages());
        let mut at = 0;
        while let Some((path, message)) = all.get(at) {
            let inner = indexed(path, message.child_messages());
            all.extend(inner);
            at += 1;
        }
        all
    }

    fn descriptor(&self, path: &[i32]) -> Option<MessageDescriptor> {
        let at = |index: &i32| usize::try_from(*index).ok();
        let (first, rest) = path.split_first()?;
        let mut message = self.file.messages().nth(at(first)?)?;
        for index in rest {
            let next = message.child_messages().nth(at(index)?)?;
            message = next;
        }
        Some(message)
    }
}

fn indexed(
    path: &[i32],
    messages: impl Iterator<Item = MessageDescriptor>,
) -> Vec<(Vec<i32>, MessageDescriptor)> {
    (0..).zip(messages).map(|(i, message)| ([path, &[i]].concat(), message)).collect()
}

fn invalid(reason: impl Into<String>) -> SchemaError {
    SchemaError::of(SchemaFormat::Protobuf, "the top", reason)
}

/// The messages at the top that no other one of the file holds, with their indexes.
fn free(file: &FileDescriptor) -> impl Iterator<Item = (i32, MessageDescriptor)> {
    let mut held = HashSet::new();
    let mut open: Vec<MessageDescriptor> = file.messages().collect();
    while let Some(message) = open.pop() {
        for field in message.fields() {
            if let Wire::Message(inner) = field.kind()
                && inner != message
            {
                held.insert(inner.full_name().to_owned());
            }
        }
        open.extend(message.child_messages());
    }
    (0..).zip(file.messages()).filter(move |(_, m)| !held.contains(m.full_name()))
}

/// The registered files by name.
struct Registered(HashMap<String, String>);

impl Registered {
    fn new(text: &str, references: &[SchemaReference]) -> Self {
        let named = references.iter().map(|r| (r.name.clone(), r.text.clone()));
        Self(named.chain([(MAIN.to_owned(), text.to_owned())]).collect())
    }
}

impl FileResolver for Registered {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let text = self.0.get(name).ok_or_else(|| protox::Error::file_not_found(name))?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim().as_bytes());
        if let Ok(bytes) = bytes
            && let Ok(file) = File::decode_file_descriptor_proto(bytes.as_slice())
        {
            let mut proto = file.file_descriptor_proto().clone();
            proto.name = Some(name.to_owned());
            return Ok(File::from_file_descriptor_proto(proto));
        }
        File::from_source(name, text)
    }
}

struct Mapper {
    /// The full names of the messages being read: to meet one again is recursion.
    open: Vec<String>,
    fields: usize,
}

impl Mapper {
    fn record(&mut self, message: &MessageDescriptor) -> Result<Kind, SchemaError> {
        self.open.push(message.full_name().to_owned());
        let oneofs: Vec<String> = message
            .oneofs()
            .filter(|o| !o.is_synthetic())
            .map(|o| o.full_name().to_owned())
            .collect();
        let mut fields = Vec::new();
        for field in message.fields() {
            self.fields += 1;
            if self.fields > MAX_FIELDS {
                let at = message.full_name();
                let reason = format!("more than {MAX_FIELDS} fields (at {at})");
                return Err(SchemaError::TooLarge { reason });
            }
            let group = field.containing_oneof().filter(|o| !o.is_synthetic());
            let oneof = group.and_then(|o| oneofs.iter().position(|name| name == o.full_name()));
            fields.push(self.field(&field, oneof)?);
        }
        self.open.pop();
        let (name, aliases) = (message.full_name().to_owned(), Vec::new());
        Ok(Kind::Record(Arc::new(RecordType { name, aliases, fields })))
    }

    fn field(
        &mut self,
        field: &FieldDescriptor,
        oneof: Option<usize>,
    ) -> Result<RecordField, SchemaError> {
        let (ty, value, key) = match field.kind() {
            Wire::Message(entry) if field.is_map() => {
                let part = |number| {
                    let field = entry.get_field(number);
                    field.ok_or_else(|| invalid(format!("map {} lacks a part", entry.name())))
                };
                let key = self.value(&part(1)?)?.1;
                let (ty, value) = self.value(&part(2)?)?;
                (ValueType::plain(Kind::Map(Arc::new(ty))), value, Some(key))
            }
            _ => {
                let (ty, value) = self.value(field)?;
                let list = field.is_list();
                (if list { ValueType::plain(Kind::Array(Arc::new(ty))) } else { ty }, value, None)
            }
        };
        Ok(RecordField {
            name: field.name().to_owned(),
            aliases: Vec::new(),
            doc: None,
            ty,
            default: None,
            proto: Some(ProtoField {
                number: field.number(),
                path: format!("#{}", field.number()),
                value,
                key,
                presence: field.supports_presence(),
                oneof,
            }),
        })
    }

    /// The type of one value of a field.
    fn value(&mut self, field: &FieldDescriptor) -> Result<(ValueType, ProtoValue), SchemaError> {
        let uint64 = || ValueType {
            kind: Kind::Bytes,
            logical: Some(Logical::Decimal { precision: 20, scale: 0 }),
        };
        let plain = ValueType::plain;
        Ok(match field.kind() {
            Wire::Double => (plain(Kind::Double), ProtoValue::Double),
            Wire::Float => (plain(Kind::Float), ProtoValue::Float),
            Wire::Int32 => (plain(Kind::Int), ProtoValue::Int32),
            Wire::Sint32 => (plain(Kind::Int), ProtoValue::Sint32),
            Wire::Sfixed32 => (plain(Kind::Int), ProtoValue::Sfixed32),
            Wire::Int64 => (plain(Kind::Long), ProtoValue::Int64),
            Wire::Sint64 => (plain(Kind::Long), ProtoValue::Sint64),
            Wire::Sfixed64 => (plain(Kind::Long), ProtoValue::Sfixed64),
            Wire::Uint32 => (plain(Kind::Long), ProtoValue::Uint32),
            Wire::Fixed32 => (plain(Kind::Long), ProtoValue::Fixed32),
            Wire::Uint64 => (uint64(), ProtoValue::Uint64),
            Wire::Fixed64 => (uint64(), ProtoValue::Fixed64),
            Wire::Bool => (plain(Kind::Boolean), ProtoValue::Bool),
            Wire::String => (plain(Kind::String), ProtoValue::String),
            Wire::Bytes => (plain(Kind::Bytes), ProtoValue::Bytes),
            Wire::Enum(names) => {
                let mut numbers = BTreeMap::new();
                for value in names.values() {
                    numbers.entry(value.number()).or_insert_with(|| value.name().to_owned());
                }
                let symbols = numbers.values().cloned().collect();
                let (name, aliases) = (names.full_name().to_owned(), Vec::new());
                let ty = EnumType { name, aliases, symbols, default: None };
                (plain(Kind::Enum(Arc::new(ty))), ProtoValue::Enum(Arc::new(numbers)))
            }
            Wire::Message(message) => self.message(&message, field.is_group())?,
        })
    }

    fn message(
        &mut self,
        message: &MessageDescriptor,
        group: bool,
    ) -> Result<(ValueType, ProtoValue), SchemaError> {
        let name = message.full_name();
        let known = name.strip_prefix("google.protobuf.").unwrap_or_default();
        let recursive = self.open.iter().any(|open| open == name);
        let too_deep = self.open.len() >= MAX_DEPTH;
        match known {
            "Timestamp" => {
                let logical = Some(Logical::Timestamp(TimeUnit::Micros));
                return Ok((ValueType { kind: Kind::Long, logical }, ProtoValue::Timestamp));
            }
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
            | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => {
                if let Some(field) = message.get_field(1) {
                    let (ty, value) = self.value(&field)?;
                    return Ok((ty, ProtoValue::Wrapper(Box::new(value))));
                }
            }
            _ => {}
        }
        // What holds itself has no columns, a `google.protobuf.Struct` for one.
        let as_text = recursive || too_deep || matches!(known, "Struct" | "Value" | "ListValue");
        if as_text && !group {
            let ty = ValueType { kind: Kind::String, logical: Some(Logical::Json) };
            return Ok((ty, ProtoValue::Json(ProtoMessage(message.clone()))));
        }
        if as_text {
            let reason = format!("group {name} contains itself or nests too deep");
            return Err(SchemaError::TooLarge { reason });
        }
        let kind = self.record(message)?;
        let value = if group { ProtoValue::Group } else { ProtoValue::Message };
        Ok((ValueType::plain(kind), value))
    }
}
