//! The table of a topic's records that do not decode: the same chunks as the topic's, of which those that are
//! known to hold no such record are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use isk_iceberg_table::GroupManifests;
use isk_model::OffsetRange;
use isk_parquet_file::RenderProfile;
use isk_schema::{KeyKind, ValueKind, error_table};

use crate::api::ServiceError;
use crate::facts::recipe;
use crate::files::{Part, data_key, hot_key};
use crate::plan::{Inputs, View, render_digest};
use crate::undecoded::{Decoding, Undecoded};

/// What a record's cause takes, encoded, beside its own bytes: they are much alike.
const CAUSE_BYTES: u64 = 64;

impl Inputs {
    /// The table of errors at the same moment, of the same records and the same chunks.
    pub(crate) fn errors(&self, profile: &RenderProfile) -> Result<Self, ServiceError> {
        let table = error_table(&self.table)
            .map_err(|e| ServiceError::Internal(format!("the table of errors: {e}")))?;
        let decoding =
            Decoding { undecoded: Undecoded::Only, writers: self.decoding.writers.clone() };
        Ok(Self {
            view: View::Errors,
            layout: self.layout,
            cluster_id: self.cluster_id.clone(),
            topic: Arc::clone(&self.topic),
            render: render_digest(&self.table, profile, &decoding)?,
            hot_render: Some(self.render),
            table: Arc::new(table),
            decoding,
            offsets: self.offsets.clone(),
            epochs: self.epochs.clone(),
            pin: self.pin,
            max_message_bytes: self.max_message_bytes,
            cleaning: self.cleaning.clone(),
            times: self.times.clone(),
            notes: self.notes.clone(),
            facts: Arc::clone(&self.facts),
            cuts: self.cuts.clone(),
            beside: None,
            tick_cuts: self.tick_cuts.clone(),
            rounds: BTreeMap::new(),
        })
    }

    /// Whether records of the topic can fail to decode: not those that are shown as they are.
    pub(crate) fn may_fail(&self) -> bool {
        !matches!((&self.table.value, &self.table.key), (ValueKind::None, KeyKind::Bytes))
    }

    /// Whether a range may hold what the table shows. One of the table of errors does not where it was
    /// encoded, as that table's or as the topic's, and no record failed.
    pub(crate) fn may_hold(&self, part: &Part, range: OffsetRange) -> bool {
        if self.view != View::Errors {
            return true;
        }
        if let Some(facts) = part.facts.get(&recipe(&data_key(self, part.partition, range, None))) {
            return facts.rows() > 0;
        }
        let hot = part.facts.get(&recipe(&hot_key(self, part.partition, range)));
        hot.and_then(|facts| facts.errors()) != Some(0)
    }
}

/// A bound of the encoded size of the causes of all records of a range, in bytes.
pub(crate) fn causes_bound(range: OffsetRange) -> u64 {
    range.span().saturating_mul(CAUSE_BYTES)
}

/// Properties of the table: how many records that do not decode are known, and how many files were not
/// looked through for others yet.
pub(crate) fn known_errors(groups: &[Arc<GroupManifests>]) -> [(String, String); 2] {
    let sum = |of: fn(&GroupManifests) -> u64| groups.iter().map(|group| of(group)).sum::<u64>();
    [
        ("isk.known-errors".to_owned(), sum(GroupManifests::proven_rows).to_string()),
        ("isk.unread-files".to_owned(), sum(GroupManifests::unproven_files).to_string()),
    ]
}
