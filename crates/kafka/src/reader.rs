//! One fetch through librdkafka on its thread: takes messages from a client, judges each, hands records on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isk_model::Offset;

use crate::collector::{Collector, Fetched};
use crate::config::ClientKind;
use crate::error::{FetchError, KafkaError};
use crate::fetch::{BLOCK_MAX_RECORDS, Stop, WithHeaders, is_retriable};
use crate::ffi::{Assignment, Client, Code, Headers, Message, code};
use crate::metrics::add;

/// Messages taken from the client at once.
const BATCH_MESSAGES: usize = 4096;
/// How often a waiting fetch looks whether its reader has gone.
const POLL_MS: i32 = 50;
/// More than this between two looks is progress even if no record came out of it: a stretch of
/// aborted transactions. Empty answers stay far below.
const PROGRESS_BYTES: u64 = 16 << 10;
/// After this long without an answer it is asked whether there is anything to wait for.
const ASK_AFTER: Duration = Duration::from_secs(2);
/// A broker that answered within this time is there.
const ANSWERING: Duration = Duration::from_secs(2);

/// What a waiting fetch remembers.
struct Patience {
    /// When there last was progress.
    progress: Instant,
    /// When a broker last answered a Fetch.
    answered: Instant,
    /// Bytes of the client's Fetch answers when last looked at.
    fetched: u64,
    /// Whether the brokers were asked why they are silent.
    asked: bool,
}

impl Patience {
    fn new(client: &Client) -> Self {
        let now = Instant::now();
        Self { progress: now, answered: now, fetched: client.state().fetched(), asked: false }
    }

    fn look(&mut self, client: &Client) {
        let more = client.state().fetched() - self.fetched;
        self.fetched += more;
        if more > 0 {
            self.answered = Instant::now();
        }
        if more > PROGRESS_BYTES {
            self.progress = Instant::now();
        }
    }
}

/// One fetch on its thread.
pub(crate) struct Reader {
    collector: Collector,
    /// The last end of the partition seen, below the range's end.
    reached: Option<Offset>,
}

impl Reader {
    /// A fetch that goes on where the collector is.
    pub(crate) fn new(collector: Collector) -> Self {
        Self { collector, reached: None }
    }

    pub(crate) fn read(mut self) -> Result<(), Stop> {
        // Small ranges are read by clients that hardly fetch ahead.
        let kind = if self.collector.range.span() <= BLOCK_MAX_RECORDS as u64 {
            ClientKind::Small
        } else {
            ClientKind::Bulk
        };
        let cluster = self.collector.cluster.clone();
        let mut fetcher = cluster
            .pool()
            .take(kind, self.collector.tp.topic.as_str())
            .map_err(|source| FetchError::Kafka { tp: self.collector.tp.clone(), source })?;
        let client = Arc::clone(&fetcher.client);
        // What another topic's read left behind is not this one's.
        client.state().take_topic_error();
        let started = Assignment::start(
            &client,
            &mut fetcher.topics,
            self.collector.tp.topic.as_str(),
            self.collector.tp.partition.0,
            self.collector.next().0,
        );
        let mut assignment = started.map_err(|failed| Stop::from(self.failed(&failed)))?;
        let outcome = self.pump(&client, &mut assignment);
        add(&cluster.metrics().records_fetched, assignment.queued() as u64);
        drop(assignment);
        match outcome {
            Ok(()) => {
                cluster.pool().give_back(fetcher);
                self.collector.flush()
            }
            Err(Stop::ReaderGone) => {
                cluster.pool().give_back(fetcher);
                Err(Stop::ReaderGone)
            }
            // What the client knows of the topic may be what is wrong: the next fetch asks afresh.
            Err(stop) => Err(stop),
        }
    }

    /// Takes messages until the range is complete.
    fn pump(&mut self, client: &Client, assignment: &mut Assignment) -> Result<(), Stop> {
        let mut patience = Patience::new(client);
        loop {
            let batch = assignment.next_batch(BATCH_MESSAGES, POLL_MS);
            client.serve_callbacks();
            patience.look(client);
            let (mut records, mut bytes) = (0, 0);
            let mut complete = Ok(false);
            for message in batch.iter() {
                if message.error() == 0 {
                    records += 1;
                    bytes += message.key().map_or(0, <[u8]>::len)
                        + message.value().map_or(0, <[u8]>::len);
                }
                if matches!(complete, Ok(false)) {
                    complete = self.accept(&message);
                }
            }
            add(&self.collector.cluster.metrics().records_fetched, records);
            add(&self.collector.cluster.metrics().bytes_fetched, bytes as u64);
            if complete? {
                return Ok(());
            }
            if records > 0 {
                client.state().let_in();
                // Time spent waiting for a slow reader is not the brokers'.
                patience.progress = Instant::now();
            } else {
                self.wait(client, &mut patience)?;
            }
        }
    }

    /// Nothing came: decides whether to go on waiting.
    fn wait(&self, client: &Client, patience: &mut Patience) -> Result<(), Stop> {
        if self.collector.is_left() {
            return Err(Stop::ReaderGone);
        }
        if let Some(problem) = client.state().take_topic_error() {
            return Err(match self.failed(&problem) {
                FetchError::NoSuchPartition { .. } => {
                    Stop::Missing { untouched: self.collector.is_untouched() }
                }
                error => error.into(),
            });
        }
        if let Some(reason) = client.state().authentication_error() {
            client.token_refused();
            return Err(self.authentication(reason).into());
        }
        if !patience.asked && patience.answered.elapsed() >= ASK_AFTER {
            patience.asked = true;
            self.ask_why()?;
        }
        let longest = self.collector.cluster.config().progress_timeout;
        if patience.progress.elapsed() >= longest {
            let answering = patience.answered.elapsed() < ANSWERING;
            return Err(self.out_of_patience(client, longest, answering).into());
        }
        Ok(())
    }

    /// librdkafka keeps silent about a topic that it may not look up.
    fn ask_why(&self) -> Result<(), Stop> {
        let tp = self.collector.tp.clone();
        let asked =
            tokio::runtime::Handle::current().block_on(self.collector.cluster.topic(&tp.topic));
        match asked {
            Ok(Some(topic)) if topic.partitions.contains(&tp.partition) => Ok(()),
            Ok(_) => Err(FetchError::NoSuchPartition { tp }.into()),
            Err(
                source @ (KafkaError::NotAuthorized { .. }
                | KafkaError::Authentication { .. }
                | KafkaError::Token { .. }),
            ) => Err(FetchError::Kafka { tp, source }.into()),
            Err(_) => Ok(()),
        }
    }

    /// Takes one message. `true` when it proves the range complete.
    fn accept(&mut self, message: &Message<'_>) -> Result<bool, Stop> {
        if !message.is_of_assignment() {
            // librdkafka discards what belongs to an older assignment; this is the second lock.
            return Ok(false);
        }
        let offset = Offset(message.offset());
        match message.error() {
            0 => self.accept_record(offset, message),
            code::PARTITION_EOF if offset >= self.collector.range.end() => Ok(true),
            code::PARTITION_EOF => {
                self.reached = Some(offset);
                Ok(false)
            }
            code::AUTO_OFFSET_RESET | code::OFFSET_OUT_OF_RANGE => {
                Err(Stop::OutOfRange(self.collector.next().max(offset)))
            }
            code::LOG_TRUNCATION => Err(FetchError::Rewritten {
                tp: self.collector.tp.clone(),
                offset: self.collector.next(),
                reason: message.error_text(),
            }
            .into()),
            code::BAD_MSG | code::CORRUPT => Err(FetchError::Corrupt {
                tp: self.collector.tp.clone(),
                offset: self.collector.next(),
                reason: message.error_text(),
            }
            .into()),
            // The client keeps trying by itself; if it does not succeed, time runs out.
            code::TRANSPORT | code::ALL_BROKERS_DOWN | code::TIMED_OUT => Ok(false),
            failed => {
                let failed = Code { code: failed, text: message.error_text() };
                if is_retriable(failed.code) {
                    return Ok(false);
                }
                Err(self.failed(&failed).into())
            }
        }
    }

    fn accept_record(&mut self, offset: Offset, message: &Message<'_>) -> Result<bool, Stop> {
        // What lies past the range is not looked into.
        if offset >= self.collector.range.end() {
            return Ok(true);
        }
        let headers = match self.collector.headers {
            WithHeaders::Yes => message.headers(),
            WithHeaders::No => Headers::skipped(),
        };
        let (timestamp_ms, timestamp_type) = message.timestamp();
        self.collector.take(Fetched {
            offset,
            epoch: message.leader_epoch(),
            timestamp_ms,
            timestamp_type,
            key: message.key(),
            value: message.value(),
            headers,
        })
    }

    fn authentication(&self, reason: String) -> FetchError {
        let brokers = self.collector.cluster.config().bootstrap_servers().to_owned();
        let source = KafkaError::Authentication { brokers, reason };
        FetchError::Kafka { tp: self.collector.tp.clone(), source }
    }

    fn out_of_patience(&self, client: &Client, after: Duration, answering: bool) -> FetchError {
        let (tp, end) = (self.collector.tp.clone(), self.collector.range.end());
        match self.reached {
            Some(reached) if answering => FetchError::EndNotReached { tp, reached, end },
            _ => FetchError::Timeout {
                tp,
                offset: self.collector.next(),
                end,
                after,
                brokers: self.collector.cluster.config().bootstrap_servers().to_owned(),
                last_error: client.state().last_error(),
            },
        }
    }

    fn failed(&self, failed: &Code) -> FetchError {
        let tp = self.collector.tp.clone();
        match failed.code {
            code::UNKNOWN_TOPIC
            | code::UNKNOWN_PARTITION
            | code::UNKNOWN_TOPIC_OR_PART
            | code::INVALID_TOPIC => FetchError::NoSuchPartition { tp },
            _ => {
                let what = format!("fetching from offset {}", self.collector.next());
                let source = self.collector.cluster.error(what, failed, Duration::ZERO, None);
                FetchError::Kafka { tp, source }
            }
        }
    }
}
