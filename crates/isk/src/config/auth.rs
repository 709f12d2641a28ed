//! Who may in: the settings of authentication, and what is made of them.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isk_access::{
    Access, AccessFile, AccessSettings, Audit, AuditSettings, Book, ConfiguredPrincipal, Oidc,
    OidcSettings, SigningKey, credentials,
};
use serde::Deserialize;

use super::{Config, Secret};

/// How long to wait between two questions to the issuer.
const OIDC_PAUSE: Duration = Duration::from_secs(10);

/// Whether callers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthType {
    /// Everybody may everything.
    None,
    /// Only who is known comes in.
    Tokens,
}

/// The settings of authentication. None of them set, everybody may everything, over loopback alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether callers are told apart; where it is not set, they are when anything below makes them known.
    #[serde(rename = "type")]
    pub kind: Option<AuthType>,
    /// Whether to listen on other addresses than loopback though everybody may everything.
    pub insecure_bind: bool,
    /// Principals and rules; read again when it changes.
    pub access_file: Option<PathBuf>,
    /// Clients as `id:secret`, several separated by commas. They may everything that no rule keeps from them.
    pub credentials: Option<Secret>,
    /// The same from a file, one a line; read again when it changes.
    pub credentials_file: Option<PathBuf>,
    /// What tokens and keys are signed with; made at the first start and kept below `data_dir` when not set.
    pub signing_key: Option<Secret>,
    /// The same from a file, read again when it changes: the first line signs, what the others signed is still good.
    pub signing_key_file: Option<PathBuf>,
    /// How long a token is good, in seconds.
    pub token_seconds: u64,
    /// How long an S3 key that comes with a table is good, in seconds; up to a quarter more.
    pub key_seconds: u64,
    /// The external issuer of tokens.
    pub oidc_issuer: Option<String>,
    /// The audience that its tokens must be for.
    pub oidc_audience: Option<String>,
    /// The claim that names the principal.
    pub oidc_principal_claim: String,
    /// The claim that names its groups.
    pub oidc_groups_claim: String,
    /// A file of PEM certificates to trust besides the system's.
    pub oidc_ca_file: Option<PathBuf>,
    /// Whether /metrics is for everybody; else for who may list everything.
    pub open_metrics: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            kind: None,
            insecure_bind: false,
            access_file: None,
            credentials: None,
            credentials_file: None,
            signing_key: None,
            signing_key_file: None,
            token_seconds: 3600,
            key_seconds: 3600,
            oidc_issuer: None,
            oidc_audience: None,
            oidc_principal_claim: "sub".into(),
            oidc_groups_claim: "groups".into(),
            oidc_ca_file: None,
            open_metrics: false,
        }
    }
}

/// The audit log; off unless a place is named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditLog {
    /// A file that lines are added to.
    pub file: Option<PathBuf>,
    /// Whether they go to the service's own log, under the target `isk_audit`.
    pub log: bool,
    /// For how long reads of objects that are alike are gathered into one line, in seconds.
    pub gather_seconds: u64,
}

impl Default for AuditLog {
    fn default() -> Self {
        Self { file: None, log: false, gather_seconds: 10 }
    }
}

impl Auth {
    fn knows_anybody(&self) -> bool {
        self.access_file.is_some()
            || self.credentials.is_some()
            || self.credentials_file.is_some()
            || self.oidc_issuer.is_some()
    }

    /// Whether callers are told apart.
    pub fn is_on(&self) -> bool {
        self.kind != Some(AuthType::None) && self.knows_anybody()
    }
}

/// What is wrong with the settings, before anything starts.
pub fn check(config: &Config) -> Result<()> {
    let auth = &config.auth;
    match auth.kind {
        Some(AuthType::None) if auth.knows_anybody() => bail!(
            "configuration key \"auth.type\" is \"none\", and other keys of [auth] say who may come in: leave \
             out the one or the others"
        ),
        Some(AuthType::Tokens) if !auth.knows_anybody() => bail!(
            "configuration key \"auth.type\" is \"tokens\", and nobody could come in: set auth.credentials \
             (ISK_AUTH_CREDENTIALS), auth.access_file or auth.oidc_issuer"
        ),
        _ => {}
    }
    if !auth.is_on() {
        return check_bind(config.bind, auth.insecure_bind);
    }
    if config.s3.secret_access_key.is_some() {
        bail!(
            "configuration key \"s3.secret_access_key\" (ISK_S3_SECRET_ACCESS_KEY) would open every table to whoever \
             has it: where callers are told apart, give S3 keys to principals in auth.access_file (s3_keys), and \
             leave it out"
        );
    }
    if auth.oidc_issuer.is_some() && auth.oidc_audience.as_deref().unwrap_or_default().is_empty() {
        bail!(
            "configuration key \"auth.oidc_issuer\" needs auth.oidc_audience (ISK_AUTH_OIDC_AUDIENCE): tokens that \
             the issuer made for other services are not for this one"
        );
    }
    if auth.token_seconds == 0 || auth.key_seconds < 60 {
        bail!(
            "configuration keys auth.token_seconds and auth.key_seconds must be at least 1 and 60"
        );
    }
    Ok(())
}

fn check_bind(bind: IpAddr, insecure: bool) -> Result<()> {
    if bind.is_loopback() || insecure {
        return Ok(());
    }
    bail!(
        "configuration key \"bind\" (ISK_BIND) is {bind}, and everybody who reaches it could read every topic: say who \
         may come in with [auth] (ISK_AUTH_CREDENTIALS=id:secret is the shortest way), or, in a network where that is \
         as it should be, set auth.insecure_bind = true (ISK_AUTH_INSECURE_BIND)"
    )
}

/// Who may in, and who may what, as configured, with the audit log. Asks no issuer anything.
pub fn access(config: &Config) -> Result<Access> {
    let AuditLog { file, log, gather_seconds } = config.audit.clone();
    let gather = Duration::from_secs(gather_seconds);
    let audit = Audit::start(AuditSettings { file, log, gather });
    let audit = audit.with_context(|| {
        let file = config.audit.file.as_deref().unwrap_or(Path::new("")).display();
        format!("configuration key \"audit.file\": the audit log {file} cannot be begun")
    })?;
    Ok(callers(config)?.with_audit(audit))
}

fn callers(config: &Config) -> Result<Access> {
    let auth = &config.auth;
    let concurrent = config.limits.requests_per_principal;
    if !auth.is_on() {
        return Ok(Access::open(concurrent));
    }
    let settings = AccessSettings {
        book: Book { principals: clients(auth)?, rules: None },
        credentials_file: auth.credentials_file.clone(),
        signing_key_file: auth.signing_key_file.clone(),
        file: auth.access_file.as_ref().map(AccessFile::new),
        oidc: oidc(auth)?.map(Arc::new),
        token_lifetime: Duration::from_secs(auth.token_seconds),
        key_lifetime: Duration::from_secs(auth.key_seconds),
        concurrent_requests: concurrent,
        ..AccessSettings::new(signing_key(auth, config.secrets_dir())?)
    };
    Access::new(settings).context("configuration section [auth]: a file that it names")
}

fn read(path: &Path, key: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| {
        format!("configuration key \"auth.{key}\": cannot read {}", path.display())
    })
}

/// Clients of the form `id:secret`, separated by commas.
fn clients(auth: &Auth) -> Result<Vec<ConfiguredPrincipal>> {
    let text = auth.credentials.as_ref().map_or("", Secret::expose).replace(',', "\n");
    credentials(&text).context("configuration key \"auth.credentials\" (ISK_AUTH_CREDENTIALS)")
}

fn oidc(auth: &Auth) -> Result<Option<Oidc>> {
    let Some(issuer) = auth.oidc_issuer.clone() else { return Ok(None) };
    let settings = OidcSettings {
        issuer,
        audience: auth.oidc_audience.clone().unwrap_or_default(),
        principal_claim: auth.oidc_principal_claim.clone(),
        groups_claim: auth.oidc_groups_claim.clone(),
        ca_pem: match &auth.oidc_ca_file {
            Some(path) => Some(read(path, "oidc_ca_file")?.into_bytes()),
            None => None,
        },
        pause: OIDC_PAUSE,
    };
    Ok(Some(Oidc::new(settings).context("configuration key \"auth.oidc_ca_file\"")?))
}

fn signing_key(auth: &Auth, folder: &Path) -> Result<SigningKey> {
    let text = match (&auth.signing_key, &auth.signing_key_file) {
        (Some(key), None) => key.expose().to_owned(),
        // The file's keys take this one's place.
        (None, Some(_)) => uuid::Uuid::new_v4().simple().to_string(),
        (None, None) => kept_secret(folder, "auth-signing-key")?,
        (Some(_), Some(_)) => {
            bail!("configuration keys auth.signing_key and auth.signing_key_file: give one")
        }
    };
    SigningKey::new(&text).context("configuration key \"auth.signing_key\" (ISK_AUTH_SIGNING_KEY)")
}

/// A secret that was made at the first start, and is kept in a folder.
pub fn kept_secret(folder: &Path, name: &str) -> Result<String> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(name);
    let failed = || format!("a secret cannot be kept in {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(secret) if !secret.is_empty() => return Ok(secret),
        Ok(_) => std::fs::remove_file(&path).with_context(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(failed),
    }
    let secret = uuid::Uuid::new_v4().simple().to_string();
    std::fs::create_dir_all(folder).with_context(failed)?;
    let part = folder.join(format!(".{name}.{}.part", uuid::Uuid::new_v4().simple()));
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&part);
    file.and_then(|mut file| file.write_all(secret.as_bytes())).with_context(failed)?;
    // A link takes no other's place: of replicas that start at the same time, one makes the secret of all.
    let linked = std::fs::hard_link(&part, &path);
    let _ = std::fs::remove_file(&part);
    match linked {
        Ok(()) => Ok(secret),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::read_to_string(&path).with_context(failed)
        }
        Err(error) => Err(error).with_context(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bind: &str, change: impl FnOnce(&mut Auth)) -> Config {
        let mut config = Config { bind: bind.parse().unwrap(), ..Config::default() };
        change(&mut config.auth);
        config
    }

    #[test]
    fn nobody_listens_to_the_network_without_saying_who_may_in() {
        let some = || Some(Secret::new("id:hush".into()));
        let on = |auth: &mut Auth| auth.credentials = some();
        assert!(check(&config("127.0.0.1", |_| {})).is_ok());
        assert!(check(&config("::1", |auth| auth.kind = Some(AuthType::None))).is_ok());
        assert!(check(&config("0.0.0.0", |auth| auth.insecure_bind = true)).is_ok());
        assert!(check(&config("0.0.0.0", on)).is_ok());
        for (config, expected) in [
            (config("0.0.0.0", |_| {}), ["ISK_AUTH_CREDENTIALS", "ISK_AUTH_INSECURE_BIND"]),
            (
                config("0.0.0.0", |auth| auth.kind = Some(AuthType::None)),
                ["ISK_AUTH_CREDENTIALS", "ISK_AUTH_INSECURE_BIND"],
            ),
            (config("127.0.0.1", |auth| auth.kind = Some(AuthType::Tokens)), ["nobody", "auth.c"]),
            (
                config("127.0.0.1", |auth| {
                    auth.kind = Some(AuthType::None);
                    auth.credentials = some();
                }),
                ["auth.type", "none"],
            ),
            (
                config("127.0.0.1", |auth| auth.oidc_issuer = Some("https://i".into())),
                ["auth.oidc_audience", "ISK_AUTH_OIDC_AUDIENCE"],
            ),
        ] {
            let error = check(&config).unwrap_err().to_string();
            assert!(expected.iter().all(|text| error.contains(text)), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
        let mut with_key = config("127.0.0.1", on);
        with_key.s3.secret_access_key = some();
        assert!(check(&with_key).unwrap_err().to_string().contains("s3_keys"));
    }

    #[test]
    fn credentials_are_read_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        std::fs::write(&file, "c:three\n\nd:fo:ur\n").unwrap();
        let mut config = config("127.0.0.1", |auth| {
            auth.credentials = Some(Secret::new("a:hush-1, b:hush-2".into()));
            auth.credentials_file = Some(file);
        });
        config.data_dir = folder.path().join("data");
        let access = access(&config).unwrap();
        for (id, secret) in [("a", "hush-1"), ("b", "hush-2"), ("c", "three"), ("d", "fo:ur")] {
            assert!(access.grant(id, secret).is_ok(), "{id}");
        }
        assert!(access.grant("a", "hush-2").is_err());
        assert!(!format!("{config:?} {access:?}").contains("hush"));
        config.auth.credentials = Some(Secret::new("hush-3".into()));
        let error = format!("{:#}", super::access(&config).unwrap_err());
        assert!(error.contains("id:secret") && !error.contains("hush"), "{error}");
        config.auth.credentials = None;
        config.auth.signing_key = Some(Secret::new("hush".into()));
        let error = format!("{:#}", super::access(&config).unwrap_err());
        assert!(error.contains("openssl rand") && !error.contains("hush"), "{error}");
    }
}
