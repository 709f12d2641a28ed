//! Topics as tables: the two paths `load_table` and `read_object`, and what they share.
//!
//! `load_table` plans and reads no record (but a small sample when a topic is first seen);
//! `read_object` makes the bytes of a planned file when somebody reads them. What a file holds
//! follows from its key alone, so the two paths share caches and facts, never a session.

pub mod api;
mod epochs;
mod facts;
mod listing;
mod load_table;
mod metadata_store;
mod metrics;
mod plan;
mod read_object;
mod render;
mod service;
mod store;
mod topic_pin;
mod topic_schema;
mod topics;

pub use api::{HOTSET, ListedObject, Listing, LoadedTable, ObjectInfo, ObjectStream, ServiceError};
pub use service::{Service, ServiceConfig};
pub use topics::TopicFilter;
