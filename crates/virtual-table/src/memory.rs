//! The memory that encodings take together: one budget of bytes, whoever they are for. And permits, by which it and readers'
//! slots are given out.
//!
//! Each takes its share before it begins: all that it may come to hold. So what is in flight stays below the budget,
//! however many may run at once, and none has to stop half-way for want of memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use isk_kafka::{BLOCK_MAX_BYTES, FETCH_BLOCKS};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Shares are counted in so many bytes.
const UNIT: u64 = 1 << 10;

/// What a block takes while it is decoded, in its own size: itself, which is counted with the fetch, and its columns.
const COLUMNS: u64 = 2;

/// Pages that are filled, levels, hash tables of dictionaries.
const WRITER: u64 = 8 << 20;

/// Permits, and who waits for some.
pub(crate) struct Permits {
    free: Semaphore,
    total: u32,
    waiting: AtomicUsize,
}

impl Permits {
    /// So many.
    pub(crate) fn new(total: usize) -> Self {
        let total = total.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let waiting = AtomicUsize::new(0);
        Self {
            free: Semaphore::new(total),
            total: u32::try_from(total).unwrap_or(u32::MAX),
            waiting,
        }
    }

    /// Waits for so many, in the order of asking. Who needs more than there are at all gets all of them, alone.
    pub(crate) async fn take(&self, count: u32) -> Option<SemaphorePermit<'_>> {
        let count = count.min(self.total);
        // Who finds them free does not wait. They are not while others stand in line: those get what is given back.
        if let Ok(permits) = self.free.try_acquire_many(count) {
            return Some(permits);
        }
        let _waiting = Waiting::new(&self.waiting);
        self.free.acquire_many(count).await.ok()
    }

    /// So many, if they are there now and nobody waits.
    pub(crate) fn try_take(&self, count: u32) -> Option<SemaphorePermit<'_>> {
        let free = !self.is_waited_for();
        free.then(|| self.free.try_acquire_many(count.min(self.total)).ok()).flatten()
    }

    /// Whether somebody waits.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// A budget, and who waits for a share of it.
pub(crate) struct Memory(Permits);

impl Memory {
    /// A budget of so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Permits::new(usize::try_from(bytes / UNIT).unwrap_or(usize::MAX)))
    }

    /// Waits for a share, in the order of asking. Who needs more than there is at all gets all of it, alone.
    pub(crate) async fn share(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        self.0.take(units(bytes)).await
    }

    /// A share, if it is there now and nobody waits.
    pub(crate) fn try_share(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        self.0.try_take(units(bytes))
    }

    /// Whether somebody waits for a share: then nobody rests who has one.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.0.is_waited_for()
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// One that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one encoding holds at the most: a broker's answer and the one behind it, the blocks of its fetch, one of them
/// as columns, and what is encoded of a row group. `records` bounds the bytes of all its records, where that is known.
/// A single record that is larger than a block comes on top.
pub(crate) fn encoding_bytes(records: u64, answers: u64, row_group: u64) -> u64 {
    let block = (BLOCK_MAX_BYTES as u64).min(records);
    let blocks = block.saturating_mul(FETCH_BLOCKS as u64 + COLUMNS);
    let least = answers.min(records).saturating_add(row_group.min(records));
    least.saturating_add(blocks).saturating_add(WRITER)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_in_flight_stays_below_the_budget() {
        let memory = Arc::new(Memory::new(100 * MIB));
        let (held, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..60_u64).map(|n| {
            let (memory, held, most) = (Arc::clone(&memory), Arc::clone(&held), Arc::clone(&most));
            tokio::spawn(async move {
                let bytes = (7 + n % 5 * 9) * MIB;
                let _share = memory.share(bytes).await.unwrap();
                most.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                held.fetch_sub(bytes, Ordering::SeqCst);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let most = most.load(Ordering::SeqCst);
        assert!(most <= 100 * MIB, "{} MiB", most / MIB);
        assert!(most > 50 * MIB, "several run at once: {} MiB", most / MIB);
        assert!(!memory.is_waited_for());
    }

    #[tokio::test]
    async fn one_that_needs_more_than_there_is_runs_alone() {
        let memory = Memory::new(10 * MIB);
        let large = memory.share(1 << 40).await.unwrap();
        let small = tokio::time::timeout(Duration::from_millis(50), memory.share(1));
        assert!(small.await.is_err());
        assert!(!memory.is_waited_for(), "who left does not wait");
        drop(large);
        assert!(memory.share(1).await.is_some());
    }

    #[test]
    fn small_files_take_small_shares() {
        let of = |records| encoding_bytes(records, 8 * MIB, 48 * MIB);
        assert!(of(10 << 10) < 9 * MIB, "{}", of(10 << 10));
        assert!(of(33 * MIB) < 100 * MIB, "{}", of(33 * MIB));
        assert_eq!(of(u64::MAX), of(1 << 30));
    }
}
