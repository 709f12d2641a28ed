//! Which batches of a Fetch answer belong to aborted transactions.
//!
//! As the Java consumer does it: the answer lists producers with the first offsets of their aborted
//! transactions, and a transaction ends at its producer's abort marker.

use std::collections::HashSet;

use super::answer::AbortedTransaction;
use super::batch::{Batch, BatchError};
use super::cursor::Cursor;
use super::records::Records;
use super::unpack::Unpacker;

/// The type of the marker that ends an aborted transaction, in a control record's key.
const ABORT: i16 = 0;

/// Aborted transactions of one answer, while its batches are read in order.
pub(crate) struct Aborted {
    /// Those that begin later, the next one last.
    later: Vec<AbortedTransaction>,
    /// Producers whose aborted transactions have begun.
    open: HashSet<i64>,
}

impl Aborted {
    pub(crate) fn new(mut listed: Vec<AbortedTransaction>) -> Self {
        listed.sort_unstable_by_key(|t| std::cmp::Reverse(t.first_offset));
        Self { later: listed, open: HashSet::new() }
    }

    /// Whether a batch's records are to be left out. Every batch of the answer is asked about, once and in
    /// order.
    pub(crate) fn hides(
        &mut self,
        batch: &Batch<'_>,
        unpacker: &mut Unpacker,
    ) -> Result<bool, BatchError> {
        if batch.producer_id < 0 {
            return Ok(batch.is_control());
        }
        while let Some(begun) = self.later.pop_if(|t| t.first_offset <= batch.last_offset) {
            self.open.insert(begun.producer_id);
        }
        if batch.is_control() {
            if is_abort(batch, unpacker.unpack(batch)?)? {
                self.open.remove(&batch.producer_id);
            }
            return Ok(true);
        }
        Ok(batch.is_transactional() && self.open.contains(&batch.producer_id))
    }
}

fn is_abort(batch: &Batch<'_>, unpacked: &[u8]) -> Result<bool, BatchError> {
    // The cleaner may leave a marker's batch without its record.
    let Some(record) = Records::new(batch, unpacked).next().transpose()? else { return Ok(false) };
    let mut key = Cursor::new(record.key.unwrap_or_default());
    let (version, kind) = (key.i16(), key.i16());
    match (version, kind) {
        (Some(0..), Some(kind)) => Ok(kind == ABORT),
        _ => Err(BatchError::Invalid("a control record without a type")),
    }
}
