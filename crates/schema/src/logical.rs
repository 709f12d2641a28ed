//! Which logical type a schema object has, if it is valid where it stands.

use serde_json::{Map, Value};

use crate::avro::{Kind, Logical, TimeUnit};

/// The most decimal digits an Iceberg decimal can have.
const MAX_PRECISION: u64 = 38;

/// The logical type of a schema object whose encoding is `kind`. What is unknown or not valid on
/// `kind` is ignored: "implementations must ignore unknown logical types when reading, and should use
/// the underlying type"; the same for invalid ones.
pub(crate) fn logical_type(object: &Map<String, Value>, kind: &Kind) -> Option<Logical> {
    let name = object.get("logicalType")?.as_str()?;
    match (name, kind) {
        ("date", Kind::Int) => Some(Logical::Date),
        ("time-millis", Kind::Int) => Some(Logical::Time(TimeUnit::Millis)),
        ("time-micros", Kind::Long) => Some(Logical::Time(TimeUnit::Micros)),
        ("timestamp-millis", Kind::Long) => Some(Logical::Timestamp(TimeUnit::Millis)),
        ("timestamp-micros", Kind::Long) => Some(Logical::Timestamp(TimeUnit::Micros)),
        ("timestamp-nanos", Kind::Long) => Some(Logical::Timestamp(TimeUnit::Nanos)),
        ("local-timestamp-millis", Kind::Long) => Some(Logical::LocalTimestamp(TimeUnit::Millis)),
        ("local-timestamp-micros", Kind::Long) => Some(Logical::LocalTimestamp(TimeUnit::Micros)),
        ("local-timestamp-nanos", Kind::Long) => Some(Logical::LocalTimestamp(TimeUnit::Nanos)),
        ("uuid", Kind::String) => Some(Logical::Uuid),
        ("uuid", Kind::Fixed(t)) if t.size == 16 => Some(Logical::Uuid),
        ("duration", Kind::Fixed(t)) if t.size == 12 => Some(Logical::Duration),
        ("decimal", Kind::Bytes) => decimal(object, MAX_PRECISION),
        ("decimal", Kind::Fixed(t)) => decimal(object, digits_in(t.size).min(MAX_PRECISION)),
        _ => None,
    }
}

fn decimal(object: &Map<String, Value>, max_precision: u64) -> Option<Logical> {
    let precision = object.get("precision")?.as_u64()?;
    let scale = match object.get("scale") {
        None => 0,
        Some(scale) => scale.as_u64()?,
    };
    if precision == 0 || precision > max_precision || scale > precision {
        return None;
    }
    Some(Logical::Decimal {
        precision: u32::try_from(precision).ok()?,
        scale: u32::try_from(scale).ok()?,
    })
}

/// The most decimal digits that always fit a two's complement number of `size` bytes.
fn digits_in(size: usize) -> u64 {
    match size {
        0 => 0,
        // 16 bytes hold 38 digits; more are of no use here.
        1..=15 => {
            let largest = (1u128 << (8 * size - 1)) - 1;
            u64::from(largest.ilog10())
        }
        _ => MAX_PRECISION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_sizes_hold_the_digits_the_specification_says() {
        // floor(log10(2^(8n-1) - 1))
        for (size, digits) in
            [(0, 0), (1, 2), (2, 4), (4, 9), (8, 18), (15, 35), (16, 38), (99, 38)]
        {
            assert_eq!(digits_in(size), digits, "{size} bytes");
        }
    }
}
