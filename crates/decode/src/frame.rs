//! The Confluent wire format: a zero byte, the schema's id in four bytes big-endian, the payload.

use isk_model::{KafkaRecord, RegistrySchemaId, WriterId};

use crate::decoder::RecordPart;
use crate::error::{FailureStage, Fault, Read};
use crate::protobuf::Path;

/// A key or value, taken apart.
pub(crate) struct Framed<'a> {
    /// The schema it names.
    pub writer: WriterId,
    /// Where the path of a Protobuf message is.
    pub path: Path<'a>,
    /// What was written with the schema.
    pub payload: &'a [u8],
}

/// Takes a record's key or value apart. A schema that a header names counts; then the payload has no framing.
pub(crate) fn of_record<'a>(
    record: &KafkaRecord<'a>,
    part: RecordPart,
    bytes: &'a [u8],
) -> Read<Framed<'a>> {
    let name = match part {
        RecordPart::Key => "__key_schema_id",
        RecordPart::Value => "__value_schema_id",
    };
    let header = record.headers().find(|header| header.key == name.as_bytes());
    match header.and_then(|header| header.value) {
        Some(header) => {
            let (writer, path) = in_header(name, header)?;
            Ok(Framed { writer, path: Path::Apart(path), payload: bytes })
        }
        None => {
            let (id, payload) = parse(bytes)?;
            Ok(Framed { writer: WriterId::Id(id), path: Path::Leading, payload })
        }
    }
}

/// The schema that a header names: a zero byte and an id, or a byte of 1 and a GUID. What follows is the path of a
/// Protobuf message.
fn in_header<'a>(name: &str, header: &'a [u8]) -> Read<(WriterId, &'a [u8])> {
    if let [1, rest @ ..] = header
        && let Some((guid, path)) = rest.split_first_chunk::<16>()
    {
        return Ok((WriterId::Guid(*guid), path));
    }
    match header {
        [0, _, _, _, _, ..] => {
            let (id, path) = parse(header)?;
            Ok((WriterId::Id(id), path))
        }
        _ => Err(Fault::at(
            FailureStage::Framing,
            format!(
                "its header {name} of {} bytes is neither a zero byte and an id of four bytes nor a byte of 1 and a \
             GUID of 16",
                header.len()
            ),
        )),
    }
}

/// The length of the framing in bytes.
const HEADER: usize = 5;

/// The schema id of a framed value and its payload.
pub(crate) fn parse(value: &[u8]) -> Read<(RegistrySchemaId, &[u8])> {
    match value {
        [0, a, b, c, d, payload @ ..] => {
            let id = i32::from_be_bytes([*a, *b, *c, *d]);
            if id < 0 {
                // No registry gives such ids: it need not be asked.
                return Err(Fault::at(FailureStage::Framing, format!("its schema id is {id}")));
            }
            Ok((RegistrySchemaId(id), payload))
        }
        [] => Err(Fault::at(FailureStage::Framing, "it is empty: no schema id, no data")),
        [0, ..] => Err(Fault::at(
            FailureStage::Framing,
            format!(
                "it has {} bytes; the framing alone (a zero byte and a schema id) takes {HEADER}",
                value.len()
            ),
        )),
        [magic, ..] => Err(Fault::at(
            FailureStage::Framing,
            format!(
                "it begins with byte {magic:#04x}, not with the zero byte of the Confluent wire format"
            ),
        )),
    }
}
