//! What a cold table says of itself: which records it holds, in a property of the table or in the summary
//! of a snapshot, where no columns say it, or where more was moved than is there.

use iceberg::spec::{Datum, PrimitiveLiteral};
use isk_model::{Boundary, KafkaPartition, Offset, OffsetRange};
use serde_json::Value;

use crate::covered::{Covered, Ranges};

/// `partition:end offset,…`: all offsets below each are covered.
const OFFSETS: &str = "isk.covered-offsets";

/// A moment: all records with an earlier timestamp are covered.
const BOUNDARY: &str = "isk.boundary-timestamp";

/// What is stated.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Stated {
    pub ranges: Ranges,
    pub before: Option<Boundary>,
}

impl Stated {
    /// Reads properties.
    ///
    /// # Errors
    /// Which of them is not of its form.
    pub(crate) fn read(properties: Option<&Value>) -> Result<Self, String> {
        let value = |key: &str| properties.and_then(|properties| properties.get(key));
        let ranges = match value(OFFSETS) {
            Some(value) => value.as_str().and_then(end_offsets).ok_or_else(|| {
                format!("states {OFFSETS} = {value}, which is not of the form \"0:1000,1:2000\"")
            })?,
            None => Vec::new(),
        };
        let before = match value(BOUNDARY) {
            Some(value) => Some(value.as_str().and_then(boundary).ok_or_else(|| {
                format!(
                    "states {BOUNDARY} = {value}, which is neither a time with its zone \
                     (\"2026-01-31T00:00:00Z\") nor milliseconds since 1970"
                )
            })?),
            None => None,
        };
        Ok(Self { ranges, before })
    }

    /// Whether all of it is covered already.
    pub(crate) fn is_in(&self, covered: &Covered) -> bool {
        self.before <= covered.before && self.ranges.iter().all(|&(p, range)| covered.has(p, range))
    }
}

fn end_offsets(text: &str) -> Option<Ranges> {
    let one = |part: &str| {
        let (partition, end) = part.trim().split_once(':')?;
        let end: i64 = end.parse().ok()?;
        let partition = KafkaPartition(partition.parse().ok()?);
        // Nothing is stated of a partition that ends at 0.
        Some(OffsetRange::new(Offset(0), Offset(end)).map(|range| (partition, range)))
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let parts: Option<Vec<_>> = parts.map(one).collect();
    Some(parts?.into_iter().flatten().collect())
}

fn boundary(text: &str) -> Option<Boundary> {
    let text = text.trim();
    if let Ok(ms) = text.parse() {
        return Some(Boundary(ms));
    }
    match Datum::timestamptz_from_str(text).ok()?.literal() {
        // Kafka's timestamps are whole milliseconds: those before a fraction of one are those before
        // the next.
        PrimitiveLiteral::Long(micros) => {
            let ms = micros.div_euclid(1000);
            Some(Boundary(if micros.rem_euclid(1000) == 0 { ms } else { ms + 1 }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn vectors_of_end_offsets_are_read_or_refused() {
        let range = |end| OffsetRange::new(Offset(0), Offset(end)).unwrap();
        assert_eq!(
            end_offsets("0:10, 2:7,1:0"),
            Some(vec![(KafkaPartition(0), range(10)), (KafkaPartition(2), range(7))])
        );
        assert_eq!(end_offsets(""), Some(vec![]));
        for bad in ["0", "a:1", "0:x", "0:1;1:2"] {
            assert_eq!(end_offsets(bad), None, "{bad}");
        }
    }

    #[test]
    fn boundaries_are_times_with_a_zone_or_milliseconds() {
        for (text, ms) in [
            ("1767225600000", 1_767_225_600_000),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01T01:00:00.000+01:00", 1_767_225_600_000),
            ("2026-01-01T00:00:00.000001Z", 1_767_225_600_001),
            ("1969-12-31T23:59:59.9995Z", 0),
            ("-5", -5),
        ] {
            assert_eq!(boundary(text), Some(Boundary(ms)), "{text}");
        }
        for bad in ["", "2026-01-01", "2026-01-01T00:00:00", "yesterday"] {
            assert_eq!(boundary(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_of_another_form_is_named() {
        for (key, value) in [(OFFSETS, json!("0")), (BOUNDARY, json!("soon")), (BOUNDARY, json!(5))]
        {
            let error = Stated::read(Some(&json!({ key: value }))).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
        assert_eq!(Stated::read(None), Ok(Stated::default()));
    }
}
