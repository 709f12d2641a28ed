//! The position-delete file that deletes nothing.
//!
//! An unproven chunk's manifest entry carries an upper bound of its rows as their count. A delete
//! entry beside it makes engines count by reading. The file behind that entry holds one row, for a
//! file that does not exist: entries that announce no row are pruned by some clients.

/// The bytes of the file: always the same, whatever library version this crate is built with.
pub fn empty_delete_file() -> &'static [u8] {
    include_bytes!("empty-position-delete.parquet")
}
