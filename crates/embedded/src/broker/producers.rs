//! Idempotent producers of one partition: a batch that is sent again is acknowledged, not stored
//! again (KIP-98, without its transactions). Pure.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::error::ResponseError;

use super::batch::BatchHeader;

/// Kafka lets a producer have five requests in flight; so many batches may come again.
const REMEMBERED: usize = 5;
/// The most producers remembered per partition; the one silent for longest is forgotten.
const MAX_PRODUCERS: usize = 1000;

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: i32,
    last: i32,
    base_offset: i64,
}

#[derive(Debug, Default)]
struct Producer {
    epoch: i16,
    seen: VecDeque<Seen>,
    last_used: u64,
}

/// The producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    known: HashMap<i64, Producer>,
    uses: u64,
}

/// What to do with a batch.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    New,
    Repeated { base_offset: i64 },
    Refused(ResponseError),
}

impl Producers {
    /// Judges a batch by its producer id, epoch and sequence. A producer not heard of may begin
    /// anywhere, as in Kafka: its earlier batches may be gone.
    pub(crate) fn judge(&self, header: &BatchHeader) -> Verdict {
        if header.producer_id < 0 {
            return Verdict::New;
        }
        let Some(producer) = self.known.get(&header.producer_id) else { return Verdict::New };
        if header.producer_epoch < producer.epoch {
            return Verdict::Refused(ResponseError::InvalidProducerEpoch);
        }
        let (first, last) = (header.base_sequence, header.last_sequence());
        if header.producer_epoch > producer.epoch {
            return match first {
                0 => Verdict::New,
                _ => Verdict::Refused(ResponseError::OutOfOrderSequenceNumber),
            };
        }
        if let Some(seen) = producer.seen.iter().find(|s| s.first == first && s.last == last) {
            return Verdict::Repeated { base_offset: seen.base_offset };
        }
        let expected = match producer.seen.back() {
            Some(Seen { last: i32::MAX, .. }) => 0,
            Some(seen) => seen.last + 1,
            None => return Verdict::New,
        };
        if first == expected {
            Verdict::New
        } else {
            Verdict::Refused(ResponseError::OutOfOrderSequenceNumber)
        }
    }

    /// Remembers a batch that was appended.
    pub(crate) fn remember(&mut self, header: &BatchHeader, base_offset: i64) {
        if header.producer_id < 0 {
            return;
        }
        self.uses += 1;
        if self.known.len() >= MAX_PRODUCERS && !self.known.contains_key(&header.producer_id) {
            let idlest = self.known.iter().min_by_key(|(_, p)| p.last_used).map(|(id, _)| *id);
            self.known.retain(|id, _| Some(*id) != idlest);
        }
        let producer = self.known.entry(header.producer_id).or_default();
        if producer.epoch != header.producer_epoch {
            producer.seen.clear();
            producer.epoch = header.producer_epoch;
        }
        producer.last_used = self.uses;
        let (first, last) = (header.base_sequence, header.last_sequence());
        producer.seen.push_back(Seen { first, last, base_offset });
        if producer.seen.len() > REMEMBERED {
            producer.seen.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_id: i64, producer_epoch: i16, first: i32, count: i32) -> BatchHeader {
        BatchHeader {
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id,
            producer_epoch,
            base_sequence: first,
            record_count: count,
        }
    }

    #[test]
    fn sequences_are_followed() {
        let mut producers = Producers::default();
        let out_of_order = Verdict::Refused(ResponseError::OutOfOrderSequenceNumber);
        for (i, first) in (0..6).map(|i| (i, i as i32 * 10)) {
            let header = batch(7, 0, first, 10);
            assert_eq!(producers.judge(&header), Verdict::New);
            producers.remember(&header, i * 10);
        }
        assert_eq!(producers.judge(&batch(7, 0, 60, 3)), Verdict::New);
        assert_eq!(producers.judge(&batch(7, 0, 61, 3)), out_of_order);
        assert_eq!(producers.judge(&batch(7, 0, 20, 10)), Verdict::Repeated { base_offset: 20 });
        assert_eq!(producers.judge(&batch(7, 0, 0, 10)), out_of_order, "no longer remembered");
        assert_eq!(producers.judge(&batch(-1, -1, -1, 10)), Verdict::New);
        assert_eq!(producers.judge(&batch(8, 0, 99, 10)), Verdict::New);
    }

    #[test]
    fn epochs_fence() {
        let mut producers = Producers::default();
        producers.remember(&batch(7, 2, 0, 10), 0);
        let fenced = Verdict::Refused(ResponseError::InvalidProducerEpoch);
        assert_eq!(producers.judge(&batch(7, 1, 10, 1)), fenced);
        assert_eq!(producers.judge(&batch(7, 3, 0, 1)), Verdict::New);
        assert!(matches!(producers.judge(&batch(7, 3, 10, 1)), Verdict::Refused(_)));
        producers.remember(&batch(7, 3, 0, 1), 10);
        assert_eq!(producers.judge(&batch(7, 3, 1, 1)), Verdict::New);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::default();
        producers.remember(&batch(7, 0, i32::MAX - 1, 2), 0);
        assert_eq!(producers.judge(&batch(7, 0, 0, 1)), Verdict::New);
    }

    #[test]
    fn the_idlest_is_forgotten() {
        let mut producers = Producers::default();
        for id in 0..=MAX_PRODUCERS as i64 {
            producers.remember(&batch(id, 0, 0, 1), id);
        }
        assert_eq!(producers.known.len(), MAX_PRODUCERS);
        assert!(!producers.known.contains_key(&0));
    }
}
