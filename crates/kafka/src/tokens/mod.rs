//! Tokens of an identity provider, for brokers that take OAUTHBEARER (RFC 7628, KIP-255).
//!
//! The librdkafka that is built in has no HTTP client, so they are asked for here (client credentials, RFC 6749) and handed
//! to it. One token serves all clients of a cluster: it is renewed after three quarters of its life, by whichever client of
//! librdkafka's asks for a new one first, and asked for by those who need one and find none.

mod answer;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isk_outbound::chain;

use crate::config::KafkaConfig;
use crate::error::KafkaError;
use crate::https;
use answer::Unusable;
use settings::Provider;
pub(crate) use settings::{HTTPS, asks_for_tokens, is_of_tokens};

/// An answer is never longer.
const MOST_BYTES: usize = 256 << 10;
/// How long the provider is left in peace after it gave none.
const PAUSE: Duration = Duration::from_secs(1);
/// A token is not used for the last tenth of its life, or this long before its end.
const LONGEST_MARGIN: Duration = Duration::from_secs(5);
/// A token that lives longer is renewed all the same.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// A token, and how long it is good. It has no `Debug`: who has it is let in.
pub(crate) struct Token {
    pub(crate) text: String,
    asked: Instant,
    renew: Instant,
    pub(crate) expires: Instant,
}

impl Token {
    fn new(text: String, life: Duration, asked: Instant) -> Self {
        let life = life.min(LONGEST_LIFE);
        let expires = asked + life - (life / 10).min(LONGEST_MARGIN);
        Self { text, asked, renew: asked + life / 4 * 3, expires }
    }
}

/// What is known just now.
#[derive(Default)]
struct Kept {
    token: Option<Arc<Token>>,
    /// Brokers do not take it, though it is not over.
    refused: bool,
    failed: Option<(Instant, KafkaError)>,
}

/// Where tokens come from, and the one that is good now. `Debug` shows neither it nor the secret.
pub(crate) struct Tokens {
    provider: Provider,
    http: reqwest::Client,
    kept: Mutex<Kept>,
    /// Held while the provider is asked: who waited finds the answer there.
    asking: Mutex<()>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.provider.endpoint_shown()).finish()
    }
}

impl Tokens {
    /// `None` where the properties ask for no provider's tokens. Asks nothing of the provider.
    ///
    /// # Errors
    /// [`KafkaError::Config`] names the property that is missing or not understood.
    pub(crate) fn of(config: &KafkaConfig) -> Result<Option<Self>, KafkaError> {
        let Some(provider) = Provider::of(config)? else { return Ok(None) };
        // Half of the time a question may take: the other half is the brokers'.
        let timeout = config.request_timeout / 2;
        let unmade = |e: &dyn std::error::Error| {
            KafkaError::Create(format!("the HTTP client of the token endpoint: {}", chain(e)))
        };
        let http = https::builder(&provider.authorities, timeout, timeout)
            .map_err(|e| unmade(&e))?
            // A connection does not outlive the question, which has a runtime of its own.
            .pool_max_idle_per_host(0)
            // The secret goes where it was told to go and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| unmade(&e))?;
        Ok(Some(Self { provider, http, kept: Mutex::default(), asking: Mutex::default() }))
    }

    /// Who the token is for.
    pub(crate) fn client_id(&self) -> &str {
        &self.provider.client_id
    }

    /// What brokers are told besides the token.
    pub(crate) fn extensions(&self) -> &[(String, String)] {
        &self.provider.extensions
    }

    /// A token that is good now, from any thread.
    ///
    /// # Errors
    /// [`KafkaError::Token`].
    pub(crate) async fn ready(self: &Arc<Self>) -> Result<Arc<Token>, KafkaError> {
        if let Some(held) = self.wanted(|token| token.expires) {
            return Ok(held);
        }
        let tokens = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || tokens.token()).await;
        asked.unwrap_or_else(|_| Err(self.error(Unusable::strange("the question was broken off"))))
    }

    /// A token that is good now. It blocks while the provider is asked.
    ///
    /// # Errors
    /// [`KafkaError::Token`].
    pub(crate) fn token(&self) -> Result<Arc<Token>, KafkaError> {
        self.wanted_or_asked(|token| token.expires)
    }

    /// A token with a good part of its life before it, if the provider gives one. It blocks while the provider is asked.
    ///
    /// # Errors
    /// [`KafkaError::Token`], where there is none that is still good, either.
    pub(crate) fn renewed(&self) -> Result<Arc<Token>, KafkaError> {
        self.wanted_or_asked(|token| token.renew)
    }

    /// A broker does not take this token: roles may have been added later, or the provider's keys have changed. The next
    /// login asks for another. A token that is younger than [`PAUSE`] is kept, so that brokers that take none do not make us
    /// ask the provider at each login.
    pub(crate) fn refused(&self, token: &Arc<Token>) {
        let mut kept = lock(&self.kept);
        let is_kept = kept.token.as_ref().is_some_and(|held| Arc::ptr_eq(held, token));
        if is_kept && token.asked.elapsed() >= PAUSE {
            kept.refused = true;
        }
    }

    /// Why there is no token that is good, if that is so.
    pub(crate) fn failure(&self) -> Option<KafkaError> {
        match self.held(|token| token.expires) {
            Some(_) => None,
            None => lock(&self.kept).failed.as_ref().map(|(_, error)| error.clone()),
        }
    }

    fn held(&self, until: impl Fn(&Token) -> Instant) -> Option<Arc<Token>> {
        let kept = lock(&self.kept);
        kept.token.as_ref().filter(|token| Instant::now() < until(token)).map(Arc::clone)
    }

    /// What is held, unless brokers refuse it.
    fn wanted(&self, until: impl Fn(&Token) -> Instant) -> Option<Arc<Token>> {
        if lock(&self.kept).refused { None } else { self.held(until) }
    }

    /// What is wanted, else what the provider gives; where it gives nothing, what is held: one broker may refuse what others
    /// take.
    fn wanted_or_asked(&self, until: impl Fn(&Token) -> Instant) -> Result<Arc<Token>, KafkaError> {
        if let Some(wanted) = self.wanted(&until) {
            return Ok(wanted);
        }
        let asked = self.asked_once(until);
        asked.or_else(|error| self.held(|token| token.expires).ok_or(error))
    }

    fn asked_once(&self, until: impl Fn(&Token) -> Instant) -> Result<Arc<Token>, KafkaError> {
        let came = Instant::now();
        let _one_at_a_time = lock(&self.asking);
        if let Some(wanted) = self.wanted(until) {
            return Ok(wanted);
        }
        if let Some((at, error)) = &lock(&self.kept).failed
            && (*at >= came || at.elapsed() < PAUSE)
        {
            return Err(error.clone());
        }
        let asked = self.ask_blocking();
        let mut kept = lock(&self.kept);
        match asked {
            Ok(token) => {
                if kept.failed.take().is_some() {
                    tracing::info!("the brokers' token endpoint gives tokens again");
                }
                kept.refused = false;
                Ok(Arc::clone(kept.token.insert(Arc::new(token))))
            }
            Err(unusable) => {
                let error = self.error(unusable);
                if kept.failed.is_none() {
                    tracing::warn!(%error, "the brokers' token is not renewed");
                }
                kept.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// A runtime for one question: who asks may be a thread of librdkafka's.
    fn ask_blocking(&self) -> Result<Token, Unusable> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Unusable::strange(&format!("no runtime: {e}")))?;
        let answer = runtime.block_on(self.ask());
        // A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        answer
    }

    async fn ask(&self) -> Result<Token, Unusable> {
        let Provider { endpoint, client_id, .. } = &self.provider;
        let asked = Instant::now();
        let secret = self.provider.secret();
        let unreachable = |e: reqwest::Error| {
            Unusable::strange(&format!("it does not answer: {}", chain(&e.without_url())))
        };
        let request = self
            .http
            .post(endpoint.clone())
            .basic_auth(client_id, Some(&secret))
            .header("Accept", "application/json")
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(self.provider.form());
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = https::body(response, MOST_BYTES).await.map_err(unreachable)?;
        let body = body.ok_or_else(|| Unusable::strange("its answer is too long for a token"))?;
        let (text, life) = answer::read(status, &body, &secret)?;
        Ok(Token::new(text, life, asked))
    }

    fn error(&self, unusable: Unusable) -> KafkaError {
        KafkaError::Token {
            endpoint: self.provider.endpoint_shown(),
            reason: unusable.reason,
            refused: unusable.refused,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
