//! The clients that fetch: opening one costs connections, closing one 100 ms, so they are kept.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::config::{ClientKind, KafkaConfig};
use crate::error::KafkaError;
use crate::ffi::{Client, TopicCache};
use crate::metrics::KafkaMetrics;
use crate::tokens::Tokens;

/// How long an unused client keeps its connections.
const KEEP_IDLE: Duration = Duration::from_secs(300);

/// One client that reads one partition at a time.
pub(crate) struct Fetcher {
    pub(crate) client: Arc<Client>,
    pub(crate) topics: TopicCache,
    kind: ClientKind,
    used: Instant,
}

/// Clients by kind, and the right to use one.
pub(crate) struct Pool {
    config: KafkaConfig,
    metrics: Arc<KafkaMetrics>,
    tokens: Option<Arc<Tokens>>,
    running: Arc<Semaphore>,
    idle: Mutex<Vec<Fetcher>>,
}

impl Pool {
    pub(crate) fn new(
        config: KafkaConfig,
        metrics: Arc<KafkaMetrics>,
        tokens: Option<Arc<Tokens>>,
    ) -> Self {
        let running = Arc::new(Semaphore::new(config.max_concurrent_fetches));
        Self { config, metrics, tokens, running, idle: Mutex::default() }
    }

    /// Waits until one more fetch may run.
    pub(crate) async fn permit(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.running).acquire_owned().await
    }

    /// Takes a client, rather one that knows the topic. The holder of a permit calls this; it blocks while a token is asked for.
    pub(crate) fn take(&self, kind: ClientKind, topic: &str) -> Result<Fetcher, KafkaError> {
        let token = self.tokens.as_ref().map(|tokens| tokens.token()).transpose()?;
        let taken = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            // Dropping a client hands it to a thread of its own, so this is quick.
            idle.retain(|fetcher| fetcher.used.elapsed() < KEEP_IDLE);
            let known = idle.iter().rposition(|f| f.kind == kind && f.topics.holds(topic));
            let any = known.or_else(|| idle.iter().rposition(|f| f.kind == kind));
            any.map(|index| idle.remove(index))
        };
        let fetcher = match taken {
            Some(fetcher) => fetcher,
            None => self.open(kind)?,
        };
        fetcher.client.renew_login(&self.config);
        if let Some(token) = token {
            fetcher.client.give_token(&token);
        }
        Ok(fetcher)
    }

    fn open(&self, kind: ClientKind) -> Result<Fetcher, KafkaError> {
        let properties = self.config.client_properties(kind);
        let (metrics, tokens) = (Arc::clone(&self.metrics), self.tokens.clone());
        let client = Arc::new(Client::new(&properties, metrics, tokens)?);
        Ok(Fetcher { client, topics: TopicCache::default(), kind, used: Instant::now() })
    }

    /// Gives a client back that reads nothing any more. One that saw an error is dropped instead.
    pub(crate) fn give_back(&self, mut fetcher: Fetcher) {
        fetcher.client.serve_callbacks();
        fetcher.used = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(fetcher);
        // There are two kinds: an idle client of one must not count against a run of the other
        // for ever, so the longest unused goes.
        if idle.len() > self.config.max_concurrent_fetches {
            idle.remove(0);
        }
    }
}
