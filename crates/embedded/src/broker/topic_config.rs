//! Topic configuration: which names are known, what is acted on, what is only stored. Pure.

use std::collections::BTreeMap;

/// Configurations a topic can have, with their defaults. Only `max.message.bytes`,
/// `message.timestamp.type` and `retention.bytes` change what this broker does.
const KNOWN: [(&str, &str); 20] = [
    ("cleanup.policy", "delete"),
    ("compression.type", "producer"),
    ("delete.retention.ms", "86400000"),
    ("file.delete.delay.ms", "60000"),
    ("flush.messages", "9223372036854775807"),
    ("flush.ms", "9223372036854775807"),
    ("index.interval.bytes", "4096"),
    ("max.compaction.lag.ms", "9223372036854775807"),
    ("max.message.bytes", ""),
    ("message.timestamp.after.max.ms", "9223372036854775807"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.type", "CreateTime"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("min.compaction.lag.ms", "0"),
    ("min.insync.replicas", "1"),
    ("retention.bytes", "-1"),
    ("retention.ms", "-1"),
    ("segment.bytes", "1073741824"),
    ("segment.ms", "604800000"),
    ("unclean.leader.election.enable", "false"),
];

/// A topic's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicConfig {
    /// Every known name: `(value, whether it was set for this topic)`.
    pub(crate) entries: BTreeMap<&'static str, (String, bool)>,
    pub(crate) max_message_bytes: usize,
    pub(crate) log_append_time: bool,
    /// `None` where only the broker's own bounds hold.
    pub(crate) retention_bytes: Option<usize>,
}

impl TopicConfig {
    /// Checks what a creator asked for.
    ///
    /// # Errors
    /// A text for the client: an unknown name, or a value out of range.
    pub(crate) fn new(asked: &[(String, String)], max_message: usize) -> Result<Self, String> {
        let mut entries: BTreeMap<&'static str, (String, bool)> =
            KNOWN.iter().map(|(name, value)| (*name, ((*value).to_owned(), false))).collect();
        entries.insert("max.message.bytes", (max_message.to_string(), false));
        for (name, value) in asked {
            match entries.get_mut(name.as_str()) {
                Some(entry) => *entry = (value.clone(), true),
                None => return Err(format!("unknown topic configuration {name}")),
            }
        }
        let value = |name| entries.get(name).map_or("", |(value, _)| value.as_str());
        let number = |name| {
            let text = value(name);
            text.parse::<i64>().map_err(|_| format!("{name}={text} is no whole number"))
        };
        let max_message_bytes = usize::try_from(number("max.message.bytes")?)
            .map_err(|_| "max.message.bytes must not be negative".to_owned())?;
        let log_append_time = match value("message.timestamp.type") {
            "CreateTime" => false,
            "LogAppendTime" => true,
            other => return Err(format!("message.timestamp.type={other} is no timestamp type")),
        };
        let policies = value("cleanup.policy");
        if !policies.split(',').all(|p| matches!(p.trim(), "delete" | "compact")) {
            return Err(format!("cleanup.policy={policies} is neither delete nor compact"));
        }
        number("retention.ms")?;
        let retention_bytes = usize::try_from(number("retention.bytes")?).ok();
        Ok(Self { max_message_bytes, log_append_time, retention_bytes, entries })
    }

    /// Names that were set and that this broker stores but does not act on.
    pub(crate) fn idle(&self) -> Vec<&'static str> {
        let acted_on = ["max.message.bytes", "message.timestamp.type", "retention.bytes"];
        let set = self.entries.iter().filter(|(_, (_, set))| *set).map(|(name, _)| *name);
        set.filter(|name| !acted_on.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(asked: &[(&str, &str)]) -> Result<TopicConfig, String> {
        let asked: Vec<_> = asked.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        TopicConfig::new(&asked, 1000)
    }

    #[test]
    fn defaults_and_settings() {
        let default = config(&[]).unwrap();
        assert_eq!((default.max_message_bytes, default.retention_bytes), (1000, None));
        assert!(default.idle().is_empty());
        let set = config(&[
            ("cleanup.policy", "compact,delete"),
            ("message.timestamp.type", "LogAppendTime"),
            ("max.message.bytes", "5"),
            ("retention.bytes", "77"),
        ]);
        let set = set.unwrap();
        assert!(set.log_append_time);
        assert_eq!((set.max_message_bytes, set.retention_bytes), (5, Some(77)));
        assert_eq!(set.idle(), ["cleanup.policy"]);
    }

    #[test]
    fn refusals_name_the_setting() {
        for (name, value) in [
            ("no.such", "1"),
            ("max.message.bytes", "many"),
            ("max.message.bytes", "-1"),
            ("message.timestamp.type", "Never"),
            ("cleanup.policy", "burn"),
            ("retention.ms", "soon"),
        ] {
            let text = config(&[(name, value)]).unwrap_err();
            assert!(text.contains(name), "{text}");
        }
    }
}
