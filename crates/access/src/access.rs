//! The questions that the HTTP edges ask.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Uri};
use isk_model::ColumnRules;

use crate::answers::{GrantError, Granted, Refused, S3Caller, S3Refused};
use crate::audit::Audit;
use crate::book::Book;
use crate::credentials::CredentialsFile;
use crate::file::{AccessFile, FileError};
use crate::kafka::{AsksKafka, Brokers, KafkaSilent};
use crate::keys::SigningKey;
use crate::known::Known;
use crate::limit::{Limit, Permit};
use crate::oidc::Oidc;
use crate::principal::{Caller, Right, Source, TableName};
use crate::signers::{Signers, SigningKeyFile};
use crate::sigv4::Claimed;
use crate::tokens::Shape;
use crate::vended::{Scope, VendedKey};

/// How often the access file is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How callers are to be known.
pub struct AccessSettings {
    /// What tokens and vended keys are signed with; the same on all replicas.
    pub signing_key: SigningKey,
    /// A file of signing keys, one a line, instead: the first signs, the others are still believed. Read again.
    pub signing_key_file: Option<PathBuf>,
    /// A file of clients, `id:secret` a line. Read again.
    pub credentials_file: Option<PathBuf>,
    /// Principals that stand outside of the file; with the rules, if there is no file, none.
    pub book: Book,
    /// The file of principals and rules.
    pub file: Option<AccessFile>,
    /// The external issuer.
    pub oidc: Option<Arc<Oidc>>,
    /// How long a token of ours is good.
    pub token_lifetime: Duration,
    /// How long a vended S3 key is good at the least; up to a quarter more.
    pub key_lifetime: Duration,
    /// How many requests of one principal may be under way; 0 is no bound.
    pub concurrent_requests: usize,
    /// The seconds since 1970.
    pub clock: fn() -> u64,
}

impl AccessSettings {
    /// The default lifetimes, the system's clock, and nobody known.
    pub fn new(signing_key: SigningKey) -> Self {
        Self {
            signing_key,
            signing_key_file: None,
            credentials_file: None,
            book: Book::default(),
            file: None,
            oidc: None,
            token_lifetime: Duration::from_secs(3600),
            key_lifetime: Duration::from_secs(3600),
            concurrent_requests: 0,
            clock: system_clock,
        }
    }
}

fn system_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Who may in, and who may what. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access {
    /// `None` where everybody may everything.
    known: Option<Arc<Known>>,
    limit: Arc<Limit>,
    file_errors: Arc<AtomicU64>,
    audit: Audit,
    brokers: Brokers,
}

impl Access {
    /// Everybody may everything.
    pub fn open(concurrent_requests: usize) -> Self {
        Self {
            known: None,
            limit: Limit::new(concurrent_requests),
            file_errors: Arc::default(),
            audit: Audit::default(),
            brokers: Brokers::default(),
        }
    }

    /// Only who is known comes in.
    ///
    /// # Errors
    /// What is wrong with the access file.
    pub fn new(settings: AccessSettings) -> Result<Self, FileError> {
        let mut known = Known {
            book: RwLock::default(),
            outside: settings.book,
            file: settings.file,
            oidc: settings.oidc,
            clients: settings.credentials_file.map(CredentialsFile),
            signing: settings.signing_key_file.map(SigningKeyFile),
            signers: RwLock::new(Arc::new(Signers::new(&settings.signing_key, &[]))),
            signed: Mutex::default(),
            token_lifetime: settings.token_lifetime.as_secs().max(1),
            key_lifetime: settings.key_lifetime.as_secs().max(4),
            clock: settings.clock,
        };
        known.book = RwLock::new(Arc::new(known.read()?));
        known.take_signing_keys()?;
        let limit = Limit::new(settings.concurrent_requests);
        Ok(Self {
            known: Some(Arc::new(known)),
            limit,
            file_errors: Arc::default(),
            audit: Audit::default(),
            brokers: Brokers::default(),
        })
    }

    /// The same, with a log of who did what.
    pub fn with_audit(self, audit: Audit) -> Self {
        Self { audit, ..self }
    }

    /// The same, with brokers to be asked for those who are known to them.
    pub fn with_kafka(self, brokers: Arc<dyn AsksKafka>) -> Self {
        Self { brokers: Brokers(Some(brokers)), ..self }
    }

    /// The log of who did what.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Whether everybody may everything.
    pub fn is_open(&self) -> bool {
        self.known.is_none()
    }

    /// Looks at the files again, from time to time, until the task is dropped. A file that is not as it should be
    /// changes nothing.
    pub async fn watch_forever(&self) {
        let Some(known) = self.known.as_ref().filter(|known| known.has_files()) else {
            return std::future::pending().await;
        };
        let mut last_error = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let reader = Arc::clone(known);
            let look = move || {
                reader.take(reader.read()?);
                reader.take_signing_keys()
            };
            match tokio::task::spawn_blocking(look).await {
                Ok(Ok(())) => last_error = None,
                Ok(Err(error)) => {
                    self.file_errors.fetch_add(1, Ordering::Relaxed);
                    if last_error.as_ref() != Some(&error) {
                        tracing::error!(%error, "the file is not taken; what it said before holds");
                        last_error = Some(error);
                    }
                }
                Err(error) => tracing::warn!(%error, "the files of [auth] cannot be looked at"),
            }
        }
    }

    /// The caller of a bearer token: one of ours, one of the issuer's, or an API key.
    ///
    /// # Errors
    /// Why it is none, in a text that may be shown.
    pub async fn bearer(&self, token: &str) -> Result<Caller, Refused> {
        let Some(known) = &self.known else { return Ok(Caller::anyone()) };
        let refused = |why: &str| Refused(why.to_owned());
        match Shape::of(token) {
            Shape::Ours => {
                let claims = known.signers().check(token);
                let claims = claims.filter(|claims| claims.exp > known.now());
                let claims = claims.ok_or_else(|| refused("the token is not good (any more)"))?;
                let caller = known.book().by_stamp(&claims.sub, claims.stamp);
                caller.ok_or_else(|| refused("the token was revoked"))
            }
            Shape::Foreign => {
                let oidc = known.oidc.as_ref();
                let oidc = oidc.ok_or_else(|| refused("no issuer of tokens is configured"))?;
                let caller = oidc.check(token, known.now()).await.map_err(Refused)?;
                if known.book().has(&caller.name) {
                    return Err(refused("the token's principal is one of the configuration's"));
                }
                Ok(caller)
            }
            Shape::Plain => {
                let caller = known.book().by_api_key(token);
                caller.ok_or_else(|| refused("the API key is not known"))
            }
        }
    }

    /// The caller who showed a client certificate with these names, which ends at `not_after`, in seconds since 1970.
    ///
    /// # Errors
    /// Why it is nobody, in a text that may be shown.
    pub fn certificate(&self, names: &[String], not_after: u64) -> Result<Caller, Refused> {
        let Some(known) = &self.known else { return Ok(Caller::anyone()) };
        // It was good when the connection was made.
        if not_after < known.now() {
            return Err(Refused("the client's certificate has expired".to_owned()));
        }
        known.book().by_certificate(names).ok_or_else(|| {
            Refused(format!(
                "no principal has the client's certificate ({}), or two have it",
                names.join("; ")
            ))
        })
    }

    /// The caller who signed a request with one of its long-lived S3 keys.
    ///
    /// # Errors
    /// Why nobody did, in a text that may be shown.
    pub fn signed(
        &self,
        claimed: &Claimed<'_>,
        request: (&Method, &Uri, &HeaderMap),
        body: &[u8],
    ) -> Result<Caller, Refused> {
        let Some(known) = &self.known else { return Ok(Caller::anyone()) };
        let refused = |why: &str| Refused(why.to_owned());
        let book = known.book();
        let (key, caller) = book.by_s3_key(claimed.access_key_id).ok_or_else(|| {
            refused("the access key id of the signature is none of the access file's s3_keys")
        })?;
        let good = claimed.check(&key.secret_access_key, request, body, known.now());
        good.map(|()| caller).map_err(refused)
    }

    /// Whether requests can be signed with this key at all.
    pub fn has_s3_key(&self, access_key_id: &str) -> bool {
        let book = self.known.as_ref().map(|known| known.book());
        book.is_some_and(|book| book.by_s3_key(access_key_id).is_some())
    }

    /// A token for a client with its secret.
    ///
    /// # Errors
    /// [`GrantError`].
    pub fn grant(&self, client: &str, secret: &str) -> Result<Granted, GrantError> {
        let known = self.known.as_ref().ok_or(GrantError::InvalidClient)?;
        let caller = known.book().by_secret(client, secret).ok_or(GrantError::InvalidClient)?;
        known.grant(&caller)
    }

    /// A new token for one that is still good.
    ///
    /// # Errors
    /// [`GrantError`].
    pub async fn exchange(&self, token: &str) -> Result<Granted, GrantError> {
        let known = self.known.as_ref().ok_or(GrantError::InvalidClient)?;
        if Shape::of(token) != Shape::Ours {
            return Err(GrantError::InvalidClient);
        }
        let caller = self.bearer(token).await.map_err(|_| GrantError::InvalidClient)?;
        known.grant(&caller)
    }

    /// The most that a caller may do with all of these tables; `None`: it may not know of them.
    pub fn right(&self, caller: &Caller, tables: &[TableName]) -> Option<Right> {
        match &self.known {
            None => Some(Right::Write),
            Some(known) => known.book().right(caller, tables),
        }
    }

    /// Whether a caller may do this with all of these tables.
    pub fn may(&self, caller: &Caller, right: Right, tables: &[TableName]) -> bool {
        self.right(caller, tables) >= Some(right)
    }

    /// Whether Kafka has a say in what a caller may.
    pub fn is_known_to_kafka(&self, caller: &Caller) -> bool {
        self.known.as_ref().is_some_and(|known| known.book().login(caller).is_some())
    }

    /// The most that a caller may do with what each of these is made of: what the rules say, and for one who is known
    /// to the brokers, no more than these let it do.
    ///
    /// # Errors
    /// The brokers do not say.
    pub async fn rights(
        &self,
        caller: &Caller,
        all: &[Vec<TableName>],
    ) -> Result<Vec<Option<Right>>, KafkaSilent> {
        let by_rules = all.iter().map(|tables| self.right(caller, tables));
        let book = self.known.as_ref().map(|known| known.book());
        let login = book.and_then(|book| book.login(caller).cloned());
        let Some(login) = login else { return Ok(by_rules.collect()) };
        let by_kafka = self.brokers.rights(login, all).await?;
        Ok(by_rules.zip(by_kafka).map(|(rules, kafka)| rules.min(kafka)).collect())
    }

    /// What a caller sees of the columns of a table that is made of these; `None`: all of them.
    pub fn columns(&self, caller: &Caller, tables: &[TableName]) -> Option<Arc<ColumnRules>> {
        self.known.as_ref()?.book().columns(caller, tables).map(Arc::new)
    }

    /// A place for one more request of the caller's, where there is one.
    pub fn enter(&self, caller: &Caller) -> Option<Permit> {
        self.limit.enter(&caller.name)
    }

    /// An S3 key of a caller for what lies under `prefixes`. For a while, the same question has the same answer.
    /// `None` where everybody may everything.
    ///
    /// # Errors
    /// Where it cannot be written down.
    pub fn vend(
        &self,
        caller: &Caller,
        tables: Vec<TableName>,
        prefixes: &[String],
        writes: bool,
    ) -> Result<Option<VendedKey>, serde_json::Error> {
        let Some(known) = &self.known else { return Ok(None) };
        let quarter = known.key_lifetime.div_ceil(4);
        let mut caller = caller.clone();
        match caller.source {
            // They are looked up when the key is used.
            Source::Configured(_) | Source::Anyone => caller.groups.clear(),
            // Tokens of some issuers name hundreds.
            Source::Issuer => {
                let book = known.book();
                let rules = book.rules.as_ref();
                caller.groups.retain(|group| rules.is_some_and(|rules| rules.names_group(group)));
            }
        }
        let folder = |prefix: &String| format!("{}/", prefix.trim_end_matches('/'));
        let scope = Scope {
            caller,
            tables,
            prefixes: prefixes.iter().map(folder).collect(),
            writes,
            expires: (known.now() / quarter + 5) * quarter,
            limiting_groups: known.book().limiting_groups(),
        };
        known.signers().vend(&scope).map(Some)
    }

    /// The secret of an access key id, where requests may be signed with it.
    pub fn s3_secret(&self, access_key_id: &str) -> Option<String> {
        let known = self.known.as_ref()?;
        let vended = known.signers().secret(access_key_id);
        let book = known.book();
        let own = || book.by_s3_key(access_key_id).map(|(key, _)| key.secret_access_key.clone());
        vended.or_else(own)
    }

    /// Who sent a request that is signed with this key and carries this session token.
    ///
    /// # Errors
    /// Why nobody did that counts, in a text that may be shown.
    pub fn s3_caller(
        &self,
        access_key_id: &str,
        token: Option<&str>,
    ) -> Result<S3Caller, S3Refused> {
        let refused = S3Refused::Invalid;
        let known = self.known.as_ref().ok_or_else(|| refused("there is no authentication"))?;
        let book = known.book();
        let Some(token) = token else {
            let (_, caller) = book.by_s3_key(access_key_id).ok_or_else(|| {
                refused("a vended key is good with its session token; load the table again")
            })?;
            return Ok(S3Caller::Principal(caller));
        };
        let scope = known.signers().open(access_key_id, token);
        let mut scope = scope.ok_or_else(|| {
            refused("the session token is not the one that was vended; load the table again")
        })?;
        if scope.expires <= known.now() {
            return Err(S3Refused::Expired);
        }
        if let Source::Configured(stamp) = scope.caller.source {
            let caller = book.by_stamp(&scope.caller.name, stamp);
            scope.caller = caller.ok_or_else(|| refused("the session token was revoked"))?;
        } else if scope.limiting_groups != book.limiting_groups() {
            // The caller's other groups are not in it, and one of them may be under a rule now.
            return Err(refused("the rules have changed; load the table again"));
        }
        Ok(S3Caller::Vended(scope))
    }

    /// Counters in the Prometheus text format.
    pub fn metrics_text(&self) -> String {
        let own = format!(
            "# HELP isk_access_file_errors_total Looks at an access file that could not be taken.\n\
             # TYPE isk_access_file_errors_total counter\n\
             isk_access_file_errors_total {}\n",
            self.file_errors.load(Ordering::Relaxed)
        );
        own + &self.audit.metrics_text()
    }
}
