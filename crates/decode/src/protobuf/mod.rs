//! Protobuf payloads under a type: read once by field number, straight into the columns.
//!
//! What the wire format says holds: fields in any order, the last value of a field that may have one, parts
//! of a message put together, elements packed or not, unknown fields passed over. A field whose bytes are of
//! another kind than its writer's schema says is a failure, where other readers take it for unknown.

mod plan;
mod run;
mod value;
mod wire;

pub(crate) use plan::{ProtoRows, rows, typed};
pub(crate) use run::{Path, Run, row};
