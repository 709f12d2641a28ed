//! One encoding: from a fetch's blocks to a Parquet file on disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use isk_decode::{
    DecodeError, DecodeFailure, DecodedBatch, RecordPart, TopicDecoder, WriterSchema, arrow_schema,
    error_rows,
};
use isk_iceberg_table::ROW_ID_FIELD;
use isk_kafka::{BlockStream, FetchError, KafkaError};
use isk_model::{Boundary, ColumnRules, DataFileKey, LeftOut, Offset, RecordBlock, WriterId};
use isk_parquet_file::{ParquetRenderer, RenderProfile};
use isk_schema::{TableSchema, error_table};
use isk_traces::{count, span};
use tempfile::TempPath;
use tracing::field::Empty;

use crate::api::ServiceError;
use crate::cache::FileCache;
use crate::facts::Encoding;
use crate::layout::{add_row_ids, with_row_ids};
use crate::manners::Manners;
use crate::metrics::Metrics;
use crate::notice::Notice;
use crate::restricted::Restriction;
use crate::topic_schema::TopicSchemas;
use crate::undecoded::{Decoding, ErrorPolicy, Undecoded};

/// What the rows of a file are, as its recipe says.
#[derive(Clone)]
pub(crate) struct Rows {
    pub table: Arc<TableSchema>,
    /// Whether a column of row ids follows the table's.
    pub row_ids: bool,
    /// The records that are left out.
    pub left_out: Option<Arc<LeftOut>>,
    /// The rules that hide or mask columns of the table, where the file is for a caller under such.
    pub columns: Option<Arc<ColumnRules>>,
    pub decoding: Decoding,
}

impl Rows {
    /// The place of the column of offsets; that of timestamps follows.
    fn offset_column(&self) -> usize {
        self.table.value_columns() + 1
    }
}

/// One encoding on a blocking thread.
pub(crate) struct Job {
    pub key: DataFileKey,
    pub rows: Rows,
    pub schemas: Arc<TopicSchemas>,
    pub metrics: Arc<Metrics>,
    pub manners: Manners,
    pub runtime: tokio::runtime::Handle,
}

/// A finished file, not yet kept.
pub(crate) struct Made {
    pub file: File,
    pub path: TempPath,
    pub body_len: u64,
    pub footer_len: u64,
    pub encoding: Encoding,
}

/// Why there is no file.
pub(crate) enum Failure {
    /// The disk had room for so many bytes and no more.
    DiskFull { written: u64, error: ServiceError },
    /// It was encoded ahead of its reader, and others needed what that took.
    GaveWay,
    /// Anything else.
    Other(ServiceError),
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::Other(error)
    }
}

impl Job {
    /// Encodes what `blocks` brings into a new file of the cache's.
    pub(crate) fn run(
        self,
        mut blocks: BlockStream,
        cache: &FileCache,
        profile: &RenderProfile,
    ) -> Result<Made, Failure> {
        let (file, path) =
            cache.begin().map_err(|e| self.failed(&Sink::default(), &e))?.into_parts();
        let sink = Arc::new(Sink::default());
        let writer = buffered(file, Arc::clone(&sink));
        let mut decoder = TopicDecoder::new(Arc::clone(&self.rows.table), self.key.partition)
            .map_err(|e| ServiceError::Internal(format!("no decoder for {}: {e}", self.key)))?;
        let mut schema = self.schema()?;
        if self.rows.row_ids {
            schema = with_row_ids(&schema);
        }
        let restriction = self.rows.columns.as_ref().map(|rules| Restriction::new(rules, &schema));
        let written = restriction.as_ref().map_or(&schema, Restriction::schema);
        let mut renderer = ParquetRenderer::new(writer, Arc::clone(written), profile)
            .map_err(|e| self.failed(&sink, &e))?;
        let mut errors = 0;
        let mut notice = Notice::of(&self.rows.table);
        let (mut fetching, mut decoding, mut encoding) =
            (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        // Block by block, one after the other: `busy_ns` is each one's own time.
        let (decode, encode) = (span!("decode", isk.errors = Empty), span!("encode"));
        let mut mark = Instant::now();
        while let Some(block) = blocks.blocking_next() {
            fetching += lap(&mut mark);
            let block = block.map_err(|e| fetch_error(&self.key, &e))?;
            if !self.manners.give_way(block.payload_bytes() as u64) {
                return Err(Failure::GaveWay);
            }
            // How long others were given way is nobody's work.
            lap(&mut mark);
            let entered = decode.enter();
            let decoded = self.decoded(&mut decoder, &block)?;
            if let Some(notice) = &mut notice {
                notice.look(&block, &decoded);
            }
            let shown = self.shown(&block, decoded, &schema);
            if shown.is_err() {
                self.notice(notice.take())?;
            }
            let (mut batch, failed) = shown?;
            drop(entered);
            decoding += lap(&mut mark);
            errors += failed;
            let _entered = encode.enter();
            if self.rows.row_ids {
                batch = self.identified(&batch, &schema)?;
            }
            if let Some(restriction) = &restriction {
                batch = restriction.apply(&batch).map_err(|e| {
                    ServiceError::Internal(format!("hiding columns of {}: {e}", self.key))
                })?;
            }
            if batch.num_rows() > 0 {
                renderer.write(&batch).map_err(|e| self.failed(&sink, &e))?;
            }
            encoding += lap(&mut mark);
        }
        fetching += lap(&mut mark);
        self.notice(notice)?;
        decode.record("isk.errors", count(errors));
        drop(decode);
        let _entered = encode.enter();
        let mut rendered = renderer.finish().map_err(|e| self.failed(&sink, &e))?;
        // They are no column of the table.
        rendered.columns.remove(&ROW_ID_FIELD);
        let (file, digest) = finish(rendered.sink).map_err(|e| self.failed(&sink, &e))?;
        encoding += lap(&mut mark);
        self.metrics.stages.fetch.observe(fetching);
        self.metrics.stages.decode.observe(decoding);
        self.metrics.stages.encode.observe(encoding);
        Ok(Made {
            file,
            path,
            body_len: rendered.body_len,
            footer_len: rendered.footer_len,
            encoding: Encoding {
                rows: rendered.rows,
                errors,
                file_size: rendered.body_len + rendered.footer_len,
                digest,
                columns: rendered.columns,
            },
        })
    }

    /// The rows of a block. Few blocks name a schema that none before them did, so all that they name are looked
    /// for when one turned out to be missing.
    fn decoded(
        &self,
        decoder: &mut TopicDecoder,
        block: &RecordBlock,
    ) -> Result<DecodedBatch, ServiceError> {
        let mut decoded = decoder.decode(block);
        if let Err(DecodeError::UnknownWriter(_)) = decoded {
            for id in decoder.missing_writers(block) {
                let writer = self.writer(id)?;
                decoder.add_writer(id, writer);
            }
            decoded = decoder.decode(block);
        }
        decoded.map_err(|e| ServiceError::Internal(format!("decoding {}: {e}", self.key)))
    }

    /// Tells of records that do not fit the columns.
    fn notice(&self, notice: Option<Notice>) -> Result<(), ServiceError> {
        match notice.and_then(Notice::finish) {
            Some(sample) => {
                self.schemas.discovery.notice(&self.key.topic, self.key.topic_id, sample)
            }
            None => Ok(()),
        }
    }

    /// What went wrong with writing.
    fn failed(&self, sink: &Sink, error: &dyn std::fmt::Display) -> Failure {
        let error = ServiceError::Unavailable {
            what: format!("encoding {}", self.key),
            reason: format!("{error}; is the disk of data_dir full?"),
        };
        match sink.full.load(Ordering::Relaxed) {
            true => Failure::DiskFull { written: sink.written.load(Ordering::Relaxed), error },
            false => Failure::Other(error),
        }
    }

    /// The columns of the file.
    fn schema(&self) -> Result<SchemaRef, ServiceError> {
        let schema = match self.rows.decoding.undecoded {
            Undecoded::By(_) => arrow_schema(&self.rows.table),
            Undecoded::Only => {
                let table = error_table(&self.rows.table)
                    .map_err(|e| ServiceError::Internal(format!("the table of errors: {e}")))?;
                arrow_schema(&table)
            }
        };
        schema.map_err(|e| ServiceError::Internal(format!("the table has no Arrow schema: {e}")))
    }

    /// The rows of a block that the file has, and how many of its records did not decode.
    fn shown(
        &self,
        block: &RecordBlock,
        decoded: DecodedBatch,
        schema: &SchemaRef,
    ) -> Result<(RecordBatch, u64), ServiceError> {
        let DecodedBatch { batch, mut failures, others } = decoded;
        let mut keep = self.uncovered(&batch);
        if let Some(keep) = &keep {
            // What a cold table has is shown from there.
            failures.retain(|failure| keep[failure.row]);
        }
        if !others.is_empty() {
            // A record of another type has no row here. One of which nothing tells the type has none either, and
            // a value that fails all the same.
            failures.retain(|failure| {
                failure.part == RecordPart::Value || others.binary_search(&failure.row).is_err()
            });
            let keep = keep.get_or_insert_with(|| vec![true; batch.num_rows()]);
            others.iter().for_each(|row| keep[*row] = false);
        }
        let failed = failures.chunk_by(|a, b| a.row == b.row).count() as u64;
        let policy = match self.rows.decoding.undecoded {
            Undecoded::Only => {
                let rows = error_rows(block, &failures, self.key.partition, schema);
                let rows = rows
                    .map_err(|e| ServiceError::Internal(format!("errors of {}: {e}", self.key)));
                return Ok((rows?, failed));
            }
            Undecoded::By(policy) => policy,
        };
        if let Some(first) = failures.first() {
            self.metrics.decode_failures.note(&self.key, &failures);
            match policy {
                ErrorPolicy::Keep => {}
                ErrorPolicy::Fail => return Err(self.undecodable(first)),
                ErrorPolicy::Skip => {
                    let keep = keep.get_or_insert_with(|| vec![true; batch.num_rows()]);
                    failures.iter().for_each(|failure| keep[failure.row] = false);
                }
            }
        }
        let Some(keep) = keep else { return Ok((batch, failed)) };
        let batch = filter_record_batch(&batch, &BooleanArray::from(keep));
        let batch = batch.map_err(|e| {
            ServiceError::Internal(format!("leaving rows out of {}: {e}", self.key))
        })?;
        Ok((batch, failed))
    }

    fn undecodable(&self, failure: &DecodeFailure) -> ServiceError {
        let part = match failure.part {
            RecordPart::Key => "key",
            RecordPart::Value => "value",
        };
        let cause = match self.rows.columns {
            None => format!("{part}: {}", failure.cause),
            // What is wrong with it may quote it.
            Some(_) => format!("{part} (not all of it may be seen, so neither is why)"),
        };
        ServiceError::Undecodable {
            topic: self.key.topic.to_string(),
            partition: self.key.partition.0,
            offset: failure.offset.0,
            cause,
        }
    }

    /// Which rows of a batch no cold table has; `None` where one has none of them. One without a timestamp
    /// lies before no boundary.
    fn uncovered(&self, batch: &RecordBatch) -> Option<Vec<bool>> {
        let left_out = self.rows.left_out.as_ref()?;
        let column = self.rows.offset_column();
        let offsets = batch.column(column).as_primitive::<Int64Type>();
        let times = batch.column(column + 1).as_primitive::<TimestampMicrosecondType>();
        let earlier = |row: usize| match left_out.before {
            Some(Boundary(ms)) => times.is_valid(row) && times.value(row) < ms.saturating_mul(1000),
            None => false,
        };
        let keep = |(row, &offset): (usize, &i64)| {
            !left_out.offsets.contains(Offset(offset)) && !earlier(row)
        };
        Some(offsets.values().iter().enumerate().map(keep).collect())
    }

    /// The rows with their ids.
    fn identified(
        &self,
        batch: &RecordBatch,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, ServiceError> {
        add_row_ids(batch, self.key.partition, self.rows.offset_column(), schema)
            .map_err(|e| ServiceError::Internal(format!("row ids of {}: {e}", self.key)))
    }

    /// The schema some record was written with. A registry that does not answer fails the read; one
    /// that answers that there is no such schema makes the record undecodable.
    fn writer(&self, id: WriterId) -> Result<WriterSchema, ServiceError> {
        let topic = (&self.key.topic, self.key.topic_id);
        let state = &self.rows.decoding.writers;
        self.runtime.block_on(self.schemas.writer(topic, state, id))
    }
}

/// The time since the mark, which is set anew.
fn lap(mark: &mut Instant) -> Duration {
    let now = Instant::now();
    now - std::mem::replace(mark, now)
}

/// What a failed fetch means to the reader of a planned file.
fn fetch_error(key: &DataFileKey, error: &FetchError) -> ServiceError {
    match error {
        FetchError::Expired { .. }
        | FetchError::Rewritten { .. }
        | FetchError::LeaderEpochChanged { .. }
        | FetchError::NoSuchPartition { .. } => {
            ServiceError::Gone { key: key.to_string(), reason: error.to_string() }
        }
        FetchError::Kafka { source: KafkaError::NotAuthorized { .. }, .. } => {
            ServiceError::Denied { reason: error.to_string() }
        }
        FetchError::Timeout { .. }
        | FetchError::EndNotReached { .. }
        | FetchError::Corrupt { .. }
        | FetchError::Kafka { .. }
        | FetchError::Interrupted { .. } => {
            ServiceError::Unavailable { what: "Kafka".into(), reason: error.to_string() }
        }
    }
}

/// What became of a file that is being written.
#[derive(Default)]
struct Sink {
    written: AtomicU64,
    full: AtomicBool,
}

/// Passes bytes on and digests them: with BLAKE3, since SHA-256 took a tenth of an encoding's time on
/// processors without instructions for it.
struct HashingWriter {
    inner: File,
    hash: blake3::Hasher,
    sink: Arc<Sink>,
}

/// The buffer is in front of the digest, which is slow over small pieces.
fn buffered(file: File, sink: Arc<Sink>) -> BufWriter<HashingWriter> {
    let writer = HashingWriter { inner: file, hash: blake3::Hasher::new(), sink };
    BufWriter::with_capacity(1 << 18, writer)
}

fn finish(writer: BufWriter<HashingWriter>) -> std::io::Result<(File, [u8; 32])> {
    let writer = writer.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    Ok((writer.inner, writer.hash.finalize().into()))
}

impl HashingWriter {
    fn noted<T>(&self, outcome: std::io::Result<T>) -> std::io::Result<T> {
        if let Err(error) = &outcome
            && is_full(error)
        {
            self.sink.full.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl Write for HashingWriter {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let outcome = self.inner.write(buf);
        let n = self.noted(outcome)?;
        self.hash.update(&buf[..n]);
        self.sink.written.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let outcome = self.inner.flush();
        self.noted(outcome)
    }
}

/// Whether a write failed for want of room.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let write_to = |path: &str| {
            let file = File::options().write(true).open(path).unwrap();
            let sink = Arc::new(Sink::default());
            let mut writer = buffered(file, Arc::clone(&sink));
            let outcome = writer.write_all(&[7; 100]).and_then(|()| finish(writer).map(drop));
            (outcome.is_ok(), sink.full.load(Ordering::Relaxed))
        };
        // This device refuses every byte for want of room.
        assert_eq!(write_to("/dev/full"), (false, true));
        assert_eq!(write_to("/dev/null"), (true, false));
    }
}
