//! Arrow batches to the bytes of a virtual data file: the render profile, the padding that lets a
//! file be declared before it is encoded, and the metrics its manifest entry tells.
//!
//! No I/O but writing to the sink it is handed, no clock, no randomness: the same schema, profile and
//! sequence of batches give the same bytes.

mod delete_file;
mod metrics;
mod padded;
mod profile;
mod renderer;

pub use delete_file::empty_delete_file;
pub use isk_model::ColumnMetrics;
pub use padded::{PaddedLayout, Segment, TooLarge};
pub use profile::RenderProfile;
pub use renderer::{ParquetRenderer, RenderError, Rendered};
