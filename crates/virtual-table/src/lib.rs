//! Topics as tables: the two paths `load_table` and `read_object`, and what they share; topics and cold
//! tables as one.
//!
//! `load_table` plans and reads no record (but a small sample, where none was taken before);
//! `read_object` makes the bytes of a planned file when somebody reads them. What a file holds
//! follows from its key alone, so the two paths share caches and facts, never a session.

pub mod api;
mod beside;
mod bursts;
mod cache;
mod cleaning;
mod cold_view;
mod coverage;
mod coverage_admin;
mod coverage_book;
mod covered;
mod discover;
mod discovery;
mod encode;
mod epochs;
mod error_files;
mod facts;
mod failover;
mod failures;
mod files;
mod follow;
mod formats;
mod histories;
mod history;
mod layout;
mod lineage;
mod listing;
mod load_merged;
mod load_table;
mod look;
mod manifests;
mod manners;
mod memory;
mod metadata_store;
mod metrics;
mod notice;
mod open_files;
mod open_transactions;
mod origin;
mod pace;
mod parts;
mod plan;
mod promised;
mod prover;
mod read_ahead;
mod read_object;
mod record_types;
mod render;
mod restricted;
mod round_times;
mod sample;
mod scan;
mod scan_filter;
mod scan_plan;
mod scans;
mod schema_record;
mod schema_report;
mod service;
mod shared_books;
mod shared_names;
pub mod simulation;
mod stated;
mod store;
mod sweeping;
mod table_mapping;
mod table_names;
mod table_rules;
mod tail;
mod thinning;
mod tick;
mod time_index;
mod time_index_ask;
mod tips;
mod topic_pin;
mod topic_schema;
mod topics;
mod undecoded;
mod writers;

pub use api::{
    COLDSET, ERRORS, HOTSET, ListedObject, Listing, LoadedTable, MERGED, ObjectInfo, ObjectStream,
    ServiceError,
};
pub use coverage_admin::{CoverageStore, Forget, TableCoverage};
pub use discovery::{DiscoveryConfig, PinError, Sample};
pub use formats::{PartFormat, TopicFormats};
pub use origin::Origin;
pub use prover::ProverConfig;
pub use record_types::TypeSubjects;
pub use round_times::RoundTimes;
pub use scan::{ColumnStats, ContentFile, ScanFile, ScanPlan, ScanRequest};
pub use scan_filter::{ColumnFacts, Filter, Test};
pub use schema_report::{ColumnReport, Counted, SampledValue, SchemaReport, at_least};
pub use service::{Service, ServiceConfig};
pub use table_mapping::TableMapping;
pub use table_names::topic_of;
pub use table_rules::{RowLayout, TableRule, TableRules};
pub use topics::TopicFilter;
pub use undecoded::{ErrorPolicies, ErrorPolicy};
