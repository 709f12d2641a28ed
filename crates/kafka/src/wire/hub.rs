//! Which broker leads which partition, and the connections to brokers that nobody uses just now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isk_model::{TopicName, TopicPartition};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest};
use kafka_protocol::protocol::StrBytes;

use super::connection::{Address, Broken, Connection};
use super::settings::Settings;
use crate::config::{FetchPath, KafkaConfig};
use crate::ffi::code;
use crate::metrics::{KafkaMetrics, add};
use crate::tokens::Tokens;

/// How long an unused connection is kept.
const KEEP_IDLE: Duration = Duration::from_secs(300);
/// How long is believed who leads a partition; a broker that does not lead it any more says so earlier.
const BELIEVED: Duration = Duration::from_secs(300);
/// Topics whose leaders are remembered.
const MOST_TOPICS: usize = 4096;
/// Waiting for one broker to let us in or to answer takes no longer: there may be others.
const LONGEST_STEP: Duration = Duration::from_secs(5);

/// How long librdkafka fetches before TLS is tried here again.
const ASIDE: Duration = Duration::from_secs(300);

/// The versions of Metadata that are spoken.
const METADATA: (i16, i16) = (4, 12);

/// Who serves a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: i32,
    /// -1 where the broker told none.
    pub(crate) epoch: i32,
}

/// What one Metadata answer said of a topic.
#[derive(Debug)]
pub(crate) struct Topology {
    /// The topic's own error, or zero.
    pub(crate) error: i16,
    leaders: HashMap<i32, Result<Leader, i16>>,
    nodes: HashMap<i32, Address>,
    asked: Instant,
}

impl Topology {
    /// The partition's leader, or the error that stands in its place.
    pub(crate) fn leader(&self, partition: i32) -> Result<&Leader, i32> {
        let unknown = Err(code::UNKNOWN_TOPIC_OR_PART);
        match self.leaders.get(&partition) {
            _ if self.error != 0 => Err(i32::from(self.error)),
            None => unknown,
            Some(Err(error)) => Err(i32::from(*error)),
            Some(Ok(leader)) => Ok(leader),
        }
    }

    pub(crate) fn address(&self, node: i32) -> Option<&Address> {
        self.nodes.get(&node)
    }
}

/// Brokers and connections of one cluster.
pub(crate) struct Hub {
    pub(crate) settings: Settings,
    metrics: Arc<KafkaMetrics>,
    timeout: Duration,
    most_idle: usize,
    idle: Mutex<Vec<Connection>>,
    topics: Mutex<HashMap<TopicName, Arc<Topology>>>,
    /// Brokers that were told of, for when none of the configured ones is there.
    known: Mutex<Vec<Address>>,
    /// When librdkafka was last left to try what does not go here.
    put_aside: Mutex<Option<Instant>>,
}

impl Hub {
    /// `None` where librdkafka is to fetch, or has to because of a property that is not understood here.
    pub(crate) fn of(
        config: &KafkaConfig,
        metrics: &Arc<KafkaMetrics>,
        tokens: Option<&Arc<Tokens>>,
    ) -> Option<Self> {
        if config.fetch_path == FetchPath::Librdkafka {
            return None;
        }
        let settings = Settings::of(config, tokens)
            .inspect_err(|property| {
                tracing::info!(
                    property,
                    "librdkafka fetches the records: it understands this property"
                );
            })
            .ok()?;
        Some(Self {
            settings,
            metrics: Arc::clone(metrics),
            timeout: config.request_timeout.min(LONGEST_STEP),
            most_idle: config.max_concurrent_fetches,
            idle: Mutex::default(),
            topics: Mutex::default(),
            known: Mutex::default(),
            put_aside: Mutex::default(),
        })
    }

    /// No terms about TLS were found: for a while librdkafka fetches, which takes some certificates that are not taken
    /// here, and says by itself what is wrong where it does not.
    pub(crate) fn put_aside(&self, reason: &str) {
        let mut aside = self.put_aside.lock().unwrap_or_else(PoisonError::into_inner);
        if aside.replace(Instant::now()).is_none_or(|at| at.elapsed() >= ASIDE) {
            tracing::warn!(
                reason,
                "librdkafka fetches the records: a broker's TLS is not taken here"
            );
        }
    }

    /// Whether fetches may be tried here.
    pub(crate) fn is_usable(&self) -> bool {
        let aside = self.put_aside.lock().unwrap_or_else(PoisonError::into_inner);
        aside.is_none_or(|at| at.elapsed() >= ASIDE)
    }

    /// Who leads the topic's partitions, as far as is known or can be learnt.
    pub(crate) fn topology(&self, topic: &TopicName) -> Result<Arc<Topology>, Broken> {
        {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = topics.get(topic).filter(|t| t.asked.elapsed() < BELIEVED) {
                return Ok(Arc::clone(known));
            }
        }
        let learnt = Arc::new(self.ask_anybody(topic)?);
        if learnt.error == 0 {
            let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            if topics.len() >= MOST_TOPICS {
                topics.clear();
            }
            topics.insert(topic.clone(), Arc::clone(&learnt));
        }
        Ok(learnt)
    }

    /// What was believed of a topic is not believed any more.
    pub(crate) fn forget(&self, tp: &TopicPartition) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).remove(&tp.topic);
    }

    /// Asks one broker after the other.
    fn ask_anybody(&self, topic: &TopicName) -> Result<Topology, Broken> {
        let mut candidates = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        candidates.extend(self.settings.bootstrap.iter().cloned());
        let mut first = None;
        let mut tried: Vec<&Address> = Vec::new();
        for address in &candidates {
            if tried.contains(&address) {
                continue;
            }
            tried.push(address);
            let asked = self.connection(address).and_then(|mut connection| {
                let topology = self.ask(&mut connection, topic)?;
                self.give_back(connection);
                Ok(topology)
            });
            match asked {
                Ok(topology) => return Ok(topology),
                Err(refused @ (Broken::Refused { .. } | Broken::NoToken(_))) => {
                    return Err(refused);
                }
                Err(broken) => first = first.or(Some(broken)),
            }
        }
        Err(first.unwrap_or(Broken::Unwanted))
    }

    fn ask(&self, connection: &mut Connection, topic: &TopicName) -> Result<Topology, Broken> {
        let version = connection.version(ApiKey::Metadata, METADATA)?;
        let name = StrBytes::from_string(topic.as_str().to_owned());
        let named = MetadataRequestTopic::default().with_name(Some(name.into()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![named]))
            .with_allow_auto_topic_creation(false);
        let answer = connection.ask(&request, version, self.timeout)?;
        let nodes: HashMap<i32, Address> = answer
            .brokers
            .iter()
            .filter_map(|b| {
                let port = u16::try_from(b.port).ok()?;
                Some((b.node_id.0, Address { host: b.host.to_string(), port }))
            })
            .collect();
        let mut brokers: Vec<(i32, Address)> = nodes.iter().map(|(n, a)| (*n, a.clone())).collect();
        brokers.sort_unstable_by_key(|(node, _)| *node);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) =
            brokers.into_iter().map(|(_, address)| address).collect();
        let found = answer.topics.into_iter().next();
        let found =
            found.ok_or_else(|| connection.protocol("Metadata without the topic".into()))?;
        let leaders = found.partitions.iter().map(|p| {
            let leader = Leader { node: p.leader_id.0, epoch: p.leader_epoch };
            let led =
                if p.error_code == 0 || p.error_code == 9 { Ok(leader) } else { Err(p.error_code) };
            (p.partition_index, led)
        });
        Ok(Topology {
            error: found.error_code,
            leaders: leaders.collect(),
            nodes,
            asked: Instant::now(),
        })
    }

    /// A connection to a broker that has let us in: one that was left over, or a new one.
    pub(crate) fn connection(&self, address: &Address) -> Result<Connection, Broken> {
        loop {
            let found = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let index = idle.iter().rposition(|c| c.address() == address);
                index.map(|index| idle.remove(index))
            };
            match found {
                Some(connection) if connection.is_fresh(KEEP_IDLE) => return Ok(connection),
                Some(_) => {}
                None => return self.open(address),
            }
        }
    }

    fn open(&self, address: &Address) -> Result<Connection, Broken> {
        let Settings { client_id, max_answer, encryption, login, .. } = &self.settings;
        let (timeout, encryption) = (self.timeout, encryption.as_ref());
        let mut connection =
            Connection::open(address, client_id, *max_answer, timeout, encryption)?;
        if let Some(login) = login {
            login.log_in(&mut connection, timeout)?;
        }
        add(&self.metrics.clients_opened, 1);
        Ok(connection)
    }

    /// Gives a connection back on which no answer is due.
    pub(crate) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(connection);
        if idle.len() > self.most_idle {
            idle.remove(0);
        }
    }
}
