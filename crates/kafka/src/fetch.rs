//! Fetching one exact range of one partition's committed records.
//!
//! A fetch is complete only when the record of the range's last offset or one past it was seen, or the
//! end of the partition at a last stable offset at or past the range's end. Delivered records alone prove nothing:
//! transaction markers and aborted records take offsets and are never delivered.

use std::time::{Duration, Instant};

use isk_model::{LeaderEpoch, Offset, OffsetRange, RecordBlock, TopicId, TopicPartition};
use isk_threads::run_behind;
use isk_traces::{Instrument, Span, span};
use tokio::sync::mpsc;
use tracing::field::Empty;

use crate::cluster::KafkaCluster;
use crate::collector::Collector;
use crate::error::{FetchError, KafkaError};
use crate::ffi::code;
use crate::metrics::add;
use crate::reader::Reader;
use crate::wire::{Ended, WireReader};

/// A block holds at most this many records.
pub const BLOCK_MAX_RECORDS: usize = 8192;
/// A block holds at most this many bytes of keys, values and headers, unless one record alone is
/// larger.
pub const BLOCK_MAX_BYTES: usize = 4 << 20;
/// A fetch holds up to so many blocks: those in the channel, the one being filled and the one being read.
pub const FETCH_BLOCKS: usize = CHANNEL_BLOCKS + 2;

/// Blocks that wait between the fetching thread and its reader.
const CHANNEL_BLOCKS: usize = 2;
/// Pause before a topic that a client does not know yet is tried again.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(100);

/// What a fetch is held to besides its range.
#[derive(Debug, Clone, Copy, Default)]
pub struct FetchLimits {
    /// A record of a later leader epoch in the range fails the fetch: the log was rewritten since
    /// the range was planned.
    pub max_epoch: Option<LeaderEpoch>,
    /// The topic must still have this id when the range was read. Zero asks nothing.
    pub topic_id: Option<TopicId>,
}

/// Whether records come with their headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WithHeaders {
    Yes,
    No,
}

/// Blocks of one range in offset order, then the end.
///
/// The boundaries of blocks are counted from the range's start and depend on the records only.
/// Dropping the stream stops the fetch.
#[derive(Debug)]
pub struct BlockStream {
    tp: TopicPartition,
    blocks: mpsc::Receiver<Item>,
    ended: bool,
}

pub(crate) type Item = Result<Step, FetchError>;

#[derive(Debug)]
pub(crate) enum Step {
    Block(RecordBlock),
    Complete,
}

/// Why the reading thread stopped before the end of the range.
pub(crate) enum Stop {
    Failed(FetchError),
    /// The broker does not have this offset.
    OutOfRange(Offset),
    /// A broker or a client does not know the partition. `untouched`: and no record was read.
    Missing {
        untouched: bool,
    },
    /// Nobody listens any more.
    ReaderGone,
}

impl From<FetchError> for Stop {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}

/// Whether an error passes by itself: leaders move, brokers restart.
pub(crate) fn is_retriable(failed: i32) -> bool {
    matches!(
        failed,
        code::LEADER_NOT_AVAILABLE
            | code::NOT_LEADER
            | code::REQUEST_TIMED_OUT
            | code::REPLICA_NOT_AVAILABLE
            | code::NETWORK_EXCEPTION
            | code::KAFKA_STORAGE_ERROR
            | code::FENCED_LEADER_EPOCH
            | code::UNKNOWN_LEADER_EPOCH
            | code::OFFSET_NOT_AVAILABLE
            | code::UNKNOWN_TOPIC_ID
            | code::TRANSPORT
    )
}

impl BlockStream {
    /// The next block. `None` means that the range was read completely; an error is the last item.
    /// What came before an error is not the whole range and must not be used as if it were.
    pub async fn next(&mut self) -> Option<Result<RecordBlock, FetchError>> {
        if self.ended {
            return None;
        }
        let item = self.blocks.recv().await;
        self.step(item)
    }

    /// As [`Self::next`], for threads that are no async workers.
    pub fn blocking_next(&mut self) -> Option<Result<RecordBlock, FetchError>> {
        if self.ended {
            return None;
        }
        let item = self.blocks.blocking_recv();
        self.step(item)
    }

    fn step(&mut self, item: Option<Item>) -> Option<Result<RecordBlock, FetchError>> {
        match item {
            Some(Ok(Step::Block(block))) => Some(Ok(block)),
            Some(Ok(Step::Complete)) => {
                self.ended = true;
                None
            }
            Some(Err(error)) => {
                self.ended = true;
                Some(Err(error))
            }
            // The sender went without a last word: not complete.
            None => {
                self.ended = true;
                Some(Err(FetchError::Interrupted { tp: self.tp.clone() }))
            }
        }
    }
}

/// Starts a fetch. Must be called within a tokio runtime.
pub(crate) fn start(
    cluster: &KafkaCluster,
    tp: TopicPartition,
    range: OffsetRange,
    limits: FetchLimits,
    headers: WithHeaders,
) -> BlockStream {
    let (sender, blocks) = mpsc::channel(CHANNEL_BLOCKS);
    let stream = BlockStream { tp: tp.clone(), blocks, ended: false };
    let cluster = cluster.clone();
    let span = span!(
        "fetch",
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
        messaging.system = "kafka",
        messaging.destination.name = tp.topic.as_str(),
        messaging.destination.partition.id = %tp.partition,
        isk.offset.start = range.start().0,
        isk.offset.end = range.end().0,
        isk.records = Empty,
        isk.bytes = Empty,
    );
    let fetching = async move {
        add(&cluster.metrics().fetches, 1);
        let last = tokio::select! {
            // A reader that left is looked for first: `run` notices too, and would count it as an error.
            biased;
            () = sender.closed() => return,
            last = run(&cluster, &tp, range, limits, headers, &sender) => last,
        };
        if let Err(error) = &last {
            add(&cluster.metrics().fetch_errors, 1);
            isk_traces::failed(&Span::current(), error);
        }
        let _ = sender.send(last.map(|()| Step::Complete)).await;
    };
    tokio::spawn(fetching.instrument(span));
    stream
}

async fn run(
    cluster: &KafkaCluster,
    tp: &TopicPartition,
    range: OffsetRange,
    limits: FetchLimits,
    headers: WithHeaders,
    sender: &mpsc::Sender<Item>,
) -> Result<(), FetchError> {
    let interrupted = || FetchError::Interrupted { tp: tp.clone() };
    let begun = Instant::now();
    loop {
        let permit = cluster.pool().permit().await.map_err(|_| interrupted())?;
        let collector = Collector::new(cluster, tp, range, limits, headers, sender);
        let span = Span::current();
        let read = run_behind("fetch", move || {
            // The permit goes when the thread does, even if nobody waits for it any more.
            let _permit = permit;
            span.in_scope(|| read(collector))
        });
        let read = read.await.map_err(|error| {
            tracing::error!(topic = %tp.topic, partition = %tp.partition, %error, "records were not read");
            interrupted()
        });
        match read? {
            Ok(()) => return confirm_topic(cluster, tp, range, limits).await,
            Err(Stop::Failed(error)) => return Err(error),
            Err(Stop::ReaderGone) => return Err(interrupted()),
            Err(Stop::OutOfRange(offset)) => return Err(out_of_range(cluster, tp, offset).await),
            Err(Stop::Missing { untouched }) => {
                let error = missing(cluster, tp).await;
                let late = begun.elapsed() >= cluster.config().progress_timeout;
                if !untouched || late || !error.is_transient() {
                    return Err(error);
                }
                // A pooled client may remember a topic that was deleted and is there again, a broker
                // may not know a new one yet. Nothing was delivered: begin again.
                tokio::time::sleep(UNKNOWN_PAUSE).await;
            }
        }
    }
}

/// Reads the range on this thread: over the wire, or by librdkafka where that is what can.
fn read(collector: Collector) -> Result<(), Stop> {
    let hub = collector.cluster.hub().filter(|hub| hub.is_usable());
    let Some(hub) = hub else { return Reader::new(collector).read() };
    let mut reader = WireReader::new(hub, collector);
    match reader.read() {
        Ok(()) => Ok(()),
        Err(Ended::Stopped(stop)) => Err(stop),
        Err(Ended::ForLibrdkafka) => Reader::new(reader.into_collector()).read(),
    }
}

/// A topic deleted and created again continues under the same name: librdkafka follows it silently.
async fn confirm_topic(
    cluster: &KafkaCluster,
    tp: &TopicPartition,
    range: OffsetRange,
    limits: FetchLimits,
) -> Result<(), FetchError> {
    let Some(expected) = limits.topic_id.filter(|id| id.0 != 0) else { return Ok(()) };
    let now = cluster
        .topic(&tp.topic)
        .await
        .map_err(|source| FetchError::Kafka { tp: tp.clone(), source })?;
    match now {
        None => Err(FetchError::NoSuchPartition { tp: tp.clone() }),
        Some(topic) if topic.id == expected => Ok(()),
        Some(topic) => Err(FetchError::Rewritten {
            tp: tp.clone(),
            offset: range.end(),
            reason: format!("the topic's id was {expected} and is {} now", topic.id),
        }),
    }
}

/// Names what happened to an offset that the broker does not have.
async fn out_of_range(cluster: &KafkaCluster, tp: &TopicPartition, offset: Offset) -> FetchError {
    match cluster.offsets(&tp.topic, &[tp.partition]).await {
        Ok(now) => match now.get(&tp.partition) {
            Some(now) if offset < now.log_start => {
                FetchError::Expired { tp: tp.clone(), offset, log_start: now.log_start }
            }
            Some(now) => FetchError::Rewritten {
                tp: tp.clone(),
                offset,
                reason: format!(
                    "the broker does not have this offset; the log reaches from {} to {}",
                    now.log_start, now.last_stable
                ),
            },
            None => FetchError::NoSuchPartition { tp: tp.clone() },
        },
        Err(source) => FetchError::Kafka { tp: tp.clone(), source },
    }
}

/// Tells a partition that is not there from one that a broker does not know yet.
async fn missing(cluster: &KafkaCluster, tp: &TopicPartition) -> FetchError {
    let tp = tp.clone();
    match cluster.topic(&tp.topic).await {
        Ok(Some(topic)) if topic.partitions.contains(&tp.partition) => {
            let what = format!("reading {tp}");
            FetchError::Kafka { tp, source: KafkaError::Leaderless { what } }
        }
        Ok(_) => FetchError::NoSuchPartition { tp },
        Err(source) => FetchError::Kafka { tp, source },
    }
}
