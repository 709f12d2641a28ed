//! The files of a group of chunks: recipes, declared sizes, and what is known of their rows. Reads facts,
//! asks nothing of Kafka.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use isk_iceberg_table::{Evidence, Group, Place, PlannedFile};
use isk_model::{
    ContentDigest, DataFileKey, DeleteFileKey, KafkaPartition, ObjectKey, Offset, OffsetChunk,
    OffsetRange, chunks,
};

use crate::beside::Attachment;
use crate::covered::Piece;
use crate::epochs::EpochHistory;
use crate::error_files::causes_bound;
use crate::facts::{ChunkFacts, recipe};
use crate::lineage::split;
use crate::plan::{Inputs, View, uri};
use crate::table_rules::RowLayout;
use crate::tick::key_of;

/// The files of a group, and the metadata files that their recipes name: every chunk is a file, or the
/// pieces of it that no cold table covers are.
pub(crate) fn group_files(inputs: &Inputs, group: &Group) -> (Vec<PlannedFile>, Vec<Attachment>) {
    let k = inputs.pin.chunk_exponent();
    let (mut files, mut attachments) = (Vec::new(), Vec::new());
    if inputs.view == View::Errors && !inputs.may_fail() {
        return (files, attachments);
    }
    let folder = inputs.folder();
    for &(partition, range) in &group.parts {
        let facts = inputs.facts.within(&folder, inputs.topic.id, partition, range);
        let part = Part { partition, facts };
        for chunk in chunks(range, k) {
            let Some(covered) = inputs.covered() else {
                let holds = |piece: &OffsetChunk| inputs.may_hold(&part, piece.range);
                let cut = cut(inputs, &part, chunk).into_iter().filter(holds);
                files.extend(cut.map(|piece| planned_file(inputs, &part, piece, None)));
                continue;
            };
            for Piece { chunk, left_out } in covered.pieces(partition, chunk) {
                let digest = left_out.as_ref().map(|attachment| attachment.digest);
                files.push(planned_file(inputs, &part, chunk, digest));
                attachments.extend(left_out);
            }
        }
    }
    (files, attachments)
}

/// The file that a plan has behind one of its files, in the same Kafka partition and without a gap.
pub(crate) fn file_behind(inputs: &Inputs, key: &DataFileKey) -> Option<DataFileKey> {
    let (recipe_of, end) = (recipe(key), key.range.end());
    let is_planned = |file: &DataFileKey| recipe(file) == recipe_of;
    files_at(inputs, key.partition, key.range.start()).into_iter().find(is_planned)?;
    files_at(inputs, key.partition, end).into_iter().find(|file| file.range.start() == end)
}

/// The files of the chunk that an offset lies in.
fn files_at(inputs: &Inputs, partition: KafkaPartition, offset: Offset) -> Vec<DataFileKey> {
    let whole = || {
        let readable = inputs.offsets.get(&partition)?.readable()?;
        let cuts = inputs.tick_cuts.get(&partition).map_or(&[][..], Vec::as_slice);
        let piece = split(readable, cuts).into_iter().find(|piece| piece.contains(offset))?;
        let k = inputs.pin.chunk_exponent();
        let start = k.align(offset);
        let end = Offset(start.0.saturating_add(k.width()));
        OffsetRange::new(start.max(piece.start()), end.min(piece.end()))
    };
    let Some(range) = whole() else { return Vec::new() };
    let group = Group { place: Place::Tail, parts: vec![(partition, range)] };
    let files = group_files(inputs, &group).0.into_iter();
    let keys = files.filter_map(|file| match key_of(&file.data_uri)? {
        ObjectKey::Data(key) => Some(key),
        _ => None,
    });
    keys.collect()
}

/// A range of a Kafka partition, and what is known of the files that begin in it, by recipe.
pub(crate) struct Part {
    pub(crate) partition: KafkaPartition,
    pub(crate) facts: HashMap<String, Arc<ChunkFacts>>,
}

/// The pieces that the end of a followed partition is cut into. A chunk that is proven is one.
fn cut(inputs: &Inputs, part: &Part, chunk: OffsetChunk) -> Vec<OffsetChunk> {
    let whole = || recipe(&hot_key(inputs, part.partition, chunk.range));
    match inputs.cuts.get(&part.partition) {
        Some(cuts) if cuts.cut(chunk.range) && !part.facts.contains_key(&whole()) => {
            cuts.pieces(chunk)
        }
        _ => vec![chunk],
    }
}

/// The recipe that the topic's own table has of a range.
pub(crate) fn hot_key(
    inputs: &Inputs,
    partition: KafkaPartition,
    range: OffsetRange,
) -> DataFileKey {
    let render = inputs.hot_render.unwrap_or(inputs.render);
    DataFileKey { render, ..data_key(inputs, partition, range, None) }
}

/// The recipe of a range, its size not yet declared.
pub(crate) fn data_key(
    inputs: &Inputs,
    partition: KafkaPartition,
    range: OffsetRange,
    covered: Option<ContentDigest>,
) -> DataFileKey {
    let unknown = EpochHistory::default();
    let merged = inputs.merged();
    DataFileKey {
        topic: inputs.topic.name.clone(),
        columns: inputs.view.columns(),
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
    part: &Part,
    chunk: OffsetChunk,
    covered: Option<ContentDigest>,
) -> PlannedFile {
    let partition = part.partition;
    let key = data_key(inputs, partition, chunk.range, covered);
    let bucket = inputs.view.bucket();
    let delete_uri = || {
        let key = DeleteFileKey {
            topic: key.topic.clone(),
            columns: key.columns,
            topic_id: key.topic_id,
            partition,
            range: key.range,
        };
        uri(bucket, &ObjectKey::Delete(key))
    };
    let (declared_size, evidence) = match part.facts.get(&recipe(&key)) {
        Some(facts) => {
            let proven = Evidence::Proven {
                rows: facts.rows(),
                columns: columns(inputs, facts),
                // What the cleaner leaves may be fewer rows than were counted.
                keep_delete_entry: inputs.cleaning.may_touch(partition, key.range).then(delete_uri),
            };
            (facts.size_to_declare(), proven)
        }
        None => {
            let mut bound = inputs.pin.size_bound(key.range, inputs.max_message_bytes);
            if inputs.view == View::Errors {
                bound = bound.saturating_add(causes_bound(key.range));
            }
            if inputs.layout == RowLayout::Json {
                // Text repeats the names of fields, and numbers and bytes take more room in it.
                bound = bound.saturating_mul(2);
            }
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
    use isk_model::LeaderEpoch;

    use super::*;
    use crate::lineage::TickCuts;
    use crate::simulation::ImaginedTopic;

    /// The files of a plan, by Kafka partition and offset.
    fn planned(inputs: &Inputs) -> Vec<DataFileKey> {
        let groups = inputs.groups();
        let files = groups.iter().flat_map(|group| group_files(inputs, group).0);
        let mut keys: Vec<_> = files
            .map(|file| match key_of(&file.data_uri) {
                Some(ObjectKey::Data(key)) => key,
                other => panic!("{other:?}"),
            })
            .collect();
        keys.sort_by_key(|key| (key.partition, key.range.start()));
        keys
    }

    #[test]
    fn behind_each_file_is_the_next_one_that_was_planned() {
        let dir = tempfile::tempdir().unwrap();
        let mut topic = ImaginedTopic::new(dir.path(), 2, 5).unwrap();
        topic.produce(1000, 2);
        topic.prove_first_chunk(KafkaPartition(1)).unwrap();
        let first = topic.offsets.get_mut(&KafkaPartition(0)).unwrap();
        first.log_start = Offset(77);
        let end = first.last_stable.0;
        // Ticks ended within a chunk that is full by now, and twice within the open one.
        let cuts = [300_000, end - 900, end - 20].map(Offset).to_vec();
        let tick_cuts = TickCuts::from([(KafkaPartition(0), cuts)]);
        let inputs = Inputs { tick_cuts, ..topic.inputs() };
        let files = planned(&inputs);
        assert_eq!(files.len(), 5 + 1 + 3 + 5 + 1);
        for (n, file) in files.iter().enumerate() {
            let next = files.get(n + 1).filter(|next| next.partition == file.partition);
            assert_eq!(file_behind(&inputs, file).as_ref(), next, "{file}");
        }
    }

    #[test]
    fn nothing_is_behind_a_file_of_another_plan() {
        let dir = tempfile::tempdir().unwrap();
        let topic = ImaginedTopic::new(dir.path(), 1, 5).unwrap();
        let inputs = topic.inputs();
        let first = planned(&inputs).remove(0);
        assert!(file_behind(&inputs, &first).is_some());
        let half = OffsetRange::new(Offset(0), Offset(first.range.end().0 / 2)).unwrap();
        for other in [
            DataFileKey { leader_epoch: LeaderEpoch(7), ..first.clone() },
            DataFileKey { covered: Some(ContentDigest(7)), ..first.clone() },
            DataFileKey { partition: KafkaPartition(7), ..first.clone() },
            DataFileKey { range: half, ..first.clone() },
        ] {
            assert_eq!(file_behind(&inputs, &other), None, "{other}");
        }
        // Under which size it was planned decides nothing.
        let proven = DataFileKey { declared_size: 7, ..first };
        assert!(file_behind(&inputs, &proven).is_some());
    }
}
