//! Plain values: what Kafka's own serializers write.

use isk_schema::PlainKind;

use crate::error::{Fault, Read};
use crate::sink::{Sink, unfit};

/// Reads one value as the one column of a row.
pub(crate) fn row(kind: PlainKind, bytes: &[u8], check_utf8: bool, sink: &mut Sink) -> Read<()> {
    let Sink::Struct(row) = sink else { return Err(unfit()) };
    match (kind, row.columns.first_mut().ok_or_else(unfit)?) {
        (PlainKind::String, Sink::Text(s)) => {
            if check_utf8 && let Err(e) = std::str::from_utf8(bytes) {
                return Err(Fault::new(format!("a text is not UTF-8: {e}")));
            }
            s.push(bytes)?;
        }
        (PlainKind::Short, Sink::Int(s)) => s.push(i16::from_be_bytes(whole(bytes)?).into()),
        (PlainKind::Int, Sink::Int(s)) => s.push(i32::from_be_bytes(whole(bytes)?)),
        (PlainKind::Long, Sink::Long(s)) => s.push(i64::from_be_bytes(whole(bytes)?)),
        (PlainKind::Float, Sink::Float(s)) => s.push(f32::from_be_bytes(whole(bytes)?)),
        (PlainKind::Double, Sink::Double(s)) => s.push(f64::from_be_bytes(whole(bytes)?)),
        (PlainKind::Uuid, Sink::Fixed(s)) => {
            let text = whole::<36>(bytes)?;
            let uuid = uuid::Uuid::try_parse_ascii(&text)
                .map_err(|e| Fault::new(format!("a text is no uuid: {e}")))?;
            s.push(uuid.as_bytes())?;
        }
        _ => return Err(unfit()),
    }
    row.end();
    Ok(())
}

fn whole<const N: usize>(bytes: &[u8]) -> Read<[u8; N]> {
    bytes.try_into().map_err(|_| {
        Fault::new(format!("it has {} bytes, and a value of its type has {N}", bytes.len()))
    })
}
