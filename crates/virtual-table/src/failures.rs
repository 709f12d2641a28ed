//! The records that did not decode while files were made: counted by topic and stage, told of in the log.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use isk_decode::{DecodeFailure, FailureStage};
use isk_model::DataFileKey;

/// How often the log tells of a topic's records that failed at one stage, at the most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What is counted of one topic: for each of [`FailureStage::ALL`].
type Stages = [Stage; FailureStage::ALL.len()];

#[derive(Debug, Clone, Copy, Default)]
struct Stage {
    count: u64,
    told: Option<Instant>,
    /// How many were not told of one by one.
    untold: u64,
}

/// By topic: keys and values that did not decode, each time that they were met.
#[derive(Debug, Default)]
pub(crate) struct DecodeFailures(Mutex<BTreeMap<String, Stages>>);

impl DecodeFailures {
    /// Counts failures of one file, and tells of some of them.
    pub(crate) fn note<'a>(
        &self,
        key: &DataFileKey,
        failures: impl IntoIterator<Item = &'a DecodeFailure>,
    ) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for failure in failures {
            let stages = topics.entry(key.topic.to_string()).or_default();
            let stage = &mut stages[failure.stage as usize];
            stage.count += 1;
            if stage.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
                stage.untold += 1;
                continue;
            }
            tracing::warn!(
                topic = %key.topic, partition = key.partition.0, offset = failure.offset.0,
                part = ?failure.part, schema_id = failure.schema_id.map(|id| id.0),
                stage = failure.stage.as_str(), cause = %failure.cause, untold = stage.untold,
                "a record did not decode (and as many untold ones before it): see table errors.{}",
                key.topic
            );
            (stage.told, stage.untold) = (Some(Instant::now()), 0);
        }
    }

    /// The counter in the Prometheus text format.
    pub(crate) fn render(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "# HELP isk_decode_failures_total Keys and values that did not decode, whenever one was met.\n\
             # TYPE isk_decode_failures_total counter"
        );
        for (topic, stages) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (stage, counted) in FailureStage::ALL.iter().zip(stages) {
                if counted.count > 0 {
                    // A topic name holds nothing that a label value would have to escape.
                    let _ = writeln!(
                        out,
                        "isk_decode_failures_total{{topic=\"{topic}\",stage=\"{}\"}} {}",
                        stage.as_str(),
                        counted.count
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use isk_decode::RecordPart;
    use isk_model::Offset;

    use super::*;
    use crate::facts::tests::key;

    #[test]
    fn failures_are_counted_by_stage() {
        let failures = DecodeFailures::default();
        let failure = |stage| DecodeFailure {
            offset: Offset(3),
            row: 3,
            part: RecordPart::Value,
            stage,
            cause: "why".into(),
            schema_id: None,
        };
        let all = FailureStage::ALL.map(failure);
        failures.note(&key("t"), &all);
        failures.note(&key("t"), &all[4..]);
        failures.note(&key("u"), &all[..1]);
        let mut text = String::new();
        failures.render(&mut text);
        for (line, count) in [
            ("topic=\"t\",stage=\"framing\"", 1),
            ("topic=\"t\",stage=\"lookup\"", 1),
            ("topic=\"t\",stage=\"resolution\"", 1),
            ("topic=\"t\",stage=\"decode\"", 1),
            ("topic=\"t\",stage=\"conversion\"", 2),
            ("topic=\"u\",stage=\"framing\"", 1),
        ] {
            let line = format!("isk_decode_failures_total{{{line}}} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(!text.contains("topic=\"u\",stage=\"decode\""));
    }
}
