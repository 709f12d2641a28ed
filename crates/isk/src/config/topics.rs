//! Which topics are tables, and what holds for some of them.

use anyhow::{Result, anyhow};
use isk_virtual_table::{RowLayout, TableRule};
use serde::Deserialize;

/// Which topics are tables. The patterns are regular expressions that match the whole name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// A topic is a table when one of these matches ...
    pub include: Vec<String>,
    /// ... and none of these. Kafka's internal topics are never tables.
    pub exclude: Vec<String>,
    /// What holds for some of them. Of the settings whose pattern matches a topic and that have some key,
    /// the first one counts.
    pub settings: Vec<TopicSettings>,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            include: vec![".*".into()],
            exclude: vec!["_schemas".into(), "_confluent.*".into()],
            settings: Vec::new(),
        }
    }
}

/// What holds for some topics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSettings {
    /// A regular expression that matches the topic's whole name.
    pub topic: String,
    /// The layout of the topic's table: `flat`, `raw` or `json`.
    #[serde(default)]
    pub layout: Option<String>,
}

impl TopicSettings {
    /// The rule that these settings are.
    pub fn rule(&self) -> Result<TableRule> {
        let topic = &self.topic;
        let mut rule = TableRule::new(topic).map_err(|e| {
            anyhow!(
                "configuration key \"topics.settings\": {topic:?} is no regular expression: {e}"
            )
        })?;
        if let Some(layout) = &self.layout {
            let known = RowLayout::of_name(layout);
            rule.layout = Some(known.ok_or_else(|| {
                let all = RowLayout::ALL.map(RowLayout::name).join(", ");
                anyhow!(
                    "configuration key \"topics.settings\": topic {topic:?} has layout {layout:?}: it is \
                     one of {all}"
                )
            })?);
        }
        Ok(rule)
    }
}
