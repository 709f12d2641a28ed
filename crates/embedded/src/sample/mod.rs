//! Sample data: a small bank's `branches`, `customers`, `accounts` and `transactions`, and a
//! producer that keeps adding transactions.

mod avro;
mod rows;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use isk_model::{KafkaPartition, TopicName};
use tokio_util::sync::CancellationToken;

use self::rows::{Origin, Row};
use crate::broker::BrokerHandle;
use crate::{EmbeddedBroker, EmbeddedError, EmbeddedRegistry, ProducedRecord};

/// Partitions of `transactions`; a transaction goes to the one of its account.
const TRANSACTION_PARTITIONS: u64 = 3;
/// Records of one appended batch of the initial rows.
const BATCH: usize = 500;
/// How far back the initial transactions reach.
const HISTORY: Duration = Duration::from_secs(3 * 86_400);
/// How often the live producer writes.
const BEAT: Duration = Duration::from_millis(20);

/// How much sample data there is.
#[derive(Debug, Clone)]
pub struct SampleConfig {
    /// Same seed, same values. Default 42.
    pub seed: u64,
    /// Initial transactions. Default 20,000.
    pub transactions: u32,
    /// Milliseconds since the epoch at which the initial history ends; `None` is now.
    pub now_ms: Option<i64>,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { seed: 42, transactions: 20_000, now_ms: None }
    }
}

/// The loaded sample topics. Clones share their counters.
#[derive(Debug, Clone)]
pub struct SampleData(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: BrokerHandle,
    transactions: TopicName,
    origin: Origin,
    /// The number of the next transaction.
    next: AtomicU64,
    acknowledged: Mutex<BTreeMap<TopicName, u64>>,
}

impl SampleData {
    /// Registers the schemas (subjects `<topic>-value`), creates the topics and appends the initial
    /// rows: some hundred customers and accounts, and transactions dated back over the last days,
    /// in order within each partition.
    ///
    /// # Errors
    /// [`EmbeddedError::Broker`] when one of the topics exists already.
    pub async fn load(
        broker: &EmbeddedBroker,
        registry: &EmbeddedRegistry,
        config: SampleConfig,
    ) -> Result<SampleData, EmbeddedError> {
        let now = config.now_ms.unwrap_or_else(now_ms);
        let topic = |name: &str, schema: &str, partitions: u64| {
            let subject = format!("{name}-value");
            let schema = registry.register(&subject, schema)?;
            let name = TopicName::new(name).map_err(|e| EmbeddedError::Broker(e.to_string()))?;
            broker.create_topic(&name, partitions as i32, &[])?;
            Ok::<_, EmbeddedError>((name, Origin { seed: config.seed, schema }))
        };
        let (transactions, origin) =
            topic("transactions", rows::TRANSACTION_SCHEMA, TRANSACTION_PARTITIONS)?;
        let data = SampleData(Arc::new(Inner {
            broker: broker.handle().clone(),
            transactions,
            origin,
            next: AtomicU64::new(0),
            acknowledged: Mutex::default(),
        }));
        let start = now - HISTORY.as_millis() as i64;
        let today = rows::day_of(now);
        let (name, origin) = topic("branches", rows::BRANCH_SCHEMA, 1)?;
        data.append_all(&name, start, (1..=rows::BRANCHES).map(|id| rows::branch(origin, id)))?;
        let (name, origin) = topic("customers", rows::CUSTOMER_SCHEMA, 1)?;
        let customers = (1..=rows::CUSTOMERS).map(|id| rows::customer(origin, id, today));
        data.append_all(&name, start, customers)?;
        let (name, origin) = topic("accounts", rows::ACCOUNT_SCHEMA, 1)?;
        let accounts = (1..=rows::ACCOUNTS).map(|id| rows::account(origin, id, today));
        data.append_all(&name, start, accounts)?;
        data.append_history(u64::from(config.transactions), start, now).await?;
        Ok(data)
    }

    fn append_all(
        &self,
        topic: &TopicName,
        timestamp_ms: i64,
        rows: impl Iterator<Item = Row>,
    ) -> Result<(), EmbeddedError> {
        let records: Vec<_> = rows.map(|row| record(row, timestamp_ms)).collect();
        records.chunks(BATCH).try_for_each(|chunk| self.append(topic, 0, chunk))
    }

    async fn append_history(&self, count: u64, start: i64, now: i64) -> Result<(), EmbeddedError> {
        let step = (now - start) / i64::try_from(count.max(1)).unwrap_or(i64::MAX);
        let times = (0..count).map(|i| start + step * i as i64);
        let times: Vec<i64> = times.collect();
        for chunk in times.chunks(BATCH) {
            self.append_transactions(chunk)?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// One transaction at each of the times, one batch per partition.
    fn append_transactions(&self, times: &[i64]) -> Result<(), EmbeddedError> {
        let mut batches: BTreeMap<u64, Vec<ProducedRecord>> = BTreeMap::new();
        let first = self.0.next.fetch_add(times.len() as u64, Ordering::Relaxed);
        for (number, &time) in (first..).zip(times) {
            let (account, row) = rows::transaction(self.0.origin, number, time);
            let partition = account % TRANSACTION_PARTITIONS;
            batches.entry(partition).or_default().push(record(row, time));
        }
        for (partition, records) in batches {
            self.append(&self.0.transactions, partition, &records)?;
        }
        Ok(())
    }

    fn append(
        &self,
        topic: &TopicName,
        partition: u64,
        records: &[ProducedRecord],
    ) -> Result<(), EmbeddedError> {
        self.0.broker.append(topic, KafkaPartition(partition as i32), records)?;
        let mut counters = self.0.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        *counters.entry(topic.clone()).or_default() += records.len() as u64;
        Ok(())
    }

    /// Adds `per_second` transactions a second, dated now, until cancelled.
    ///
    /// # Errors
    /// [`EmbeddedError::Broker`] when the broker takes no more, e.g. because somebody deleted the
    /// topic.
    pub async fn run_live(
        &self,
        per_second: u32,
        cancel: CancellationToken,
    ) -> Result<(), EmbeddedError> {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // Millionths of a transaction that are due.
        let mut due = 0u64;
        let mut last = tokio::time::Instant::now();
        while cancel.run_until_cancelled(beat.tick()).await.is_some() {
            let now = tokio::time::Instant::now();
            // After a long stall (a suspended laptop) there is no burst to catch up.
            let elapsed = (now - last).min(Duration::from_secs(1)).as_micros() as u64;
            last = now;
            due += elapsed * u64::from(per_second);
            let count = due / 1_000_000;
            due %= 1_000_000;
            let times = vec![now_ms(); usize::try_from(count).unwrap_or(0)];
            for chunk in times.chunks(BATCH) {
                self.append_transactions(chunk)?;
            }
        }
        Ok(())
    }

    /// How many records of each topic the broker has acknowledged so far. Every one of them can be
    /// read, as long as the broker's byte bounds have not dropped it.
    pub fn expected(&self) -> BTreeMap<TopicName, u64> {
        self.0.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn record(row: Row, timestamp_ms: i64) -> ProducedRecord {
    ProducedRecord { timestamp_ms, key: Some(row.key), value: Some(row.value) }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
