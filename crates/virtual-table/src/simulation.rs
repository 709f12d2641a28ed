//! A topic that is imagined: watermarks without data behind them, to measure what planning costs at sizes
//! that no test machine has the records for. The path is the service's own, from offsets to metadata files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isk_kafka::TopicDescription;
use isk_model::{
    DataFileKey, KafkaPartition, LeaderEpoch, Offset, OffsetRange, PartitionOffsets, RenderDigest,
    TopicId, TopicName,
};
use isk_schema::{FieldIdMap, TableSchema, table_schema};

use crate::api::{LoadedTable, ServiceError};
use crate::cleaning::{Cleaned, Cleaning};
use crate::epochs::EpochHistory;
use crate::facts::{Encoding, FactBook};
use crate::lineage::TickCuts;
use crate::manifests::ManifestBook;
use crate::metadata_store::MetadataStore;
use crate::plan::{Inputs, View};
use crate::store::Store;
use crate::table_rules::RowLayout;
use crate::tick::Tick;
use crate::time_index_ask::TopicTimes;
use crate::topic_pin::TopicPin;
use crate::undecoded::{Decoding, ErrorPolicy, Undecoded};
use crate::writers::WriterState;

/// Raw bytes of an imagined record: chunks hold 2^19 of them.
const RECORD_BYTES: u64 = 80;

/// A topic without a broker.
pub struct ImaginedTopic {
    topic: Arc<TopicDescription>,
    table: Arc<TableSchema>,
    pub(crate) offsets: BTreeMap<KafkaPartition, PartitionOffsets>,
    facts: Arc<FactBook>,
    pub(crate) book: ManifestBook,
    last: Option<Arc<Tick>>,
}

impl ImaginedTopic {
    /// A topic of so many partitions with so many full chunks each, and one that is open. Metadata files
    /// go below `folder`.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn new(folder: &Path, partitions: i32, chunks: i64) -> Result<Self, ServiceError> {
        let internal = |e: String| ServiceError::Internal(e);
        let name = TopicName::new("imagined").map_err(|e| internal(e.to_string()))?;
        let table = table_schema(&[], &[], &mut FieldIdMap::default())
            .map_err(|e| internal(e.to_string()))?;
        let end = chunks * pin().chunk_exponent().width() + 1;
        let log = PartitionOffsets {
            log_start: Offset(0),
            last_stable: Offset(end),
            leader_epoch: LeaderEpoch(0),
        };
        let store = Arc::new(Store::open(&folder.join("isk.redb"))?);
        let metadata = Arc::new(MetadataStore::open(folder)?);
        let partitions: Vec<_> = (0..partitions).map(KafkaPartition).collect();
        Ok(Self {
            offsets: partitions.iter().map(|&partition| (partition, log)).collect(),
            topic: Arc::new(TopicDescription { name, id: TopicId(1), partitions, internal: false }),
            table: Arc::new(table),
            facts: Arc::new(FactBook::new(store)),
            book: ManifestBook::new(metadata, Duration::from_secs(3600)),
            last: None,
        })
    }

    /// Plans the table as it is now: what `loadTable` does once the brokers have answered.
    ///
    /// # Errors
    /// The metadata files cannot be written.
    pub fn load(&mut self) -> Result<LoadedTable, ServiceError> {
        let tick = Tick::settle(self.inputs(), self.last.as_ref(), &self.book)?;
        let loaded = tick.loaded.clone();
        self.last = Some(tick);
        Ok(loaded)
    }

    /// So many more records in every `step`-th partition.
    pub fn produce(&mut self, records: i64, step: usize) {
        for log in self.offsets.values_mut().step_by(step.max(1)) {
            log.last_stable = Offset(log.last_stable.0 + records);
        }
    }

    /// The partition's first chunk has been encoded, and lacked one row of its offsets.
    ///
    /// # Errors
    /// The fact cannot be kept.
    pub fn prove_first_chunk(&mut self, partition: KafkaPartition) -> Result<(), ServiceError> {
        let range = OffsetRange::new(Offset(0), Offset(pin().chunk_exponent().width()))
            .ok_or_else(|| ServiceError::Internal("a chunk of no offsets".into()))?;
        let key = DataFileKey {
            topic: self.topic.name.clone(),
            columns: None,
            topic_id: self.topic.id,
            partition,
            range,
            leader_epoch: LeaderEpoch(0),
            schema: self.table.version,
            render: RenderDigest(0),
            layout: None,
            covered: None,
            declared_size: 1 << 26,
        };
        let (rows, file_size) = (range.span() - 1, 1 << 25);
        let encoding =
            Encoding { rows, errors: 0, file_size, digest: [7; 32], columns: BTreeMap::new() };
        self.facts.learn(&key, &encoding, true)?.map_err(|_| {
            ServiceError::Internal("an imagined chunk was encoded twice, differently".into())
        })
    }

    /// All that a plan of the topic depends on now.
    pub(crate) fn inputs(&self) -> Inputs {
        let epochs = self.offsets.iter().map(|(&partition, log)| {
            let mut history = EpochHistory::default();
            history.observe(log.leader_epoch, log.last_stable, None);
            (partition, history)
        });
        Inputs {
            view: View::Hot,
            layout: RowLayout::Flat,
            cluster_id: "imagined".into(),
            topic: Arc::clone(&self.topic),
            table: Arc::clone(&self.table),
            decoding: Decoding {
                undecoded: Undecoded::By(ErrorPolicy::Keep),
                writers: WriterState::default(),
            },
            render: RenderDigest(0),
            hot_render: None,
            offsets: self.offsets.clone(),
            epochs: epochs.collect(),
            pin: pin(),
            max_message_bytes: 1 << 20,
            cleaning: Cleaning::AsCleaned(Arc::new(Cleaned::Never)),
            times: TopicTimes::default(),
            notes: BTreeMap::new(),
            facts: Arc::clone(&self.facts),
            cuts: BTreeMap::new(),
            beside: None,
            tick_cuts: TickCuts::new(),
            rounds: BTreeMap::new(),
        }
    }
}

fn pin() -> TopicPin {
    TopicPin::new(RECORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the manifests in the metadata folder.
    fn manifests(folder: &Path) -> std::collections::BTreeSet<String> {
        let files = std::fs::read_dir(folder.join("metadata/imagined")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("data-") || name.starts_with("deletes-")).collect()
    }

    #[test]
    fn only_manifests_whose_chunks_changed_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut topic = ImaginedTopic::new(dir.path(), 20, 600).unwrap();
        let first = topic.load().unwrap();
        // Two sealed runs of each partition, three groups that fill, and the tail; twice each.
        let before = manifests(dir.path());
        assert_eq!(before.len(), 2 * (20 * 2 + 3 + 1));
        assert_eq!(topic.load().unwrap().metadata_location, first.metadata_location);

        topic.produce(1, 20);
        let more = topic.load().unwrap();
        assert_ne!(more.metadata_location, first.metadata_location);
        let after = manifests(dir.path());
        assert_eq!(after.difference(&before).count(), 2, "the tail's");

        topic.prove_first_chunk(KafkaPartition(7)).unwrap();
        let proven = topic.load().unwrap();
        assert_ne!(proven.metadata_location, more.metadata_location);
        assert_eq!(manifests(dir.path()).difference(&after).count(), 2, "those of one run");
        assert_eq!(topic.load().unwrap().metadata_location, proven.metadata_location);
    }

    #[test]
    fn a_fact_that_changes_no_file_of_the_table_is_no_new_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let mut topic = ImaginedTopic::new(dir.path(), 1, 3).unwrap();
        topic.offsets.values_mut().for_each(|log| log.log_start = Offset(1 << 20));
        let before = topic.load().unwrap();
        topic.prove_first_chunk(KafkaPartition(0)).unwrap();
        assert_eq!(topic.load().unwrap().metadata_location, before.metadata_location);
    }
}
