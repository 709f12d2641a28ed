//! The gateway's keys in answers: one pair for all where everybody may come in, else keys of the caller's own that
//! are good for one table and a while.

use isk_access::{Caller, Right, TableName, VendedKey};
use isk_virtual_table::{COLDSET, ServiceError};

use crate::handlers::App;
use crate::settings::VendedS3;

/// Whom keys are for, and for which tables.
pub(crate) struct Vend<'a, S> {
    app: &'a App<S>,
    caller: &'a Caller,
    tables: Vec<TableName>,
    writes: bool,
    refresh_endpoint: String,
}

impl<S> App<S> {
    /// Keys to read with, for who may read all of `parts`.
    pub(crate) fn vend<'a>(&'a self, caller: &'a Caller, parts: Vec<TableName>) -> Vend<'a, S> {
        Vend { app: self, caller, tables: parts, writes: false, refresh_endpoint: String::new() }
    }

    /// Keys for a table of the coldset: to write with, too, where its caller may.
    pub(crate) fn vend_cold<'a>(&'a self, caller: &'a Caller, table: TableName) -> Vend<'a, S> {
        let writable = self.cold.as_deref().is_some_and(|cold| cold.upstream.is_writable());
        let tables = vec![table];
        let writes = writable && self.access.may(caller, Right::Write, &tables);
        Vend { app: self, caller, tables, writes, refresh_endpoint: String::new() }
    }
}

impl<S> Vend<'_, S> {
    /// The same, and where clients get new keys.
    pub(crate) fn refreshed_at(self, namespace: &str, table: &str) -> Self {
        let path = crate::cold_names::table_path(&[namespace], table);
        Self { refresh_endpoint: format!("v1/{path}/credentials"), ..self }
    }

    /// The settings for what lies under these prefixes. Whole buckets are left out of them: a table's files that
    /// lie outside of its own folders are not read with its keys.
    pub(crate) fn settings(&self, prefixes: &[String]) -> Result<VendedS3, ServiceError> {
        let folders: Vec<String> =
            prefixes.iter().filter(|prefix| is_folder(prefix)).cloned().collect();
        let vended = self.app.access.vend(self.caller, self.tables.clone(), &folders, self.writes);
        let vended =
            vended.map_err(|e| ServiceError::Internal(format!("a key cannot be made: {e}")))?;
        let base = self.app.settings.vended.clone();
        Ok(match vended {
            None => base,
            Some(VendedKey { access_key_id, secret_access_key, session_token, expires }) => {
                VendedS3 {
                    access_key_id,
                    secret_access_key,
                    session_token,
                    expires_at_ms: expires.map_or_else(String::new, |at| format!("{at}000")),
                    refresh_endpoint: self.refresh_endpoint.clone(),
                    ..base
                }
            }
        })
    }
}

fn is_folder(prefix: &str) -> bool {
    let path = prefix.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    path.is_some_and(|(_, key)| !key.trim_matches('/').is_empty())
}

/// A table of the coldset.
pub(crate) fn cold_table(table: &str) -> TableName {
    TableName::new(COLDSET, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_no_folder() {
        for (prefix, expected) in [
            ("s3://hotset/t", true),
            ("s3a://lake/a/b/", true),
            ("s3://lake/", false),
            ("s3://lake", false),
            ("s3://lake//", false),
            ("lake/t", false),
        ] {
            assert_eq!(is_folder(prefix), expected, "{prefix}");
        }
    }
}
