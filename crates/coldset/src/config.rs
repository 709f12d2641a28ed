//! How the coldset is reached: `[coldset]` in the configuration file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use isk_outbound::{Secret, SecretFile};

use crate::{AccessKeys, ColdsetError};

const DEFAULT_NAMESPACE: &str = "coldset";
const DEFAULT_REGION: &str = "us-east-1";
/// AWS's name for what answers at a catalog behind its API gateway.
const DEFAULT_SIGNING_NAME: &str = "execute-api";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// All keys, for who mistyped one. Of those that are secrets, and of access keys, there is one with `-file` at its end.
const KEYS: &[&str] = &[
    "uri",
    "warehouse",
    "prefix",
    "namespace",
    "token",
    "credential",
    "oauth2-server-uri",
    "scope",
    "audience",
    "resource",
    "rest.sigv4-enabled",
    "rest.signing-region",
    "rest.signing-name",
    "rest.access-key-id",
    "rest.secret-access-key",
    "rest.session-token",
    "header.*",
    "ca-file",
    "s3.endpoint",
    "s3.region",
    "s3.access-key-id",
    "s3.secret-access-key",
    "s3.session-token",
    "s3.path-style-access",
    "writable",
    "direct",
    "request-timeout-ms",
];

/// How the upstream catalog and its store are reached. `Debug` hides secrets.
#[derive(Clone)]
pub struct ColdsetConfig {
    /// The upstream catalog's base URI, with or without a trailing `/v1` or slash.
    pub uri: String,
    /// The warehouse that `GET /v1/config` is asked for.
    pub warehouse: Option<String>,
    /// The prefix of the catalog's paths; what `GET /v1/config` says when not set.
    pub prefix: Option<String>,
    /// The upstream namespace, its levels joined by `.`.
    pub namespace: String,
    /// Who we are to the upstream catalog.
    pub auth: UpstreamAuth,
    /// Headers sent with every request to the catalog.
    pub headers: BTreeMap<String, String>,
    /// PEM certificates trusted besides the system's, for catalog and store.
    pub ca_pem: Option<Vec<u8>>,
    /// The object store.
    pub s3: ColdS3,
    /// Whether tables may be written through us.
    pub writable: bool,
    /// Whether loaded tables carry the upstream's own storage settings instead of our gateway's.
    pub direct: bool,
    /// How long one request to catalog or store may take, answer included.
    pub request_timeout: Duration,
}

/// Who we are to the upstream catalog.
#[derive(Clone, Default)]
pub enum UpstreamAuth {
    /// Nobody.
    #[default]
    None,
    /// A bearer token.
    Bearer(Secret),
    /// OAuth2 client credentials.
    OAuth2 {
        /// The token endpoint; the catalog's own `v1/oauth/tokens` when not set.
        token_uri: Option<String>,
        /// The client's id, a colon and its secret; some servers know a client by its secret alone.
        credential: Secret,
        /// The scope asked for.
        scope: Option<String>,
        /// Whom the token is meant for, where the server wants to be told (RFC 8693).
        audience: Option<String>,
        /// The URI of what it is meant for, where the server wants to be told (RFC 8707).
        resource: Option<String>,
    },
    /// AWS Signature Version 4.
    SigV4 {
        /// The region signed for.
        region: String,
        /// The service signed for: `glue`, `s3tables`, `execute-api`.
        name: String,
        /// What is signed with.
        keys: AccessKeys,
    },
}

/// The object store of cold tables. `Debug` hides secrets.
#[derive(Clone)]
pub struct ColdS3 {
    /// Its URL; AWS when not set.
    pub endpoint: Option<String>,
    /// The region signed for.
    pub region: String,
    /// What requests are signed with; anonymous when not set.
    pub keys: Option<AccessKeys>,
    /// Whether the bucket stands in the path instead of the host name.
    pub path_style: bool,
}

impl Default for ColdS3 {
    fn default() -> Self {
        Self { endpoint: None, region: DEFAULT_REGION.into(), keys: None, path_style: true }
    }
}

impl ColdsetConfig {
    /// A configuration with a URI and defaults.
    pub fn new(uri: &str) -> Self {
        Self {
            uri: uri.to_owned(),
            warehouse: None,
            prefix: None,
            namespace: DEFAULT_NAMESPACE.into(),
            auth: UpstreamAuth::None,
            headers: BTreeMap::new(),
            ca_pem: None,
            s3: ColdS3::default(),
            writable: false,
            direct: false,
            request_timeout: DEFAULT_TIMEOUT,
        }
    }

    /// Reads the properties below `coldset`; `None` where there are none. The names are those that
    /// Iceberg's own clients use. Case does not matter, and `-`, `_` and `.` are the same, because
    /// environment variables know only one of them. All files are read at once, those of secrets again whenever they
    /// are needed.
    ///
    /// # Errors
    /// [`ColdsetError::Config`] names the key.
    pub fn from_properties(
        properties: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, ColdsetError> {
        if properties.is_empty() {
            return Ok(None);
        }
        let mut given = Given::new(properties)?;
        let uri = given.take("uri").ok_or_else(|| {
            ColdsetError::config("uri", "set it to the URL of the upstream Iceberg REST catalog")
        })?;
        let mut config = Self::new(&uri);
        config.warehouse = given.take("warehouse");
        config.prefix = given.take("prefix");
        config.namespace = given.take("namespace").unwrap_or(config.namespace);
        config.headers = std::mem::take(&mut given.headers);
        config.s3 = s3(&mut given)?;
        config.auth = auth(&mut given, &config.s3)?;
        config.writable = given.flag("writable")?.unwrap_or(false);
        config.direct = given.flag("direct")?.unwrap_or(false);
        if let Some(path) = given.take("ca-file") {
            let pem = std::fs::read(&path)
                .map_err(|error| ColdsetError::config("ca-file", format!("{path}: {error}")))?;
            config.ca_pem = Some(pem);
        }
        if let Some(text) = given.take("request-timeout-ms") {
            let millis = text.parse().ok().filter(|n| (1..=600_000).contains(n));
            config.request_timeout = millis.map(Duration::from_millis).ok_or_else(|| {
                let reason = format!("{text:?} is no number of milliseconds from 1 to 600000");
                ColdsetError::config("request-timeout-ms", reason)
            })?;
        }
        if let Some(kind) = given.take("type").filter(|kind| kind != "rest") {
            return Err(ColdsetError::config("type", format!("{kind:?} is not known; say rest")));
        }
        given.finish()?;
        Ok(Some(config))
    }
}

fn s3(given: &mut Given) -> Result<ColdS3, ColdsetError> {
    let region = given.take("s3.region").or(given.take("client.region"));
    Ok(ColdS3 {
        endpoint: given.take("s3.endpoint"),
        region: region.unwrap_or_else(|| DEFAULT_REGION.into()),
        keys: keys(given, "s3")?,
        path_style: given.flag("s3.path-style-access")?.unwrap_or(true),
    })
}

/// The access keys of `s3` or `rest`.
fn keys(given: &mut Given, of: &str) -> Result<Option<AccessKeys>, ColdsetError> {
    let mut part = |name: &str| given.secret(&format!("{of}.{name}"));
    match (part("access-key-id")?, part("secret-access-key")?, part("session-token")?) {
        (Some(id), Some(secret), session_token) => {
            Ok(Some(AccessKeys { id, secret, session_token }))
        }
        (None, None, None) => Ok(None),
        _ => Err(ColdsetError::config(
            &format!("{of}.access-key-id"),
            format!("set it together with {of}.secret-access-key, or neither"),
        )),
    }
}

/// Which of the ways to authenticate is configured. Two at once is a mistake worth telling.
fn auth(given: &mut Given, s3: &ColdS3) -> Result<UpstreamAuth, ColdsetError> {
    let token = given.secret("token")?;
    let credential = given.secret("credential")?;
    let (token_uri, scope) = (given.take("oauth2-server-uri"), given.take("scope"));
    let (audience, resource) = (given.take("audience"), given.take("resource"));
    let signed = given.flag("rest.sigv4-enabled")?.unwrap_or(false);
    let (region, name) = (given.take("rest.signing-region"), given.take("rest.signing-name"));
    let own_keys = keys(given, "rest")?;
    if usize::from(token.is_some()) + usize::from(credential.is_some()) + usize::from(signed) > 1 {
        return Err(ColdsetError::config(
            "token",
            "set only one of token, credential and rest.sigv4-enabled",
        ));
    }
    if let Some(token) = token {
        return Ok(UpstreamAuth::Bearer(token));
    }
    if let Some(credential) = credential {
        return Ok(UpstreamAuth::OAuth2 { token_uri, credential, scope, audience, resource });
    }
    if !signed {
        return Ok(UpstreamAuth::None);
    }
    // As Iceberg's clients have it: the store's credentials sign unless others are given.
    let keys = own_keys.or_else(|| s3.keys.clone()).ok_or_else(|| {
        ColdsetError::config(
            "rest.sigv4-enabled",
            "signing needs rest.access-key-id and rest.secret-access-key, or those of s3",
        )
    })?;
    Ok(UpstreamAuth::SigV4 {
        region: region.unwrap_or_else(|| s3.region.clone()),
        name: name.unwrap_or_else(|| DEFAULT_SIGNING_NAME.into()),
        keys,
    })
}

/// Properties that have not been asked for yet, by their plain names.
struct Given {
    values: BTreeMap<String, (String, String)>,
    headers: BTreeMap<String, String>,
}

impl Given {
    fn new(properties: &BTreeMap<String, String>) -> Result<Self, ColdsetError> {
        let mut given = Self { values: BTreeMap::new(), headers: BTreeMap::new() };
        for (key, value) in properties {
            let name = plain(key);
            if let Some(header) = name.strip_prefix("header.") {
                given.headers.insert(header.replace('.', "-"), value.clone());
            } else if let Some((other, _)) =
                given.values.insert(name, (key.clone(), value.trim().to_owned()))
            {
                return Err(ColdsetError::config(key, format!("it is the same key as {other:?}")));
            }
        }
        Ok(given)
    }

    /// A property's value; an empty one counts as none.
    fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(&plain(key)).map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    /// A secret: the property itself, or what stands in the file that the property with `-file` names.
    fn secret(&mut self, key: &str) -> Result<Option<Secret>, ColdsetError> {
        let file = format!("{key}-file");
        match (self.take(key), self.take(&file)) {
            (Some(_), Some(_)) => {
                Err(ColdsetError::config(&file, format!("{key} is set, too: give one")))
            }
            (Some(text), None) => Ok(Some(Secret::Given(text))),
            (None, Some(path)) => match SecretFile::open(Path::new(&path)) {
                Ok(file) => Ok(Some(Secret::File(file))),
                Err(error) => Err(ColdsetError::config(&file, error.to_string())),
            },
            (None, None) => Ok(None),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, ColdsetError> {
        self.take(key)
            .map(|text| match text.to_ascii_lowercase().as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(ColdsetError::config(key, format!("{text:?} is neither true nor false"))),
            })
            .transpose()
    }

    fn finish(self) -> Result<(), ColdsetError> {
        match self.values.into_values().next() {
            None => Ok(()),
            Some((key, _)) => {
                let reason = format!("no setting has this name; known are {}", KEYS.join(", "));
                Err(ColdsetError::config(&key, reason))
            }
        }
    }
}

fn plain(key: &str) -> String {
    key.trim().to_ascii_lowercase().replace(['-', '_'], ".")
}

impl fmt::Debug for ColdsetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What stands before an @ may be a password, and a header's value a key.
        let uri = self.uri.rsplit_once('@').map_or(self.uri.as_str(), |(_, host)| host);
        f.debug_struct("ColdsetConfig")
            .field("uri", &uri)
            .field("warehouse", &self.warehouse)
            .field("prefix", &self.prefix)
            .field("namespace", &self.namespace)
            .field("auth", &self.auth)
            .field("headers", &self.headers.keys())
            .field("s3", &self.s3)
            .field("writable", &self.writable)
            .field("direct", &self.direct)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UpstreamAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer([hidden])",
            Self::OAuth2 { .. } => "OAuth2([hidden])",
            Self::SigV4 { .. } => "SigV4([hidden])",
        })
    }
}

impl fmt::Debug for ColdS3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.endpoint.as_deref();
        let endpoint = endpoint.map(|url| url.rsplit_once('@').map_or(url, |(_, host)| host));
        f.debug_struct("ColdS3")
            .field("endpoint", &endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<ColdsetConfig>, ColdsetError> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        ColdsetConfig::from_properties(&pairs.collect())
    }

    fn ok(pairs: &[(&str, &str)]) -> ColdsetConfig {
        read(pairs).unwrap().unwrap()
    }

    #[test]
    fn nothing_is_no_coldset_and_a_uri_is_enough() {
        assert!(read(&[]).unwrap().is_none());
        let config = ok(&[("uri", "http://c:8181")]);
        assert_eq!(
            (config.namespace.as_str(), config.s3.region.as_str()),
            ("coldset", "us-east-1")
        );
        assert!(config.s3.path_style && !config.writable && !config.direct);
        assert!(matches!(config.auth, UpstreamAuth::None));
    }

    #[test]
    fn the_environments_spelling_is_the_files() {
        let config = ok(&[
            ("uri", "http://c"),
            ("s3.access.key.id", "k"),
            ("s3.secret-access-key", "s"),
            ("S3.PATH_STYLE_ACCESS", "False"),
            ("client.region", "eu-west-1"),
            ("header.X-Tenant", "a"),
            ("header.x.other", "b"),
            ("request.timeout.ms", "1500"),
        ]);
        let keys = config.s3.keys.unwrap();
        assert_eq!((keys.id.text().as_str(), keys.secret.text().as_str()), ("k", "s"));
        assert_eq!(config.s3.region, "eu-west-1");
        assert!(!config.s3.path_style);
        assert_eq!(config.headers.keys().collect::<Vec<_>>(), ["x-other", "x-tenant"]);
        assert_eq!(config.request_timeout, Duration::from_millis(1500));
    }

    #[test]
    fn each_way_to_authenticate() {
        let of = |pairs: &[(&str, &str)]| {
            let mut all = vec![("uri", "http://c")];
            all.extend_from_slice(pairs);
            ok(&all).auth
        };
        assert!(matches!(of(&[("token", "t")]), UpstreamAuth::Bearer(t) if t.text() == "t"));
        let all = of(&[
            ("credential", "id:se:cret"),
            ("scope", "PRINCIPAL_ROLE:ALL"),
            ("audience", "lake"),
            ("resource", "urn:lake"),
        ]);
        let UpstreamAuth::OAuth2 { credential, scope, audience, resource, .. } = all else {
            panic!("{all:?}")
        };
        assert_eq!(credential.text(), "id:se:cret");
        assert_eq!(scope.as_deref(), Some("PRINCIPAL_ROLE:ALL"));
        assert_eq!((audience.as_deref(), resource.as_deref()), (Some("lake"), Some("urn:lake")));
        let secret_only = of(&[("credential", "secret"), ("oauth2-server-uri", "http://idp/t")]);
        assert!(matches!(secret_only, UpstreamAuth::OAuth2 { token_uri: Some(_), .. }));
        let signed = of(&[
            ("rest.sigv4-enabled", "true"),
            ("rest.signing-name", "s3tables"),
            ("s3.access-key-id", "k"),
            ("s3.secret-access-key", "s"),
        ]);
        assert!(matches!(signed, UpstreamAuth::SigV4 { name, region, keys }
            if name == "s3tables" && region == "us-east-1" && keys.id.text() == "k"));
    }

    #[test]
    fn mistakes_are_named() {
        for (pairs, key) in [
            (&[("warehouse", "w")][..], "uri"),
            (&[("uri", "http://c"), ("wharehouse", "w")], "wharehouse"),
            (&[("uri", "http://c"), ("writable", "yes")], "writable"),
            (&[("uri", "http://c"), ("token", "t"), ("credential", "a:b")], "token"),
            (&[("uri", "http://c"), ("rest.sigv4-enabled", "true")], "rest.sigv4-enabled"),
            (&[("uri", "http://c"), ("request-timeout-ms", "0")], "request-timeout-ms"),
            (&[("uri", "http://c"), ("ca-file", "/does/not/exist")], "ca-file"),
            (&[("uri", "http://c"), ("type", "hive")], "type"),
            (&[("uri", "http://c"), ("s3.access-key-id", "k")], "s3.access-key-id"),
            (&[("uri", "http://c"), ("s3.secret-access-key", "s")], "s3.access-key-id"),
            (&[("uri", "http://c"), ("rest.access-key-id", "k")], "rest.access-key-id"),
            (&[("uri", "http://c"), ("token", "t"), ("token-file", "/f")], "token-file"),
            (&[("uri", "http://c"), ("credential.file", "/does/not/exist")], "credential-file"),
            (&[("uri", "http://c"), ("s3.region", "a"), ("s3_region", "b")], "s3_region"),
        ] {
            match read(pairs) {
                Err(ColdsetError::Config { key: named, .. }) => assert_eq!(named, key),
                other => panic!("{pairs:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn debug_hides_secrets() {
        let secret = "hunter2";
        let with = |auth: &[(&str, &str)]| {
            let mut all = vec![
                ("uri", "http://me:hunter2@c"),
                ("header.x-api-key", secret),
                ("s3.endpoint", "http://me:hunter2@s3"),
                ("s3.access-key-id", "k-hunter2"),
                ("s3.secret-access-key", secret),
                ("s3.session-token", secret),
            ];
            all.extend_from_slice(auth);
            ok(&all)
        };
        for config in [
            with(&[("token", secret)]),
            with(&[("credential", "id:hunter2"), ("scope", "s")]),
            with(&[("rest.sigv4-enabled", "true")]),
        ] {
            let shown = format!("{config:?} {:#?}", config.auth);
            assert!(!shown.contains(secret), "{shown}");
            assert!(shown.contains("x-api-key") && shown.contains("[hidden]"), "{shown}");
        }
        // Neither does what is made of it.
        let mut config = with(&[("token", secret)]);
        assert!(crate::Upstream::new(&config).is_err());
        config.uri = "http://c".into();
        config.s3.endpoint = Some("http://s3".into());
        let upstream = crate::Upstream::new(&config).unwrap();
        let shown = format!("{upstream:?} {:?}", upstream.store());
        assert!(!shown.contains(secret), "{shown}");
    }
}
