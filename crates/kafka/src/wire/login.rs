//! Who we are, told to a broker by SASL (KIP-43, KIP-152).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
};
use kafka_protocol::protocol::StrBytes;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, SASLError, Session, SessionError, State};

use super::connection::{Broken, Connection};
use crate::error::shown;
use crate::tokens::{Token, Tokens};
use isk_outbound::{Secret, SecretFile};

/// The mechanisms of those who have a password; GSSAPI is librdkafka's.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
const PROPERTIES: [&str; 4] =
    ["sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"];

/// Who we are, and how that is proven. `Debug` shows no secret.
#[derive(Clone)]
pub(crate) enum Login {
    /// By a password.
    User { mechanism: &'static str, user: String, password: Secret },
    /// By a provider's tokens: OAUTHBEARER.
    Bearer(Arc<Tokens>),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { mechanism, user, .. } => f
                .debug_struct("Login")
                .field("mechanism", mechanism)
                .field("user", user)
                .finish_non_exhaustive(),
            Self::Bearer(tokens) => f.debug_tuple("Login").field(tokens).finish(),
        }
    }
}

impl Login {
    /// `Err` names the property that only librdkafka can serve.
    pub(crate) fn of(
        properties: &BTreeMap<String, String>,
        file: Option<&SecretFile>,
        tokens: Option<&Arc<Tokens>>,
    ) -> Result<Self, String> {
        if let Some(tokens) = tokens {
            return Ok(Self::Bearer(Arc::clone(tokens)));
        }
        let get = |key: &str| properties.get(key).map(String::as_str);
        let other = |key: &&String| key.starts_with("sasl.") && !PROPERTIES.contains(&key.as_str());
        if let Some(other) = properties.keys().find(other) {
            return Err(other.clone());
        }
        let named = get("sasl.mechanism").or(get("sasl.mechanisms")).unwrap_or_default();
        let mechanism = MECHANISMS.into_iter().find(|known| *known == named);
        match (mechanism, get("sasl.username"), get("sasl.password")) {
            (Some(mechanism), Some(user), Some(password)) => {
                let file = file.cloned().map(Secret::File);
                let password = file.unwrap_or_else(|| password.into());
                Ok(Self::User { mechanism, user: user.to_owned(), password })
            }
            _ => Err("sasl.mechanism".into()),
        }
    }

    /// Logs in on a connection on which nothing was asked but the broker's versions. `timeout` holds for each step.
    pub(crate) fn log_in(
        &self,
        connection: &mut Connection,
        timeout: Duration,
    ) -> Result<(), Broken> {
        let lifetime = match self {
            Self::User { mechanism, user, password } => {
                shake_hands(mechanism, connection, timeout)?;
                let begun = begin(mechanism, user, password.text());
                let begun = begun.map_err(|e| connection.refused(e.to_string()))?;
                converse(mechanism, begun, connection, timeout)?
            }
            Self::Bearer(tokens) => {
                let token = tokens.token().map_err(|e| Broken::NoToken(Box::new(e)))?;
                shake_hands("OAUTHBEARER", connection, timeout)?;
                let taken = show(&token, tokens, connection, timeout);
                if matches!(taken, Err(Broken::Refused { .. })) {
                    tokens.refused(&token);
                }
                taken?
            }
        };
        // The broker hangs up on sessions that outlive this (KIP-368).
        if let Ok(lifetime @ 1..) = u64::try_from(lifetime) {
            connection.expire_after(Duration::from_millis(lifetime / 10 * 8));
        }
        Ok(())
    }
}

/// Agrees on the mechanism.
fn shake_hands(
    mechanism: &'static str,
    connection: &mut Connection,
    timeout: Duration,
) -> Result<(), Broken> {
    let version = connection.version(ApiKey::SaslHandshake, (1, 1))?;
    let named = StrBytes::from_static_str(mechanism);
    let request = SaslHandshakeRequest::default().with_mechanism(named);
    let answer = connection.ask(&request, version, timeout)?;
    if answer.error_code != 0 {
        let known: Vec<&str> = answer.mechanisms.iter().map(StrBytes::as_str).collect();
        let known = shown(&known.join(", "));
        let reason = format!("the broker takes no {mechanism}, but {known}");
        return Err(connection.refused(reason));
    }
    Ok(())
}

fn begin(mechanism: &str, user: &str, password: String) -> Result<Session, SASLError> {
    let config = SASLConfig::with_credentials(None, user.to_owned(), password)?;
    let mechanism =
        Mechname::parse(mechanism.as_bytes()).map_err(|_| SASLError::NoSharedMechanism)?;
    SASLClient::new(config).start_suggested_iter([mechanism])
}

/// Goes on until both sides have said all; gives the session's lifetime in milliseconds.
fn converse(
    mechanism: &str,
    mut session: Session,
    connection: &mut Connection,
    timeout: Duration,
) -> Result<i64, Broken> {
    let mut lifetime = 0;
    let mut said: Option<Bytes> = None;
    loop {
        let mut out = Vec::new();
        let state = session.step(said.as_deref(), &mut out);
        let state = state.map_err(|e: SessionError| {
            // It is the broker that has to prove here that it knows the password, too.
            connection.refused(format!("{mechanism} with the broker: {}", shown(&e.to_string())))
        })?;
        if matches!(state, State::Finished(_)) && out.is_empty() {
            return Ok(lifetime);
        }
        let answer = say(out, connection, timeout)?;
        lifetime = answer.session_lifetime_ms;
        if matches!(state, State::Finished(_)) {
            return Ok(lifetime);
        }
        said = Some(answer.auth_bytes);
    }
}

/// Shows the token (RFC 7628, section 3.1); gives the session's lifetime in milliseconds.
fn show(
    token: &Token,
    tokens: &Tokens,
    connection: &mut Connection,
    timeout: Duration,
) -> Result<i64, Broken> {
    let mut message = format!("n,,\x01auth=Bearer {}\x01", token.text);
    for (key, value) in tokens.extensions() {
        message.extend([key.as_str(), "=", value.as_str(), "\x01"]);
    }
    message.push('\x01');
    let answer = say(message.into_bytes(), connection, timeout)?;
    if answer.auth_bytes.is_empty() {
        return Ok(answer.session_lifetime_ms);
    }
    // A refusal is a text of JSON; what is left to say is a courtesy, and the connection ends.
    let said = String::from_utf8_lossy(&answer.auth_bytes).replace(&token.text, "[hidden]");
    Err(connection.refused(format!(
        "it does not take the token of sasl.oauthbearer.client.id={}: {}; its own log says why",
        tokens.client_id(),
        shown(&said)
    )))
}

/// Says one thing, and what the broker has to say to it.
fn say(
    bytes: Vec<u8>,
    connection: &mut Connection,
    timeout: Duration,
) -> Result<SaslAuthenticateResponse, Broken> {
    let version = connection.version(ApiKey::SaslAuthenticate, (0, 2))?;
    let request = SaslAuthenticateRequest::default().with_auth_bytes(bytes.into());
    let answer = connection.ask(&request, version, timeout)?;
    if answer.error_code != 0 {
        let reason = answer.error_message.map(|m| shown(&m));
        let reason = reason.unwrap_or_else(|| format!("error {}", answer.error_code));
        return Err(connection.refused(reason));
    }
    Ok(answer)
}
