//! Callers, and what can be allowed to them.

use serde::{Deserialize, Serialize};

/// What may be done with a table. Each right has those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// To see that it is there.
    List,
    /// To load it and read its rows.
    Read,
    /// To change it, where the catalog lets anybody change it.
    Write,
}

/// A table as rules name it: `hotset.orders`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub table: String,
}

impl TableName {
    /// A table.
    pub fn new(namespace: &str, table: &str) -> Self {
        Self { namespace: namespace.to_owned(), table: table.to_owned() }
    }

    /// All tables of a namespace: only patterns that match every name there match it.
    pub fn all_of(namespace: &str) -> Self {
        Self::new(namespace, "*")
    }

    /// All tables there are.
    pub fn everything() -> Self {
        Self::new("*", "*")
    }
}

/// Which of a principal's credentials a caller came with. What was got with one that is not configured any more is
/// worth nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(pub(crate) u64);

/// How a caller came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// There is no authentication.
    Anyone,
    /// A principal of the configuration.
    Configured(Stamp),
    /// A token of the external issuer.
    Issuer,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The principal's name.
    pub name: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// How it came to be known.
    pub source: Source,
}

impl Caller {
    /// Everybody, where there is no authentication.
    pub fn anyone() -> Self {
        Self { name: "anyone".to_owned(), groups: Vec::new(), source: Source::Anyone }
    }
}
