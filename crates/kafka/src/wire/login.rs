//! Who we are, told to a broker by SASL (KIP-43, KIP-152).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;
use rsasl::prelude::{Mechname, SASLClient, SASLConfig, SASLError, Session, SessionError, State};

use super::connection::{Broken, Connection};
use isk_outbound::SecretFile;

/// The mechanisms that are spoken; OAUTHBEARER and GSSAPI are librdkafka's.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
const PROPERTIES: [&str; 4] =
    ["sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"];

/// A user, and how it proves itself. `Debug` shows no secret.
#[derive(Clone)]
pub(crate) struct Login {
    mechanism: &'static str,
    user: String,
    password: String,
    /// Where the password is renewed.
    file: Option<SecretFile>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mechanism, user, .. } = self;
        f.debug_struct("Login")
            .field("mechanism", mechanism)
            .field("user", user)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// `Err` names the property that only librdkafka can serve.
    pub(crate) fn of(
        properties: &BTreeMap<String, String>,
        file: Option<&SecretFile>,
    ) -> Result<Self, String> {
        let get = |key: &str| properties.get(key).map(String::as_str);
        let other = |key: &&String| key.starts_with("sasl.") && !PROPERTIES.contains(&key.as_str());
        if let Some(other) = properties.keys().find(other) {
            return Err(other.clone());
        }
        let named = get("sasl.mechanism").or(get("sasl.mechanisms")).unwrap_or_default();
        let mechanism = MECHANISMS.into_iter().find(|known| *known == named);
        match (mechanism, get("sasl.username"), get("sasl.password")) {
            (Some(mechanism), Some(user), Some(password)) => {
                let (user, password) = (user.to_owned(), password.to_owned());
                Ok(Self { mechanism, user, password, file: file.cloned() })
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
        let version = connection.version(ApiKey::SaslHandshake, (1, 1))?;
        let mechanism = StrBytes::from_static_str(self.mechanism);
        let request = SaslHandshakeRequest::default().with_mechanism(mechanism);
        let answer = connection.ask(&request, version, timeout)?;
        if answer.error_code != 0 {
            let known: Vec<&str> = answer.mechanisms.iter().map(StrBytes::as_str).collect();
            let reason =
                format!("the broker takes no {}, but {}", self.mechanism, known.join(", "));
            return Err(connection.refused(reason));
        }
        let begun = self.begin().map_err(|e| connection.refused(e.to_string()))?;
        let lifetime = self.converse(begun, connection, timeout)?;
        // The broker hangs up on sessions that outlive this (KIP-368).
        if let Ok(lifetime @ 1..) = u64::try_from(lifetime) {
            connection.expire_after(Duration::from_millis(lifetime / 10 * 8));
        }
        Ok(())
    }

    fn begin(&self) -> Result<Session, SASLError> {
        let password = self.file.as_ref().map_or_else(|| self.password.clone(), SecretFile::text);
        let config = SASLConfig::with_credentials(None, self.user.clone(), password)?;
        let mechanism =
            Mechname::parse(self.mechanism.as_bytes()).map_err(|_| SASLError::NoSharedMechanism)?;
        SASLClient::new(config).start_suggested_iter([mechanism])
    }

    /// Goes on until both sides have said all; gives the session's lifetime in milliseconds.
    fn converse(
        &self,
        mut session: Session,
        connection: &mut Connection,
        timeout: Duration,
    ) -> Result<i64, Broken> {
        let version = connection.version(ApiKey::SaslAuthenticate, (0, 2))?;
        let mut lifetime = 0;
        let mut said: Option<Bytes> = None;
        loop {
            let mut out = Vec::new();
            let state = session.step(said.as_deref(), &mut out);
            let state = state.map_err(|e: SessionError| {
                // It is the broker that has to prove here that it knows the password, too.
                connection.refused(format!("{} with the broker: {e}", self.mechanism))
            })?;
            if matches!(state, State::Finished(_)) && out.is_empty() {
                return Ok(lifetime);
            }
            let request = SaslAuthenticateRequest::default().with_auth_bytes(out.into());
            let answer = connection.ask(&request, version, timeout)?;
            if answer.error_code != 0 {
                let reason = answer.error_message.map(|m| m.to_string());
                let reason = reason.unwrap_or_else(|| format!("error {}", answer.error_code));
                return Err(connection.refused(reason));
            }
            lifetime = answer.session_lifetime_ms;
            if matches!(state, State::Finished(_)) {
                return Ok(lifetime);
            }
            said = Some(answer.auth_bytes);
        }
    }
}
