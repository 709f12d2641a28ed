//! Counters of what was fetched from the brokers. They only grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one [`crate::KafkaCluster`].
#[derive(Debug, Default)]
pub struct KafkaMetrics {
    pub(crate) fetches: AtomicU64,
    pub(crate) fetch_errors: AtomicU64,
    pub(crate) records_delivered: AtomicU64,
    pub(crate) bytes_delivered: AtomicU64,
    pub(crate) records_fetched: AtomicU64,
    pub(crate) bytes_fetched: AtomicU64,
    pub(crate) wire_bytes: AtomicU64,
    pub(crate) admin_requests: AtomicU64,
    pub(crate) admin_errors: AtomicU64,
    pub(crate) clients_opened: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KafkaMetricsSnapshot {
    /// Ranges asked for.
    pub fetches: u64,
    /// Ranges that failed.
    pub fetch_errors: u64,
    /// Records handed on, all of them inside the ranges asked for.
    pub records_delivered: u64,
    /// Bytes of keys, values and headers handed on.
    pub bytes_delivered: u64,
    /// Records the client brought, including those behind a range's end that were dropped.
    pub records_fetched: u64,
    /// Bytes of keys and values of the records taken from the client, dropped ones included.
    pub bytes_fetched: u64,
    /// Bytes of all Fetch answers as they came over the network (compressed, with what was fetched
    /// ahead and dropped).
    pub wire_bytes: u64,
    /// Questions asked of the brokers besides fetches.
    pub admin_requests: u64,
    /// Questions that failed.
    pub admin_errors: u64,
    /// Clients (sets of connections) opened.
    pub clients_opened: u64,
}

impl KafkaMetrics {
    /// Reads all counters. They are read one after the other, not at one instant.
    pub fn snapshot(&self) -> KafkaMetricsSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        KafkaMetricsSnapshot {
            fetches: get(&self.fetches),
            fetch_errors: get(&self.fetch_errors),
            records_delivered: get(&self.records_delivered),
            bytes_delivered: get(&self.bytes_delivered),
            records_fetched: get(&self.records_fetched),
            bytes_fetched: get(&self.bytes_fetched),
            wire_bytes: get(&self.wire_bytes),
            admin_requests: get(&self.admin_requests),
            admin_errors: get(&self.admin_errors),
            clients_opened: get(&self.clients_opened),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
