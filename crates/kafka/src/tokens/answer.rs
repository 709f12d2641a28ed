//! What a token endpoint answers (RFC 6749, sections 5.1 and 5.2). No I/O, and nothing of a token in what is said of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::error::shown;

/// Why an answer has no token.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) reason: String,
    /// The provider does not give this client one: somebody has to act.
    pub(super) refused: bool,
}

impl Unusable {
    /// It may pass by itself.
    pub(super) fn strange(reason: &str) -> Self {
        Self { reason: reason.to_owned(), refused: false }
    }
}

/// The token in an answer, and for how long it is good.
pub(super) fn read(status: u16, body: &[u8], secret: &str) -> Result<(String, Duration), Unusable> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    match status {
        200 => {}
        400 | 401 | 403 => {
            let own = json.as_ref().map(|json| words(json, secret)).unwrap_or_default();
            return Err(Unusable {
                reason: format!("it refuses with {status}{own}"),
                refused: true,
            });
        }
        _ => return Err(Unusable::strange(&format!("it answered {status}, not with a token"))),
    }
    let json =
        json.ok_or_else(|| Unusable::strange("it answered with something that is no JSON"))?;
    let token = json.get("access_token").and_then(Value::as_str).unwrap_or_default();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Unusable::strange(
            "its answer has no access_token that can be sent to a broker",
        ));
    }
    match life(&json, token) {
        None => Err(Unusable::strange("its answer does not say how long the token is good")),
        Some(life) if life.is_zero() => {
            Err(Unusable::strange("its token is over already; do both clocks agree?"))
        }
        Some(life) => Ok((token.to_owned(), life)),
    }
}

/// `expires_in`, which some write as text; else what the token says of itself.
fn life(json: &Value, token: &str) -> Option<Duration> {
    let given = json.get("expires_in");
    let given = given.and_then(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()));
    let seconds = given.or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        Some(serde_json::from_slice::<Value>(&payload).ok()?.get("exp")?.as_f64()? - now)
    })?;
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// What the provider says of the refusal. That it repeats the secret is not expected, and made sure.
fn words(json: &Value, secret: &str) -> String {
    let said = ["error", "error_description"].into_iter().filter_map(|key| json.get(key)?.as_str());
    let said = said.collect::<Vec<_>>().join(": ").replace(secret, "[hidden]");
    let said = shown(&said);
    if said.is_empty() { said } else { format!(" ({said})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, body: &str) -> Unusable {
        read(status, body.as_bytes(), "hunter2").unwrap_err()
    }

    #[test]
    fn tokens_live_as_long_as_is_said_of_them() {
        let good = |body: &str| read(200, body.as_bytes(), "s").unwrap();
        let seconds = |body: &str| good(body).1.as_secs();
        assert_eq!(good(r#"{"access_token":"a.b.c","expires_in":300}"#).0, "a.b.c");
        assert_eq!(seconds(r#"{"access_token":"a","expires_in":300}"#), 300);
        assert_eq!(seconds(r#"{"access_token":"a","expires_in":"299"}"#), 299);
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 100;
        let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#));
        let own = seconds(&format!(r#"{{"access_token":"a.{payload}.c"}}"#));
        assert!((98..=100).contains(&own), "{own}");
        assert_eq!(good(r#"{"access_token":"a","expires_in":1e300}"#).1, Duration::MAX);
    }

    #[test]
    fn what_is_no_token_is_said_without_quoting_it() {
        for body in [
            "",
            "<html>hunter2</html>",
            "[]",
            r#"{"access_token":"","expires_in":3}"#,
            r#"{"access_token":"hunter2\u0001","expires_in":3}"#,
            r#"{"access_token":["hunter2"],"expires_in":3}"#,
            r#"{"access_token":"hunter2"}"#,
            r#"{"access_token":"hunter2","expires_in":0}"#,
            r#"{"access_token":"hunter2","expires_in":-1}"#,
        ] {
            let unusable = said(200, body);
            assert!(!unusable.refused && !unusable.reason.contains("hunter2"), "{unusable:?}");
        }
        assert_eq!(said(503, "{}").reason, "it answered 503, not with a token");
    }

    #[test]
    fn refusals_are_the_providers_words_without_the_secret() {
        let body = r#"{"error":"invalid_client","error_description":"no such secret: hunter2\n"}"#;
        let unusable = said(401, body);
        assert!(unusable.refused);
        assert_eq!(
            unusable.reason,
            "it refuses with 401 (invalid_client: no such secret: [hidden])"
        );
        assert_eq!(said(403, "nonsense").reason, "it refuses with 403");
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(5000));
        assert!(said(400, &long).reason.len() < 250);
    }
}
