//! Rows' positions, gathered into sets.

use std::collections::BTreeMap;

use isk_model::{KafkaPartition, Offset, OffsetRange, OffsetSet};

/// A file of more Kafka partitions is no file of one topic.
const MAX_PARTITIONS: usize = 100_000;

/// Positions of one file. Rows mostly come in runs, and a run costs one insertion.
#[derive(Default)]
pub(super) struct Gather {
    sets: BTreeMap<KafkaPartition, OffsetSet>,
    /// The run at hand: its partition, its first offset, and the offset behind its last.
    run: Option<(KafkaPartition, i64, i64)>,
}

impl Gather {
    /// Takes one row. What is null, negative or beyond an int is no position of a record.
    pub(super) fn row(
        &mut self,
        partition: Option<i64>,
        offset: Option<i64>,
    ) -> Result<(), String> {
        let (Some(partition), Some(offset)) = (partition, offset) else { return Ok(()) };
        let Some(partition) = i32::try_from(partition).ok().filter(|p| *p >= 0) else {
            return Ok(());
        };
        // The largest long is no offset either: nothing could come behind it.
        let Some(next) = offset.checked_add(1).filter(|_| offset >= 0) else { return Ok(()) };
        match &mut self.run {
            Some((p, _, end)) if p.0 == partition && *end == offset => *end = next,
            _ => {
                self.flush()?;
                self.run = Some((KafkaPartition(partition), offset, next));
            }
        }
        Ok(())
    }

    /// All positions.
    pub(super) fn finish(mut self) -> Result<BTreeMap<KafkaPartition, OffsetSet>, String> {
        self.flush()?;
        Ok(self.sets)
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some((partition, start, end)) = self.run.take() else { return Ok(()) };
        if let Some(range) = OffsetRange::new(Offset(start), Offset(end)) {
            self.sets.entry(partition).or_default().insert_range(range);
        }
        if self.sets.len() > MAX_PARTITIONS {
            return Err(format!("it holds more than {MAX_PARTITIONS} Kafka partitions"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_gaps_repeats_and_nonsense() {
        let mut gather = Gather::default();
        let rows = [
            (Some(0), Some(5)),
            (Some(0), Some(6)),
            (Some(1), Some(6)),
            (Some(0), Some(7)),
            (Some(0), Some(9)),
            (Some(0), Some(9)),
            (Some(0), Some(2)),
            (None, Some(100)),
            (Some(0), None),
            (Some(-1), Some(1)),
            (Some(1 << 40), Some(1)),
            (Some(0), Some(-7)),
            (Some(0), Some(i64::MAX)),
        ];
        for (partition, offset) in rows {
            gather.row(partition, offset).unwrap();
        }
        let sets = gather.finish().unwrap();
        let all = OffsetRange::new(Offset(0), Offset(1000)).unwrap();
        let of = |p: i32| -> Vec<(i64, i64)> {
            sets[&KafkaPartition(p)].runs(all).map(|r| (r.start().0, r.end().0)).collect()
        };
        assert_eq!(of(0), [(2, 3), (5, 8), (9, 10)]);
        assert_eq!(of(1), [(6, 7)]);
        assert_eq!(sets.len(), 2);
        assert_eq!(sets[&KafkaPartition(0)].len(), 5);
    }
}
