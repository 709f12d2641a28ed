//! What topics there are and how far their partitions reach.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use isk_model::{OffsetRange, TopicName, TopicPartition};

use crate::config::{ClientKind, KafkaConfig};
use crate::error::KafkaError;
use crate::fetch::{self, BlockStream, FetchLimits, WithHeaders, is_retriable};
use crate::ffi::{AdminQueue, Client, Code, DescribedTopic, code};
use crate::metrics::{KafkaMetrics, add};
use crate::pool::Pool;
use crate::tokens::Tokens;
use crate::topic::{TopicDescription, description, without_id};
use crate::traced::traced;
use crate::wire::Hub;

/// Pause between two attempts while leaders move.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A Kafka cluster. Clones share clients and counters.
#[derive(Clone)]
pub struct KafkaCluster(Arc<Inner>);

struct Inner {
    config: KafkaConfig,
    metrics: Arc<KafkaMetrics>,
    admin: Arc<Client>,
    pool: Pool,
    /// Where logins are by tokens of a provider.
    tokens: Option<Arc<Tokens>>,
    /// How records are fetched over the wire; without it librdkafka fetches them.
    hub: Option<Arc<Hub>>,
    cluster_id: OnceLock<String>,
}

impl fmt::Debug for KafkaCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaCluster").field(&self.0.config).finish()
    }
}

impl KafkaCluster {
    /// Prepares the clients. Needs no broker: they are connected to in the background, and may come
    /// up later.
    ///
    /// # Errors
    /// [`KafkaError::Config`] names the property that is refused; [`KafkaError::Create`] when the
    /// properties do not fit together.
    pub fn connect(config: KafkaConfig) -> Result<Self, KafkaError> {
        config.validate()?;
        let metrics = Arc::new(KafkaMetrics::default());
        let tokens = Tokens::of(&config)?.map(Arc::new);
        let properties = config.client_properties(ClientKind::Admin);
        let admin = Client::new(&properties, Arc::clone(&metrics), tokens.clone())?;
        let admin = Arc::new(admin);
        let pool = Pool::new(config.clone(), Arc::clone(&metrics), tokens.clone());
        let cluster_id = OnceLock::new();
        let hub = Hub::of(&config, &metrics, tokens.as_ref()).map(Arc::new);
        Ok(Self(Arc::new(Inner { config, metrics, admin, pool, tokens, hub, cluster_id })))
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &KafkaConfig {
        &self.0.config
    }

    /// Its counters.
    pub fn metrics(&self) -> &KafkaMetrics {
        &self.0.metrics
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    pub(crate) fn hub(&self) -> Option<Arc<Hub>> {
        self.0.hub.clone()
    }

    /// Starts fetching the committed records of `range`. Call it within a tokio runtime; the records
    /// come through the stream, from a thread of their own.
    pub fn fetch(
        &self,
        tp: &TopicPartition,
        range: OffsetRange,
        limits: FetchLimits,
    ) -> BlockStream {
        fetch::start(self, tp.clone(), range, limits, WithHeaders::Yes)
    }

    /// As [`Self::fetch`], but the records come without their headers, for tables that do not show
    /// them: looking for headers is a good part of a small record's cost.
    pub fn fetch_without_headers(
        &self,
        tp: &TopicPartition,
        range: OffsetRange,
        limits: FetchLimits,
    ) -> BlockStream {
        fetch::start(self, tp.clone(), range, limits, WithHeaders::No)
    }

    /// The cluster's id as the brokers tell it (KIP-78). Asked once.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`] when no broker answers in time.
    pub async fn cluster_id(&self) -> Result<String, KafkaError> {
        if let Some(known) = self.0.cluster_id.get() {
            return Ok(known.clone());
        }
        let timeout = self.0.config.request_timeout;
        let admin = Arc::clone(&self.0.admin);
        let asked = self
            .blocking("the cluster's id", move || {
                let id = AdminQueue::cluster_id_blocking(&admin, timeout);
                id.ok_or_else(|| Code::new(code::TIMED_OUT))
            })
            .await?;
        Ok(self.0.cluster_id.get_or_init(|| asked).clone())
    }

    /// All topics the principal may see, internal ones included, sorted by name.
    ///
    /// # Errors
    /// See [`KafkaError`].
    pub async fn topics(&self) -> Result<Vec<TopicDescription>, KafkaError> {
        let timeout = self.0.config.request_timeout;
        let admin = Arc::clone(&self.0.admin);
        let listed = self
            .blocking("the list of topics", move || {
                AdminQueue::all_topics_blocking(&admin, timeout)
            })
            .await?;
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        let described = match self.describe(&names).await? {
            Some(described) => described,
            // Brokers that cannot describe topics give no ids.
            None => listed.into_iter().map(without_id).collect(),
        };
        let mut topics: Vec<_> = described
            .into_iter()
            .filter(|topic| topic.error.as_ref().is_none_or(|e| is_retriable(e.code)))
            .filter_map(description)
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic, or `None` when there is no such topic.
    ///
    /// # Errors
    /// [`KafkaError::NotAuthorized`] when the principal may not see it; see [`KafkaError`].
    pub async fn topic(&self, name: &TopicName) -> Result<Option<TopicDescription>, KafkaError> {
        let Some(described) = self.describe(&[name.as_str()]).await? else {
            let all = self.topics().await?;
            return Ok(all.into_iter().find(|topic| topic.name == *name));
        };
        let Some(topic) = described.into_iter().next() else { return Ok(None) };
        match &topic.error {
            None => Ok(description(topic)),
            Some(failed)
                if matches!(failed.code, code::UNKNOWN_TOPIC_OR_PART | code::UNKNOWN_TOPIC) =>
            {
                Ok(None)
            }
            Some(failed) => {
                Err(self.error(format!("describing topic {name}"), failed, Duration::ZERO, None))
            }
        }
    }

    /// The topic's configuration (`cleanup.policy`, `max.message.bytes`, …), defaults included.
    ///
    /// # Errors
    /// [`KafkaError::NotAuthorized`] without DESCRIBE_CONFIGS on the topic; see [`KafkaError`].
    pub async fn topic_config(
        &self,
        topic: &TopicName,
    ) -> Result<BTreeMap<String, String>, KafkaError> {
        let what = format!("the configuration of topic {topic}");
        self.ask(&what, Some(topic), |queue, timeout| {
            let topic = topic.clone();
            async move { queue.topic_config(topic.as_str(), timeout).await }
        })
        .await
    }

    /// `None` when the brokers are too old to be asked.
    async fn describe(&self, names: &[&str]) -> Result<Option<Vec<DescribedTopic>>, KafkaError> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let what = if let [one] = names.as_slice() {
            format!("describing topic {one}")
        } else {
            format!("describing {} topics", names.len())
        };
        self.ask(&what, None, |queue, timeout| {
            let names = names.clone();
            async move {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                match queue.describe_topics(&names, false, timeout).await {
                    Ok(described) => Ok(Some(described)),
                    Err(failed) if failed.code == code::UNSUPPORTED_FEATURE => Ok(None),
                    Err(failed) => Err(failed),
                }
            }
        })
        .await
    }

    /// Asks one question, again while leaders move, until it is answered or time is up.
    pub(crate) async fn ask<T, F>(
        &self,
        what: &str,
        topic: Option<&TopicName>,
        question: impl FnMut(AdminQueue, Duration) -> F,
    ) -> Result<T, KafkaError>
    where
        F: Future<Output = Result<T, Code>>,
    {
        traced(what, self.ask_until_answered(what, topic, question)).await
    }

    async fn ask_until_answered<T, F>(
        &self,
        what: &str,
        topic: Option<&TopicName>,
        mut question: impl FnMut(AdminQueue, Duration) -> F,
    ) -> Result<T, KafkaError>
    where
        F: Future<Output = Result<T, Code>>,
    {
        let timeout = self.0.config.request_timeout;
        let begun = Instant::now();
        loop {
            self.renew_login().await?;
            add(&self.0.metrics.admin_requests, 1);
            let Some(queue) = AdminQueue::new(&self.0.admin) else {
                return Err(KafkaError::Create("no memory for a queue".into()));
            };
            let left = timeout.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            let failed = match question(queue, left).await {
                Ok(answer) => {
                    self.0.admin.serve_callbacks();
                    self.0.admin.state().let_in();
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            if is_retriable(failed.code) && begun.elapsed() + RETRY_PAUSE < timeout {
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            add(&self.0.metrics.admin_errors, 1);
            return Err(self.error(what.to_owned(), &failed, begun.elapsed(), topic));
        }
    }

    /// Logs in as is good now, from the next connection on.
    async fn renew_login(&self) -> Result<(), KafkaError> {
        let Inner { admin, config, tokens, metrics, .. } = &*self.0;
        admin.renew_login(config);
        if let Some(tokens) = tokens {
            let token = tokens.ready().await;
            admin.give_token(&token.inspect_err(|_| add(&metrics.admin_errors, 1))?);
        }
        Ok(())
    }

    /// Runs one of librdkafka's blocking questions off the async workers.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        question: impl FnOnce() -> Result<T, Code> + Send + 'static,
    ) -> Result<T, KafkaError> {
        self.renew_login().await?;
        add(&self.0.metrics.admin_requests, 1);
        let begun = Instant::now();
        let answered = async {
            let answer = tokio::task::spawn_blocking(question).await;
            answer.unwrap_or_else(|_| Err(Code::new(code::NOT_AVAILABLE))).map_err(|failed| {
                add(&self.0.metrics.admin_errors, 1);
                self.error(what.to_owned(), &failed, begun.elapsed(), None)
            })
        };
        traced(what, answered).await
    }

    /// Classes an error code.
    pub(crate) fn error(
        &self,
        what: String,
        failed: &Code,
        after: Duration,
        topic: Option<&TopicName>,
    ) -> KafkaError {
        let admin = &self.0.admin;
        admin.serve_callbacks();
        let brokers = self.0.config.bootstrap_servers().to_owned();
        // What the client cannot tell is that it waits because nobody lets it in.
        let unanswered =
            matches!(failed.code, code::TIMED_OUT | code::TRANSPORT | code::ALL_BROKERS_DOWN);
        // What brokers refuse may be a token that ended while they were asked.
        let tokens = self.0.tokens.as_ref().filter(|_| unanswered);
        if let Some(error) = tokens.and_then(|tokens| tokens.failure()) {
            return error;
        }
        if let Some(reason) = admin.state().authentication_error().filter(|_| unanswered) {
            admin.token_refused();
            return KafkaError::Authentication { brokers, reason };
        }
        match (failed.code, topic) {
            (code::AUTHENTICATION | code::SASL_AUTHENTICATION_FAILED, _) => {
                admin.token_refused();
                KafkaError::Authentication { brokers, reason: failed.text.clone() }
            }
            (code::TOPIC_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED, _) => {
                KafkaError::NotAuthorized { what, reason: failed.text.clone() }
            }
            (
                code::UNKNOWN_TOPIC_OR_PART | code::UNKNOWN_TOPIC | code::UNKNOWN_PARTITION,
                Some(topic),
            ) => KafkaError::NoSuchTopic { topic: topic.clone() },
            (code::NOENT, _) => KafkaError::Leaderless { what },
            _ if unanswered => {
                let last_error = admin.state().last_error();
                KafkaError::Unreachable { what, brokers, after, last_error }
            }
            _ => KafkaError::Broker { what, reason: failed.text.clone() },
        }
    }
}
