//! The embedded Kafka broker.
//!
//! `server` reads frames (`frame`), `api` answers them, one file per request family, on `state`:
//! topics of partitions, each a `log` of opaque `batch`es. `log`, `batch`, `timestamps`,
//! `producers`, `topic_config` and `group::GroupState` are pure.

mod api;
mod batch;
mod frame;
mod group;
mod log;
mod producers;
mod requests;
mod server;
mod state;
mod timestamps;
mod topic_config;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use isk_model::{KafkaPartition, Offset, OffsetRange, TopicName};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::state::Broker;
use crate::EmbeddedError;

/// How the broker listens and what it may hold.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Where to listen; port 0 takes a free one. Default 127.0.0.1:9092.
    pub listen: SocketAddr,
    /// The host name clients are told to connect to; by default the listening address itself.
    pub advertised_host: Option<String>,
    /// Most bytes one partition keeps; older batches are dropped. Default 64 MiB.
    pub partition_bytes: usize,
    /// Most bytes all partitions keep together. Default 512 MiB.
    pub total_bytes: usize,
    /// The largest request taken (Kafka's `socket.request.max.bytes`). Default 100 MiB.
    pub max_frame_bytes: usize,
    /// The largest record batch taken where a topic says nothing else (Kafka's
    /// `message.max.bytes`). Default 1,048,588 bytes, as Kafka's.
    pub max_message_bytes: usize,
    /// Whether a metadata request for an unknown topic creates it. Default true, as Kafka's.
    pub auto_create_topics: bool,
    /// Partitions of a topic whose creator names no number. Default 1.
    pub default_partitions: i32,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9092),
            advertised_host: None,
            partition_bytes: 64 << 20,
            total_bytes: 512 << 20,
            max_frame_bytes: 100 << 20,
            max_message_bytes: 1_048_588,
            auto_create_topics: true,
            default_partitions: 1,
        }
    }
}

/// One record for [`EmbeddedBroker::append`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducedRecord {
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The record's key.
    pub key: Option<bytes::Bytes>,
    /// The record's value; `None` is a tombstone.
    pub value: Option<bytes::Bytes>,
}

/// A running broker. Dropping it stops it too, but [`EmbeddedBroker::shutdown`] waits.
#[derive(Debug)]
pub struct EmbeddedBroker {
    handle: BrokerHandle,
    stop: DropGuard,
    serving: JoinHandle<()>,
}

/// In-process access to a broker: cheap to clone, and harmless once the broker is stopped.
#[derive(Debug, Clone)]
pub struct BrokerHandle(Arc<Broker>);

impl EmbeddedBroker {
    /// Listens and serves until shut down.
    ///
    /// # Errors
    /// [`EmbeddedError::PortTaken`] or [`EmbeddedError::Listen`].
    pub async fn start(config: BrokerConfig) -> Result<Self, EmbeddedError> {
        let asked = config.listen;
        let failed = |cause| EmbeddedError::bind("Kafka broker", asked, cause);
        let listener = TcpListener::bind(asked).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let broker = Arc::new(Broker::new(config, addr));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::serve(listener, broker.clone(), stop.clone()));
        tracing::info!(
            %addr,
            "embedded Kafka broker listening: for trying out, in memory, oldest records are dropped"
        );
        Ok(Self { handle: BrokerHandle(broker), stop: stop.drop_guard(), serving })
    }

    /// Where clients connect (`bootstrap.servers`).
    pub fn bootstrap(&self) -> SocketAddr {
        self.handle.0.addr
    }

    /// In-process access.
    pub fn handle(&self) -> &BrokerHandle {
        &self.handle
    }

    /// Creates a topic; see [`BrokerHandle::create_topic`].
    pub fn create_topic(
        &self,
        topic: &TopicName,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), EmbeddedError> {
        self.handle.create_topic(topic, partitions, configs)
    }

    /// Appends one batch; see [`BrokerHandle::append`].
    pub fn append(
        &self,
        topic: &TopicName,
        partition: KafkaPartition,
        records: &[ProducedRecord],
    ) -> Result<Offset, EmbeddedError> {
        self.handle.append(topic, partition, records)
    }

    /// Stops listening, closes every connection and waits until they are closed.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(cause) = self.serving.await {
            tracing::error!(%cause, "the embedded Kafka broker did not end well");
        }
    }
}

impl BrokerHandle {
    /// Creates a topic with Kafka's topic configurations, e.g. `("retention.bytes", "1000000")`.
    ///
    /// # Errors
    /// [`EmbeddedError::Broker`] when it exists, or the number or a configuration is not possible.
    pub fn create_topic(
        &self,
        topic: &TopicName,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<(), EmbeddedError> {
        let configs: Vec<_> =
            configs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        match self.0.create_topic(topic.as_str(), partitions, &configs, false) {
            Ok(_) => Ok(()),
            Err(refused) => Err(EmbeddedError::Broker(refused.message)),
        }
    }

    /// Appends the records as one batch, as Produce with `acks=all` does, and answers the offset of
    /// the first.
    ///
    /// # Errors
    /// [`EmbeddedError::Broker`]: no such topic or partition, no records, or too many bytes.
    pub fn append(
        &self,
        topic: &TopicName,
        partition: KafkaPartition,
        records: &[ProducedRecord],
    ) -> Result<Offset, EmbeddedError> {
        let found = self.0.topic(topic.as_str());
        let found = found.ok_or_else(|| {
            EmbeddedError::Broker(format!("there is no topic {topic} to append to"))
        })?;
        let bytes = encode(records).map_err(EmbeddedError::Broker)?;
        match self.0.append(&found, partition.0, &bytes) {
            Ok(appended) => Ok(Offset(appended.base_offset)),
            Err(refused) => Err(EmbeddedError::Broker(refused.message)),
        }
    }

    /// The offsets that each partition of a topic holds now; empty partitions, and topics that are not
    /// there, are left out. Each is taken by itself, while others may grow.
    pub fn offsets(&self, topic: &TopicName) -> BTreeMap<KafkaPartition, OffsetRange> {
        let Some(topic) = self.0.topic(topic.as_str()) else { return BTreeMap::new() };
        let held = |index| {
            let partition = topic.partition(index)?;
            let (start, end) = (partition.log.start(), partition.log.end());
            Some((KafkaPartition(index), OffsetRange::new(Offset(start), Offset(end))?))
        };
        (0..topic.partition_count()).filter_map(held).collect()
    }
}

fn encode(records: &[ProducedRecord]) -> Result<BytesMut, String> {
    let records: Vec<Record> = (0i32..)
        .zip(records)
        .map(|(i, record)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(i),
            // The encoder makes one batch of records whose sequences run with their offsets.
            sequence: i - 1,
            timestamp: record.timestamp_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: IndexMap::new(),
        })
        .collect();
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, &records, &options).map_err(|e| e.to_string())?;
    Ok(out)
}
