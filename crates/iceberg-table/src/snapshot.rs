//! Snapshots, as table metadata names them (specification, "Snapshots"), and how each follows another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Parts;
use crate::plan::TableHead;

/// What a snapshot did to the one before it. Readers of increments read what appends added, and pass
/// replacements over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It has more rows.
    Append,
    /// It has the same rows, or fewer, in other files.
    Replace,
}

impl Operation {
    /// The summary's value of `operation`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Replace => "replace",
        }
    }
}

/// One snapshot: an item of the metadata's `snapshots`, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// Constant within a table of hot files alone.
    pub sequence_number: i64,
    /// A digest of all that the snapshot holds.
    pub snapshot_id: i64,
    /// The snapshot before it. Where none is known, an id that no snapshot has, so that a reader who looks
    /// for one it once knew finds that it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_snapshot_id: Option<i64>,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The operation, totals, and the caller's entries.
    pub summary: BTreeMap<String, String>,
    /// The manifest list's URI.
    pub manifest_list: String,
    /// The schema that its files were planned with.
    pub schema_id: i32,
}

impl Snapshot {
    /// The name of the manifest list within the table's metadata folder.
    pub fn list_name(&self) -> &str {
        self.manifest_list.rsplit('/').next().unwrap_or_default()
    }
}

/// The parent of a snapshot before which nothing is known: an id that no snapshot has. `last` is the
/// snapshot in whose place it stands, if it stands in one's.
pub fn unknown_parent(head: &TableHead, last: Option<i64>) -> i64 {
    let before = Parts::new("before").add(head.table_uuid.as_bytes());
    before.add(&last.unwrap_or(0).to_be_bytes()).snapshot_id()
}
