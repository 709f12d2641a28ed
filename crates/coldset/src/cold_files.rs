//! What a cold table's immutable metadata says of its data files.

use iceberg::spec::{FormatVersion, ManifestContentType, ManifestFile, ManifestList};
use isk_model::{KafkaPartition, Offset, OffsetRange};
use isk_outbound::chain;

use crate::{ColdStore, ColdsetError, manifest_counts, manifest_entries};

/// A longer manifest or manifest list is refused, in bytes: parsed, it takes many times its length.
/// Writers aim at 8 MiB.
const MAX_METADATA_FILE: u64 = 64 << 20;

/// The format of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColdFormat {
    /// Apache Parquet.
    Parquet,
    /// Apache Avro.
    Avro,
    /// Apache ORC.
    Orc,
}

/// What is known of a column's values in one file. What is absent is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FieldBounds {
    /// No value that is not null lies below.
    pub lower: Option<i64>,
    /// No value that is not null lies above.
    pub upper: Option<i64>,
    /// How many values are null.
    pub nulls: Option<u64>,
}

/// One entry of a data manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdFile {
    /// The data file's URI.
    pub uri: String,
    /// Its format.
    pub format: ColdFormat,
    /// Its rows.
    pub records: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Whether the entry's status is not `DELETED`.
    pub live: bool,
    /// The column of Kafka partitions.
    pub partition: FieldBounds,
    /// The column of Kafka offsets.
    pub offset: FieldBounds,
}

/// The field ids and names of the two Kafka columns in the cold table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaColumns {
    /// `kafka_partition`.
    pub partition: (i32, String),
    /// `kafka_offset`.
    pub offset: (i32, String),
}

impl ColdFile {
    /// The offsets that the file holds, where its metadata alone proves them: one Kafka partition,
    /// no nulls, and as many rows as there are offsets between the bounds.
    ///
    /// This rests on a Kafka record being in the file once: a file that holds one offset twice and
    /// lacks another looks the same.
    pub fn proven_range(&self) -> Option<(KafkaPartition, OffsetRange)> {
        if self.partition.nulls != Some(0) || self.offset.nulls != Some(0) {
            return None;
        }
        let partition = self.partition.single().and_then(|p| i32::try_from(p).ok())?;
        let end = self.offset.upper?.checked_add(1)?;
        let range = OffsetRange::new(Offset(self.offset.lower?), Offset(end))?;
        (partition >= 0 && range.span() == self.records)
            .then_some((KafkaPartition(partition), range))
    }
}

impl FieldBounds {
    /// The one value that all values which are not null have.
    pub(crate) fn single(&self) -> Option<i64> {
        self.lower.filter(|lower| Some(*lower) == self.upper)
    }
}

/// The manifests that a manifest list names.
///
/// # Errors
/// When the list cannot be had or read.
pub async fn manifest_list(
    store: &ColdStore,
    uri: &str,
    format_version: u8,
) -> Result<Vec<ManifestFile>, ColdsetError> {
    let version = match format_version {
        1 => FormatVersion::V1,
        2 => FormatVersion::V2,
        3 => FormatVersion::V3,
        other => {
            let reason = format!("its table has format version {other}; 1, 2 and 3 can be read");
            return Err(ColdsetError::unreadable(uri, reason));
        }
    };
    let bytes = store.get_uri(uri, None, MAX_METADATA_FILE).await?;
    apart(uri, move || {
        let list = ManifestList::parse_with_version(&bytes, version).or_else(|error| {
            // A table that was upgraded keeps its last list until its next commit.
            ManifestList::parse_with_version(&bytes, FormatVersion::V1).map_err(|_| error)
        });
        let list = list.map_err(|error| chain(&error))?;
        let mut manifests: Vec<ManifestFile> = list.consume_entries().into_iter().collect();
        if manifests.iter().any(|manifest| manifest.added_files_count.is_none()) {
            manifest_counts::complete(&mut manifests, &bytes)?;
        }
        Ok(manifests)
    })
    .await
}

/// The entries of a data manifest, deleted ones too.
///
/// # Errors
/// When the manifest cannot be had or read, or is one of delete files.
pub async fn cold_files(
    store: &ColdStore,
    manifest: &ManifestFile,
    columns: &KafkaColumns,
) -> Result<Vec<ColdFile>, ColdsetError> {
    let uri = &manifest.manifest_path;
    if manifest.content != ManifestContentType::Data {
        return Err(ColdsetError::unreadable(uri, "it is a manifest of delete files"));
    }
    let bytes = store.get_uri(uri, None, MAX_METADATA_FILE).await?;
    let ids = (columns.partition.0, columns.offset.0);
    apart(uri, move || manifest_entries::parse(&bytes, ids)).await
}

/// Runs a parser where it may take its time, and may panic over bytes it did not expect.
async fn apart<T: Send + 'static>(
    uri: &str,
    parse: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ColdsetError> {
    match tokio::task::spawn_blocking(parse).await {
        Ok(parsed) => parsed.map_err(|reason| ColdsetError::unreadable(uri, reason)),
        Err(_) => Err(ColdsetError::unreadable(uri, "its Avro is broken")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(lower: i64, upper: i64) -> FieldBounds {
        FieldBounds { lower: Some(lower), upper: Some(upper), nulls: Some(0) }
    }

    fn file(partition: FieldBounds, offset: FieldBounds, records: u64) -> ColdFile {
        ColdFile {
            uri: "s3://b/f.parquet".into(),
            format: ColdFormat::Parquet,
            records,
            size: 1,
            live: true,
            partition,
            offset,
        }
    }

    #[test]
    fn one_partition_without_nulls_and_as_many_rows_as_offsets_is_a_proof() {
        let range = |start, end| OffsetRange::new(Offset(start), Offset(end)).unwrap();
        let proven = file(bounds(3, 3), bounds(10, 19), 10).proven_range();
        assert_eq!(proven, Some((KafkaPartition(3), range(10, 20))));
        let single = file(bounds(0, 0), bounds(0, 0), 1).proven_range();
        assert_eq!(single, Some((KafkaPartition(0), range(0, 1))));
        // A deleted entry's file held what it held.
        let mut deleted = file(bounds(0, 0), bounds(0, 0), 1);
        deleted.live = false;
        assert!(deleted.proven_range().is_some());
    }

    #[test]
    fn anything_less_is_none() {
        let nulls = |b: FieldBounds, nulls| FieldBounds { nulls, ..b };
        let (p, o) = (bounds(3, 3), bounds(10, 19));
        for (what, file) in [
            ("two partitions", file(bounds(3, 4), o, 10)),
            ("a gap", file(p, o, 9)),
            ("an offset twice", file(p, o, 11)),
            ("a null offset", file(p, nulls(o, Some(1)), 10)),
            ("nulls not counted", file(p, nulls(o, None), 10)),
            ("a null partition", file(nulls(p, Some(1)), o, 10)),
            ("partition nulls not counted", file(nulls(p, None), o, 10)),
            ("no lower bound", file(p, FieldBounds { lower: None, ..o }, 10)),
            ("no upper bound", file(p, FieldBounds { upper: None, ..o }, 10)),
            ("no bounds", file(FieldBounds::default(), FieldBounds::default(), 10)),
            ("no rows", file(p, bounds(10, 9), 0)),
            ("a negative partition", file(bounds(-1, -1), o, 10)),
            ("a partition that is no int", file(bounds(1 << 40, 1 << 40), o, 10)),
            ("a negative offset", file(p, bounds(-1, 8), 10)),
            ("the last long", file(p, bounds(i64::MAX, i64::MAX), 1)),
        ] {
            assert_eq!(file.proven_range(), None, "{what}");
        }
    }
}
