//! One fetch over the wire on its thread: asks for batches, judges each, hands its records to the collector.

use std::sync::Arc;
use std::time::{Duration, Instant};

use isk_model::{LeaderEpoch, Offset, TimestampType};
use kafka_protocol::messages::ApiKey;

use super::aborted::Aborted;
use super::answer::{self, Partition};
use super::batch::{Batch, BatchError, Batches};
use super::connection::{Broken, Connection, Frame};
use super::hub::{Hub, Leader};
use super::pace::{Appetite, Ended, FIRST_PAUSE, Patience, Trouble};
use super::question::{self, Wanted};
use super::records::{Headers, Records};
use super::unpack::Unpacker;
use crate::collector::{Collector, Fetched};
use crate::error::{FetchError, KafkaError};
use crate::fetch::{BLOCK_MAX_RECORDS, Stop, WithHeaders, is_retriable};
use crate::ffi::{Code, code};
use crate::metrics::add;

/// What a range of few records asks for first.
const SMALL_REQUEST: usize = 128 << 10;
/// One answer asks for no more.
const MAX_REQUEST: usize = 32 << 20;
/// A broker that answered within this time is there.
const ANSWERING: Duration = Duration::from_secs(2);

/// One fetch on its thread.
pub(crate) struct WireReader {
    hub: Arc<Hub>,
    collector: Collector,
    /// The offset behind the last batch that was read.
    position: i64,
    /// The last end of the partition seen, below the range's end.
    reached: Option<Offset>,
    /// A replica that the leader sent us to.
    replica: Option<i32>,
    /// Whether the nearest replica is asked for: not any more once it failed.
    near: bool,
    /// The leader epoch of the last batch, asked about when another broker is read from.
    last_epoch: Option<i32>,
    appetite: Appetite,
    unpacker: Unpacker,
    patience: Patience,
}

impl WireReader {
    /// A fetch that has not begun.
    pub(crate) fn new(hub: Arc<Hub>, collector: Collector) -> Self {
        let most = (collector.cluster.config().fetch_buffer_bytes / 2).min(MAX_REQUEST);
        let small = collector.range.span() <= BLOCK_MAX_RECORDS as u64;
        let first = if small { SMALL_REQUEST.min(most) } else { most };
        Self {
            position: collector.range.start().0,
            near: !hub.settings.rack.is_empty(),
            hub,
            collector,
            reached: None,
            replica: None,
            last_epoch: None,
            appetite: Appetite::new(first, most),
            unpacker: Unpacker::default(),
            patience: Patience::new(),
        }
    }

    /// What was collected, for another reader to go on with.
    pub(crate) fn into_collector(self) -> Collector {
        self.collector
    }

    pub(crate) fn read(&mut self) -> Result<(), Ended> {
        loop {
            match self.attempt() {
                Ok(()) => return Ok(self.collector.flush()?),
                Err(Trouble::Ended(ended)) => return Err(ended),
                Err(Trouble::Passing(reason)) => {
                    tracing::debug!(tp = %self.collector.tp, reason, "a fetch tries again");
                    self.patience.last_error = Some(reason);
                    self.hub.forget(&self.collector.tp);
                    self.wait(self.patience.pause)?;
                    self.patience.next_pause();
                }
            }
        }
    }

    /// Waits, unless nobody waits with us or time is up.
    fn wait(&self, pause: Duration) -> Result<(), Ended> {
        self.look_up()?;
        std::thread::sleep(pause);
        self.look_up()
    }

    fn look_up(&self) -> Result<(), Ended> {
        if self.collector.is_left() {
            return Err(Stop::ReaderGone.into());
        }
        let longest = self.collector.cluster.config().progress_timeout;
        if self.patience.progress.elapsed() >= longest {
            return Err(self.out_of_patience(longest).into());
        }
        Ok(())
    }

    fn out_of_patience(&self, after: Duration) -> FetchError {
        let (tp, end) = (self.collector.tp.clone(), self.collector.range.end());
        let answering = self.patience.answered.is_some_and(|at| at.elapsed() < ANSWERING);
        match self.reached {
            Some(reached) if answering => FetchError::EndNotReached { tp, reached, end },
            _ => FetchError::Timeout {
                tp,
                offset: Offset(self.position),
                end,
                after,
                brokers: self.collector.cluster.config().bootstrap_servers().to_owned(),
                last_error: self.patience.last_error.clone(),
            },
        }
    }

    /// Reads from the partition's leader, or the replica it named, as long as that goes well.
    fn attempt(&mut self) -> Result<(), Trouble> {
        let topology = match self.hub.topology(&self.collector.tp.topic) {
            Ok(topology) => topology,
            Err(broken) => return Err(self.broken(broken)),
        };
        let leader = match topology.leader(self.collector.tp.partition.0) {
            Ok(leader) => leader.clone(),
            Err(failed) => {
                // A partition may be younger than what is believed.
                self.hub.forget(&self.collector.tp);
                return Err(self.no_leader(failed));
            }
        };
        let node = self.replica.unwrap_or(leader.node);
        let Some(address) = topology.address(node) else {
            self.replica = None;
            return Err(Trouble::Passing(format!("broker {node} is not there")));
        };
        let mut connection = match self.hub.connection(address) {
            Ok(connection) => connection,
            Err(broken) => return Err(self.leave_replica(broken)),
        };
        match self.pump(&mut connection, &leader) {
            Ok(()) => {
                self.hub.give_back(connection);
                Ok(())
            }
            Err(trouble) => Err(trouble),
        }
    }

    fn leave_replica(&mut self, broken: Broken) -> Trouble {
        if self.replica.take().is_some() {
            self.near = false;
        }
        self.broken(broken)
    }

    fn no_leader(&self, failed: i32) -> Trouble {
        match failed {
            code::UNKNOWN_TOPIC_OR_PART | code::UNKNOWN_TOPIC_ID => {
                Stop::Missing { untouched: self.collector.is_untouched() }.into()
            }
            failed if is_retriable(failed) => Trouble::Passing(Code::new(failed).text),
            failed => self.failed(failed).into(),
        }
    }

    fn broken(&self, broken: Broken) -> Trouble {
        match broken {
            Broken::Unwanted => match self.look_up() {
                Err(ended) => Trouble::Ended(ended),
                Ok(()) => Trouble::Passing("a broker is silent".into()),
            },
            Broken::Refused { .. } => {
                let brokers = self.collector.cluster.config().bootstrap_servers().to_owned();
                let source = KafkaError::Authentication { brokers, reason: broken.to_string() };
                FetchError::Kafka { tp: self.collector.tp.clone(), source }.into()
            }
            Broken::NoToken(source) => {
                FetchError::Kafka { tp: self.collector.tp.clone(), source: *source }.into()
            }
            Broken::Untrusted { .. } => {
                self.hub.put_aside(&broken.to_string());
                Trouble::Ended(Ended::ForLibrdkafka)
            }
            passing => Trouble::Passing(passing.to_string()),
        }
    }

    fn failed(&self, failed: i32) -> FetchError {
        let what = format!("fetching from offset {}", self.position);
        let code = Code::new(failed);
        let source = self.collector.cluster.error(what, &code, Duration::ZERO, None);
        FetchError::Kafka { tp: self.collector.tp.clone(), source }
    }

    fn corrupt(&self, error: &BatchError) -> Ended {
        let (tp, offset) = (self.collector.tp.clone(), Offset(self.position));
        match error {
            BatchError::Magic(0 | 1) => Ended::ForLibrdkafka,
            error => FetchError::Corrupt { tp, offset, reason: error.to_string() }.into(),
        }
    }

    /// Takes answers until the range is complete. The next one is asked for before this one's batches are
    /// looked into, so that it comes meanwhile.
    fn pump(&mut self, connection: &mut Connection, leader: &Leader) -> Result<(), Trouble> {
        let version = match connection.version(ApiKey::Fetch, question::VERSIONS) {
            Ok(version) => version,
            Err(broken) => return Err(self.broken(broken)),
        };
        let end = self.collector.range.end().0;
        // Another broker may hold another history than the one we read from.
        let mut fetched_epoch = self.last_epoch.filter(|_| version >= 12);
        self.ask(connection, version, leader, self.position, fetched_epoch.take())?;
        loop {
            let frame = self.receive(connection)?;
            let body = Connection::body(&frame, version >= 12);
            let index = self.collector.tp.partition.0;
            let Some(answer) = body.and_then(|body| answer::parse(body, version, index)) else {
                return Err(Trouble::Passing(
                    connection.protocol("a Fetch answer that does not parse".into()).to_string(),
                ));
            };
            if let Ok(throttled @ 1..) = u64::try_from(answer.throttle_ms) {
                // The broker answers nothing meanwhile, and that is not its fault.
                self.patience.progress += Duration::from_millis(throttled);
            }
            if answer.error != 0 {
                return Err(Trouble::Passing(Code::new(i32::from(answer.error)).text));
            }
            let Some(partition) = answer.partition else {
                self.wait(Duration::from_millis(
                    u64::try_from(answer.throttle_ms).unwrap_or(0).clamp(20, 1000),
                ))?;
                connection.recycle(frame);
                self.ask(connection, version, leader, self.position, None)?;
                continue;
            };
            self.judge(&partition)?;
            let ahead = self.look_ahead(&partition)?;
            let session_ends = connection.is_expired();
            if ahead < end && !session_ends {
                self.ask(connection, version, leader, ahead, None)?;
            }
            self.take(&partition)?;
            connection.recycle(frame);
            if self.position >= end {
                return Ok(());
            }
            if session_ends {
                self.patience.pause = Duration::ZERO;
                return Err(Trouble::Passing("the session with the broker ends".into()));
            }
        }
    }

    /// Asks for batches from an offset on.
    fn ask(
        &mut self,
        connection: &mut Connection,
        version: i16,
        leader: &Leader,
        offset: i64,
        fetched_epoch: Option<i32>,
    ) -> Result<(), Trouble> {
        let left = self.collector.range.end().0.abs_diff(offset);
        let rack = if self.near { self.hub.settings.rack.as_str() } else { "" };
        let request = question::of(&Wanted {
            tp: &self.collector.tp,
            offset,
            bytes: self.appetite.request(left),
            leader_epoch: leader.epoch,
            fetched_epoch,
            rack,
        });
        connection.send(&request, version).map_err(|broken| self.leave_replica(broken))
    }

    fn receive(&mut self, connection: &mut Connection) -> Result<Frame, Trouble> {
        let silent = self.collector.cluster.config().request_timeout;
        let begun = Instant::now().max(self.patience.progress);
        let received =
            connection.receive_records(|| self.look_up().is_ok() && begun.elapsed() < silent);
        let frame = received.map_err(|broken| self.leave_replica(broken))?;
        self.patience.answered = Some(Instant::now());
        add(&self.collector.cluster.metrics().wire_bytes, frame.len() as u64);
        Ok(frame)
    }

    /// What the broker says of the partition besides its records.
    fn judge(&mut self, partition: &Partition<'_>) -> Result<(), Trouble> {
        let at = Offset(self.position);
        let tp = || self.collector.tp.clone();
        match i32::from(partition.error) {
            0 => {}
            code::OFFSET_OUT_OF_RANGE if self.replica.is_some() => {
                // A replica may lag behind its leader.
                (self.replica, self.near) = (None, false);
                return Err(Trouble::Passing("the nearest replica lacks the offset".into()));
            }
            code::OFFSET_OUT_OF_RANGE => return Err(Stop::OutOfRange(at).into()),
            code::CORRUPT => {
                let reason = Code::new(code::CORRUPT).text;
                return Err(FetchError::Corrupt { tp: tp(), offset: at, reason }.into());
            }
            failed if is_retriable(failed) || failed == code::UNKNOWN_TOPIC_OR_PART => {
                if self.replica.take().is_some() {
                    self.near = false;
                }
                return Err(Trouble::Passing(Code::new(failed).text));
            }
            failed => return Err(self.failed(failed).into()),
        }
        if partition.diverging {
            let reason = "the new leader does not have what was read from the old one".into();
            return Err(FetchError::Rewritten { tp: tp(), offset: at, reason }.into());
        }
        if partition.preferred_read_replica >= 0 && self.near && self.replica.is_none() {
            self.replica = Some(partition.preferred_read_replica);
            self.patience.pause = Duration::ZERO;
            return Err(Trouble::Passing("the leader named a nearer replica".into()));
        }
        Ok(())
    }

    /// The offset behind the answer's last whole batch.
    fn look_ahead(&mut self, partition: &Partition<'_>) -> Result<i64, Trouble> {
        let mut ahead = self.position;
        let mut bytes = 0;
        for batch in Batches::new(partition.records) {
            let batch = match batch {
                Ok(batch) => batch,
                // What is before it counts; it is met again when the batches are taken.
                Err(_) => break,
            };
            bytes += batch.len as u64;
            ahead = ahead.max(batch.last_offset.saturating_add(1));
        }
        if bytes == 0 && !partition.records.is_empty() {
            if let Some(Err(error)) = Batches::new(partition.records).next() {
                return Err(self.corrupt(&error).into());
            }
            let error = BatchError::Invalid("a batch that was not sent whole");
            return Err(self.corrupt(&error).into());
        }
        self.appetite.learn(bytes, ahead.abs_diff(self.position));
        Ok(ahead)
    }

    /// Takes the answer's batches.
    fn take(&mut self, partition: &Partition<'_>) -> Result<(), Ended> {
        let before = self.position;
        let mut aborted = Aborted::new(partition.aborted.clone());
        for batch in Batches::new(partition.records) {
            let batch = batch.map_err(|error| self.corrupt(&error))?;
            if self.position < self.collector.range.end().0 {
                self.take_batch(&batch, &mut aborted)?;
            } else {
                add(&self.collector.cluster.metrics().records_fetched, u64::from(batch.count));
            }
        }
        if self.position > before {
            // Time spent waiting for a slow reader is not the brokers'.
            self.patience.got_on();
            return Ok(());
        }
        if partition.last_stable_offset <= self.position {
            self.reached = Some(Offset(partition.last_stable_offset));
        }
        // The next question is under way and waits at the broker; should it not, we do.
        self.wait(FIRST_PAUSE)
    }

    fn take_batch(&mut self, batch: &Batch<'_>, aborted: &mut Aborted) -> Result<(), Ended> {
        if self.hub.settings.check_crcs {
            batch.check().map_err(|error| self.corrupt(&error))?;
        }
        let hidden = aborted.hides(batch, &mut self.unpacker);
        if !hidden.map_err(|error| self.corrupt(&error))? {
            self.take_records(batch)?;
        }
        self.position = self.position.max(batch.last_offset.saturating_add(1));
        self.last_epoch = Some(batch.leader_epoch).filter(|epoch| *epoch >= 0);
        Ok(())
    }

    fn take_records(&mut self, batch: &Batch<'_>) -> Result<(), Ended> {
        let unpacked = match self.unpacker.unpack(batch) {
            Ok(unpacked) => unpacked,
            Err(error) => {
                let (tp, offset) = (self.collector.tp.clone(), Offset(self.position));
                return Err(FetchError::Corrupt { tp, offset, reason: error.to_string() }.into());
            }
        };
        let timestamp_type = if batch.has_append_time() {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        };
        let epoch = (batch.leader_epoch >= 0).then_some(LeaderEpoch(batch.leader_epoch));
        let with_headers = self.collector.headers == WithHeaders::Yes;
        let mut records = Records::new(batch, unpacked);
        let (mut count, mut bytes) = (0, 0);
        let mut complete = false;
        for record in records.by_ref() {
            let record = record.map_err(|error| {
                let (tp, offset) = (self.collector.tp.clone(), self.collector.next());
                FetchError::Corrupt { tp, offset, reason: error.to_string() }
            })?;
            count += 1;
            let (key, value) = (record.key, record.value);
            bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
            // A batch may begin before what was asked for.
            if record.offset < self.position {
                continue;
            }
            let headers = if with_headers { record.headers } else { Headers::none() };
            complete = self.collector.take(Fetched {
                offset: Offset(record.offset),
                epoch,
                timestamp_ms: record.timestamp_ms,
                timestamp_type,
                key,
                value,
                headers,
            })?;
            if complete {
                break;
            }
        }
        let metrics = self.collector.cluster.metrics();
        let unread = if complete { u64::from(records.left()) } else { 0 };
        add(&metrics.records_fetched, count + unread);
        add(&metrics.bytes_fetched, bytes as u64);
        Ok(())
    }
}
