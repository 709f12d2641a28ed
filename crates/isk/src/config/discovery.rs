//! What is discovered of topics that nobody describes, as configured.

use anyhow::{Context, Result, bail};
use isk_schema::Limits;
use isk_virtual_table::{DiscoveryConfig, TopicFilter};
use serde::Deserialize;

/// The fewest columns that make sense, and the most that engines bear.
const COLUMNS: std::ops::RangeInclusive<usize> = 2..=5000;

/// The schemas of topics of which neither the registry nor `formats` says what their values are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// Whether they are looked for in the topics' records. Else the values are bytes.
    pub enabled: bool,
    /// Regular expressions over whole names: the topics that are looked at ...
    pub topics: Vec<String>,
    /// ... unless one of these matches.
    pub exclude: Vec<String>,
    /// The most columns of a topic, nested ones too; what has none is in the column of the rest.
    pub max_columns: usize,
    /// An object of more different keys is a map, and one column of JSON text.
    pub max_keys: usize,
    /// Whether topics of UTF-8 that is no JSON are tables of one column of text.
    pub text: bool,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            enabled: true,
            topics: vec![".*".into()],
            exclude: Vec::new(),
            max_columns: 500,
            max_keys: 100,
            text: false,
        }
    }
}

impl Discovery {
    /// The settings as the service takes them.
    pub fn config(&self) -> Result<DiscoveryConfig> {
        if !COLUMNS.contains(&self.max_columns) {
            bail!(
                "configuration key \"discovery.max_columns\" (ISK_DISCOVERY_MAX_COLUMNS) is {}: it is from {} to {}",
                self.max_columns,
                COLUMNS.start(),
                COLUMNS.end()
            );
        }
        Ok(DiscoveryConfig {
            enabled: self.enabled,
            topics: TopicFilter::new(&self.topics, &self.exclude)
                .context("configuration section [discovery]")?,
            limits: Limits { columns: self.max_columns, keys: self.max_keys },
            texts: self.text,
        })
    }
}
