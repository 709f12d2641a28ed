//! Which offsets the log's cleaner may have touched since they were counted.
//!
//! A topic whose policy changes from `delete` to `compact` loses rows that facts still count; when the
//! policy changes back, what lies before that moment stays suspect: nobody knows what was removed
//! between the counting and the end of compaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use isk_kafka::TopicDescription;
use isk_model::{KafkaPartition, OffsetRange, PartitionOffsets, TopicId, TopicName};
use serde::{Deserialize, Serialize};

use crate::api::ServiceError;
use crate::store::{Kind, Store};
use crate::topics::Compacted;

/// What is remembered of a topic's compaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cleaned {
    /// It was never seen to be compacted.
    Never,
    /// It was compacted at the last look.
    Now,
    /// It was compacted, up to these end offsets by partition.
    Before(BTreeMap<i32, i64>),
}

/// Where counted rows may be gone, or may go.
#[derive(Debug, Clone)]
pub(crate) enum Cleaning {
    /// Everywhere.
    All,
    /// As far as the topic was compacted.
    AsCleaned(Arc<Cleaned>),
}

impl Cleaning {
    /// Whether rows of a range that were once counted may be gone, or may go.
    pub(crate) fn may_touch(&self, partition: KafkaPartition, range: OffsetRange) -> bool {
        match self {
            Self::All => true,
            Self::AsCleaned(cleaned) => match cleaned.as_ref() {
                Cleaned::Never => false,
                Cleaned::Now => true,
                Cleaned::Before(ends) => {
                    ends.get(&partition.0).is_some_and(|&end| range.start().0 < end)
                }
            },
        }
    }
}

/// What is remembered of all topics.
pub(crate) struct Cleanings {
    store: Arc<Store>,
    topics: moka::sync::Cache<(TopicName, TopicId), Arc<Cleaned>>,
}

impl Cleanings {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, topics: moka::sync::Cache::new(10_000) }
    }

    /// Takes note of a topic's policy.
    pub(crate) fn observe(
        &self,
        topic: &TopicDescription,
        compacted: Compacted,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<Cleaning, ServiceError> {
        if compacted == Compacted::Unknown {
            return Ok(Cleaning::All);
        }
        let place = (topic.name.clone(), topic.id);
        let key = format!("{}/{}", topic.name, topic.id);
        let known = match self.topics.get(&place) {
            Some(known) => known,
            None => Arc::new(self.store.get(Kind::Cleaned, &key)?.unwrap_or(Cleaned::Never)),
        };
        let now = known.after(compacted == Compacted::Yes, offsets);
        let now = match now {
            Some(now) => {
                self.store.put(Kind::Cleaned, &key, &now)?;
                Arc::new(now)
            }
            None => known,
        };
        self.topics.insert(place, Arc::clone(&now));
        Ok(Cleaning::AsCleaned(now))
    }
}

impl Cleaned {
    /// What is to be remembered after a look, where that is something else.
    fn after(
        &self,
        compacted: bool,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Option<Self> {
        match (self, compacted) {
            (Self::Now, true) | (Self::Never | Self::Before(_), false) => None,
            (_, true) => Some(Self::Now),
            (Self::Now, false) => {
                let ends = offsets.iter().map(|(p, now)| (p.0, now.last_stable.0));
                Some(Self::Before(ends.collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use isk_model::{LeaderEpoch, Offset};

    use super::*;

    #[test]
    fn what_was_compacted_once_stays_suspect() {
        let now = PartitionOffsets {
            log_start: Offset(0),
            last_stable: Offset(100),
            leader_epoch: LeaderEpoch(0),
        };
        let offsets = BTreeMap::from([(KafkaPartition(0), now)]);
        let touched = |cleaned: &Cleaned, start, end| {
            let range = OffsetRange::new(Offset(start), Offset(end)).unwrap();
            Cleaning::AsCleaned(Arc::new(cleaned.clone())).may_touch(KafkaPartition(0), range)
        };
        assert_eq!(Cleaned::Never.after(false, &offsets), None);
        assert!(!touched(&Cleaned::Never, 0, 50));
        let cleaned = Cleaned::Never.after(true, &offsets).unwrap();
        assert_eq!(cleaned.after(true, &offsets), None);
        assert!(touched(&cleaned, 0, 50));
        let cleaned = cleaned.after(false, &offsets).unwrap();
        assert_eq!(cleaned.after(false, &offsets), None);
        assert!(touched(&cleaned, 0, 50) && touched(&cleaned, 90, 150));
        assert!(!touched(&cleaned, 100, 150));
        let text = serde_json::to_string(&cleaned).unwrap();
        assert_eq!(serde_json::from_str::<Cleaned>(&text).unwrap(), cleaned);
        assert_eq!(cleaned.after(true, &offsets), Some(Cleaned::Now));
    }
}
