//! What is shown of records that do not decode, as configured.

use anyhow::{Context, Result, anyhow};
use isk_virtual_table::{ErrorPolicies, ErrorPolicy};
use serde::Deserialize;

/// What tables show of records that do not decode.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// keep, skip or fail: of topics that none of the patterns names.
    pub policy: String,
    /// Regular expressions over whole names: topics that show rows with nulls in their place.
    pub keep: Vec<String>,
    /// Topics that leave them out.
    pub skip: Vec<String>,
    /// Topics of which a read fails.
    pub fail: Vec<String>,
}

impl Default for Errors {
    fn default() -> Self {
        Self {
            policy: ErrorPolicy::default().to_string(),
            keep: Vec::new(),
            skip: Vec::new(),
            fail: Vec::new(),
        }
    }
}

impl Errors {
    /// The policies of topics.
    pub fn policies(&self) -> Result<ErrorPolicies> {
        let policy = self
            .policy
            .parse::<ErrorPolicy>()
            .map_err(|e| anyhow!("configuration key \"errors.policy\" (ISK_ERRORS_POLICY): {e}"))?;
        ErrorPolicies::new(policy, &self.keep, &self.skip, &self.fail)
            .context("configuration section [errors]")
    }
}
