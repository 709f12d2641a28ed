//! The answer to a Fetch of one partition, versions 4 to 12, in place: its records are not copied.

use super::cursor::Cursor;

/// A producer's transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTransaction {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
}

/// What a broker says of the partition that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition<'a> {
    pub(crate) error: i16,
    pub(crate) last_stable_offset: i64,
    pub(crate) aborted: Vec<AbortedTransaction>,
    /// Another broker to read from, or -1.
    pub(crate) preferred_read_replica: i32,
    /// Whether the log does not hold what was read before (KIP-595).
    pub(crate) diverging: bool,
    pub(crate) records: &'a [u8],
}

/// A Fetch answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub(crate) throttle_ms: i32,
    pub(crate) error: i16,
    /// Missing when the broker puts the client off (KIP-219).
    pub(crate) partition: Option<Partition<'a>>,
}

/// Reads an answer's body; `None` when it is none. A client that asks for one partition gets one.
pub(crate) fn parse(body: &[u8], version: i16, index: i32) -> Option<Answer<'_>> {
    let mut cursor = Cursor::new(body);
    let flexible = version >= 12;
    let throttle_ms = cursor.i32()?;
    let error = if version >= 7 { cursor.i16()? } else { 0 };
    if version >= 7 {
        cursor.i32()?;
    }
    let mut partition = None;
    for _ in 0..length(&mut cursor, flexible)?? {
        let name = length_of_string(&mut cursor, flexible)?;
        cursor.bytes(name)?;
        for _ in 0..length(&mut cursor, flexible)?? {
            let (found, read) = read_partition(&mut cursor, version, flexible)?;
            if found == index {
                partition = Some(read);
            }
        }
        skip_tags(&mut cursor, flexible)?;
    }
    skip_tags(&mut cursor, flexible)?;
    Some(Answer { throttle_ms, error, partition })
}

fn read_partition<'a>(
    cursor: &mut Cursor<'a>,
    version: i16,
    flexible: bool,
) -> Option<(i32, Partition<'a>)> {
    let (index, error) = (cursor.i32()?, cursor.i16()?);
    let _high_watermark = cursor.i64()?;
    let last_stable_offset = cursor.i64()?;
    if version >= 5 {
        let _log_start = cursor.i64()?;
    }
    let mut aborted = Vec::new();
    for _ in 0..length(cursor, flexible)?.unwrap_or(0) {
        let (producer_id, first_offset) = (cursor.i64()?, cursor.i64()?);
        skip_tags(cursor, flexible)?;
        aborted.push(AbortedTransaction { producer_id, first_offset });
    }
    let preferred_read_replica = if version >= 11 { cursor.i32()? } else { -1 };
    let len = length(cursor, flexible)?.unwrap_or(0);
    let records = cursor.bytes(len)?;
    let diverging = flexible && read_tags(cursor)?;
    let read = Partition {
        error,
        last_stable_offset,
        aborted,
        preferred_read_replica,
        diverging,
        records,
    };
    Some((index, read))
}

/// The length of an array or of bytes; the inner `None` is null.
#[allow(clippy::option_option)]
fn length(cursor: &mut Cursor<'_>, flexible: bool) -> Option<Option<usize>> {
    if flexible {
        let coded = usize::try_from(cursor.uvarint()?).ok()?;
        return Some(coded.checked_sub(1));
    }
    match cursor.i32()? {
        -1 => Some(None),
        len => usize::try_from(len).ok().map(Some),
    }
}

fn length_of_string(cursor: &mut Cursor<'_>, flexible: bool) -> Option<usize> {
    if flexible { length(cursor, true)? } else { usize::try_from(cursor.i16()?).ok() }
}

fn skip_tags(cursor: &mut Cursor<'_>, flexible: bool) -> Option<()> {
    if flexible {
        read_tags(cursor)?;
    }
    Some(())
}

/// Passes over tagged fields; whether there is one of number 0, a partition's diverging epoch.
pub(crate) fn read_tags(cursor: &mut Cursor<'_>) -> Option<bool> {
    let mut first = false;
    for _ in 0..cursor.uvarint()? {
        first |= cursor.uvarint()? == 0;
        let len = usize::try_from(cursor.uvarint()?).ok()?;
        cursor.bytes(len)?;
    }
    Some(first)
}
