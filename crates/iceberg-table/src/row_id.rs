//! Row ids of hot rows in a table of format v3 (specification, "Row Lineage").
//!
//! A row's id says which record it is: its Kafka partition and offset, in a range far above the ids that a
//! cold table comes to. So it is the same in every snapshot, however chunks are cut and whatever is left out
//! of them. Since offsets have gaps, hot files hold their rows' ids in a column; the ids that readers
//! would count from a file's first are not these.

use isk_model::{KafkaPartition, Offset};

use crate::merged::format_version;
use crate::plan::{PlannedFile, TableHead};

/// The field id of the column of row ids in data files.
pub const ROW_ID_FIELD: i32 = 2_147_483_540;

/// Its name.
pub const ROW_ID_NAME: &str = "_row_id";

/// All ids of hot rows have this bit, and no cold row's has.
const HOT: i64 = 1 << 62;

/// The bits of an offset.
const OFFSET_BITS: u32 = 42;

/// The bits of a Kafka partition.
const PARTITION_BITS: u32 = 20;

/// The id that no row has yet: above those of all hot rows.
pub(crate) const NEXT_ROW_ID: i64 = i64::MAX;

/// The id of a record's row; `None` where its offset or partition is too large for one.
pub fn row_id(partition: KafkaPartition, offset: Offset) -> Option<i64> {
    let fits = |n: i64, bits: u32| (0..(1i64 << bits) - 1).contains(&n);
    let partition = i64::from(partition.0);
    (fits(partition, PARTITION_BITS) && fits(offset.0, OFFSET_BITS))
        .then_some(HOT | (partition << OFFSET_BITS) | offset.0)
}

/// The first id of a file: no row of it has a smaller one.
pub(crate) fn first_row_id(file: &PlannedFile) -> Option<i64> {
    // That of the last offset must be an id too.
    row_id(file.partition, file.chunk.range.end())?;
    row_id(file.partition, file.chunk.range.start())
}

/// Whether the table's hot rows have ids: it is of format v3.
pub(crate) fn has_row_ids(head: &TableHead) -> bool {
    let version = head.cold.as_ref().map(|cold| format_version(&cold.metadata));
    matches!(version, Some(Ok(3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_has_its_own_id_above_all_cold_ones() {
        let id = |partition, offset| row_id(KafkaPartition(partition), Offset(offset));
        assert_eq!(id(0, 0), Some(1 << 62));
        let last = (1 << OFFSET_BITS) - 2;
        assert!(id(0, last).unwrap() < id(1, 0).unwrap());
        assert!(id((1 << PARTITION_BITS) - 2, last).unwrap() < NEXT_ROW_ID);
        assert_eq!(
            (id(0, last + 1), id((1 << PARTITION_BITS) - 1, 0), id(-1, 0)),
            (None, None, None)
        );
    }
}
