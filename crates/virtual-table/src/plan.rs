//! What a table is at one moment: from offsets, columns and facts to a plan of files. Pure.

use std::collections::BTreeMap;

use isk_iceberg_table::{Evidence, PlannedFile, TablePlan};
use isk_kafka::TopicDescription;
use isk_model::{
    DataFileKey, DeleteFileKey, KafkaPartition, ObjectKey, OffsetRange, PartitionOffsets,
    RenderDigest, SchemaVersion, TopicName, chunks,
};
use isk_parquet_file::{RenderProfile, empty_delete_file};
use isk_schema::{MAPPING_VERSION, TableSchema};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::{HOTSET, ServiceError};
use crate::epochs::EpochHistory;
use crate::facts::{FactBook, recipe};
use crate::topic_pin::TopicPin;

/// Counts changes to rows that neither the schema mapping nor the render profile know of: the
/// metadata columns' content, the policy for records that do not decode.
const ROWS_VERSION: u32 = 1;

/// Namespace of the UUIDs of tables: a table's UUID comes from its cluster and topic id.
const TABLE_UUIDS: Uuid = Uuid::from_u128(0x3f0c_7a52_6c1e_4b0e_9a57_2d1f_7d2b_6b11);

/// All that a plan depends on.
pub(crate) struct Inputs<'a> {
    pub cluster_id: &'a str,
    pub topic: &'a TopicDescription,
    pub table: &'a TableSchema,
    pub render: RenderDigest,
    pub offsets: &'a BTreeMap<KafkaPartition, PartitionOffsets>,
    pub epochs: &'a BTreeMap<KafkaPartition, EpochHistory>,
    pub pin: TopicPin,
    pub max_message_bytes: u64,
    /// Whether the log's cleaner may remove records from the middle of the log.
    pub compacted: bool,
    pub facts: &'a FactBook,
}

/// The digest of everything but offsets that decides a file's bytes.
pub(crate) fn render_digest(
    table: &TableSchema,
    profile: &RenderProfile,
) -> Result<RenderDigest, ServiceError> {
    let columns = serde_json::to_vec(table.iceberg.as_ref())
        .map_err(|e| ServiceError::Internal(format!("a table schema has no JSON: {e}")))?;
    let mut hash = Sha256::new();
    hash.update(format!("mapping {MAPPING_VERSION}; rows {ROWS_VERSION}; keep; "));
    hash.update(profile.digest_input());
    hash.update([0]);
    hash.update(columns);
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    Ok(RenderDigest(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
}

/// The table's location: what all its objects' URIs begin with.
pub(crate) fn location(topic: &TopicName) -> String {
    format!("s3://{HOTSET}/{topic}")
}

/// The id under which table metadata names a schema version.
fn schema_id(version: SchemaVersion) -> i32 {
    let id = u64::from(version.value) + u64::from(version.key) * 100_000;
    i32::try_from(id).unwrap_or(i32::MAX)
}

/// Names every readable chunk as a file.
pub(crate) fn plan(inputs: &Inputs<'_>, timestamp_ms: i64) -> TablePlan {
    let k = inputs.pin.chunk_exponent();
    let mut files = Vec::new();
    for (&partition, offsets) in inputs.offsets {
        let Some(readable) = offsets.readable() else { continue };
        files.extend(chunks(readable, k).map(|chunk| {
            let key = data_key(inputs, partition, chunk.range);
            planned_file(inputs, key, chunk)
        }));
    }
    let topic = &inputs.topic.name;
    TablePlan {
        table_uuid: table_uuid(inputs.cluster_id, inputs.topic),
        location: location(topic),
        schema: inputs.table.iceberg.clone(),
        schema_id: schema_id(inputs.table.version),
        chunk_exponent: k,
        properties: BTreeMap::from([
            ("isk.view".to_owned(), HOTSET.to_owned()),
            ("isk.topic".to_owned(), topic.to_string()),
            ("isk.topic-id".to_owned(), inputs.topic.id.to_string()),
            ("isk.cluster-id".to_owned(), inputs.cluster_id.to_owned()),
            ("isk.value-schema-version".to_owned(), inputs.table.version.value.to_string()),
            ("isk.key-schema-version".to_owned(), inputs.table.version.key.to_string()),
        ]),
        timestamp_ms,
        files,
        delete_file_size: empty_delete_file().len() as u64,
        summary: BTreeMap::from([
            ("isk.log-start-offsets".to_owned(), vector(inputs.offsets, |o| o.log_start.0)),
            ("isk.end-offsets".to_owned(), vector(inputs.offsets, |o| o.last_stable.0)),
        ]),
    }
}

/// The recipe of a range, its size not yet declared.
fn data_key(inputs: &Inputs<'_>, partition: KafkaPartition, range: OffsetRange) -> DataFileKey {
    let unknown = EpochHistory::default();
    DataFileKey {
        topic: inputs.topic.name.clone(),
        topic_id: inputs.topic.id,
        partition,
        range,
        leader_epoch: inputs.epochs.get(&partition).unwrap_or(&unknown).at_end(range.end()),
        schema: inputs.table.version,
        render: inputs.render,
        declared_size: 0,
    }
}

fn planned_file(
    inputs: &Inputs<'_>,
    key: DataFileKey,
    chunk: isk_model::OffsetChunk,
) -> PlannedFile {
    let partition = key.partition;
    let delete_uri = || {
        uri(&ObjectKey::Delete(DeleteFileKey {
            topic: key.topic.clone(),
            topic_id: key.topic_id,
            partition,
            range: key.range,
        }))
    };
    let (declared_size, evidence) = match inputs.facts.get(&recipe(&key)) {
        Some(facts) => {
            let proven = Evidence::Proven {
                rows: facts.rows(),
                columns: facts.columns(),
                // What the cleaner leaves may be fewer rows than were counted.
                keep_delete_entry: inputs.compacted.then(delete_uri),
            };
            (facts.size_to_declare(), proven)
        }
        None => {
            let bound = inputs.pin.size_bound(key.range, inputs.max_message_bytes);
            let unproven =
                Evidence::Unproven { delete_uri: delete_uri(), timestamp_upper_ms: None };
            (bound, unproven)
        }
    };
    let key = DataFileKey { declared_size, ..key };
    PlannedFile { data_uri: uri(&ObjectKey::Data(key)), partition, chunk, declared_size, evidence }
}

/// The URI of an object.
pub(crate) fn uri(key: &ObjectKey) -> String {
    format!("s3://{HOTSET}/{key}")
}

fn table_uuid(cluster_id: &str, topic: &TopicDescription) -> Uuid {
    Uuid::new_v5(&TABLE_UUIDS, format!("{cluster_id}/{}/{}", topic.name, topic.id).as_bytes())
}

/// `partition:offset` for every partition, in order, comma-separated.
fn vector(
    offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    of: impl Fn(&PartitionOffsets) -> i64,
) -> String {
    let mut out = String::new();
    for (partition, offsets) in offsets {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&format!("{partition}:{}", of(offsets)));
    }
    out
}
