//! The principals and rules of one moment.

use std::fmt;

use isk_model::ColumnRules;

use crate::kafka::KafkaLogin;
use crate::principal::{Caller, Right, Source, Stamp, TableName};
use crate::rules::Rules;
use crate::secret::SecretDigest;

/// A long-lived key of an S3 client. Signatures cannot be checked without the secret itself.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Key {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
}

impl fmt::Debug for S3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Key").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// A principal, and what it is known by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfiguredPrincipal {
    /// Its name, which is also its OAuth2 client id.
    pub name: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// Its client secrets; several while one takes the other's place.
    pub secrets: Vec<SecretDigest>,
    /// Bearer tokens that never expire.
    pub api_keys: Vec<SecretDigest>,
    /// Its long-lived keys for the S3 gateway.
    pub s3_keys: Vec<S3Key>,
    /// Names in client certificates that are its own, with their kind: `dns:spark.example.com`.
    pub certificates: Vec<String>,
}

impl ConfiguredPrincipal {
    fn caller(&self, credential: &SecretDigest) -> Caller {
        Caller {
            name: self.name.clone(),
            groups: self.groups.clone(),
            source: Source::Configured(credential.stamp(&self.name)),
        }
    }

    fn has(&self, stamp: Stamp) -> bool {
        let own = self.secrets.iter().chain(&self.api_keys).cloned();
        let s3 = self.s3_keys.iter().map(s3_digest);
        let shown = self.certificates.iter().map(|name| certificate_digest(name));
        own.chain(s3).chain(shown).any(|credential| credential.stamp(&self.name) == stamp)
    }
}

fn s3_digest(key: &S3Key) -> SecretDigest {
    SecretDigest::of(format!("{}\0{}", key.access_key_id, key.secret_access_key).as_bytes())
}

fn certificate_digest(name: &str) -> SecretDigest {
    SecretDigest::of(format!("certificate\0{name}").as_bytes())
}

/// The principals and rules of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// The principals.
    pub principals: Vec<ConfiguredPrincipal>,
    /// The rules. Without any file of them, whoever is known may everything.
    pub rules: Option<Rules>,
}

impl Book {
    /// The principal of a client id and its secret.
    pub(crate) fn by_secret(&self, name: &str, secret: &str) -> Option<Caller> {
        let given = SecretDigest::of(secret.as_bytes());
        let principal = self.principals.iter().find(|principal| principal.name == name)?;
        let secret = principal.secrets.iter().find(|secret| secret.matches(&given))?;
        Some(principal.caller(secret))
    }

    /// The principal of an API key.
    pub(crate) fn by_api_key(&self, key: &str) -> Option<Caller> {
        let given = SecretDigest::of(key.as_bytes());
        self.principals.iter().find_map(|principal| {
            let found = principal.api_keys.iter().find(|known| known.matches(&given))?;
            Some(principal.caller(found))
        })
    }

    /// The long-lived S3 key of this id, and whose it is.
    pub(crate) fn by_s3_key(&self, access_key_id: &str) -> Option<(&S3Key, Caller)> {
        self.principals.iter().find_map(|principal| {
            let named = |key: &&S3Key| key.access_key_id == access_key_id;
            let key = principal.s3_keys.iter().find(named)?;
            Some((key, principal.caller(&s3_digest(key))))
        })
    }

    /// The principal that a client certificate's names are of. Names of two are nobody's.
    pub(crate) fn by_certificate(&self, names: &[String]) -> Option<Caller> {
        let mut known = self.principals.iter().filter_map(|principal| {
            let name = principal.certificates.iter().find(|name| names.contains(name))?;
            Some(principal.caller(&certificate_digest(name)))
        });
        let caller = known.next()?;
        known.next().is_none().then_some(caller)
    }

    /// The principal of this name as it is now, where it still has the credential that the stamp is of.
    pub(crate) fn by_stamp(&self, name: &str, stamp: Stamp) -> Option<Caller> {
        let principal = self.principals.iter().find(|principal| principal.name == name)?;
        principal.has(stamp).then(|| Caller {
            name: principal.name.clone(),
            groups: principal.groups.clone(),
            source: Source::Configured(stamp),
        })
    }

    /// Whether the configuration has a principal of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.principals.iter().any(|principal| principal.name == name)
    }

    /// What a caller sees of the columns of a table that is made of these; `None`: all of them.
    pub(crate) fn columns(&self, caller: &Caller, tables: &[TableName]) -> Option<ColumnRules> {
        self.rules.as_ref()?.columns(caller, tables)
    }

    /// How a caller is known to the brokers, where it is.
    pub(crate) fn login(&self, caller: &Caller) -> Option<&KafkaLogin> {
        self.rules.as_ref()?.login(caller)
    }

    /// Stands for the groups named by what takes something from callers.
    pub(crate) fn limiting_groups(&self) -> u64 {
        self.rules.as_ref().map_or(0, Rules::limiting_groups)
    }

    /// The most that a caller may do with all of these tables.
    pub(crate) fn right(&self, caller: &Caller, tables: &[TableName]) -> Option<Right> {
        match &self.rules {
            None => Some(Right::Write),
            Some(rules) => {
                let rights = tables.iter().map(|table| rules.right(caller, table));
                rights.min().flatten()
            }
        }
    }
}
