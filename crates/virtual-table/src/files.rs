//! The files of a group of chunks: recipes, declared sizes, and what is known of their rows. Reads facts,
//! asks nothing of Kafka.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use isk_iceberg_table::{Evidence, Group, PlannedFile};
use isk_model::{
    ContentDigest, DataFileKey, DeleteFileKey, KafkaPartition, ObjectKey, OffsetChunk, OffsetRange,
    chunks,
};

use crate::beside::Attachment;
use crate::covered::Piece;
use crate::epochs::EpochHistory;
use crate::error_files::causes_bound;
use crate::facts::{ChunkFacts, recipe};
use crate::plan::{Inputs, View, uri};
use crate::table_rules::RowLayout;

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
