//! What a table is at one moment: from offsets, columns and facts to a plan of files. Pure.

use std::collections::BTreeMap;

use isk_iceberg_table::{Evidence, Placement, PlannedFile, TablePlan};
use isk_kafka::TopicDescription;
use isk_model::{
    ContentDigest, DataFileKey, DeleteFileKey, KafkaPartition, ObjectKey, Offset, OffsetChunk,
    OffsetRange, OffsetSet, PartitionOffsets, RenderDigest, SchemaVersion, TopicName, chunks,
};
use isk_parquet_file::{RenderProfile, empty_delete_file};
use isk_schema::{MAPPING_VERSION, TableSchema};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::{HOTSET, MERGED, ServiceError};
use crate::beside::{Attachment, Beside, Merged};
use crate::epochs::EpochHistory;
use crate::facts::{ChunkFacts, FactBook, recipe};
use crate::topic_pin::TopicPin;

/// Counts changes to rows that neither the schema mapping nor the render profile know of: the
/// metadata columns' content, the policy for records that do not decode.
const ROWS_VERSION: u32 = 1;

/// Namespace of the UUIDs of tables: a table's UUID comes from its cluster and topic id.
const TABLE_UUIDS: Uuid = Uuid::from_u128(0x3f0c_7a52_6c1e_4b0e_9a57_2d1f_7d2b_6b11);

/// The most pieces that a chunk is cut into around covered offsets. Beyond, it stays one file, and the
/// covered records are left out while encoding.
const MAX_PIECES: usize = 8;

/// What of a topic is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum View {
    /// All of it.
    Hot,
    /// What a cold table does not cover.
    Unmoved,
    /// What a cold table does not cover, together with that table.
    Merged,
}

impl View {
    /// The bucket of the view's objects.
    pub(crate) fn bucket(self) -> &'static str {
        match self {
            Self::Hot | Self::Unmoved => HOTSET,
            Self::Merged => MERGED,
        }
    }
}

/// All that a plan depends on.
pub(crate) struct Inputs<'a> {
    pub view: View,
    pub cluster_id: &'a str,
    pub topic: &'a TopicDescription,
    /// The columns of the files.
    pub table: &'a TableSchema,
    pub render: RenderDigest,
    pub offsets: &'a BTreeMap<KafkaPartition, PartitionOffsets>,
    pub epochs: &'a BTreeMap<KafkaPartition, EpochHistory>,
    pub pin: TopicPin,
    pub max_message_bytes: u64,
    /// Whether the log's cleaner may remove records from the middle of the log.
    pub compacted: bool,
    pub facts: &'a FactBook,
    /// The cold table that the topic is seen beside.
    pub beside: Option<&'a Beside>,
}

/// A plan, and the metadata files that its data files' recipes name.
pub(crate) struct Planned {
    pub table: TablePlan,
    pub attachments: Vec<Attachment>,
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

/// The table's location: what the URIs of all its virtual objects begin with.
pub(crate) fn location(view: View, topic: &TopicName) -> String {
    format!("s3://{}/{topic}", view.bucket())
}

/// The id under which table metadata names a schema version.
fn schema_id(version: SchemaVersion) -> i32 {
    let id = u64::from(version.value) + u64::from(version.key) * 100_000;
    i32::try_from(id).unwrap_or(i32::MAX)
}

/// Names every readable chunk as a file, or as the pieces of it that no cold table covers.
pub(crate) fn plan(inputs: &Inputs<'_>, timestamp_ms: i64) -> Planned {
    let k = inputs.pin.chunk_exponent();
    let mut files = Vec::new();
    let mut attachments = Vec::new();
    for (&partition, offsets) in inputs.offsets {
        let Some(readable) = offsets.readable() else { continue };
        let covered = inputs.beside.and_then(|beside| beside.covered.get(&partition));
        for chunk in chunks(readable, k) {
            match covered {
                None => files.push(planned_file(inputs, partition, chunk, None)),
                Some(covered) => {
                    for (chunk, left_out) in pieces(chunk, readable.end(), covered) {
                        let left_out = left_out.map(|set| Attachment::covered(&set));
                        let digest = left_out.as_ref().map(|attachment| attachment.digest);
                        files.push(planned_file(inputs, partition, chunk, digest));
                        attachments.extend(left_out);
                    }
                }
            }
        }
    }
    let merged = inputs.beside.and_then(|beside| beside.merged.as_ref());
    attachments.extend(merged.map(|merged| merged.layout.clone()));
    let topic = &inputs.topic.name;
    let mut properties = BTreeMap::from([
        ("isk.view".to_owned(), view_name(inputs.view).to_owned()),
        ("isk.topic".to_owned(), topic.to_string()),
        ("isk.topic-id".to_owned(), inputs.topic.id.to_string()),
        ("isk.cluster-id".to_owned(), inputs.cluster_id.to_owned()),
        ("isk.value-schema-version".to_owned(), inputs.table.version.value.to_string()),
        ("isk.key-schema-version".to_owned(), inputs.table.version.key.to_string()),
    ]);
    properties.extend(inputs.beside.map(|beside| beside.properties.clone()).unwrap_or_default());
    let table = TablePlan {
        table_uuid: table_uuid(inputs),
        location: location(inputs.view, topic),
        schema: merged.map_or(&inputs.table.iceberg, |merged| &merged.schema).clone(),
        schema_id: merged
            .map_or_else(|| schema_id(inputs.table.version), |merged| merged.schema_id),
        placement: merged.map_or(Placement::HOT, |merged| merged.placement.clone()),
        cold: merged.map(|merged| merged.cold.clone()),
        chunk_exponent: k,
        properties,
        timestamp_ms,
        files,
        delete_file_size: empty_delete_file().len() as u64,
        summary: BTreeMap::from([
            ("isk.log-start-offsets".to_owned(), vector(inputs.offsets, |o| o.log_start.0)),
            ("isk.end-offsets".to_owned(), vector(inputs.offsets, |o| o.last_stable.0)),
        ]),
    };
    Planned { table, attachments }
}

/// The value of the property `isk.view`.
fn view_name(view: View) -> &'static str {
    match view {
        View::Hot => HOTSET,
        View::Unmoved => "unmoved",
        View::Merged => MERGED,
    }
}

/// What of a chunk is not covered: as few pieces, each a chunk of its own, or as one chunk and the
/// offsets to leave out of it. A piece that ends before `end` can no longer grow.
fn pieces(
    chunk: OffsetChunk,
    end: Offset,
    covered: &OffsetSet,
) -> Vec<(OffsetChunk, Option<OffsetSet>)> {
    let piece =
        |range: OffsetRange| OffsetChunk { range, full: chunk.full || range.end() < end, ..chunk };
    let missing: Vec<OffsetRange> = covered.missing(chunk.range).collect();
    let (Some(first), Some(last)) = (missing.first(), missing.last()) else { return Vec::new() };
    if missing.len() <= MAX_PIECES {
        return missing.into_iter().map(|range| (piece(range), None)).collect();
    }
    let whole = OffsetRange::new(first.start(), last.end()).unwrap_or(chunk.range);
    vec![(piece(whole), Some(covered.within(whole)))]
}

/// The recipe of a range, its size not yet declared.
fn data_key(
    inputs: &Inputs<'_>,
    partition: KafkaPartition,
    range: OffsetRange,
    covered: Option<ContentDigest>,
) -> DataFileKey {
    let unknown = EpochHistory::default();
    let merged = inputs.beside.and_then(|beside| beside.merged.as_ref());
    DataFileKey {
        topic: inputs.topic.name.clone(),
        topic_id: inputs.topic.id,
        partition,
        range,
        leader_epoch: inputs.epochs.get(&partition).unwrap_or(&unknown).at_end(range.end()),
        schema: inputs.table.version,
        render: inputs.render,
        layout: merged.map(|merged| merged.layout.digest),
        covered,
        declared_size: 0,
    }
}

fn planned_file(
    inputs: &Inputs<'_>,
    partition: KafkaPartition,
    chunk: OffsetChunk,
    covered: Option<ContentDigest>,
) -> PlannedFile {
    let key = data_key(inputs, partition, chunk.range, covered);
    let bucket = inputs.view.bucket();
    let delete_uri = || {
        let key = DeleteFileKey {
            topic: key.topic.clone(),
            topic_id: key.topic_id,
            partition,
            range: key.range,
        };
        uri(bucket, &ObjectKey::Delete(key))
    };
    let (declared_size, evidence) = match inputs.facts.get(&recipe(&key)) {
        Some(facts) => {
            let proven = Evidence::Proven {
                rows: facts.rows(),
                columns: columns(inputs, &facts),
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
    let data_uri = uri(bucket, &ObjectKey::Data(DataFileKey { declared_size, ..key }));
    PlannedFile { data_uri, partition, chunk, declared_size, evidence }
}

/// The metrics of a file's columns. Bounds of a column that the table has in a wider type are of the
/// file's type, so they are left out.
fn columns(inputs: &Inputs<'_>, facts: &ChunkFacts) -> BTreeMap<i32, isk_model::ColumnMetrics> {
    let mut columns = facts.columns();
    let merged: Option<&Merged> = inputs.beside.and_then(|beside| beside.merged.as_ref());
    for id in merged.iter().flat_map(|merged| &merged.widened) {
        if let Some(column) = columns.get_mut(id) {
            (column.lower, column.upper) = (None, None);
        }
    }
    columns
}

/// The URI of an object.
pub(crate) fn uri(bucket: &str, key: &ObjectKey) -> String {
    format!("s3://{bucket}/{key}")
}

fn table_uuid(inputs: &Inputs<'_>) -> Uuid {
    let topic = &inputs.topic;
    let hot = format!("{}/{}/{}", inputs.cluster_id, topic.name, topic.id);
    let name = match (inputs.view, inputs.beside) {
        (View::Merged, Some(beside)) => format!("{hot}/merged/{}", beside.table_uuid),
        (View::Unmoved, _) => format!("{hot}/unmoved"),
        _ => hot,
    };
    Uuid::new_v5(&TABLE_UUIDS, name.as_bytes())
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

#[cfg(test)]
mod tests {
    use isk_model::ChunkExponent;

    use super::*;

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(Offset(start), Offset(end)).unwrap()
    }

    fn chunk(start: i64, end: i64) -> OffsetChunk {
        let k = ChunkExponent::new(10).unwrap();
        chunks(range(start, end), k).next().unwrap()
    }

    #[test]
    fn covered_offsets_are_cut_out_of_a_chunk() {
        let covered: OffsetSet = [range(0, 100), range(200, 300)].into_iter().collect();
        let cut = pieces(chunk(0, 5000), Offset(5000), &covered);
        let ranges: Vec<_> = cut.iter().map(|(c, _)| (c.range, c.aligned_start, c.full)).collect();
        assert_eq!(
            ranges,
            [(range(100, 200), Offset(0), true), (range(300, 1024), Offset(0), true)]
        );
        assert!(cut.iter().all(|(_, left_out)| left_out.is_none()));
        let whole: OffsetSet = [range(0, 1024)].into_iter().collect();
        assert_eq!(pieces(chunk(0, 5000), Offset(5000), &whole), []);
    }

    #[test]
    fn a_piece_before_the_end_grows_no_more() {
        let covered: OffsetSet = [range(10, 20)].into_iter().collect();
        let full: Vec<bool> =
            pieces(chunk(0, 500), Offset(500), &covered).iter().map(|(c, _)| c.full).collect();
        assert_eq!(full, [true, false]);
    }

    #[test]
    fn scattered_offsets_are_left_out_of_one_file() {
        let covered: OffsetSet = (0..40).map(|n| range(n * 10 + 3, n * 10 + 4)).collect();
        let cut = pieces(chunk(0, 5000), Offset(5000), &covered);
        let [(one, Some(left_out))] = cut.as_slice() else { panic!("{cut:?}") };
        assert_eq!((one.range, left_out.len()), (range(0, 1024), 40));
    }
}
