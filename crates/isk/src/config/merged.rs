//! How topics and cold tables belong together, and what is checked of it.

use anyhow::{Context, Result, anyhow, bail};
use isk_coldset::Upstream;
use serde::Deserialize;

use super::Config;

/// How topics and cold tables belong together.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Merged {
    /// The cold tables of topics; the first pattern that matches counts. A topic that none matches
    /// belongs with the table of its own name.
    pub topics: Vec<TopicTable>,
}

/// The cold table of some topics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicTable {
    /// A regular expression that matches the topic's whole name.
    pub topic: String,
    /// The table's name; `$1` and `${name}` stand for groups.
    pub table: String,
}

/// What is wrong with the settings of cold tables, before anything starts.
pub fn check(config: &Config) -> Result<()> {
    if let Some(coldset) = config.upstream()? {
        // What else is wrong with it shows when a client is made of it, without asking anything.
        Upstream::new(&coldset)
            .context("configuration section [coldset] (ISK_COLDSET_CLIENT_*)")?;
    } else if !config.merged.topics.is_empty() {
        bail!(
            "configuration key \"merged.topics\" is set, and there are no cold tables: name their \
             catalog with coldset.uri (ISK_COLDSET_CLIENT_URI)"
        );
    }
    for TopicTable { topic, table } in &config.merged.topics {
        let pattern = regex::Regex::new(topic).map_err(|e| {
            anyhow!("configuration key \"merged.topics\": {topic:?} is no regular expression: {e}")
        })?;
        if let Some(group) = unknown_group(&pattern, table) {
            bail!(
                "configuration key \"merged.topics\": table {table:?} names the group {group:?}, and \
                 topic {topic:?} has none such; put braces where letters follow: ${{1}}_x"
            );
        }
    }
    Ok(())
}

/// A group that a replacement names and its pattern has not. It would be replaced by nothing.
pub(super) fn unknown_group(pattern: &regex::Regex, replacement: &str) -> Option<String> {
    let names: Vec<&str> = pattern.capture_names().flatten().collect();
    let known = |name: &str| match name.parse::<usize>() {
        Ok(number) => number < pattern.captures_len(),
        Err(_) => names.contains(&name),
    };
    // "$$" is the sign itself.
    let text = replacement.replace("$$", "");
    text.split('$').skip(1).find_map(|rest| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = match rest.strip_prefix('{') {
            Some(braced) => braced.split('}').next().unwrap_or_default(),
            None => &rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())],
        };
        (!known(name)).then(|| name.to_owned())
    })
}
