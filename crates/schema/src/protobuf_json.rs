//! A Protobuf message as JSON text: what a message inside of itself is shown as, and `google.protobuf.Struct`.
//!
//! The same bytes are the same text: entries of maps stand in the order of their keys, fields in that of their numbers.

use std::borrow::Cow;

use base64::Engine as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage,
    SerializeOptions, Value,
};

/// A kind of message.
#[derive(Debug, Clone, PartialEq)]
pub struct ProtoMessage(pub(crate) MessageDescriptor);

impl ProtoMessage {
    /// A message's JSON, of about `most` bytes at the most, in Protobuf's own mapping, but: fields have their names in
    /// the schema; 64-bit numbers are numbers; an `Any` has its bytes, and a timestamp or duration out of range its
    /// fields. Fields that have their type's default are left out.
    ///
    /// # Errors
    /// The bytes are no such message, or its text is too long.
    pub fn json(&self, bytes: &[u8], most: usize) -> Result<Vec<u8>, String> {
        let decoded = DynamicMessage::decode(self.0.clone(), bytes)
            .map_err(|e| format!("it is no message {}: {e}", self.0.full_name()))?;
        let mut text = Text { out: Vec::new(), most };
        text.message(&decoded)?;
        Ok(text.out)
    }
}

/// A text that is being written.
struct Text {
    out: Vec<u8>,
    most: usize,
}

type Written = Result<(), String>;

impl Text {
    fn message(&mut self, message: &DynamicMessage) -> Written {
        if self.out.len() > self.most {
            return Err("it is too long as JSON text".to_owned());
        }
        let descriptor = message.descriptor();
        let known = descriptor.full_name().strip_prefix("google.protobuf.");
        let field = |number| message.get_field_by_number(number);
        match known {
            Some("Struct") => match field(1).as_deref() {
                Some(Value::Map(entries)) => self.map(entries, None),
                _ => self.plain("{}"),
            },
            Some("ListValue") => match field(1).as_deref() {
                Some(Value::List(items)) => self.list(items, None),
                _ => self.plain("[]"),
            },
            Some("Value") => match message.fields().next() {
                Some((field, Value::EnumNumber(_))) if field.number() == 1 => self.plain("null"),
                Some((field, value)) => self.value(value, Some(&field)),
                None => self.plain("null"),
            },
            Some(
                "Timestamp" | "Duration" | "FieldMask" | "DoubleValue" | "FloatValue"
                | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
                | "StringValue" | "BytesValue",
            ) => {
                let options = SerializeOptions::new().stringify_64_bit_integers(false);
                let start = self.out.len();
                let mut serializer = serde_json::Serializer::new(&mut self.out);
                if message.serialize_with_options(&mut serializer, &options).is_err() {
                    self.out.truncate(start);
                    return self.fields(message);
                }
                Ok(())
            }
            _ => self.fields(message),
        }
    }

    fn fields(&mut self, message: &DynamicMessage) -> Written {
        self.out.push(b'{');
        let start = self.out.len();
        for (field, value) in message.fields() {
            self.comma(start);
            self.text(field.name())?;
            self.out.push(b':');
            self.value(value, Some(&field))?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// `field` is the value's, or that of the values of which it is one.
    fn value(&mut self, value: &Value, field: Option<&FieldDescriptor>) -> Written {
        match value {
            Value::Bool(value) => self.json(value),
            Value::I32(value) => self.json(value),
            Value::I64(value) => self.json(value),
            Value::U32(value) => self.json(value),
            Value::U64(value) => self.json(value),
            Value::F32(value) if value.is_finite() => self.json(value),
            Value::F32(value) => self.not_finite(f64::from(*value)),
            Value::F64(value) if value.is_finite() => self.json(value),
            Value::F64(value) => self.not_finite(*value),
            Value::String(value) => self.text(value),
            Value::Bytes(value) => {
                self.text(&base64::engine::general_purpose::STANDARD.encode(value))
            }
            Value::EnumNumber(number) => {
                let name = match field.map(FieldDescriptor::kind) {
                    Some(Kind::Enum(names)) => names.get_value(*number),
                    _ => None,
                };
                match name {
                    Some(name) => self.text(name.name()),
                    // Who wrote it knew a name that its schema does not.
                    None => self.json(number),
                }
            }
            Value::Message(message) => self.message(message),
            Value::List(items) => self.list(items, field),
            Value::Map(entries) => {
                let entry = match field.map(FieldDescriptor::kind) {
                    Some(Kind::Message(entry)) => entry.get_field(2),
                    _ => None,
                };
                self.map(entries, entry.as_ref())
            }
        }
    }

    fn list(&mut self, items: &[Value], field: Option<&FieldDescriptor>) -> Written {
        self.out.push(b'[');
        let start = self.out.len();
        for item in items {
            self.comma(start);
            self.value(item, field)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn map(
        &mut self,
        entries: &std::collections::HashMap<MapKey, Value>,
        field: Option<&FieldDescriptor>,
    ) -> Written {
        let mut sorted: Vec<(Cow<'_, str>, &Value)> =
            entries.iter().map(|(key, value)| (key_text(key), value)).collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.out.push(b'{');
        let start = self.out.len();
        for (key, value) in sorted {
            self.comma(start);
            self.text(&key)?;
            self.out.push(b':');
            self.value(value, field)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn comma(&mut self, start: usize) {
        if self.out.len() > start {
            self.out.push(b',');
        }
    }

    fn plain(&mut self, text: &str) -> Written {
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn text(&mut self, text: &str) -> Written {
        self.json(text)
    }

    fn not_finite(&mut self, number: f64) -> Written {
        self.plain(match number {
            f64::INFINITY => "\"Infinity\"",
            f64::NEG_INFINITY => "\"-Infinity\"",
            _ => "\"NaN\"",
        })
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Written {
        if self.out.len() > self.most {
            return Err("it is too long as JSON text".to_owned());
        }
        serde_json::to_writer(&mut self.out, value).map_err(|e| e.to_string())
    }
}

fn key_text(key: &MapKey) -> Cow<'_, str> {
    match key {
        MapKey::Bool(key) => key.to_string().into(),
        MapKey::I32(key) => key.to_string().into(),
        MapKey::I64(key) => key.to_string().into(),
        MapKey::U32(key) => key.to_string().into(),
        MapKey::U64(key) => key.to_string().into(),
        MapKey::String(key) => key.as_str().into(),
    }
}
