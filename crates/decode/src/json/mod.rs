//! JSON payloads under a type: scanned once, straight into the columns.
//!
//! The scanner is our own, for three reasons: numbers are kept to the last digit (a decimal or a 64-bit number
//! is not seen through a double), what a column shows as JSON text is the payload's own text, and keys are
//! compared in place with the key that is expected next. It accepts what RFC 8259 does.

mod escape;
mod observe;
mod plan;
mod rest;
mod run;
mod scan;
mod text;

pub use observe::{Looked, observe_json};
pub(crate) use plan::{JsonRows, rows};
pub(crate) use run::row;
pub(crate) use scan::Scanner;
#[cfg(test)]
pub(crate) use text::date;
