//! The coldset: an upstream Iceberg REST catalog and the object store its tables live in.
//!
//! [`Upstream`] speaks to the catalog: it lists and loads tables and passes other requests on.
//! [`ColdStore`] reads and writes the objects that those tables name, with credentials of its own.
//! [`manifest_list`], [`cold_files`] and [`positions`] say which Kafka offsets a cold table holds:
//! from its metadata where that proves it, from two columns of its data files where it does not.
//!
//! Nothing here knows Kafka's brokers or how tables are shown to clients.

mod catalog;
mod cold_files;
mod config;
mod error;
mod keys;
mod manifest_counts;
mod manifest_entries;
mod positions;
mod store;
mod uri;

pub use catalog::{ColdTable, DirectAccess, Upstream};
pub use cold_files::{ColdFile, ColdFormat, FieldBounds, KafkaColumns, cold_files, manifest_list};
pub use config::{ColdS3, ColdsetConfig, UpstreamAuth};
pub use error::ColdsetError;
pub use keys::AccessKeys;
pub use positions::positions;
pub use store::{
    ByteStream, ColdListed, ColdListing, ColdObject, ColdStore, ListAfter, MAX_PART_BYTES,
};
pub use uri::ObjectUri;
