//! The access file: principals and rules as an operator writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isk_model::ColumnRule;
use serde::Deserialize;

use crate::book::{Book, ConfiguredPrincipal, S3Key};
use crate::kafka::KafkaLogin;
use crate::principal::Right;
use crate::rules::{Reach, Rules};
use crate::secret::SecretDigest;

/// The file is not what it should be. The text names the file, the place in it, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FileError {
    path: String,
    reason: String,
}

impl FileError {
    pub(crate) fn new(path: &Path, reason: String) -> Self {
        Self { path: path.display().to_string(), reason }
    }
}

/// Where the file is. It, and the files it names, are read anew each time.
#[derive(Debug, Clone)]
pub struct AccessFile(PathBuf);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, rename = "principal")]
    principals: Vec<WrittenPrincipal>,
    #[serde(default, rename = "rule")]
    rules: Vec<WrittenRule>,
    #[serde(default)]
    columns: Vec<WrittenColumns>,
    #[serde(default, rename = "kafka")]
    logins: Vec<WrittenLogin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPrincipal {
    name: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    secrets: Vec<WrittenSecret>,
    #[serde(default)]
    api_keys: Vec<WrittenSecret>,
    #[serde(default)]
    s3_keys: Vec<WrittenS3Key>,
    #[serde(default)]
    certificates: Vec<String>,
}

/// A secret: its digest, or where it lies itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSecret {
    sha256: Option<String>,
    file: Option<PathBuf>,
    env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenS3Key {
    access_key_id: String,
    file: Option<PathBuf>,
    env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    #[serde(default)]
    principals: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    tables: Vec<String>,
    allow: Right,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenColumns {
    #[serde(default)]
    principals: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    tables: Vec<String>,
    show: Option<Vec<String>>,
    #[serde(default)]
    hide: Vec<String>,
    #[serde(default)]
    mask: Vec<String>,
}

/// Properties of librdkafka's; those that end in `.file` name a file with the value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLogin {
    #[serde(default)]
    principals: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    properties: BTreeMap<String, String>,
}

/// Properties whose value may come from a file.
const SECRETS: [&str; 3] = ["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret"];

/// What the library says of a value of another kind quotes the value, which may be a secret.
fn without_values(message: &str) -> String {
    match message.split_once(", expected") {
        Some((of, expected)) if of.starts_with("invalid") => {
            format!("a value of another kind than expected: expected{expected}")
        }
        _ => message.to_owned(),
    }
}

impl AccessFile {
    /// A file at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Reads the file, and the secrets that it names.
    ///
    /// # Errors
    /// [`FileError`], which shows no secret.
    pub fn read(&self) -> Result<Book, FileError> {
        let text = std::fs::read_to_string(&self.0);
        self.parse(&text.map_err(|e| FileError::new(&self.0, e.to_string()))?)
    }

    /// What the file says if this is its text; the files that it names are read.
    ///
    /// # Errors
    /// [`FileError`], which shows no secret.
    pub fn parse(&self, text: &str) -> Result<Book, FileError> {
        let failed = |reason: String| FileError::new(&self.0, reason);
        // The library's text quotes the line, and a line may hold what should have been a digest.
        let written: Written = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(0, |before| before.matches('\n').count() + 1);
            failed(format!("line {line}: {}", without_values(error.message())))
        })?;
        self.book(written).map_err(failed)
    }

    fn book(&self, written: Written) -> Result<Book, String> {
        let mut principals: Vec<ConfiguredPrincipal> = Vec::new();
        for one in written.principals {
            let name = one.name.clone();
            let principal =
                self.principal(one).map_err(|reason| format!("principal {name:?}: {reason}"))?;
            let taken = |id: &S3Key| {
                let mut all = principals.iter().flat_map(|other| &other.s3_keys);
                all.any(|other| other.access_key_id == id.access_key_id)
            };
            if principals.iter().any(|other| other.name == name) {
                return Err(format!("principal {name:?} is there twice"));
            }
            let shown =
                |shown: &&String| principals.iter().any(|other| other.certificates.contains(shown));
            if let Some(shown) = principal.certificates.iter().find(shown) {
                return Err(format!("principal {name:?} has another one's certificate {shown:?}"));
            }
            if principal.s3_keys.iter().any(taken) {
                return Err(format!("principal {name:?} has another one's access key id"));
            }
            principals.push(principal);
        }
        let rights = written.rules.iter().enumerate().map(|(at, rule)| {
            rule.checked().map_err(|reason| format!("rule {}: {reason}", at + 1))
        });
        let columns = written.columns.iter().enumerate().map(|(at, rule)| {
            rule.checked().map_err(|reason| format!("columns {}: {reason}", at + 1))
        });
        let logins = written.logins.into_iter().enumerate().map(|(at, login)| {
            self.login(login).map_err(|reason| format!("kafka {}: {reason}", at + 1))
        });
        let rules = Rules {
            logins: logins.collect::<Result<_, _>>()?,
            rights: rights.collect::<Result<_, _>>()?,
            columns: columns.collect::<Result<_, _>>()?,
        };
        Ok(Book { principals, rules: Some(rules) })
    }

    fn principal(&self, written: WrittenPrincipal) -> Result<ConfiguredPrincipal, String> {
        if written.name.is_empty() || written.name.contains([':', '*']) {
            return Err("a name has at least one character, and none of \":\" and \"*\"".to_owned());
        }
        let digests = |secrets: Vec<WrittenSecret>| {
            secrets.into_iter().map(|secret| self.digest(&secret)).collect::<Result<Vec<_>, _>>()
        };
        let s3_keys = written.s3_keys.into_iter().map(|key| {
            if key.access_key_id.starts_with("ISKV") || key.access_key_id.contains('/') {
                return Err("an access_key_id has no \"/\" and does not begin with ISKV".to_owned());
            }
            let secret_access_key = self.text(key.file.as_deref(), key.env.as_deref())?;
            Ok(S3Key { access_key_id: key.access_key_id, secret_access_key })
        });
        let kinds = ["subject:", "dns:", "uri:", "email:"];
        let of_no_kind = |name: &&String| !kinds.iter().any(|kind| name.starts_with(kind));
        if let Some(name) = written.certificates.iter().find(of_no_kind) {
            return Err(format!(
                "the certificate {name:?} begins with none of {}",
                kinds.join(", ")
            ));
        }
        Ok(ConfiguredPrincipal {
            certificates: written.certificates,
            name: written.name,
            groups: written.groups,
            secrets: digests(written.secrets)?,
            api_keys: digests(written.api_keys)?,
            s3_keys: s3_keys.collect::<Result<_, _>>()?,
        })
    }

    fn login(&self, written: WrittenLogin) -> Result<(Reach, KafkaLogin), String> {
        let reach = reach(&written.principals, &written.groups, &[])?;
        let mut properties = BTreeMap::new();
        for (key, value) in written.properties {
            let secret = key.strip_suffix(".file").filter(|of| SECRETS.contains(of));
            let (key, value) = match secret {
                Some(secret) => (secret.to_owned(), self.text(Some(Path::new(&value)), None)?),
                None => (key, value),
            };
            if properties.insert(key.clone(), value).is_some() {
                return Err(format!("{key} is there twice"));
            }
        }
        Ok((reach, KafkaLogin::new(properties)?))
    }

    fn digest(&self, written: &WrittenSecret) -> Result<SecretDigest, String> {
        match &written.sha256 {
            Some(hex) if written.file.is_none() && written.env.is_none() => {
                SecretDigest::from_hex(hex).map_err(|error| error.to_string())
            }
            Some(_) => Err("a secret is one of sha256, file and env".to_owned()),
            None => {
                let text = self.text(written.file.as_deref(), written.env.as_deref())?;
                Ok(SecretDigest::of(text.as_bytes()))
            }
        }
    }

    /// A secret from a file, relative to this one, or from the environment.
    fn text(&self, file: Option<&Path>, env: Option<&str>) -> Result<String, String> {
        let text = match (file, env) {
            (Some(file), None) => {
                let path = self.0.parent().unwrap_or(Path::new("")).join(file);
                std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?
            }
            (None, Some(name)) => {
                std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?
            }
            _ => return Err("a secret is one of sha256, file and env".to_owned()),
        };
        match text.trim() {
            "" => Err("a secret is empty".to_owned()),
            secret => Ok(secret.to_owned()),
        }
    }
}

impl WrittenRule {
    fn checked(&self) -> Result<(Reach, Right), String> {
        for table in &self.tables {
            if table.starts_with("merged.") {
                return Err(format!(
                    "{table:?}: a merged table needs no rule; who may read both its topic in hotset and its \
                     table in coldset may read it"
                ));
            }
        }
        Ok((reach(&self.principals, &self.groups, &self.tables)?, self.allow))
    }
}

impl WrittenColumns {
    fn checked(&self) -> Result<(Reach, ColumnRule), String> {
        for table in &self.tables {
            if table.starts_with("merged.") || table.starts_with("errors.") {
                return Err(format!(
                    "{table:?}: rules about columns are about hotset.<topic> and coldset.<table>; they hold for merged \
                     and errors, too"
                ));
            }
        }
        let rule = ColumnRule::new(self.show.as_deref(), &self.hide, &self.mask);
        let rule = rule.map_err(|error| error.to_string())?;
        Ok((reach(&self.principals, &self.groups, &self.tables)?, rule))
    }
}

/// Whom a rule is for, and which tables it is about.
fn reach(principals: &[String], groups: &[String], tables: &[String]) -> Result<Reach, String> {
    if principals.is_empty() && groups.is_empty() {
        return Err("it names no principals and no groups (\"*\" is all of them)".to_owned());
    }
    match tables.iter().find(|table| !table.contains(['.', '*'])) {
        Some(table) => Err(format!("{table:?} is no <namespace>.<table>")),
        None => Ok(Reach::new(principals, groups, tables)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::TableName;

    fn read(text: &str) -> Result<Book, FileError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "from-a-file\n").unwrap();
        let path = folder.path().join("access.toml");
        std::fs::write(&path, text).unwrap();
        AccessFile::new(path).read()
    }

    #[test]
    fn principals_and_rules_are_read() {
        let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let book = read(&format!(
            "[[principal]]\nname = \"spark\"\ngroups = [\"etl\"]\n\
             secrets = [{{ sha256 = \"{digest}\" }}, {{ file = \"secret\" }}]\n\
             s3_keys = [{{ access_key_id = \"spark\", file = \"secret\" }}]\n\
             [[rule]]\ngroups = [\"etl\"]\ntables = [\"hotset.*\"]\nallow = \"read\"\n"
        ));
        let book = book.unwrap();
        let caller = book.by_secret("spark", "hello").unwrap();
        assert_ne!(book.by_secret("spark", "from-a-file").unwrap().source, caller.source);
        assert_eq!(book.by_secret("spark", "from-a-file\n"), None);
        assert_eq!(book.by_secret("other", "hello"), None);
        let right = |namespace| book.right(&caller, &[TableName::new(namespace, "t")]);
        assert_eq!((right("hotset"), right("coldset")), (Some(Right::Read), None));
        let both = [TableName::new("hotset", "t"), TableName::new("coldset", "t")];
        assert_eq!(book.right(&caller, &both), None);
        assert!(!format!("{book:?}").contains("from-a-file"), "{book:?}");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_shown() {
        let principal = "[[principal]]\nname = \"a\"\n";
        for (text, expected) in [
            ("x = 1", "line 1: unknown field"),
            ("[[rule]]\ntables = []\nallow = \"admin\"", "unknown variant"),
            (
                "[[rule]]\ntables = [\"hotset.a\"]\nallow = \"read\"",
                "rule 1: it names no principals",
            ),
            (
                "[[rule]]\nprincipals = [\"*\"]\ntables = [\"merged.a\"]\nallow = \"read\"",
                "both its topic",
            ),
            (
                "[[rule]]\nprincipals = [\"*\"]\ntables = [\"a\"]\nallow = \"read\"",
                "no <namespace>",
            ),
            (
                "[[columns]]\nprincipals = [\"*\"]\ntables = [\"hotset.a\"]",
                "columns 1: it names no columns",
            ),
            (
                "[[columns]]\nprincipals = [\"*\"]\ntables = [\"errors.a\"]\nhide = [\"b\"]",
                "hold for merged and errors",
            ),
            (
                "[[kafka]]\nprincipals = [\"a\"]\nproperties = { \"bootstrap.servers\" = \"hush\" }",
                "kafka 1: \"bootstrap.servers\" is no part",
            ),
            (
                "[[kafka]]\nprincipals = [\"a\"]\nproperties = { \"sasl.password.file\" = \"none\" }",
                "none: No such file",
            ),
            ("[[columns]]\ntables = [\"hotset.a\"]\nhide = [\"b\"]", "names no principals"),
            (&format!("{principal}secrets = [{{ sha256 = \"hush\" }}]"), "64 hexadecimal"),
            (&format!("{principal}secrets = [{{ }}]"), "one of sha256, file and env"),
            (&format!("{principal}secrets = [{{ file = \"none\" }}]"), "none: No such file"),
            (&format!("{principal}secrets = [\"hush\"]"), "line 3: a value of another kind"),
            (&format!("{principal}{principal}"), "twice"),
            ("[[principal]]\nname = \"a:b\"", "a name has"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
