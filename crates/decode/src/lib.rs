//! Record bytes to Arrow: Confluent framing, Avro, JSON, Protobuf, and the metadata columns.
//!
//! [`TopicDecoder`] turns [`isk_model::RecordBlock`]s of one Kafka partition into Arrow record batches
//! with the columns of a [`isk_schema::TableSchema`]. Each record is exactly one row, in order.
//!
//! # How it works
//!
//! The table's schema is the reader schema. For each writer schema a plan is made once, following
//! Avro's resolution rules (`plan.rs`): what to read, what to skip, what to fill in. All plans append to
//! the same columns, so records of different writers may alternate at no cost. The columns are
//! those the table has: no second pass converts anything.
//!
//! A record that fails in the middle has left values in some columns. They are cut off again (every
//! column knows its length at each row), the row is null, and the next record goes on: a bad record
//! costs what it took to find out, loses no neighbour and fabricates no row. A payload must be
//! read to its last byte.
//!
//! Texts are checked to be UTF-8 a column at a time. Should that fail, the block is decoded once more
//! with each text checked by itself, which finds the records at fault.
//!
//! # Where resolution is more lenient than the specification
//!
//! All columns are optional. So a reader's field without default that a writer does not have is null,
//! and so is a writer's null where the reader has no null. A record's name need not match outside of
//! unions. Decimals of another scale are rescaled where that loses no digit, times and timestamps of
//! another unit are converted. Everything else follows the specification; a writer schema that
//! cannot be resolved makes each of its records a failure, as does a record that holds what cannot be
//! (a branch, symbol or length out of range, a time beyond a day, a number beyond its column).
//!
//! # JSON
//!
//! JSON goes into the columns of a JSON Schema's type ([`isk_schema`] has the table), strictly: a value of
//! another JSON type than its column, a fraction or a number beyond 64 bits in a column of whole numbers, a text
//! that is no date-time, date, uuid or Base64 where its format says so, make the record a failure. `1.0` is a whole
//! number. Numbers are exact in decimals and the nearest in doubles. Null is null in every column, and so is what
//! is missing. A member that the schema does not name is ignored, unless `additionalProperties` or `isk.rest` gave it a
//! column. An object that has one key twice is a failure, as parsers differ about which value counts.
//!
//! # JSON text
//!
//! A table may show values and keys as JSON text, whatever they were written with (`json_text.rs`). A record under a
//! schema is decoded as the table of that schema alone would have it, and written as JSON, so what fails there fails
//! here. Names are the schema's own, nulls are written. Numbers and decimals are numbers, to the last digit; what JSON
//! has no number for (`NaN`, `Infinity`, `-Infinity`) is a text, as bytes are (Base64), uuids, dates (`2030-12-31`), times
//! (`23:59:59.5`) and timestamps (`2030-12-31T23:59:59.5Z`; without `Z` where there is no zone). Of a union, the branch's
//! value is shown. JSON is shown as it was written, once it was seen to be JSON. A key that is neither framed nor JSON
//! is shown as a JSON string if it is UTF-8.
//!
//! # Protobuf
//!
//! The path that follows the schema's id names the message; records of other messages than the table shows are
//! failures. Fields are matched by number, whatever they are called, and every rule of the wire format holds. A field
//! without presence that is not there is its type's default, any other null, and so is a field that the writer's
//! schema does not have. An enum's number without a name is shown as its digits, a `uint64` as a decimal. Unknown
//! fields are passed over. A map that has one key twice is a failure.
//!
//! A topic follows the format of its newest schema: records in another format are failures.
//!
//! # Hostile payloads
//!
//! No length or count is trusted: nothing is reserved for it, elements that take bytes must fit the bytes
//! that are there, and what a payload may unfold to is bounded, for each record by its length and for
//! a block by a constant ([`MAX_BLOCK_CELLS`]).

mod avro_text;
mod budget;
mod columns;
mod cursor;
mod decoder;
mod default;
mod error;
mod error_rows;
mod frame;
mod framed;
mod json;
mod json_text;
mod json_write;
mod metadata;
mod plain;
mod plan;
mod protobuf;
mod resolve;
mod run;
mod sink;
mod skip;
mod vectors;

pub use budget::MAX_BLOCK_CELLS;
pub use columns::arrow_schema;
pub use decoder::{DecodeFailure, DecodedBatch, RecordPart, TopicDecoder, WriterSchema};
pub use error::{DecodeError, FailureStage};
pub use error_rows::error_rows;
pub use json::{Looked, observe_json};
