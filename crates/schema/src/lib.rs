//! Registry schemas to table schemas: Avro, JSON Schema and Protobuf types, Iceberg types, stable field ids, evolution.
//!
//! [`table_schema`] is the entry point: it takes the version histories of a topic's value and key
//! subjects, walks them in order, and gives the table's columns as of the last versions. The
//! same histories give the same field ids everywhere; a persisted [`FieldIdMap`] keeps them when a
//! registry forgets versions.
//!
//! # How Avro types become columns (version [`MAPPING_VERSION`] of the mapping)
//!
//! | Avro | Iceberg |
//! |---|---|
//! | `boolean`, `int`, `long`, `float`, `double`, `string`, `bytes` | `boolean`, `int`, `long`, `float`, `double`, `string`, `binary` |
//! | `enum` | `string` |
//! | `fixed(n)` | `fixed[n]`; of size 0: `binary` |
//! | `record` | `struct`; without fields: `boolean`, true where the record is present |
//! | `array`, `map` | `list`, `map<string, ..>` |
//! | `null` alone, a union without other branches | `string`, always null |
//! | union of `null` and one type | that type |
//! | union of several types | `struct` with one column per branch, named by the branch's (short) type name, exactly one of them not null |
//! | `date` on `int` | `date` |
//! | `time-millis` on `int`, `time-micros` on `long` | `time` (microseconds) |
//! | `timestamp-millis`, `-micros`, `-nanos` on `long` | `timestamptz` (microseconds; nanoseconds are rounded down, format v2 has no finer type) |
//! | `local-timestamp-millis`, `-micros`, `-nanos` on `long` | `timestamp` (microseconds, likewise) |
//! | `decimal(p, s)` on `bytes`, `fixed` | `decimal(p, s)` |
//! | `uuid` on `string`, `fixed(16)` | `uuid` |
//! | `duration` on `fixed(12)` | `struct<months long, days long, milliseconds long>` (the parts are unsigned 32-bit numbers) |
//! | `big-decimal` and any other logical type | the underlying type |
//!
//! A logical type that is not valid where it stands (wrong underlying type, precision above 38, scale
//! above the precision or negative, ...) is ignored, as the Avro specification asks: the column has the
//! underlying type. Every column is optional, nested ones too, except the keys of maps. A
//! value that is no record at the top is one column named `value`. A record within itself is a `string`: its JSON
//! text, by the schema that it was written with.
//!
//! # How JSON Schemas become columns
//!
//! | JSON Schema (drafts 4 to 2020-12) | Iceberg |
//! |---|---|
//! | `boolean`, `integer`, `number`, `string` | `boolean`, `long`, `double`, `string` |
//! | `string` of format `date-time`, `date`, `uuid` | `timestamptz`, `date`, `uuid`; other formats: `string` (a `time` has an offset, which no column of times could keep) |
//! | `object` with `properties` | `struct`; with `additionalProperties` other than `false`, or `patternProperties`, beside them: a last column `additionalProperties map<string, ..>` of the members that are not named |
//! | `object` with `additionalProperties` of some schema, or `patternProperties`, alone | `map<string, ..>` |
//! | `object` without properties and with no others allowed | `boolean`, true where the object is present |
//! | `array` | `list`; of tuples: of what the elements have in common |
//! | `null` alone | `string`, always null |
//! | a list of types, `oneOf`, `anyOf` with `null` and one type | that type |
//! | `integer` or `number`; strings of several formats | `double`; `string` |
//! | `allOf`, `$ref` beside other words | what holds for all: the properties of all |
//! | `oneOf`, `anyOf`, `then`, `else` beside `properties` | the properties of all, each under a type that shows it in all |
//! | `enum`, `const` without a type | the type of the values |
//! | `isk.rest` of some name, beside the `properties` of the schema's top | a last column of that name, `string`: JSON text of all members without a column, nested ones too, in the shape of the value; null where there are none |
//! | anything else: several types, no type, an object or elements of which nothing is said, a schema inside of itself, a `$ref` to what nobody has | `string`, the value's JSON text |
//! | Kafka Connect's `connect.type` `int8`, `int16`, `int32`; `float32`; `bytes` | `int`; `float`; `binary`, from Base64 |
//! | Kafka Connect's `Decimal`, `Date`, `Time`, `Timestamp` | `decimal(p, s)`, `date`, `time`, `timestamptz` |
//!
//! Columns are in the order of the schema's text, or of `connect.index`. Words that only say which values
//! are allowed (`required`, `pattern`, `minimum`, ...) have no part in this: every column is optional.
//!
//! # How Protobuf messages become columns
//!
//! | Protobuf (2, 3) | Iceberg |
//! |---|---|
//! | `double`, `float`, `bool`, `string`, `bytes` | `double`, `float`, `boolean`, `string`, `binary` |
//! | `int32`, `sint32`, `sfixed32` | `int` |
//! | `int64`, `sint64`, `sfixed64`, `uint32`, `fixed32` | `long` |
//! | `uint64`, `fixed64` | `decimal(20, 0)` |
//! | enum | `string`, the value's name, or its number where it has none |
//! | message, group | `struct`; without fields: `boolean`, true where the message is present |
//! | `repeated`, `map` | `list`, `map<string, ..>` |
//! | `oneof` | a column for each of its fields, at most one of them not null |
//! | `google.protobuf.Timestamp` | `timestamptz` (microseconds; nanoseconds are rounded down) |
//! | `google.protobuf.Int64Value` and the other wrappers | the column of what they wrap |
//! | `google.protobuf.Duration`, `Any`, `FieldMask`, `Empty` | as any message: `struct<seconds, nanos>`, `struct<type_url, value>`, `struct<paths>`, `boolean` |
//! | a message inside of itself; `google.protobuf.Struct`, `Value`, `ListValue` | `string`, the message's JSON text |
//!
//! The columns are those of one message of the file: the first at its top that no other message of the file
//! holds, else the first. They are in the order of the fields' numbers. Extensions have no columns. A file may be
//! registered as text or as a descriptor in Base64, as Confluent's Python client does.
//!
//! # Column names
//!
//! A column has its Avro field's name, with two exceptions. A dot becomes `_`, since engines take it
//! for nesting. A name that equals, ignoring case, one of its siblings' or (at the top) one of the
//! metadata columns' gets the first free suffix of `_2`, `_3`, ...; the column with the lower field id
//! keeps the plain name. Other characters outside Avro's rules (spaces, Unicode) stay; empty names
//! and control characters are refused.
//!
//! # Field ids
//!
//! A field keeps its id through reorders, removals and renames by alias, and when its type is widened
//! as Iceberg allows (`int` to `long`, `float` to `double`, more decimal digits). A type change beyond
//! that gives the name a new id, and all that is nested in it too.
//!
//! Ids below 100 are the metadata columns', those from 100 the value's fields', those from 1 000 000 the
//! fields' that are nested in a decoded key. Keys have a range of their own, so that ids do not depend on
//! which subject got a version first.

mod avro;
mod error;
mod errors;
mod ids;
mod json_connect;
mod json_document;
mod json_meet;
mod json_schema;
mod logical;
mod mapping;
mod merge;
mod metadata;
mod names;
mod observed;
mod parse;
mod plain;
mod protobuf;
mod protobuf_json;
mod record_types;
mod shape;
mod table;

pub use avro::{
    Branches, EnumType, FixedType, Kind, Logical, RecordField, RecordType, RecursiveType, TimeUnit,
    ValueType,
};
pub use error::SchemaError;
pub use errors::{
    ERROR_CAUSE, ERROR_PART, ERROR_SCHEMA_GUID, ERROR_SCHEMA_ID, ERROR_STAGE, error_table,
};
pub use ids::{FieldId, FieldIdMap};
pub use merge::{FIRST_HOT_ONLY_ID, MergeError, MergedSchema, merge_schemas};
pub use metadata::{
    FIRST_VALUE_FIELD_ID, KAFKA_HEADERS, KAFKA_HEADERS_ELEMENT, KAFKA_HEADERS_KEY,
    KAFKA_HEADERS_VALUE, KAFKA_KEY, KAFKA_OFFSET, KAFKA_PARTITION, KAFKA_TIMESTAMP,
    KAFKA_TIMESTAMP_TYPE, KAFKA_VALUE, MetadataColumn,
};
pub use observed::{JsonKind, MAX_PLACES, Observed};
pub use parse::parse;
pub use plain::PlainKind;
pub use protobuf::{ProtoField, ProtoSchema, ProtoValue};
pub use protobuf_json::ProtoMessage;
pub use record_types::{RecordKind, TypedSchema, json_title, record_types_schema};
pub use shape::{Limits, MAX_DEPTH, REST, Shape};
pub use table::{
    CONFIGURED, KeyKind, SchemaText, TableSchema, ValueKind, json_text_schema, table_schema,
};

/// The version of the mapping from registered types to Iceberg types, column names included. A change to
/// what existing schemas map to raises it, so that an upgrade never changes a table under its readers.
pub const MAPPING_VERSION: u32 = 2;
