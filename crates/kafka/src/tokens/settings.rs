//! librdkafka's properties for the tokens of a provider, in librdkafka's own meaning.

use std::collections::BTreeMap;
use std::path::Path;

use isk_outbound::{Authorities, Secret};
use reqwest::Url;
use rustls_native_certs::load_certs_from_paths;

use crate::config::KafkaConfig;
use crate::error::KafkaError;
use crate::wire::certificates;

const METHOD: &str = "sasl.oauthbearer.method";
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const ID: &str = "sasl.oauthbearer.client.id";
const SECRET: &str = "sasl.oauthbearer.client.secret";
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
const GRANT: &str = "sasl.oauthbearer.grant.type";
const AUTHORITIES: &str = "https.ca.location";
const METADATA: &str = "sasl.oauthbearer.metadata.authentication.type";
/// What else is understood, or told to callbacks alone.
const OTHERS: [&str; 6] = [METHOD, SCOPE, EXTENSIONS, GRANT, METADATA, "sasl.oauthbearer.config"];
/// librdkafka's other names for the client's id and secret.
const ALIASES: [(&str, &str); 2] = [
    (ID, "sasl.oauthbearer.client.credentials.client.id"),
    (SECRET, "sasl.oauthbearer.client.credentials.client.secret"),
];

/// How properties begin that say whom to believe over HTTPS.
pub(crate) const HTTPS: &str = "https.ca.";

/// Whether a property is about a provider's tokens, and so none of the librdkafka that is built in.
pub(crate) fn is_of_tokens(key: &str) -> bool {
    let begins = ["sasl.oauthbearer.", HTTPS, "enable.sasl.oauthbearer."];
    begins.iter().any(|begin| key.starts_with(begin))
}

/// Whether logins are by a provider's tokens.
pub(crate) fn asks_for_tokens(properties: &BTreeMap<String, String>) -> bool {
    let is = |key: &str, value: &str| {
        properties.get(key).is_some_and(|given| given.eq_ignore_ascii_case(value))
    };
    let asks_who = is("security.protocol", "sasl_ssl") || is("security.protocol", "sasl_plaintext");
    let bearer = is("sasl.mechanism", "OAUTHBEARER") || is("sasl.mechanisms", "OAUTHBEARER");
    asks_who && bearer && is(METHOD, "oidc")
}

/// Who gives tokens, and to whom.
pub(super) struct Provider {
    pub(super) endpoint: Url,
    pub(super) client_id: String,
    secret: Secret,
    scope: Option<String>,
    pub(super) extensions: Vec<(String, String)>,
    /// Whom to believe that it is the provider; the system's authorities where none are named.
    pub(super) authorities: Authorities,
}

impl Provider {
    pub(super) fn of(config: &KafkaConfig) -> Result<Option<Self>, KafkaError> {
        let get = |key: &str| config.properties.get(key).map(String::as_str);
        let is = |key: &str, value: &str| get(key).is_some_and(|v| v.eq_ignore_ascii_case(value));
        if !asks_for_tokens(&config.properties) {
            return Ok(None);
        }
        if get(GRANT).is_some() && !is(GRANT, "client_credentials") {
            return Err(refuse(GRANT, "only client_credentials is understood here"));
        }
        if get(METADATA).is_some() && !is(METADATA, "none") {
            let why = "it is not understood here: name sasl.oauthbearer.token.endpoint.url, \
                       sasl.oauthbearer.client.id and sasl.oauthbearer.client.secret";
            return Err(refuse(METADATA, why));
        }
        if is("enable.sasl.oauthbearer.unsecure.jwt", "true") {
            let why = "it and sasl.oauthbearer.method=oidc cannot both be";
            return Err(refuse("enable.sasl.oauthbearer.unsecure.jwt", why));
        }
        let known = |key: &str| {
            [ENDPOINT, ID, SECRET].contains(&key)
                || OTHERS.contains(&key)
                || ALIASES.iter().any(|(_, alias)| *alias == key)
        };
        let strange = |key: &&String| key.starts_with("sasl.oauthbearer.") && !known(key);
        if let Some(key) = config.properties.keys().find(strange) {
            return Err(refuse(key, "it is not understood here; remove it"));
        }
        let needed = |key: &str| {
            let alias = ALIASES.iter().find(|(of, _)| *of == key).and_then(|(_, alias)| get(alias));
            let value = get(key).filter(|value| !value.is_empty()).or(alias);
            value.ok_or_else(|| refuse(key, "sasl.oauthbearer.method=oidc needs it"))
        };
        Ok(Some(Self {
            endpoint: endpoint(needed(ENDPOINT)?)?,
            client_id: needed(ID)?.to_owned(),
            secret: match config.secret_file.clone() {
                Some(file) => Secret::File(file),
                None => needed(SECRET)?.into(),
            },
            scope: get(SCOPE).filter(|scope| !scope.is_empty()).map(str::to_owned),
            extensions: extensions(get(EXTENSIONS).unwrap_or_default())?,
            authorities: authorities(config)?,
        }))
    }

    /// The secret as it is now.
    pub(super) fn secret(&self) -> String {
        self.secret.text()
    }

    /// What is asked for.
    pub(super) fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        form.finish()
    }

    /// The endpoint without what may be secret in a query.
    pub(super) fn endpoint_shown(&self) -> String {
        let mut shown = self.endpoint.clone();
        shown.set_query(None);
        shown.into()
    }
}

fn refuse(key: &str, reason: &str) -> KafkaError {
    KafkaError::Config { key: key.to_owned(), reason: reason.to_owned() }
}

fn endpoint(text: &str) -> Result<Url, KafkaError> {
    let url = Url::parse(text.trim()).map_err(|e| refuse(ENDPOINT, &e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(ENDPOINT, "it must begin with https:// or http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let why = "it must hold no user: sasl.oauthbearer.client.id and .secret say who asks";
        return Err(refuse(ENDPOINT, why));
    }
    Ok(url)
}

/// `key=value`, comma-separated; what RFC 7628 lets a key and a value be made of.
fn extensions(text: &str) -> Result<Vec<(String, String)>, KafkaError> {
    let each = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    each.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let named = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphabetic());
        let said = value.bytes().all(|b| b.is_ascii_graphic() || b" \t".contains(&b));
        if !named || !said || key == "auth" || !pair.contains('=') {
            let why = "it is not key=value, comma-separated, with keys of letters alone";
            return Err(refuse(EXTENSIONS, why));
        }
        Ok((key.to_owned(), value.to_owned()))
    })
    .collect()
}

fn authorities(config: &KafkaConfig) -> Result<Authorities, KafkaError> {
    let mut properties = config.properties.clone();
    // librdkafka's word for the system's.
    if properties.get(AUTHORITIES).is_some_and(|path| path == "probe") {
        properties.remove(AUTHORITIES);
    }
    let refuse = |key: &str, reason: &str| {
        refuse(key, &format!("no certificate in PEM can be taken from it: {reason}"))
    };
    let folder = properties.get(AUTHORITIES).map(Path::new).filter(|path| path.is_dir());
    let named = match folder {
        Some(folder) => {
            let found = load_certs_from_paths(None, Some(folder));
            // Of a folder whatever can be read is taken.
            if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
                return Err(refuse(AUTHORITIES, &error.to_string()));
            }
            Some((AUTHORITIES.to_owned(), found.certs))
        }
        None => certificates(&properties, "https.ca")
            .map_err(|wrong| refuse(&wrong.property, &wrong.reason))?,
    };
    match named {
        Some((key, found)) => {
            Authorities::only(found).map_err(|error| refuse(&key, &error.to_string()))
        }
        None => Authorities::new(None).map_err(|error| refuse(AUTHORITIES, &error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 7] = [
        ("bootstrap.servers", "a"),
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "OAUTHBEARER"),
        (METHOD, "OIDC"),
        (ENDPOINT, "https://id/token?x=y"),
        (ID, "isk"),
        (SECRET, "hunter2"),
    ];

    fn of(more: &[(&str, &str)], less: &str) -> Result<Option<Provider>, KafkaError> {
        let all = WHOLE.iter().chain(more).filter(|(key, _)| *key != less);
        let properties = all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Provider::of(&KafkaConfig { properties, ..KafkaConfig::default() })
    }

    #[test]
    fn a_whole_configuration_is_understood() {
        let more = [(SCOPE, "kafka a&b"), (EXTENSIONS, "logicalCluster=lkc-1,identityPoolId=p-2")];
        let provider = of(&more, "").unwrap().unwrap();
        assert_eq!(provider.form(), "grant_type=client_credentials&scope=kafka+a%26b");
        assert_eq!(provider.endpoint_shown(), "https://id/token");
        let [(key, value), (pool, _)] = &provider.extensions[..] else { panic!("not two") };
        assert_eq!((key.as_str(), value.as_str()), ("logicalCluster", "lkc-1"));
        assert_eq!(pool, "identityPoolId");
        let aliases = [(ALIASES[0].1, "isk"), (ALIASES[1].1, "hunter2"), (ID, "")];
        assert_eq!(of(&aliases, SECRET).unwrap().unwrap().secret(), "hunter2");
    }

    #[test]
    fn other_ways_to_log_in_are_others() {
        for less in ["security.protocol", "sasl.mechanism", METHOD] {
            assert!(of(&[], less).unwrap().is_none(), "{less}");
        }
    }

    #[test]
    fn what_is_missing_or_strange_is_named() {
        for less in [ENDPOINT, ID, SECRET] {
            assert!(of(&[], less).err().unwrap().to_string().contains(less));
        }
        for (key, value) in [
            (ENDPOINT, "id/token"),
            (ENDPOINT, "ftp://id/token"),
            (ENDPOINT, "https://me:hunter2@id/token"),
            (GRANT, "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            (METADATA, "azure_imds"),
            (EXTENSIONS, "auth=x"),
            (EXTENSIONS, "a"),
            (EXTENSIONS, "a1=x"),
            (EXTENSIONS, "a=\u{1}"),
            (AUTHORITIES, "/no/such/file"),
            (AUTHORITIES, "/"),
            ("sasl.oauthbearer.scop", "a"),
            ("sasl.oauthbearer.assertion.file", "a"),
            ("https.ca.pem", "no certificate"),
            ("https.ca.pem", "-----BEGIN CERTIFICATE-----\nMAAA\n"),
            ("https.ca.pem", "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
        ] {
            let error = of(&[(key, value)], "").err().unwrap().to_string();
            assert!(error.contains(key) && !error.contains("hunter2"), "{error}");
        }
        assert!(of(&[(AUTHORITIES, "probe")], "").unwrap().is_some());
        let missing = of(&[(AUTHORITIES, "/no/such/file")], "").err().unwrap().to_string();
        assert!(missing.contains("No such file"), "{missing}");
    }
}
