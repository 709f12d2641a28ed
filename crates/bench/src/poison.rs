//! What one record that does not decode costs its chunk: decoding and encoding with and without it.

use std::hint::black_box;

use isk_model::{RecordBlock, RegistrySchemaId};

use crate::stages::{decoder, encode};
use crate::time::Report;

/// The records of the chunk.
const CHUNK: usize = 100_000;

/// Measures the chunk clean, and with its middle record spoilt in several ways.
pub(crate) fn measure(
    blocks: &[RecordBlock],
    schema: &str,
    id: RegistrySchemaId,
    report: &mut Report,
) -> anyhow::Result<()> {
    type Spoil = fn(&[u8]) -> Vec<u8>;
    let kinds: [(&str, Spoil); 4] = [
        ("chunk clean", <[u8]>::to_vec),
        ("chunk with wrong magic byte", |value| [&[7], &value[1..]].concat()),
        ("chunk with cut record", |value| value[..value.len() - 1].to_vec()),
        // All bytes behind the first fields: texts that are no UTF-8 make a block be decoded twice.
        ("chunk with flipped bytes", |value| {
            let flip = |(at, byte): (usize, &u8)| if at < 6 { *byte } else { byte ^ 0xc0 };
            value.iter().enumerate().map(flip).collect()
        }),
    ];
    for (name, spoil) in kinds {
        let chunk = spoilt(blocks, spoil);
        report.stage(name, || {
            let mut decoder = decoder(schema, id)?;
            let (mut batches, mut failed) = (Vec::new(), 0);
            for block in &chunk {
                let decoded = decoder.decode(block)?;
                failed += decoded.failures.len();
                batches.push(decoded.batch);
            }
            anyhow::ensure!(failed <= 1, "{failed} records do not decode");
            black_box(encode(&batches, CHUNK as u64)?);
            Ok(())
        })?;
    }
    Ok(())
}

/// The chunk's blocks, its middle record spoilt.
fn spoilt(blocks: &[RecordBlock], spoil: impl Fn(&[u8]) -> Vec<u8>) -> Vec<RecordBlock> {
    let mut left = CHUNK;
    let mut chunk = Vec::new();
    for block in blocks {
        let mut copy = RecordBlock::new();
        for record in block.iter().take(left) {
            let middle = left == CHUNK / 2;
            let bad = record.value.filter(|_| middle).map(&spoil);
            let value = bad.as_deref().or(record.value);
            let (at, time, kind) = (record.offset, record.timestamp_ms, record.timestamp_type);
            copy.push(at, time, kind, record.key, value, record.headers());
            left -= 1;
        }
        if !copy.is_empty() {
            chunk.push(copy);
        }
    }
    chunk
}
