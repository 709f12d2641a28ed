//! The render profile: every writer setting that has a say in a file's bytes.

use parquet::basic::{Compression, LogicalType, Type as PhysicalType, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{
    DEFAULT_CREATED_BY, EnabledStatistics, WriterProperties, WriterVersion,
};
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

/// Counts the changes of the rules in this crate that change bytes. It stands in every file, and in
/// every render digest.
const PROFILE_VERSION: u32 = 2;

/// How batches become a Parquet file. Two equal profiles render the same batches to the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderProfile {
    zstd_level: i32,
    row_group_rows: usize,
    row_group_bytes: usize,
    page_rows: usize,
    page_bytes: usize,
}

impl Default for RenderProfile {
    fn default() -> Self {
        Self {
            zstd_level: 1,
            row_group_rows: 131_072,
            row_group_bytes: 48 << 20,
            page_rows: 20_000,
            page_bytes: 1 << 20,
        }
    }
}

impl RenderProfile {
    /// The same profile with row groups ended at `bytes` (as encoded so far) at the latest. This is
    /// what bounds the renderer's memory; one batch may overshoot it.
    pub fn with_row_group_bytes(self, bytes: usize) -> Self {
        Self { row_group_bytes: bytes.max(1), ..self }
    }

    /// The same profile with at most `rows` rows in a row group.
    pub fn with_row_group_rows(self, rows: usize) -> Self {
        Self { row_group_rows: rows.max(1), ..self }
    }

    /// A text that differs whenever two profiles may render different bytes: input of the render
    /// digest. It names the version of the Parquet library.
    pub fn digest_input(&self) -> String {
        let Self { zstd_level, row_group_rows, row_group_bytes, page_rows, page_bytes } = self;
        format!(
            "render-profile {PROFILE_VERSION}; {DEFAULT_CREATED_BY}; zstd {zstd_level}; row group \
             {row_group_rows} rows {row_group_bytes} bytes; page {page_rows} rows {page_bytes} bytes"
        )
    }

    /// The in-progress size in bytes at which a row group is ended.
    pub fn row_group_bytes(&self) -> usize {
        self.row_group_bytes
    }

    /// The Parquet library's settings for files of this schema.
    pub(crate) fn properties(
        &self,
        schema: &SchemaDescriptor,
    ) -> Result<WriterProperties, ParquetError> {
        let mut builder = WriterProperties::builder()
            // "<name> version <number>" is the form that Java's reader parses before it trusts the
            // statistics of binary columns.
            .set_created_by(format!("isk-render version {PROFILE_VERSION}.0.0"))
            // Encodings other than plain and dictionary stop Iceberg's vectorized reader in Spark (seen
            // with Iceberg 1.9: "Cannot support vectorized reads for column").
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(self.zstd_level)?))
            .set_max_row_group_row_count(Some(self.row_group_rows))
            .set_data_page_row_count_limit(self.page_rows)
            .set_data_page_size_limit(self.page_bytes)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_dictionary_enabled(false);
        for column in schema.columns() {
            let path = || column.path().clone();
            if column.max_rep_level() > 0 {
                // Nobody prunes by what is in lists and maps, and Iceberg knows no bounds of it.
                builder = builder.set_column_statistics_enabled(path(), EnabledStatistics::None);
            }
            if let Some(limit) = dictionary_limit(column) {
                builder = builder
                    .set_column_dictionary_enabled(path(), true)
                    .set_column_dictionary_page_size_limit(path(), limit);
            }
        }
        Ok(builder.build())
    }
}

/// The bytes a column's dictionary may grow to before plain values follow, or `None` for a column
/// that is better off without: sequences, times, keys and other bytes seldom repeat.
fn dictionary_limit(column: &ColumnDescriptor) -> Option<usize> {
    if column.path().parts() == ["kafka_offset"] {
        return None;
    }
    match (column.physical_type(), column.logical_type_ref()) {
        (_, Some(LogicalType::Timestamp { .. } | LogicalType::Time { .. })) => None,
        (PhysicalType::BYTE_ARRAY, Some(_)) => Some(256 << 10),
        (PhysicalType::INT32 | PhysicalType::INT64, _) => Some(64 << 10),
        _ => None,
    }
}
