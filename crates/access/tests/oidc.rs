//! Tokens of an external issuer, which here is a small server with keys made on the spot.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use isk_access::{
    Access, AccessSettings, Book, ConfiguredPrincipal, Oidc, OidcSettings, SigningKey, Source,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;

enum Pair {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

struct Key {
    id: &'static str,
    pair: Pair,
}

impl Key {
    fn ed(id: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, pair: Pair::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()) }
    }

    fn ec(id: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        Self { id, pair: Pair::Ec(pair) }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ed(_) => "EdDSA",
            Pair::Ec(_) => "ES256",
        }
    }

    fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn jwk(&self) -> Value {
        let (public, id) = (self.public(), self.id);
        match self.pair {
            Pair::Ed(_) => {
                let x = BASE64.encode(public);
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "use": "sig", "x": x })
            }
            Pair::Ec(_) => {
                let (x, y) = (BASE64.encode(&public[1..33]), BASE64.encode(&public[33..]));
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "x": x, "y": y })
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signed = match &self.pair {
            Pair::Ed(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Pair::Ec(pair) => {
                let random = SystemRandom::new();
                pair.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec()
            }
        };
        format!("{message}.{}", BASE64.encode(signed))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": self.algorithm(), "kid": self.id, "typ": "JWT" }), claims)
    }
}

/// What the issuer answers: its keys, or nothing at all.
#[derive(Clone, Default)]
struct Issuer {
    keys: Arc<Mutex<Option<Vec<Value>>>>,
    asked: Arc<Mutex<usize>>,
    url: String,
}

impl Issuer {
    async fn start(keys: &[&Key]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self { url, ..Self::default() };
        issuer.set(keys);
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(jwks))
            .with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        issuer
    }

    fn set(&self, keys: &[&Key]) {
        *self.keys.lock().unwrap() = Some(keys.iter().map(|key| key.jwk()).collect());
    }

    fn access(&self, pause: Duration) -> Access {
        let oidc = OidcSettings {
            issuer: self.url.clone(),
            audience: "isk".into(),
            principal_claim: "sub".into(),
            groups_claim: "groups".into(),
            ca_pem: None,
            pause,
        };
        let local = ConfiguredPrincipal { name: "local".into(), ..Default::default() };
        Access::new(AccessSettings {
            oidc: Some(Arc::new(Oidc::new(oidc).unwrap())),
            book: Book { principals: vec![local], rules: None },
            clock: || NOW,
            ..AccessSettings::new(SigningKey::new(&"k".repeat(32)).unwrap())
        })
        .unwrap()
    }

    fn claims(&self) -> Value {
        json!({
            "iss": self.url, "aud": "isk", "sub": "alice", "exp": NOW + 60, "nbf": NOW,
            "groups": ["etl", "eu"],
        })
    }
}

async fn discovery(State(issuer): State<Issuer>) -> Json<Value> {
    *issuer.asked.lock().unwrap() += 1;
    Json(json!({ "issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url) }))
}

async fn jwks(State(issuer): State<Issuer>) -> Result<Json<Value>, http::StatusCode> {
    let keys = issuer.keys.lock().unwrap().clone();
    keys.map(|keys| Json(json!({ "keys": keys }))).ok_or(http::StatusCode::BAD_GATEWAY)
}

use axum::http;

#[tokio::test]
async fn good_tokens_are_callers_and_all_others_are_not() {
    let (ed, ec, other) = (Key::ed("ed"), Key::ec("ec"), Key::ed("ed"));
    let issuer = Issuer::start(&[&ed, &ec]).await;
    let access = issuer.access(Duration::ZERO);
    for key in [&ed, &ec] {
        let caller = access.bearer(&key.token(&issuer.claims())).await.unwrap();
        assert_eq!((caller.name.as_str(), caller.source), ("alice", Source::Issuer));
        assert_eq!(caller.groups, ["etl", "eu"]);
    }
    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[name] = value;
        claims
    };
    for (what, claims) in [
        ("another issuer", with("iss", json!("http://evil"))),
        ("another audience", with("aud", json!(["other"]))),
        ("no audience", with("aud", Value::Null)),
        ("expired", with("exp", json!(NOW - 61))),
        ("no end", with("exp", Value::Null)),
        ("an end in words", with("exp", json!("9999999999"))),
        ("too early", with("nbf", json!(NOW + 61))),
        ("a beginning in words", with("nbf", json!("0"))),
        ("nobody", with("sub", json!(""))),
        ("a number", with("sub", json!(7))),
        ("one of the configuration's", with("sub", json!("local"))),
    ] {
        assert!(access.bearer(&ed.token(&claims)).await.is_err(), "{what}");
    }
    let claims = issuer.claims();
    let good = ed.token(&claims);
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = rest.split_once('.').unwrap();
    let swapped = BASE64.encode(with("sub", json!("root")).to_string());
    let hmac_of_public = {
        let header = BASE64.encode(json!({ "alg": "HS256", "kid": "ed" }).to_string());
        let message = format!("{header}.{}", BASE64.encode(claims.to_string()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &ed.public());
        let tag = ring::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", BASE64.encode(tag.as_ref()))
    };
    let none = BASE64.encode(json!({ "alg": "none", "kid": "ed" }).to_string());
    for (what, token) in [
        ("another's signature", other.token(&claims)),
        ("other claims", format!("{header}.{swapped}.{signature}")),
        ("no signature", format!("{rest}.")),
        ("alg none", format!("{none}.{}.", BASE64.encode(claims.to_string()))),
        ("HS256 with the public key", hmac_of_public),
        ("another algorithm", ed.sign(&json!({ "alg": "ES256", "kid": "ed" }), &claims)),
        ("an unknown key", ed.sign(&json!({ "alg": "EdDSA", "kid": "x" }), &claims)),
        ("no key's name", ed.sign(&json!({ "alg": "EdDSA" }), &claims)),
    ] {
        let refused = access.bearer(&token).await.unwrap_err();
        assert!(!refused.0.contains(&token), "{what}: {refused}");
    }
}

#[tokio::test]
async fn keys_rotate_and_outlive_an_outage() {
    let (old, new) = (Key::ed("old"), Key::ec("new"));
    let issuer = Issuer::start(&[&old]).await;
    let access = issuer.access(Duration::ZERO);
    let claims = issuer.claims();
    assert!(access.bearer(&old.token(&claims)).await.is_ok());
    issuer.set(&[&new]);
    assert!(access.bearer(&new.token(&claims)).await.is_ok());
    assert!(access.bearer(&old.token(&claims)).await.is_err(), "the old key is withdrawn");
    *issuer.keys.lock().unwrap() = None;
    assert!(access.bearer(&old.token(&claims)).await.is_err());
    assert!(access.bearer(&new.token(&claims)).await.is_ok(), "known keys stay good");
}

#[tokio::test]
async fn unknown_keys_do_not_flood_the_issuer() {
    let (key, unknown) = (Key::ed("a"), Key::ed("b"));
    let issuer = Issuer::start(&[&key]).await;
    let access = issuer.access(Duration::from_secs(60));
    for _ in 0..20 {
        assert!(access.bearer(&unknown.token(&issuer.claims())).await.is_err());
        assert!(access.bearer(&key.token(&issuer.claims())).await.is_ok());
    }
    assert_eq!(*issuer.asked.lock().unwrap(), 1);
}
