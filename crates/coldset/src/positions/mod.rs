//! Which Kafka offsets a data file holds, by reading the two columns that say so.

mod avro;
mod batch;
mod gather;
mod orc;
mod parquet;

use std::collections::BTreeMap;

use isk_model::{KafkaPartition, OffsetSet};

use crate::{ColdFile, ColdFormat, ColdStore, ColdsetError, KafkaColumns};

/// The offsets in a data file, by Kafka partition. Rows with a null in either column hold none. A
/// column is found by its field id, or by its name in a file that has no field ids.
///
/// # Errors
/// When the file cannot be had or read.
pub async fn positions(
    store: &ColdStore,
    file: &ColdFile,
    columns: &KafkaColumns,
) -> Result<BTreeMap<KafkaPartition, OffsetSet>, ColdsetError> {
    match file.format {
        ColdFormat::Parquet => parquet::positions(store, file, columns).await,
        ColdFormat::Avro => avro::positions(store, file, columns).await,
        ColdFormat::Orc => orc::positions(store, file, columns).await,
    }
}
