//! The brokers and the schema registry, as ISK reads them. All Kafka I/O of the project is here.
//!
//! [`KafkaCluster`] answers what topics there are and how far they reach, and fetches exact ranges
//! of committed records as [`isk_model::RecordBlock`]s. [`SchemaRegistry`] answers which schema an
//! id stands for and which versions a subject has had.
//!
//! Nothing here writes to Kafka, joins a consumer group or commits an offset. Unsafe code lives in
//! the module `ffi` alone.

mod cluster;
mod collector;
mod config;
mod error;
mod fetch;
mod ffi;
mod https;
mod metrics;
mod offsets;
mod pool;
mod reader;
mod registry;
mod rights;
mod times;
mod tokens;
mod topic;
mod traced;
mod wire;

pub use cluster::KafkaCluster;
pub use config::{FetchPath, KafkaConfig};
pub use error::{FetchError, KafkaError};
pub use fetch::{BLOCK_MAX_BYTES, BLOCK_MAX_RECORDS, BlockStream, FETCH_BLOCKS, FetchLimits};
pub use metrics::{KafkaMetrics, KafkaMetricsSnapshot};
#[doc(hidden)]
pub use registry::read_any_answer;
pub use registry::{
    RegisteredSchema, RegistryAuth, RegistryConfig, RegistryError, RegistryMetrics, SchemaRegistry,
};
pub use rights::TopicRight;
pub use topic::TopicDescription;
