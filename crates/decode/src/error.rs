//! Errors of a whole batch, and faults of one record.

use std::fmt;

use arrow_schema::ArrowError;
use isk_model::WriterId;

/// Why a batch was not decoded. Records that cannot be decoded are none of these: they are
/// [`crate::DecodeFailure`]s of a batch.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A schema the block names was not given to the decoder. Ask
    /// [`crate::TopicDecoder::missing_writers`] first.
    #[error("schema id {0} is used by the block, and was not given to the decoder")]
    UnknownWriter(WriterId),
    /// The table schema cannot be shown as Arrow.
    #[error("the table schema has no Arrow form: {0}")]
    Schema(String),
    /// Arrow refused the columns: a defect of this crate.
    #[error("the decoded columns do not form a batch (a defect of the decoder): {0}")]
    Batch(#[from] ArrowError),
}

/// At which step a record failed. The set is fixed: metrics are counted by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureStage {
    /// The bytes are not framed as the topic's are: no schema could be told.
    Framing,
    /// The schema that the record names is not in the registry.
    Lookup,
    /// That schema cannot be read as the table's.
    Resolution,
    /// The bytes are not what their schema says.
    Decode,
    /// They are, and what they mean fits no column of the table.
    Conversion,
}

impl FailureStage {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Framing, Self::Lookup, Self::Resolution, Self::Decode, Self::Conversion];

    /// Its name in the column `stage` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Framing => "framing",
            Self::Lookup => "lookup",
            Self::Resolution => "resolution",
            Self::Decode => "decode",
            Self::Conversion => "conversion",
        }
    }
}

/// What is wrong with one record. Small, since every read returns one or a value.
pub(crate) struct Fault(Box<Inner>);

struct Inner {
    stage: FailureStage,
    reason: String,
    /// Names of enclosing fields, innermost first.
    path: Vec<String>,
    /// Whether the record is of a type that the table does not show.
    of_another_type: bool,
}

/// The result of reading a part of a record.
pub(crate) type Read<T> = Result<T, Fault>;

impl Fault {
    /// The bytes are not what their schema says.
    #[cold]
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self::at(FailureStage::Decode, reason)
    }

    /// The bytes are what their schema says, and fit no column.
    #[cold]
    pub(crate) fn conversion(reason: impl Into<String>) -> Self {
        Self::at(FailureStage::Conversion, reason)
    }

    #[cold]
    pub(crate) fn at(stage: FailureStage, reason: impl Into<String>) -> Self {
        let (reason, path) = (reason.into(), Vec::new());
        Self(Box::new(Inner { stage, reason, path, of_another_type: false }))
    }

    /// Notes that the record is of a type that the table does not show.
    #[cold]
    pub(crate) fn of_another_type(mut self) -> Self {
        self.0.of_another_type = true;
        self
    }

    pub(crate) fn is_of_another_type(&self) -> bool {
        self.0.of_another_type
    }

    pub(crate) fn stage(&self) -> FailureStage {
        self.0.stage
    }

    /// Notes the field in which the fault is.
    #[cold]
    pub(crate) fn within(mut self, field: &str) -> Self {
        self.0.path.push(field.to_owned());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.path.is_empty() {
            return f.write_str(&self.0.reason);
        }
        let path: Vec<&str> = self.0.path.iter().rev().map(String::as_str).collect();
        write!(f, "field {}: {}", path.join("."), self.0.reason)
    }
}
