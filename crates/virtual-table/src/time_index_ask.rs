//! The time index: asks the brokers where times begin in a topic's partitions, and keeps the answers.
//!
//! The first plan of a topic waits a moment for one set of lookups, sent together. All else happens in
//! the background: telling apart chunks that share a bound, and looking again when more chunks are full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use isk_kafka::{KafkaCluster, KafkaError, TopicDescription};
use isk_model::{
    ChunkExponent, KafkaPartition, Offset, OffsetRange, PartitionOffsets, TopicId, TopicName,
};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::metrics::Metrics;
use crate::store::{Kind, Store};
use crate::time_index::{Due, PartitionTimes, Refining};

/// How long the first plan of a topic waits for its lookups. A broker answers within some tens of
/// milliseconds; one that has much else to do is worth waiting for, since a plan without bounds may read
/// the whole topic for its last hour.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Rounds of lookups that tell chunks apart, after the first set; and the pause between two.
const ROUNDS: usize = 64;
const ROUND_PAUSE: Duration = Duration::from_millis(20);

/// A partition's end that has not moved for so long is at rest.
const AT_REST: Duration = Duration::from_secs(10);

/// What is known of one topic's partitions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicTimes {
    partitions: Arc<BTreeMap<KafkaPartition, PartitionTimes>>,
}

impl TopicTimes {
    /// Milliseconds since the epoch that no record of a range is above, if known. For one range it
    /// changes rarely: bounds of full chunks are refined once, after the topic's first plan.
    pub(crate) fn upper_bound(&self, partition: KafkaPartition, range: OffsetRange) -> Option<i64> {
        self.partitions.get(&partition)?.upper_bound(range.end())
    }

    /// The lookups that the bounds within a range are made of.
    pub(crate) fn of(
        &self,
        partition: KafkaPartition,
        range: OffsetRange,
    ) -> impl Iterator<Item = (i64, Offset)> {
        self.partitions.get(&partition).into_iter().flat_map(move |times| times.of(range))
    }

    /// `partition:offset` of records that are dated ahead of now, comma-separated; none is `None`.
    pub(crate) fn dated_ahead(&self) -> Option<String> {
        let now = now_ms();
        let ahead = self.partitions.iter().filter_map(|(partition, times)| {
            times.dated_ahead(now).map(|offset| format!("{partition}:{offset}"))
        });
        Some(ahead.collect::<Vec<_>>().join(",")).filter(|named| !named.is_empty())
    }
}

/// One topic: what is known, and who is asking.
#[derive(Default)]
struct Topic {
    known: Mutex<TopicTimes>,
    /// The ends at the last plan, and since when they are there.
    ends: Mutex<BTreeMap<KafkaPartition, (Offset, Instant)>>,
    asking: Arc<tokio::sync::Mutex<()>>,
    /// How many lookups are on their way that plans wait for.
    awaited: watch::Sender<usize>,
}

/// Lookups that plans wait for, until it is dropped.
struct Awaited(Arc<Topic>);

impl Awaited {
    fn new(topic: &Arc<Topic>) -> Self {
        topic.awaited.send_modify(|lookups| *lookups += 1);
        Self(Arc::clone(topic))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.awaited.send_modify(|lookups| *lookups -= 1);
    }
}

impl Topic {
    fn known(&self) -> MutexGuard<'_, TopicTimes> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions whose end has been where it is for some time.
    fn at_rest(
        &self,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> BTreeSet<KafkaPartition> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at_rest = BTreeSet::new();
        for (&partition, now) in offsets {
            let (end, since) = ends.entry(partition).or_insert((now.last_stable, Instant::now()));
            if *end != now.last_stable {
                (*end, *since) = (now.last_stable, Instant::now());
            } else if since.elapsed() >= AT_REST {
                at_rest.insert(partition);
            }
        }
        at_rest
    }
}

/// What is to be asked, and for what.
struct Question {
    topic: Arc<Topic>,
    name: TopicName,
    id: TopicId,
    k: ChunkExponent,
    tiered: bool,
    partitions: BTreeMap<KafkaPartition, PartitionOffsets>,
}

/// The time indexes of all topics. Clones share them.
#[derive(Clone)]
pub(crate) struct TimeIndex {
    kafka: KafkaCluster,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    topics: moka::sync::Cache<(TopicName, TopicId), Arc<Topic>>,
}

impl TimeIndex {
    pub(crate) fn new(kafka: KafkaCluster, store: Arc<Store>, metrics: Arc<Metrics>) -> Self {
        Self { kafka, store, metrics, topics: moka::sync::Cache::new(10_000) }
    }

    /// What is known of a topic whose partitions reach so far. Looks up what was never looked up, and
    /// has the rest looked up in the background. `tiered`: older segments lie in a remote store.
    pub(crate) async fn observe(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
        k: ChunkExponent,
        tiered: bool,
    ) -> TopicTimes {
        let key = (topic.name.clone(), topic.id);
        let state = self.topics.get_with(key, || Arc::new(self.kept(topic)));
        let at_rest = state.at_rest(offsets);
        let question = |which: Due| {
            let mut known = state.known();
            forget_others(&mut known, offsets);
            let due = |partition: &KafkaPartition, now: &PartitionOffsets| match known
                .partitions
                .get(partition)
            {
                None => Some(Due::Never),
                Some(times) => times.due(now, k, at_rest.contains(partition), now_ms()),
            };
            let partitions: BTreeMap<_, _> = offsets
                .iter()
                .filter(|(_, now)| now.readable().is_some())
                .filter(|(partition, now)| due(partition, now) == Some(which))
                .map(|(&partition, &now)| (partition, now))
                .collect();
            let (topic, name, id) = (Arc::clone(&state), topic.name.clone(), topic.id);
            (!partitions.is_empty()).then_some(Question { topic, name, id, k, tiered, partitions })
        };
        if question(Due::Never).is_some() {
            let turn = Arc::clone(&state.asking).lock_owned();
            // Another plan may have asked while this one waited for its turn.
            if let Ok(turn) = tokio::time::timeout(FIRST_WAIT, turn).await
                && let Some(question) = question(Due::Never)
            {
                let awaited = Awaited::new(&state);
                self.ask(question, turn, Some(awaited));
            }
        } else if let Ok(turn) = Arc::clone(&state.asking).try_lock_owned()
            && let Some(question) = question(Due::More)
        {
            self.ask(question, turn, None);
        }
        // Also a plan that comes while first lookups are on their way waits for them.
        let mut awaited = state.awaited.subscribe();
        let _ = tokio::time::timeout(FIRST_WAIT, awaited.wait_for(|lookups| *lookups == 0)).await;
        state.known().clone()
    }

    /// Asks in the background.
    fn ask(&self, question: Question, turn: OwnedMutexGuard<()>, awaited: Option<Awaited>) {
        let this = self.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            let asked = this.look_up(&question).await;
            tracing::debug!(
                topic = %question.name, partitions = question.partitions.len(),
                ms = begun.elapsed().as_millis() as u64, "looked up by time"
            );
            drop(awaited);
            let refined = match asked {
                Ok(from) => this.refine(&question, &from).await,
                Err(error) => Err(error),
            };
            if let Err(error) = refined {
                tracing::warn!(
                    topic = %question.name, %error,
                    "offsets cannot be looked up by time: filters on kafka_timestamp prune less"
                );
            }
            let kept = tokio::task::spawn_blocking(move || this.keep(&question)).await;
            if let Err(error) = kept {
                tracing::warn!(%error, "keeping the time index panicked");
            }
            drop(turn);
        });
    }

    /// The first set of lookups, sent together. Returns up to where each partition was known before.
    async fn look_up(
        &self,
        question: &Question,
    ) -> Result<BTreeMap<KafkaPartition, Offset>, KafkaError> {
        let now = now_ms();
        let mut asked = Vec::new();
        let mut from = BTreeMap::new();
        question.begin();
        question.change(|partition, times, offsets| {
            from.insert(partition, times.known_to(offsets));
            asked.extend(times.times_to_ask(now).map(|time| (partition, time)));
            // Also where the question fails: it is not asked again at once.
            times.asked(now);
        });
        let partitions: Vec<_> = question.partitions.keys().copied().collect();
        let latest = async {
            // Of a tiered topic the broker names the latest of those on its own disk: no bound of all.
            match question.tiered {
                true => Ok(BTreeMap::new()),
                false => self.kafka.max_timestamps(&question.name, &partitions).await,
            }
        };
        let (firsts, latest) =
            tokio::join!(self.kafka.first_offsets_at(&question.name, &asked), latest);
        // Brokers before 3.0 do not know their latest record: it is done without.
        let latest = latest.unwrap_or_else(|error| {
            tracing::debug!(topic = %question.name, %error, "the latest records are not known");
            BTreeMap::new()
        });
        let firsts = firsts?;
        question.learn(asked.iter().zip(firsts));
        question.change(|partition, times, offsets| {
            if let Some(Some(latest)) = latest.get(&partition) {
                times.learn_latest(*latest, offsets.last_stable, now);
            }
            if let Some(ahead) = times.dated_ahead(now) {
                tracing::warn!(
                    topic = %question.name, %partition, offset = %ahead,
                    "a record is dated ahead of now: until then, filters on kafka_timestamp do not \
                     prune what lies behind it and was never read"
                );
            }
        });
        let known = question.topic.known().clone();
        let ahead = known.partitions.values().filter(|times| times.dated_ahead(now).is_some());
        self.metrics.set_dated_ahead(question.name.as_str(), ahead.count() as u64);
        Ok(from)
    }

    /// Tells chunks apart that share a bound, a lookup of each partition at a time.
    async fn refine(
        &self,
        question: &Question,
        from: &BTreeMap<KafkaPartition, Offset>,
    ) -> Result<(), KafkaError> {
        let mut refining = Vec::new();
        question.change(|partition, times, offsets| {
            let from = from.get(&partition).copied().unwrap_or(offsets.log_start);
            refining.push(Refining::new(partition, times, offsets, from, question.k));
        });
        for _ in 0..ROUNDS {
            let now = now_ms();
            let (asked, open): (Vec<_>, Vec<_>) = refining
                .iter_mut()
                .filter_map(|refining| Some(((refining.partition, refining.next(now)?), refining)))
                .unzip();
            if asked.is_empty() {
                break;
            }
            let firsts = self.kafka.first_offsets_at(&question.name, &asked).await?;
            for ((refining, (_, time)), first) in open.into_iter().zip(&asked).zip(&firsts) {
                refining.learn(*time, *first);
            }
            question.learn(asked.iter().zip(firsts));
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        Ok(())
    }

    fn kept(&self, topic: &TopicDescription) -> Topic {
        // What cannot be read is looked up again.
        let kept: Option<Vec<(i32, PartitionTimes)>> =
            self.store.get(Kind::Times, &key(&topic.name, topic.id)).ok().flatten();
        let partitions = kept.unwrap_or_default().into_iter().map(|(p, t)| (KafkaPartition(p), t));
        let known = TopicTimes { partitions: Arc::new(partitions.collect()) };
        Topic { known: Mutex::new(known), ..Topic::default() }
    }

    fn keep(&self, question: &Question) {
        let known = question.topic.known().clone();
        let kept: Vec<(i32, &PartitionTimes)> =
            known.partitions.iter().map(|(partition, times)| (partition.0, times)).collect();
        if let Err(error) = self.store.put(Kind::Times, &key(&question.name, question.id), &kept) {
            tracing::warn!(topic = %question.name, %error, "the time index could not be kept");
        }
    }
}

impl Question {
    /// Makes room for what was never asked about.
    fn begin(&self) {
        let mut known = self.topic.known();
        let partitions = Arc::make_mut(&mut known.partitions);
        for (&partition, offsets) in &self.partitions {
            let never = || PartitionTimes::new(offsets.leader_epoch);
            partitions.entry(partition).or_insert_with(never);
        }
    }

    /// Changes what is known of the partitions asked about, as long as it is of the same log.
    fn change(
        &self,
        mut change: impl FnMut(KafkaPartition, &mut PartitionTimes, &PartitionOffsets),
    ) {
        let mut known = self.topic.known();
        let partitions = Arc::make_mut(&mut known.partitions);
        for (&partition, offsets) in &self.partitions {
            match partitions.get_mut(&partition) {
                Some(times) if times.is_of(offsets) => change(partition, times, offsets),
                _ => {}
            }
        }
    }

    fn learn<'a>(
        &self,
        answers: impl Iterator<Item = (&'a (KafkaPartition, i64), Option<Offset>)>,
    ) {
        let mut by_partition: BTreeMap<KafkaPartition, Vec<(i64, Offset)>> = BTreeMap::new();
        for ((partition, time), first) in answers {
            by_partition.entry(*partition).or_default().extend(first.map(|first| (*time, first)));
        }
        self.change(|partition, times, offsets| {
            for (time, first) in by_partition.remove(&partition).unwrap_or_default() {
                // Beyond the end as it was asked for, the log is another plan's.
                times.learn(time, first.min(offsets.last_stable));
            }
        });
    }
}

/// Forgets partitions whose log was written anew since.
fn forget_others(known: &mut TopicTimes, offsets: &BTreeMap<KafkaPartition, PartitionOffsets>) {
    let is_of = |partition: &KafkaPartition, times: &PartitionTimes| {
        offsets.get(partition).is_none_or(|now| times.is_of(now))
    };
    if !known.partitions.iter().all(|(partition, times)| is_of(partition, times)) {
        Arc::make_mut(&mut known.partitions).retain(|partition, times| is_of(partition, times));
    }
}

fn key(name: &TopicName, id: TopicId) -> String {
    format!("{name}/{id}")
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
