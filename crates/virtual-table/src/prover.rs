//! The prover: encodes chunks that nobody has read, newest first, so that their facts are known.
//!
//! It works through the topics that are named to it, and through those that are followed. It reads no
//! faster than its rate and no more a day than its budget, rests while readers wait (`manners.rs`), and
//! its files are kept only where the cache has free room: it never pushes out what somebody reads.
//! A chunk that still grows is proven when its partition has been quiet for a while; of followed topics,
//! `follow.rs` proves it. Compacted topics are proven like others: bounds hold whatever the cleaner
//! removes, and only the count stays one by reading.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isk_model::{KafkaPartition, Offset, OffsetRange, TopicId, TopicName, chunks};

use crate::api::ServiceError;
use crate::facts::{FactBook, recipe};
use crate::look::Look;
use crate::manners::Errand;
use crate::metrics::add;
use crate::pace::Pace;
use crate::service::Service;
use crate::topics::TopicFilter;

/// After so long, the topics are looked at anew even where chunks of the last look are left; and not
/// before so many times as long as the last look took.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const LOOK_SELDOM: u32 = 20;

/// How often the progress is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Chunks remembered of one look, newest first.
const QUEUE: usize = 100_000;

/// The pause after a topic's chunk could not be proven, and how long it grows at the most.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What is encoded unasked.
#[derive(Debug, Clone)]
pub struct ProverConfig {
    /// Off: nothing is.
    pub enabled: bool,
    /// The topics whose chunks are proven.
    pub topics: TopicFilter,
    /// The topics that are proven to their ends, too.
    pub followed: TopicFilter,
    /// Bytes of records read a second at the most, ends of followed topics not counted.
    pub bytes_per_second: u64,
    /// Bytes of records read a day (UTC) at the most, likewise; no bound where there is none.
    pub bytes_per_day: Option<u64>,
    /// Whether topics are read whose older segments lie in a remote store.
    pub tiered: bool,
    /// Whether topics are sampled before anybody asks for them.
    pub sample_ahead: bool,
    /// The pause between two looks for chunks to prove.
    pub interval: Duration,
    /// The pause between two looks at the ends of a followed topic.
    pub follow_interval: Duration,
}

/// The prover's state and counters.
pub(crate) struct Prover {
    pub(crate) config: ProverConfig,
    pub(crate) metrics: ProverMetrics,
    pace: Arc<Pace>,
}

/// What is counted.
#[derive(Default)]
pub(crate) struct ProverMetrics {
    pub(crate) chunks: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) left: AtomicU64,
    pub(crate) rate: AtomicU64,
    pub(crate) pieces: AtomicU64,
    pub(crate) joins: AtomicU64,
}

impl Prover {
    pub(crate) fn new(config: ProverConfig) -> Self {
        let pace = Arc::new(Pace::new(config.bytes_per_second, config.bytes_per_day));
        Self { config, metrics: ProverMetrics::default(), pace }
    }

    /// Whether a topic is proven to its end.
    pub(crate) fn follows(&self, topic: &TopicName) -> bool {
        self.config.enabled && self.config.followed.serves(topic)
    }

    /// Whether there may be a topic that is.
    pub(crate) fn follows_any(&self) -> bool {
        self.config.enabled && !self.config.followed.is_empty()
    }

    fn proves(&self, topic: &TopicName) -> bool {
        self.config.topics.serves(topic) || self.config.followed.serves(topic)
    }

    /// Counters and gauges in the Prometheus text format.
    pub(crate) fn render(&self, followed_age: Duration) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let m = &self.metrics;
        let values: [(&str, &str, &str, u64); 8] = [
            ("prover_chunks_total", "counter", "Chunks proven unasked.", get(&m.chunks)),
            ("prover_errors_total", "counter", "Chunks that failed.", get(&m.errors)),
            ("prover_bytes_total", "counter", "Record bytes read for it.", self.pace.total()),
            ("prover_chunks_left", "gauge", "Chunks still to be proven.", get(&m.left)),
            ("prover_bytes_per_second", "gauge", "The rate of late.", get(&m.rate)),
            ("follow_pieces_total", "counter", "Ends of partitions proven.", get(&m.pieces)),
            ("follow_joins_total", "counter", "Pieces made one.", get(&m.joins)),
            (
                "follow_age_milliseconds",
                "gauge",
                "Since the followed partition that is furthest behind was proven to its end.",
                u64::try_from(followed_age.as_millis()).unwrap_or(u64::MAX),
            ),
        ];
        let mut out = String::new();
        for (name, kind, help, value) in values {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP isk_{name} {help}\n# TYPE isk_{name} {kind}");
            let _ = writeln!(out, "isk_{name} {value}");
        }
        out
    }
}

/// A chunk to prove.
struct Task {
    look: Arc<Look>,
    partition: KafkaPartition,
    range: OffsetRange,
}

impl Task {
    fn recipe(&self) -> String {
        recipe(&self.look.key(self.partition, self.range))
    }
}

/// What the prover remembers from look to look.
#[derive(Default)]
struct Memory {
    /// The end of each partition at the last look.
    ends: HashMap<(TopicId, TopicName, KafkaPartition), Offset>,
    /// Topics that failed: when to try again, and after which pause.
    failed: BTreeMap<TopicName, (Instant, Duration)>,
    /// The recipes of chunks with a record that does not decode, of topics whose policy is to fail.
    undecodable: HashSet<String>,
}

/// What is logged from time to time.
struct Progress {
    logged: Instant,
    bytes: u64,
}

impl Service {
    /// Proves chunks until the task is dropped.
    pub async fn prove_forever(self: &Arc<Self>) {
        let config = &self.prover.config;
        let mut memory = Memory::default();
        while config.enabled && !(config.topics.is_empty() && config.followed.is_empty()) {
            let begun = Instant::now();
            let queue = self.chunks_to_prove(&mut memory).await;
            let long = LOOK_AGAIN.max(begun.elapsed() * LOOK_SELDOM);
            let was_at_work =
                !queue.is_empty() && self.work_through(queue, &mut memory, long).await;
            self.prover.metrics.rate.store(0, Ordering::Relaxed);
            if !was_at_work {
                tokio::time::sleep(config.interval).await;
            }
        }
    }

    /// Proves one chunk after the other. Returns whether it was at work until it was time for another
    /// look.
    async fn work_through(
        self: &Arc<Self>,
        queue: Vec<Task>,
        memory: &mut Memory,
        long: Duration,
    ) -> bool {
        let metrics = &self.prover.metrics;
        let begun = Instant::now();
        let mut progress = Progress { logged: begun, bytes: self.prover.pace.total() };
        tracing::info!(left = metrics.left.load(Ordering::Relaxed), "proving chunks");
        for task in queue {
            let topic = &task.look.topic.name;
            if begun.elapsed() > long {
                return true;
            }
            if self.prover.pace.is_spent() {
                break;
            }
            if memory.undecodable.contains(&task.recipe()) {
                continue;
            }
            if memory.failed.get(topic).is_some_and(|(until, _)| Instant::now() < *until) {
                continue;
            }
            let errand = Errand::Prove(Arc::clone(&self.prover.pace));
            match self.prove(&task.look, task.partition, task.range, errand).await {
                Ok(()) => {
                    add(&metrics.chunks, 1);
                    metrics.left.fetch_sub(1, Ordering::Relaxed);
                    memory.failed.remove(topic);
                }
                // Retention was faster, or the log was written anew: the next look sees what is there.
                Err(ServiceError::Gone { .. }) => add(&metrics.errors, 1),
                // So it will be the next time: other chunks of the topic can be proven.
                Err(ServiceError::Undecodable { .. }) => {
                    add(&metrics.errors, 1);
                    if memory.undecodable.len() == QUEUE {
                        memory.undecodable.clear();
                    }
                    memory.undecodable.insert(task.recipe());
                }
                Err(error) => {
                    add(&metrics.errors, 1);
                    let last = memory.failed.get(topic).map(|(_, pause)| *pause);
                    let pause = last.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
                    memory.failed.insert(topic.clone(), (Instant::now() + pause, pause));
                    let seconds = pause.as_secs();
                    tracing::warn!(%topic, %error, seconds, "proving pauses for this topic");
                }
            }
            self.log_progress(&mut progress);
        }
        let (done, left) =
            (metrics.chunks.load(Ordering::Relaxed), metrics.left.load(Ordering::Relaxed));
        if self.prover.pace.is_spent() {
            tracing::info!(done, left, "the day's budget for proving is used up");
        } else if left == 0 {
            tracing::info!(done, "all chunks that are to be are proven");
        }
        false
    }

    fn log_progress(&self, progress: &mut Progress) {
        let (elapsed, metrics) = (progress.logged.elapsed(), &self.prover.metrics);
        let bytes = self.prover.pace.total();
        let rate = (bytes - progress.bytes) as f64 / elapsed.as_secs_f64().max(0.001);
        metrics.rate.store(rate as u64, Ordering::Relaxed);
        if elapsed >= LOG_EVERY {
            tracing::info!(
                done = metrics.chunks.load(Ordering::Relaxed),
                left = metrics.left.load(Ordering::Relaxed),
                bytes,
                bytes_per_second = rate as u64,
                "proving chunks"
            );
            *progress = Progress { logged: Instant::now(), bytes };
        }
    }

    /// The chunks that are not proven, those nearest to the ends of their partitions first.
    async fn chunks_to_prove(self: &Arc<Self>, memory: &mut Memory) -> Vec<Task> {
        let names = match self.topics.names().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(%error, "topics to prove cannot be looked for");
                return Vec::new();
            }
        };
        let mut looks = Vec::new();
        for name in names.into_iter().filter(|name| self.prover.proves(name)) {
            if self.prover.pace.is_spent() {
                break;
            }
            match self.look(name.as_str()).await {
                Ok(look) if look.settings.tiered && !self.prover.config.tiered => {
                    tracing::debug!(topic = %name, "tiered topics are not proven unless told");
                }
                Ok(look) => {
                    let quiet = self.quiet(&look, memory);
                    looks.push((Arc::new(look), quiet));
                }
                Err(error) => tracing::debug!(topic = %name, %error, "a topic is not proven"),
            }
        }
        let facts = Arc::clone(&self.facts);
        let sorted = tokio::task::spawn_blocking(move || unproven(&looks, &facts)).await;
        let (queue, left) = sorted.unwrap_or_default();
        self.prover.metrics.left.store(left, Ordering::Relaxed);
        queue
    }

    /// The partitions whose ends are where they were at the last look. None of a followed topic's: what
    /// grows of it is proven elsewhere.
    fn quiet(&self, look: &Look, memory: &mut Memory) -> Vec<KafkaPartition> {
        let follows = self.prover.follows(&look.topic.name);
        let mut quiet = Vec::new();
        for (&partition, log) in &look.offsets {
            let place = (look.topic.id, look.topic.name.clone(), partition);
            let before = memory.ends.insert(place, log.last_stable);
            if before == Some(log.last_stable) && !follows {
                quiet.push(partition);
            }
        }
        quiet
    }
}

/// The newest unproven chunks, and how many there are. An open chunk is among them where its partition is
/// quiet.
fn unproven(looks: &[(Arc<Look>, Vec<KafkaPartition>)], facts: &FactBook) -> (Vec<Task>, u64) {
    let (mut found, mut left) = (Vec::new(), 0);
    let newest = |found: &mut Vec<(i64, Task)>| {
        found.sort_by_key(|(behind, _)| *behind);
        found.truncate(QUEUE);
    };
    for (look, quiet) in looks {
        for (&partition, log) in &look.offsets {
            let Some(readable) = log.readable() else { continue };
            let grows = |range: OffsetRange| range.end() != look.k.align(range.end());
            for chunk in chunks(readable, look.k) {
                let open = grows(chunk.range) && chunk.range.end() == readable.end();
                if (!open || quiet.contains(&partition))
                    && !look.is_proven(facts, partition, chunk.range)
                {
                    let behind = (readable.end().0 - chunk.range.end().0) / look.k.width();
                    let task = Task { look: Arc::clone(look), partition, range: chunk.range };
                    found.push((behind, task));
                    left += 1;
                    if found.len() == 2 * QUEUE {
                        newest(&mut found);
                    }
                }
            }
        }
    }
    newest(&mut found);
    (found.into_iter().map(|(_, task)| task).collect(), left)
}
