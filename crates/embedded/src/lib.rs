//! A Kafka broker, a schema registry, an Iceberg lake and sample data inside one process, for trying
//! ISK out.
//!
//! They speak the real protocols on real ports, so that any Kafka client, any Confluent-style
//! serializer and any Iceberg engine can join, but they are for trying out: one node, records in
//! memory, the oldest dropped when a byte bound is reached, nothing left after a restart, no security
//! and no transactions.
//!
//! Absent on purpose: replication, compaction (`cleanup.policy=compact` is stored and never acted
//! on), retention by time, transactions, quotas, ACLs, TLS and SASL.

pub mod broker;
mod error;
pub mod lake;
pub mod registry;
pub mod sample;

pub use broker::{BrokerConfig, BrokerHandle, EmbeddedBroker, ProducedRecord};
pub use error::EmbeddedError;
pub use lake::{EmbeddedLake, LakeConfig};
pub use registry::{EmbeddedRegistry, RegistryConfig};
pub use sample::{SampleConfig, SampleData};
