//! What is whose, where callers are told apart: a vended key opens its table's folders, a principal's own key what the
//! rules let the principal read.

use std::sync::Arc;

use isk_access::{Access, KafkaSilent, Right, S3Caller, Scope, TableName};
use isk_model::{ColumnRules, split_folder};
use isk_virtual_table::COLDSET;
use s3s::{S3Error, S3ErrorCode, S3Result};

/// The tables whose rows the objects of a bucket's topic hold, as namespace and name.
type Parts = Box<dyn Fn(&str, &str) -> Vec<(String, String)> + Send + Sync>;

/// Knows what is whose.
pub(crate) struct Owners {
    pub access: Access,
    pub parts: Parts,
}

/// What a request wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub operation: &'a str,
    pub bucket: Option<&'a str>,
    pub key: Option<&'a str>,
    /// Of a listing.
    pub prefix: &'a str,
    /// Whether it changes something in the coldset.
    pub writes: bool,
    /// Whether the bucket is one of ours.
    pub ours: bool,
}

impl Owners {
    /// Lets a request through that the caller may make.
    pub(crate) fn check(&self, caller: &S3Caller, wanted: &Wanted<'_>) -> S3Result<()> {
        let allowed = match caller {
            S3Caller::Vended(scope) => self.in_scope(scope, wanted),
            S3Caller::Principal(principal) => {
                let right = if wanted.writes { Right::Write } else { Right::Read };
                self.tables(wanted).is_none_or(|t| self.access.may(principal, right, &t))
            }
        };
        if allowed {
            return Ok(());
        }
        let message = match caller {
            S3Caller::Vended(_) => {
                "this key is good for the files of the table that it was vended with, as long as its owner may read \
                 that table, and for nothing else"
            }
            S3Caller::Principal(_) => "no rule of the access file allows that to this key's owner",
        };
        Err(S3Error::with_message(S3ErrorCode::AccessDenied, message))
    }

    /// Whether Kafka lets a caller read, who is known to it.
    pub(crate) async fn check_kafka(&self, caller: &S3Caller, wanted: &Wanted<'_>) -> S3Result<()> {
        let tables = self.all_tables(caller, wanted);
        if tables.is_empty() || !self.access.is_known_to_kafka(caller.caller()) {
            return Ok(());
        }
        let rights = self.access.rights(caller.caller(), &[tables]).await;
        let (code, message) = match rights.map(|rights| rights.first().copied().flatten()) {
            Ok(right) if right >= Some(Right::Read) => return Ok(()),
            Ok(_) => {
                let why = "Kafka does not let the key's owner read the topic: its login to Kafka needs READ on it";
                (S3ErrorCode::AccessDenied, why.to_owned())
            }
            Err(KafkaSilent::Refused(why)) => (S3ErrorCode::AccessDenied, why),
            Err(KafkaSilent::Unavailable(why)) => (S3ErrorCode::ServiceUnavailable, why),
        };
        Err(S3Error::with_message(code, message))
    }

    /// The tables that what is asked shows, or could: by its name, and by what the key was vended with.
    fn all_tables(&self, caller: &S3Caller, wanted: &Wanted<'_>) -> Vec<TableName> {
        let mut tables = self.tables(wanted).unwrap_or_default();
        if let S3Caller::Vended(scope) = caller {
            tables.extend(scope.tables.iter().cloned());
            // A vended key says better than a name which of the coldset's tables it is.
            tables.retain(|table| *table != TableName::all_of(COLDSET));
        }
        tables
    }

    /// The rules about columns that the caller is under, where they are those that the object was made for.
    pub(crate) fn columns(
        &self,
        caller: &S3Caller,
        wanted: &Wanted<'_>,
    ) -> S3Result<Option<Arc<ColumnRules>>> {
        let mut tables = self.tables(wanted).unwrap_or_default();
        if let S3Caller::Vended(scope) = caller {
            tables.extend(scope.tables.iter().cloned());
        }
        let rules = self.access.columns(caller.caller(), &tables);
        let path = wanted.key.unwrap_or(wanted.prefix);
        let folder = path.split('/').next().unwrap_or_default();
        let made_for = if wanted.ours { split_folder(folder).1 } else { None };
        let theirs = rules.as_ref().map(|rules| rules.digest().to_string());
        // What tells of no table (whether a bucket is there) shows no column.
        if made_for == theirs.as_deref() || (wanted.key.is_none() && !is_listing(wanted.operation))
        {
            return Ok(rules);
        }
        let message = "rules of the access file are about columns of this table, and this object is not what they let \
                       the key's owner see; load the table again";
        Err(S3Error::with_message(S3ErrorCode::AccessDenied, message))
    }

    fn in_scope(&self, scope: &Scope, wanted: &Wanted<'_>) -> bool {
        let right = if wanted.writes { Right::Write } else { Right::Read };
        if (wanted.writes && !scope.writes) || !self.access.may(&scope.caller, right, &scope.tables)
        {
            return false;
        }
        match (wanted.bucket, wanted.key) {
            (None, _) => false,
            (Some(bucket), Some(key)) => scope.covers(bucket, key),
            (Some(bucket), None) if is_listing(wanted.operation) => {
                scope.covers(bucket, wanted.prefix)
            }
            // Deletions of many, whose keys are in the body, are looked at when that is read.
            (Some(bucket), None) => scope.touches(bucket),
        }
    }

    /// The tables that a principal must have a right on; `None`: what is asked tells of no table.
    pub(crate) fn tables(&self, wanted: &Wanted<'_>) -> Option<Vec<TableName>> {
        let bucket = wanted.bucket?;
        if !wanted.ours {
            // Which table of the coldset an object belongs to, its key does not tell.
            return Some(vec![TableName::all_of(COLDSET)]);
        }
        let path = match wanted.key {
            Some(key) => key,
            None if is_listing(wanted.operation) => wanted.prefix,
            None => return None,
        };
        let topic = path.split_once('/').map_or("*", |(folder, _)| split_folder(folder).0);
        let parts = (self.parts)(bucket, topic);
        Some(parts.into_iter().map(|(namespace, table)| TableName { namespace, table }).collect())
    }
}

fn is_listing(operation: &str) -> bool {
    operation.starts_with("ListObject") || operation == "ListMultipartUploads"
}

/// Whether a caller may delete these objects of a bucket, which it may write to.
pub(crate) fn check_keys<'a>(
    caller: Option<&S3Caller>,
    bucket: &str,
    mut keys: impl Iterator<Item = &'a str>,
) -> S3Result<()> {
    match caller {
        Some(S3Caller::Vended(scope)) if !keys.all(|key| scope.covers(bucket, key)) => {
            let message = "an object is none of the table's that this key was vended with";
            Err(S3Error::with_message(S3ErrorCode::AccessDenied, message))
        }
        _ => Ok(()),
    }
}
