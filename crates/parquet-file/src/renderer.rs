//! Streams Arrow batches into one Parquet file.

use std::collections::BTreeMap;
use std::io::{self, Write};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use isk_model::ColumnMetrics;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::errors::ParquetError;

use crate::metrics::{NanWatch, column_metrics};
use crate::profile::RenderProfile;

/// Why a file could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The schema has a type or a name that Parquet cannot hold: a defect of the caller's mapping.
    #[error("the table's columns cannot be written as Parquet: {0}")]
    Schema(#[source] ParquetError),
    /// The sink failed, or a batch does not have the renderer's schema. Rendering anew may help.
    #[error("a Parquet file could not be written: {0}")]
    Write(#[source] ParquetError),
    /// The library left no Parquet trailer at the file's end: a defect.
    #[error("the Parquet writer ended the file without a trailer")]
    NoTrailer,
}

/// A rendered file, and what was learnt on the way.
#[derive(Debug)]
pub struct Rendered<W> {
    /// The sink, with body and footer written to it.
    pub sink: W,
    /// Bytes before the footer.
    pub body_len: u64,
    /// Bytes of the footer: the Thrift structure and the 8 bytes behind it.
    pub footer_len: u64,
    /// The number of rows.
    pub rows: u64,
    /// Metrics of the leaf columns by Iceberg field id.
    pub columns: BTreeMap<i32, ColumnMetrics>,
}

/// Writes one Parquet file. The bytes depend on the schema, the profile and the sequence of batches
/// (where one batch ends and the next begins counts too), and on nothing else.
pub struct ParquetRenderer<W: Write + Send> {
    writer: ArrowWriter<TailSink<W>>,
    row_group_bytes: usize,
    nans: NanWatch,
}

impl<W: Write + Send> std::fmt::Debug for ParquetRenderer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetRenderer").field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl<W: Write + Send> ParquetRenderer<W> {
    /// Begins a file of these columns. Each field, nested ones too, carries its Iceberg field id
    /// under the metadata key `PARQUET:field_id`; a UUID carries the extension type `arrow.uuid`.
    pub fn new(sink: W, schema: SchemaRef, profile: &RenderProfile) -> Result<Self, RenderError> {
        let parquet_schema =
            ArrowSchemaConverter::new().convert(&schema).map_err(RenderError::Schema)?;
        let properties = profile.properties(&parquet_schema).map_err(RenderError::Schema)?;
        let nans = NanWatch::new(&schema);
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            // The Arrow schema as Base64 would be most of a small file, and names Arrow's types to
            // readers that go by Iceberg's.
            .with_skip_arrow_metadata(true)
            .with_parquet_schema(parquet_schema);
        let writer = ArrowWriter::try_new_with_options(TailSink::new(sink), schema, options)
            .map_err(RenderError::Schema)?;
        Ok(Self { writer, row_group_bytes: profile.row_group_bytes(), nans })
    }

    /// Appends the batch's rows. An empty batch leaves no trace.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), RenderError> {
        self.nans.look_at(batch);
        self.writer.write(batch).map_err(RenderError::Write)?;
        // The encoded size, unlike the memory in use, is a function of the data alone.
        if self.writer.in_progress_size() >= self.row_group_bytes {
            self.writer.flush().map_err(RenderError::Write)?;
        }
        Ok(())
    }

    /// The memory in use for the row group being written, in bytes.
    pub fn memory_size(&self) -> usize {
        self.writer.memory_size()
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<Rendered<W>, RenderError> {
        self.writer.flush().map_err(RenderError::Write)?;
        let groups = self.writer.flushed_row_groups();
        let rows = groups.iter().map(|group| group.num_rows().unsigned_abs()).sum();
        let columns = column_metrics(groups, &self.nans);
        let sink = self.writer.into_inner().map_err(RenderError::Write)?;
        let footer_len = sink.footer_len().ok_or(RenderError::NoTrailer)?;
        Ok(Rendered {
            body_len: sink.written - footer_len,
            footer_len,
            rows,
            columns,
            sink: sink.inner,
        })
    }
}

/// Counts what passes, and remembers the last eight bytes: a Parquet file's trailer.
struct TailSink<W> {
    inner: W,
    written: u64,
    tail: [u8; 8],
}

impl<W> TailSink<W> {
    fn new(inner: W) -> Self {
        Self { inner, written: 0, tail: [0; 8] }
    }

    /// The footer's length with its trailer, if the file ends as a Parquet file does.
    fn footer_len(&self) -> Option<u64> {
        let [a, b, c, d, magic @ ..] = self.tail;
        let footer = u64::from(u32::from_le_bytes([a, b, c, d])) + 8;
        (&magic == b"PAR1" && footer <= self.written).then_some(footer)
    }
}

impl<W: Write> Write for TailSink<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.written += n as u64;
        let new = &buf[n.saturating_sub(8)..n];
        self.tail.rotate_left(new.len());
        let kept = self.tail.len() - new.len();
        self.tail[kept..].copy_from_slice(new);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
