//! How much one record, and one block, may unfold to.

use crate::error::{Fault, Read};

/// How many cells (values of columns, or bytes of defaults) the elements of arrays and maps of one
/// block may unfold to. Records past it fail. The payload of a block has far fewer
/// unless a few bytes of a writer become many columns of the reader.
pub const MAX_BLOCK_CELLS: u64 = 64 << 20;

/// The cells the elements of one record's arrays and maps may unfold to: so many for each of its
/// bytes, and some more.
const CELLS_PER_BYTE: u64 = 256;
const CELLS_BASE: u64 = 4096;

/// What is left to unfold to.
pub(crate) struct Budget {
    record: u64,
    /// For the block.
    pub block: u64,
}

impl Budget {
    /// For a record of `bytes`, in a block that has `block` left.
    pub(crate) fn new(bytes: usize, block: u64) -> Self {
        let record = (bytes as u64).saturating_mul(CELLS_PER_BYTE) + CELLS_BASE;
        Self { record, block }
    }

    /// Pays for `count` elements of `cells` cells each.
    pub(crate) fn charge(&mut self, count: u64, cells: u64) -> Read<()> {
        let cost = count.saturating_mul(cells.max(1));
        match self.record.checked_sub(cost) {
            Some(left) => self.record = left,
            None => {
                return Err(Fault::new(format!(
                    "{count} elements of {cells} columns each are more than its bytes can mean"
                )));
            }
        }
        self.charge_block(cost)
    }

    /// Pays for cells out of the block's budget alone.
    pub(crate) fn charge_block(&mut self, cells: u64) -> Read<()> {
        match self.block.checked_sub(cells) {
            Some(left) => {
                self.block = left;
                Ok(())
            }
            None => Err(Fault::new(format!(
                "it and the records around it unfold to more than {MAX_BLOCK_CELLS} cells"
            ))),
        }
    }
}
