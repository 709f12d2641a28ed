//! Bearer tokens, session tokens and an issuer's keys: what nobody signed is never believed.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures::executor::block_on;
use isk_access::{
    Access, AccessSettings, Book, ConfiguredPrincipal, IssuerKeys, OidcSettings, SecretDigest,
    SigningKey, TableName, VendedKey,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "isk";

static PAIR: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());

static KEYS: LazyLock<IssuerKeys> = LazyLock::new(|| {
    let public = BASE64.encode(PAIR.public_key().as_ref());
    let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"k","use":"sig","x":"{public}"}}"#);
    IssuerKeys::read(format!(r#"{{"keys":[{key}]}}"#).as_bytes()).unwrap()
});

static SETTINGS: LazyLock<OidcSettings> = LazyLock::new(|| OidcSettings {
    issuer: ISSUER.to_owned(),
    audience: AUDIENCE.to_owned(),
    principal_claim: "sub".to_owned(),
    groups_claim: "groups".to_owned(),
    ca_pem: None,
    pause: Duration::from_secs(1),
});

/// Who is known, a token of theirs, and a key that was vended to them.
struct Own {
    access: Access,
    token: String,
    key: VendedKey,
}

static OWN: LazyLock<Own> = LazyLock::new(|| {
    let principal = ConfiguredPrincipal {
        name: "a".to_owned(),
        secrets: vec![SecretDigest::of(b"a secret")],
        ..ConfiguredPrincipal::default()
    };
    let access = Access::new(AccessSettings {
        book: Book { principals: vec![principal], rules: None },
        clock: || NOW,
        ..AccessSettings::new(SigningKey::new(&"k".repeat(32)).unwrap())
    });
    let access = access.unwrap();
    let token = access.grant("a", "a secret").unwrap().token;
    let caller = block_on(access.bearer(&token)).unwrap();
    let tables = vec![TableName::new("hotset", "t")];
    let key = access.vend(&caller, tables, &["s3://hotset/t".to_owned()], false);
    Own { access, token, key: key.unwrap().unwrap() }
});

/// The first byte says what the rest is: a token, the keys of an issuer, or header and claims of a token that is signed
/// here, an empty line between them.
pub(crate) fn tokens(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        b't' => unsigned(rest),
        // Whoever has other keys has other tokens.
        b'k' => drop(IssuerKeys::read(rest)),
        _ => signed(usize::from(*kind), rest),
    }
}

fn unsigned(data: &[u8]) {
    let Ok(token) = std::str::from_utf8(data) else { return };
    let Own { access, key, .. } = &*OWN;
    assert!(block_on(access.bearer(token)).is_err());
    assert!(block_on(access.exchange(token)).is_err());
    assert!(access.s3_caller(&key.access_key_id, Some(token)).is_err());
    assert!(access.s3_caller(token, Some(&key.session_token)).is_err());
    assert!(access.s3_caller(token, None).is_err());
    assert!(KEYS.caller(token, &SETTINGS, NOW).is_err());
}

fn signed(place: usize, data: &[u8]) {
    let Own { access, token, key } = &*OWN;
    // Ours are good, and each with another sign in it is not.
    assert!(block_on(access.bearer(token)).is_ok());
    assert!(block_on(access.bearer(&bent(token, place, data))).is_err());
    assert!(access.s3_caller(&key.access_key_id, Some(&key.session_token)).is_ok());
    let other = bent(&key.session_token, place, data);
    assert!(access.s3_caller(&key.access_key_id, Some(&other)).is_err());

    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (header, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let token = made(header, claims);
    let caller = KEYS.caller(&token, &SETTINGS, NOW);
    assert!(KEYS.caller(&bent(&token, place, data), &SETTINGS, NOW).is_err());
    if let Ok(caller) = caller {
        let object = |text: &[u8]| serde_json::from_slice::<Map<String, Value>>(text).unwrap();
        let (header, claims) = (object(header), object(claims));
        assert_eq!(header.get("alg").and_then(Value::as_str), Some("EdDSA"));
        assert!(names(&claims, "iss", ISSUER) && names(&claims, "aud", AUDIENCE), "{claims:?}");
        assert!(time(&claims, "exp").unwrap() + 60.0 > NOW as f64, "{claims:?}");
        assert!(time(&claims, "nbf").is_none_or(|from| from < NOW as f64 + 61.0), "{claims:?}");
        assert_eq!(claims.get("sub").and_then(Value::as_str), Some(caller.name.as_str()));
        assert!(!caller.name.is_empty());
    }
    // What an issuer's tokens are like is taken.
    let name = String::from_utf8_lossy(data);
    let claims = json!({ "iss": ISSUER, "aud": [AUDIENCE], "exp": NOW + 1, "sub": name });
    let token = made(br#"{"alg":"EdDSA"}"#, claims.to_string().as_bytes());
    let caller = KEYS.caller(&token, &SETTINGS, NOW);
    assert_eq!(caller.map(|caller| caller.name).unwrap_or_default(), name);
}

/// A token of this header and these claims, signed.
fn made(header: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = BASE64.encode(PAIR.sign(text.as_bytes()).as_ref());
    format!("{text}.{signature}")
}

/// Whether a claim is a text, or has it among others.
fn names(claims: &Map<String, Value>, claim: &str, text: &str) -> bool {
    match claims.get(claim) {
        Some(Value::String(own)) => own == text,
        Some(Value::Array(own)) => own.iter().any(|own| own == text),
        _ => false,
    }
}

fn time(claims: &Map<String, Value>, claim: &str) -> Option<f64> {
    claims.get(claim).map(|value| value.as_f64().unwrap())
}

/// A token in which one sign is another one that tokens have.
fn bent(token: &str, place: usize, data: &[u8]) -> String {
    let place = (place * 31 + data.len()) % token.len();
    let other = if token.as_bytes()[place] == b'A' { "B" } else { "A" };
    let mut token = token.to_owned();
    token.replace_range(place..=place, other);
    token
}
