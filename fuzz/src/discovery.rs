//! Values that nobody describes: the columns that follow from some of them must show those.

use std::sync::Arc;

use isk_decode::{Looked, TopicDecoder, observe_json};
use isk_model::{KafkaPartition, Offset, RecordBlock, SchemaFormat, TimestampType};
use isk_schema::{
    CONFIGURED, FieldIdMap, Limits, MAX_PLACES, Observed, Shape, TableSchema, table_schema,
};

use crate::text;

/// Few columns, so that there is a rest, too.
const LIMITS: [Limits; 2] = [Limits { columns: 500, keys: 100 }, Limits { columns: 6, keys: 4 }];

/// The first byte chooses how many columns there may be. Lines are values: those of the first half are sampled first.
pub(crate) fn sample(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let limits = LIMITS[usize::from(*first & 1)];
    let values: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let (first, second) = values.split_at(values.len().div_ceil(2));

    let mut room = MAX_PLACES;
    let (mut all, objects) = look(first, &mut room);
    let narrow = Shape::of_records(&all, None, limits);
    let mut ids = FieldIdMap::default();
    decodes(&table(&narrow, &mut ids), &objects);

    let (more, more_objects) = look(second, &mut MAX_PLACES.clone());
    let mut room = MAX_PLACES.saturating_sub(all.places());
    all.merge(&more, &mut room);
    let kept = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Observed>(&kept).unwrap(), all);
    let wide = Shape::of_records(&all, Some(&narrow), limits);
    let table = table(&wide, &mut ids);
    decodes(&table, &objects);
    decodes(&table, &more_objects);
    // What was seen once more changes nothing.
    assert_eq!(Shape::of_records(&all, Some(&wide), limits), wide);
}

fn look<'v>(values: &[&'v [u8]], room: &mut usize) -> (Observed, Vec<&'v [u8]>) {
    let mut observed = Observed::default();
    let objects = values
        .iter()
        .filter(|value| observe_json(value, &mut observed, room) == Looked::Object)
        .copied()
        .collect();
    (observed, objects)
}

fn table(shape: &Shape, ids: &mut FieldIdMap) -> Arc<TableSchema> {
    let schema = text(CONFIGURED, SchemaFormat::Json, &shape.json_schema());
    Arc::new(table_schema(&[schema], &[], ids).unwrap())
}

fn decodes(table: &Arc<TableSchema>, objects: &[&[u8]]) {
    let mut decoder = TopicDecoder::new(Arc::clone(table), KafkaPartition(0)).unwrap();
    let mut block = RecordBlock::new();
    for (offset, value) in (0..).zip(objects) {
        block.push(Offset(offset), 1, TimestampType::CreateTime, None, Some(value), []);
    }
    let decoded = decoder.decode(&block).unwrap();
    assert_eq!(decoded.batch.num_rows(), objects.len());
    assert!(decoded.failures.is_empty(), "{:?}", decoded.failures);
}
