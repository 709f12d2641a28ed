//! Followed topics: proven to their ends, tick by tick, so that engines count them from metadata.
//!
//! Every tick asks for the ends and encodes what is new as one more piece of each partition. Beside the
//! ticks, pieces are joined to longer ones, and to whole chunks. What lies further back is the prover's.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use isk_model::{KafkaPartition, OffsetRange, TopicName};
use tokio::task::JoinSet;

use crate::api::ServiceError;
use crate::look::Look;
use crate::manners::Errand;
use crate::metrics::add;
use crate::service::Service;

/// How often topics are looked for that are to be followed.
const LOOK_FOR_TOPICS: Duration = Duration::from_secs(5);

/// How long the pause after failures grows at the most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Partitions of one topic proven at the same time.
const AT_ONCE: usize = 4;

impl Service {
    /// Follows the topics that are to be followed until the task is dropped.
    pub async fn follow_forever(self: &Arc<Self>) {
        let mut followed: BTreeMap<TopicName, tokio::task::AbortHandle> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        while self.prover.follows_any() {
            while tasks.try_join_next().is_some() {}
            followed.retain(|_, task| !task.is_finished());
            match self.topics.names().await {
                Ok(names) => {
                    for name in names.into_iter().filter(|name| self.prover.follows(name)) {
                        followed.entry(name).or_insert_with_key(|name| {
                            tracing::info!(topic = %name, "following");
                            let (this, name) = (Arc::clone(self), name.clone());
                            tasks.spawn(async move { this.follow(&name).await })
                        });
                    }
                }
                Err(error) => tracing::warn!(%error, "topics to follow cannot be looked for"),
            }
            tokio::time::sleep(LOOK_FOR_TOPICS).await;
        }
    }

    /// Follows one topic until it is no more.
    async fn follow(&self, topic: &TopicName) {
        let last: Mutex<Option<Arc<Look>>> = Mutex::default();
        tokio::select! {
            () = self.follow_ends(topic, &last) => {}
            () = self.join_pieces(&last) => {}
        }
        if let Some(look) = last.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.tips.forget(&look.topic);
        }
    }

    async fn follow_ends(&self, topic: &TopicName, last: &Mutex<Option<Arc<Look>>>) {
        let interval = self.prover.config.follow_interval;
        let mut pause = interval;
        loop {
            let begun = Instant::now();
            match self.follow_once(topic, last).await {
                Ok(()) => pause = interval,
                Err(ServiceError::NoSuchTable { .. }) => {
                    tracing::info!(%topic, "not followed any more: there is no such topic");
                    return;
                }
                Err(error) => {
                    if pause == interval {
                        tracing::warn!(%topic, %error, "a followed topic cannot be proven to its end");
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            tokio::time::sleep(pause.saturating_sub(begun.elapsed())).await;
        }
    }

    /// One tick: proves all partitions to their ends as of now.
    async fn follow_once(
        &self,
        topic: &TopicName,
        last: &Mutex<Option<Arc<Look>>>,
    ) -> Result<(), ServiceError> {
        let look = Arc::new(self.look(topic.as_str()).await?);
        let before = last.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(&look));
        if let Some(before) = before.filter(|before| before.topic.id != look.topic.id) {
            self.tips.forget(&before.topic);
        }
        let todo = self.tips.to_prove(&look, &self.facts)?;
        let prove = |(partition, ranges): (KafkaPartition, Vec<OffsetRange>)| {
            let look = &look;
            async move {
                for &range in &ranges {
                    self.prove(look, partition, range, Errand::Follow).await?;
                    add(&self.prover.metrics.pieces, 1);
                }
                self.tips.proven(look, partition, &ranges)
            }
        };
        let outcomes: Vec<_> =
            stream::iter(todo).map(prove).buffer_unordered(AT_ONCE).collect().await;
        // What failed in one partition holds up no other.
        outcomes.into_iter().collect()
    }

    /// Makes longer pieces of short ones.
    async fn join_pieces(&self, last: &Mutex<Option<Arc<Look>>>) {
        let interval = self.prover.config.follow_interval;
        let mut pause = interval;
        loop {
            let look = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let next = look.and_then(|look| Some((self.tips.to_join(&look)?, look)));
            let Some(((partition, range), look)) = next else {
                tokio::time::sleep(interval).await;
                continue;
            };
            let joined = async {
                self.prove(&look, partition, range, Errand::Join).await?;
                self.tips.joined(&look.topic, partition, range)
            };
            match joined.await {
                Ok(()) => {
                    self.prover.metrics.joins.fetch_add(1, Ordering::Relaxed);
                    pause = interval;
                }
                Err(error) => {
                    tracing::debug!(topic = %look.topic.name, %range, %error, "pieces stay as they are");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
