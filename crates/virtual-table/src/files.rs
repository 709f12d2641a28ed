//! The files of a group of chunks: recipes, declared sizes, and what is known of their rows. Reads facts,
//! asks nothing of Kafka.

use std::collections::BTreeMap;

use isk_iceberg_table::{Evidence, Group, PlannedFile};
use isk_model::{
    ContentDigest, DataFileKey, DeleteFileKey, KafkaPartition, ObjectKey, Offset, OffsetChunk,
    OffsetRange, OffsetSet, chunks,
};

use crate::beside::Attachment;
use crate::epochs::EpochHistory;
use crate::facts::{ChunkFacts, recipe};
use crate::plan::{Inputs, uri};

/// The most pieces that a chunk is cut into around covered offsets. Beyond, it stays one file, and the
/// covered records are left out while encoding.
const MAX_PIECES: usize = 8;

/// The files of a group, and the metadata files that their recipes name: every chunk is a file, or the
/// pieces of it that no cold table covers are.
pub(crate) fn group_files(inputs: &Inputs, group: &Group) -> (Vec<PlannedFile>, Vec<Attachment>) {
    let k = inputs.pin.chunk_exponent();
    let (mut files, mut attachments) = (Vec::new(), Vec::new());
    for &(partition, range) in &group.parts {
        let covered = inputs.covered(partition);
        // Only the last chunk of the log is open, and a part that holds it ends where the log does.
        let end = inputs.offsets.get(&partition).map_or(range.end(), |log| log.last_stable);
        for chunk in chunks(range, k) {
            let Some(covered) = covered else {
                let cut = cut(inputs, partition, chunk).into_iter();
                files.extend(cut.map(|piece| planned_file(inputs, partition, piece, None)));
                continue;
            };
            for (chunk, left_out) in pieces(chunk, end, covered) {
                let left_out = left_out.map(|set| Attachment::covered(&set));
                let digest = left_out.as_ref().map(|attachment| attachment.digest);
                files.push(planned_file(inputs, partition, chunk, digest));
                attachments.extend(left_out);
            }
        }
    }
    (files, attachments)
}

/// The pieces that the end of a followed partition is cut into. A chunk that is proven is one.
fn cut(inputs: &Inputs, partition: KafkaPartition, chunk: OffsetChunk) -> Vec<OffsetChunk> {
    let whole = || recipe(&data_key(inputs, partition, chunk.range, None));
    match inputs.cuts.get(&partition) {
        Some(cuts) if cuts.cut(chunk.range) && inputs.facts.get(&whole()).is_none() => {
            cuts.pieces(chunk)
        }
        _ => vec![chunk],
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
    inputs: &Inputs,
    partition: KafkaPartition,
    range: OffsetRange,
    covered: Option<ContentDigest>,
) -> DataFileKey {
    let unknown = EpochHistory::default();
    let merged = inputs.merged();
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
    inputs: &Inputs,
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
                keep_delete_entry: inputs.cleaning.may_touch(partition, key.range).then(delete_uri),
            };
            (facts.size_to_declare(), proven)
        }
        None => {
            let bound = inputs.pin.size_bound(key.range, inputs.max_message_bytes);
            let timestamp_upper_ms = inputs.times.upper_bound(partition, key.range);
            (bound, Evidence::Unproven { delete_uri: delete_uri(), timestamp_upper_ms })
        }
    };
    let data_uri = uri(bucket, &ObjectKey::Data(DataFileKey { declared_size, ..key }));
    PlannedFile { data_uri, partition, chunk, declared_size, evidence }
}

/// The metrics of a file's columns. Bounds of a column that the table has in a wider type are of the
/// file's type, so they are left out.
fn columns(inputs: &Inputs, facts: &ChunkFacts) -> BTreeMap<i32, isk_model::ColumnMetrics> {
    let mut columns = facts.columns();
    for id in inputs.merged().iter().flat_map(|merged| &merged.widened) {
        if let Some(column) = columns.get_mut(id) {
            (column.lower, column.upper) = (None, None);
        }
    }
    columns
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
