//! Types after parsing: names resolved, logical types checked, recursion cut. They are Avro's; what
//! other schemas say is told in their words, with two logical types that Avro has not.

use std::sync::Arc;

use serde_json::Value;

use crate::protobuf::ProtoField;

/// The type of a value in any format: an Avro type, since JSON Schema and Protobuf are read into these, too. How it is
/// encoded where it is Avro, and what that means.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueType {
    /// How values are encoded.
    pub kind: Kind,
    /// The logical type, where there is one that is valid on `kind`.
    pub logical: Option<Logical>,
}

/// The encoding of an Avro type (Avro 1.12 specification, "Binary encoding").
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// No bytes.
    Null,
    /// One byte, 0 or 1.
    Boolean,
    /// Zig-zag varint of 32 bits.
    Int,
    /// Zig-zag varint of 64 bits.
    Long,
    /// Four bytes, little-endian.
    Float,
    /// Eight bytes, little-endian.
    Double,
    /// A length and bytes.
    Bytes,
    /// A length and UTF-8.
    String,
    /// As many bytes as the type says.
    Fixed(Arc<FixedType>),
    /// An int that indexes the symbols.
    Enum(Arc<EnumType>),
    /// Blocks of elements.
    Array(Arc<ValueType>),
    /// Blocks of string keys and values.
    Map(Arc<ValueType>),
    /// A branch index and the branch's value.
    Union(Arc<[ValueType]>),
    /// The fields in order.
    Record(Arc<RecordType>),
    /// A record within itself, which is defined further out. It is shown as JSON text.
    Recursive(Arc<RecursiveType>),
}

/// Units of times and timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// 10^-3 s.
    Millis,
    /// 10^-6 s.
    Micros,
    /// 10^-9 s.
    Nanos,
}

/// The logical types that have a meaning of their own here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logical {
    /// Days since the epoch, on `int`.
    Date,
    /// Time of day, in millis on `int`, in micros on `long`.
    Time(TimeUnit),
    /// An instant, on `long`.
    Timestamp(TimeUnit),
    /// A wall clock reading without zone, on `long`.
    LocalTimestamp(TimeUnit),
    /// A two's complement big-endian number of `precision` (1 to 38) digits, `scale` (0 to precision)
    /// of them behind the point, on `bytes` or `fixed`.
    Decimal {
        /// Digits in all.
        precision: u32,
        /// Digits behind the point.
        scale: u32,
    },
    /// RFC 4122 text on `string`, or its 16 bytes on `fixed(16)`.
    Uuid,
    /// Months, days, milliseconds: three unsigned little-endian 32-bit numbers, on `fixed(12)`.
    Duration,
    /// Any JSON value as its text, on `string`: what has no one type in a JSON Schema.
    Json,
    /// The members of a JSON object that its record does not name, on `map`: a record's last field. On `string`, the
    /// last field of the record at the top: as JSON text, with those of nested objects that have no place in these.
    Rest,
}

/// A record that is met within itself: its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecursiveType {
    /// The full name.
    pub name: String,
    /// Full names it had before.
    pub aliases: Vec<String>,
}

/// A named type of constant length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedType {
    /// The full name.
    pub name: String,
    /// Full names it had before.
    pub aliases: Vec<String>,
    /// Its length in bytes.
    pub size: usize,
}

/// A named list of symbols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumType {
    /// The full name.
    pub name: String,
    /// Full names it had before.
    pub aliases: Vec<String>,
    /// The symbols in encoding order.
    pub symbols: Vec<String>,
    /// The symbol a reader takes for those it does not know.
    pub default: Option<String>,
}

/// A named list of fields.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordType {
    /// The full name.
    pub name: String,
    /// Full names it had before.
    pub aliases: Vec<String>,
    /// The fields in encoding order.
    pub fields: Vec<RecordField>,
}

/// One field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordField {
    /// The field's name.
    pub name: String,
    /// Names it had before.
    pub aliases: Vec<String>,
    /// Its documentation.
    pub doc: Option<String>,
    /// Its type.
    pub ty: ValueType,
    /// What a reader takes when a writer has no such field, in Avro's JSON form.
    pub default: Option<Value>,
    /// Where it is on Protobuf's wire, if it is of a Protobuf message.
    pub proto: Option<ProtoField>,
}

/// A union as columns see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Branches<'a> {
    /// No branch but `null`.
    Nothing,
    /// One branch, `null` aside: an optional column of that type.
    One(&'a ValueType),
    /// A struct with one column per branch that is not `null`, in order.
    Many,
}

impl ValueType {
    pub(crate) fn plain(kind: Kind) -> Self {
        Self { kind, logical: None }
    }

    /// Whether this is the type `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// The full name of a named type.
    pub fn full_name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Fixed(t) => Some(&t.name),
            Kind::Enum(t) => Some(&t.name),
            Kind::Record(t) => Some(&t.name),
            Kind::Recursive(t) => Some(&t.name),
            _ => None,
        }
    }

    /// The full names a named type had before.
    pub fn aliases(&self) -> &[String] {
        match &self.kind {
            Kind::Fixed(t) => &t.aliases,
            Kind::Enum(t) => &t.aliases,
            Kind::Record(t) => &t.aliases,
            Kind::Recursive(t) => &t.aliases,
            _ => &[],
        }
    }

    /// The name of the type as the column of a union branch has it: the short name of a named type,
    /// else the name of the encoding.
    pub fn short_name(&self) -> &str {
        match &self.kind {
            Kind::Null => "null",
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::Bytes => "bytes",
            Kind::String => "string",
            Kind::Array(_) => "array",
            Kind::Map(_) => "map",
            Kind::Union(_) => "union",
            Kind::Fixed(_) | Kind::Enum(_) | Kind::Record(_) | Kind::Recursive(_) => {
                last_segment(self.full_name().unwrap_or_default())
            }
        }
    }
}

/// How the branches of a union become columns.
impl<'a> Branches<'a> {
    /// Looks at the branches of one union.
    pub fn of(branches: &'a [ValueType]) -> Self {
        let mut real = branches.iter().filter(|b| !b.is_null());
        match (real.next(), real.next()) {
            (None, _) => Self::Nothing,
            (Some(one), None) => Self::One(one),
            _ => Self::Many,
        }
    }
}

/// The part of a full name behind its namespace.
pub(crate) fn last_segment(full_name: &str) -> &str {
    full_name.rsplit('.').next().unwrap_or(full_name)
}
