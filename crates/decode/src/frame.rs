//! The Confluent wire format: a zero byte, the schema's id in four bytes big-endian, the payload.

use isk_model::RegistrySchemaId;

use crate::error::{Fault, Read};

/// The length of the framing in bytes.
const HEADER: usize = 5;

/// The schema id of a framed value and its payload.
pub(crate) fn parse(value: &[u8]) -> Read<(RegistrySchemaId, &[u8])> {
    match value {
        [0, a, b, c, d, payload @ ..] => {
            let id = i32::from_be_bytes([*a, *b, *c, *d]);
            if id < 0 {
                // No registry gives such ids: it need not be asked.
                return Err(Fault::new(format!("its schema id is {id}")));
            }
            Ok((RegistrySchemaId(id), payload))
        }
        [] => Err(Fault::new("it is empty: no schema id, no data")),
        [0, ..] => Err(Fault::new(format!(
            "it has {} bytes; the framing alone (a zero byte and a schema id) takes {HEADER}",
            value.len()
        ))),
        [magic, ..] => Err(Fault::new(format!(
            "it begins with byte {magic:#04x}, not with the zero byte of the Confluent wire format"
        ))),
    }
}
