//! What to do with a writer's values: one plan per writer schema and reader schema.

use crate::avro_text::TextPlan;
use crate::skip::Skip;

/// Where a payload's value is in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its fields are the columns.
    Spread,
    /// It is one of the columns.
    Column {
        /// Which one, and of how many.
        at: usize,
        of: usize,
        /// The name of it.
        name: String,
    },
}

/// How a number is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Int,
    Long,
    Float,
    Double,
}

/// Reads one value of a writer and appends one value to a column.
pub(crate) enum Plan {
    /// Reads nothing, appends null.
    Null,
    /// A value that cannot be resolved, and why.
    Refuse(String),
    Boolean,
    Int,
    IntToLong,
    Long,
    Float(Wire),
    Double(Wire),
    /// A time or timestamp: the number times `mul`, divided by `div` and rounded down, is microseconds.
    Micros {
        wire: Wire,
        mul: i64,
        div: i64,
        /// A time of day: within one day.
        time: bool,
    },
    Text,
    Binary,
    /// Fixed bytes of at least one byte.
    Fixed(usize),
    /// Fixed bytes of length 0, in a column of binary.
    EmptyBinary,
    /// The text of each symbol; none where the reader has no such symbol.
    Enum(Vec<Symbol>),
    Decimal {
        /// The length where it is constant.
        size: Option<usize>,
        /// The column's digits.
        precision: u32,
        /// The column's scale less the writer's.
        shift: i32,
    },
    UuidText,
    Duration,
    List(ElementPlan),
    Map(ElementPlan),
    /// Into a column of JSON text.
    Json(TextPlan),
    /// A record into a struct.
    Record(RecordPlan),
    /// A record into a column of true values.
    Present(Skip),
    /// A writer's union: the plan of each branch, into the same column.
    Union(Vec<Plan>),
    /// Into one branch of a reader's union.
    Branch {
        column: usize,
        plan: Box<Plan>,
    },
    /// A value encoded as the reader encodes it, in place of what the writer does not have.
    Default {
        bytes: Vec<u8>,
        plan: Box<Plan>,
    },
}

/// A writer's enum symbol.
pub(crate) struct Symbol {
    pub name: String,
    /// What the reader takes it for.
    pub shown: Option<String>,
}

/// The elements of an array, or the values of a map.
pub(crate) struct ElementPlan {
    pub plan: Box<Plan>,
    /// The least bytes an element takes, a map's key included.
    pub min_size: usize,
    /// How many cells an element unfolds to.
    pub cells: u64,
}

/// The fields of a record.
pub(crate) struct RecordPlan {
    /// In the writer's order.
    pub steps: Vec<Step>,
    /// Columns the writer does not have.
    pub missing: Vec<(usize, Plan)>,
}

/// One field of a writer's record.
pub(crate) enum Step {
    Read { column: usize, name: String, plan: Plan },
    Skip(Skip),
}
