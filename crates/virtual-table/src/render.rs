//! From offsets to the bytes of a Parquet file: fetch, decode, encode. Each file is made once,
//! however many readers ask for it, and kept on disk while there is room.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use isk_decode::{DecodeFailure, TopicDecoder, WriterSchema, arrow_schema};
use isk_iceberg_table::ROW_ID_FIELD;
use isk_kafka::{BlockStream, FetchError, FetchLimits, KafkaCluster};
use isk_model::{Boundary, DataFileKey, LeftOut, Offset, RegistrySchemaId, TopicPartition};
use isk_parquet_file::{ParquetRenderer, RenderProfile};
use isk_schema::TableSchema;
use tempfile::TempPath;
use tokio::sync::Semaphore;

use crate::api::ServiceError;
use crate::facts::{Encoding, recipe};
use crate::layout::{add_row_ids, with_row_ids};
use crate::metrics::{Metrics, add};
use crate::topic_schema::TopicSchemas;

/// Failures logged one by one, per chunk; the rest are only counted.
const LOGGED_FAILURES: usize = 10;

/// An encoded file on disk. It goes when the last reader lets go of it.
pub(crate) struct RenderedFile {
    path: TempPath,
    /// Bytes before the footer.
    pub(crate) body_len: u64,
    /// Bytes of the footer.
    pub(crate) footer_len: u64,
    /// What was learnt.
    pub(crate) encoding: Encoding,
}

impl RenderedFile {
    /// Opens the file for reading.
    pub(crate) fn open(&self) -> std::io::Result<File> {
        File::open(&self.path)
    }
}

/// What the rows of a file are, as its recipe says.
#[derive(Clone)]
pub(crate) struct Rows {
    pub table: Arc<TableSchema>,
    /// Whether a column of row ids follows the table's.
    pub row_ids: bool,
    /// The records that are left out.
    pub left_out: Option<Arc<LeftOut>>,
}

/// Makes and keeps encoded files.
pub(crate) struct Renders {
    kafka: KafkaCluster,
    schemas: Arc<TopicSchemas>,
    metrics: Arc<Metrics>,
    profile: RenderProfile,
    folder: PathBuf,
    slots: Arc<Semaphore>,
    files: moka::future::Cache<String, Arc<RenderedFile>>,
}

impl Renders {
    /// Keeps files of up to `cache_bytes` in `folder`, and encodes `concurrency` chunks at a time.
    pub(crate) fn new(
        kafka: KafkaCluster,
        schemas: Arc<TopicSchemas>,
        metrics: Arc<Metrics>,
        folder: &Path,
        cache_bytes: u64,
        concurrency: usize,
    ) -> Result<Self, ServiceError> {
        // What an earlier process left behind has no owner any more.
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder).map_err(|e| disk(folder, &e))?;
        let kib = |file: &Arc<RenderedFile>| {
            u32::try_from(file.encoding.file_size.div_ceil(1024)).unwrap_or(u32::MAX)
        };
        let files = moka::future::Cache::builder()
            .weigher(move |_, file| kib(file))
            .max_capacity(cache_bytes / 1024)
            .build();
        Ok(Self {
            kafka,
            schemas,
            metrics,
            profile: RenderProfile::default(),
            folder: folder.to_owned(),
            slots: Arc::new(Semaphore::new(concurrency)),
            files,
        })
    }

    /// The profile that files are encoded with.
    pub(crate) fn profile(&self) -> &RenderProfile {
        &self.profile
    }

    /// Bytes of the files kept.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.files.weighted_size() * 1024
    }

    /// The file of a recipe: from disk, or encoded now. Concurrent callers share one encoding, which
    /// goes on when they leave.
    pub(crate) async fn get(
        self: &Arc<Self>,
        key: &DataFileKey,
        rows: Rows,
    ) -> Result<Arc<RenderedFile>, ServiceError> {
        let this = Arc::clone(self);
        let owned = key.clone();
        let made = self.files.try_get_with(recipe(key), async move {
            tokio::spawn(async move { this.render(&owned, rows).await })
                .await
                .map_err(|e| ServiceError::Internal(format!("an encoding task failed: {e}")))?
        });
        made.await.map_err(|e| (*e).clone())
    }

    /// Fetches, decodes and encodes one chunk.
    async fn render(
        self: Arc<Self>,
        key: &DataFileKey,
        rows: Rows,
    ) -> Result<Arc<RenderedFile>, ServiceError> {
        let _slot = self.slots.acquire().await;
        let begun = std::time::Instant::now();
        let tp = TopicPartition { topic: key.topic.clone(), partition: key.partition };
        let limits =
            FetchLimits { topic_id: Some(key.topic_id), max_epoch: Some(key.leader_epoch) };
        let blocks = self.kafka.fetch(&tp, key.range, limits);
        let decoder = TopicDecoder::new(Arc::clone(&rows.table), key.partition)
            .map_err(|e| ServiceError::Internal(format!("no decoder for {key}: {e}")))?;
        let job = Job {
            key: key.clone(),
            decoder,
            metadata_columns: rows.table.value_columns(),
            rows,
            schemas: Arc::clone(&self.schemas),
            metrics: Arc::clone(&self.metrics),
            runtime: tokio::runtime::Handle::current(),
        };
        let (folder, profile) = (self.folder.clone(), self.profile.clone());
        let encoded = tokio::task::spawn_blocking(move || job.run(blocks, &folder, &profile))
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("encoding panicked: {e}"))));
        match encoded {
            Ok(file) => {
                add(&self.metrics.chunks_rendered, 1);
                add(&self.metrics.rows_rendered, file.encoding.rows);
                add(&self.metrics.bytes_rendered, file.encoding.file_size);
                tracing::debug!(
                    key = %key, rows = file.encoding.rows, bytes = file.encoding.file_size,
                    ms = begun.elapsed().as_millis() as u64, "chunk encoded"
                );
                Ok(Arc::new(file))
            }
            Err(error) => {
                add(&self.metrics.render_errors, 1);
                tracing::warn!(key = %key, %error, "a chunk could not be encoded");
                Err(error)
            }
        }
    }
}

/// One encoding on a blocking thread.
struct Job {
    key: DataFileKey,
    decoder: TopicDecoder,
    /// The place of the first metadata column, that of Kafka partitions; offsets and timestamps follow.
    metadata_columns: usize,
    rows: Rows,
    schemas: Arc<TopicSchemas>,
    metrics: Arc<Metrics>,
    runtime: tokio::runtime::Handle,
}

impl Job {
    fn run(
        mut self,
        mut blocks: BlockStream,
        folder: &Path,
        profile: &RenderProfile,
    ) -> Result<RenderedFile, ServiceError> {
        let file = tempfile::Builder::new()
            .prefix("chunk-")
            .suffix(".parquet")
            .tempfile_in(folder)
            .map_err(|e| disk(folder, &e))?;
        let (file, path) = file.into_parts();
        let sink = HashingWriter {
            inner: BufWriter::with_capacity(1 << 18, file),
            hash: blake3::Hasher::new(),
        };
        let encode = |e: &dyn std::fmt::Display| ServiceError::Unavailable {
            what: format!("encoding {}", self.key),
            reason: format!("{e}; is the disk of data_dir full?"),
        };
        let mut schema = arrow_schema(&self.rows.table)
            .map_err(|e| ServiceError::Internal(format!("the table has no Arrow schema: {e}")))?;
        if self.rows.row_ids {
            schema = with_row_ids(&schema);
        }
        let mut renderer =
            ParquetRenderer::new(sink, Arc::clone(&schema), profile).map_err(|e| encode(&e))?;
        let mut failures = Failures::default();
        while let Some(block) = blocks.blocking_next() {
            let block = block.map_err(|e| fetch_error(&self.key, &e))?;
            for id in self.decoder.missing_writers(&block) {
                let writer = self.writer(id)?;
                self.decoder.add_writer(id, writer);
            }
            let decoded = self
                .decoder
                .decode(&block)
                .map_err(|e| ServiceError::Internal(format!("decoding {}: {e}", self.key)))?;
            failures.note(&self.key, &decoded.failures);
            let mut batch = self.uncovered(decoded.batch)?;
            if self.rows.row_ids {
                batch = self.identified(&batch, &schema)?;
            }
            if batch.num_rows() > 0 {
                renderer.write(&batch).map_err(|e| encode(&e))?;
            }
        }
        let mut rendered = renderer.finish().map_err(|e| encode(&e))?;
        // They are no column of the table.
        rendered.columns.remove(&ROW_ID_FIELD);
        let digest = rendered.sink.finish().map_err(|e| disk(folder, &e))?;
        failures.report(&self.key, &self.metrics);
        Ok(RenderedFile {
            path,
            body_len: rendered.body_len,
            footer_len: rendered.footer_len,
            encoding: Encoding {
                rows: rendered.rows,
                file_size: rendered.body_len + rendered.footer_len,
                digest,
                columns: rendered.columns,
            },
        })
    }

    /// The rows of a batch that no cold table has. One without a timestamp lies before no boundary.
    fn uncovered(&self, batch: RecordBatch) -> Result<RecordBatch, ServiceError> {
        let Some(left_out) = &self.rows.left_out else { return Ok(batch) };
        let offsets = batch.column(self.metadata_columns + 1).as_primitive::<Int64Type>();
        let times =
            batch.column(self.metadata_columns + 2).as_primitive::<TimestampMicrosecondType>();
        let earlier = |row: usize| match left_out.before {
            Some(Boundary(ms)) => times.is_valid(row) && times.value(row) < ms.saturating_mul(1000),
            None => false,
        };
        let keep = |(row, &offset): (usize, &i64)| {
            Some(!left_out.offsets.contains(Offset(offset)) && !earlier(row))
        };
        let keep: BooleanArray = offsets.values().iter().enumerate().map(keep).collect();
        filter_record_batch(&batch, &keep)
            .map_err(|e| ServiceError::Internal(format!("leaving rows out of {}: {e}", self.key)))
    }

    /// The rows with their ids.
    fn identified(
        &self,
        batch: &RecordBatch,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, ServiceError> {
        add_row_ids(batch, self.key.partition, self.metadata_columns + 1, schema)
            .map_err(|e| ServiceError::Internal(format!("row ids of {}: {e}", self.key)))
    }

    /// The schema some record was written with. A registry that does not answer fails the read; one
    /// that answers that there is no such schema makes the record undecodable.
    fn writer(&self, id: RegistrySchemaId) -> Result<WriterSchema, ServiceError> {
        self.runtime.block_on(self.schemas.writer(id))
    }
}

/// The records of one chunk that did not decode.
#[derive(Default)]
struct Failures {
    count: u64,
}

impl Failures {
    fn note(&mut self, key: &DataFileKey, failures: &[DecodeFailure]) {
        for failure in failures {
            self.count += 1;
            if self.count <= LOGGED_FAILURES as u64 {
                tracing::warn!(
                    topic = %key.topic, partition = key.partition.0, offset = failure.offset.0,
                    part = ?failure.part, schema_id = failure.schema_id.map(|id| id.0),
                    cause = %failure.cause, "a record did not decode; its row has nulls there"
                );
            }
        }
    }

    fn report(&self, key: &DataFileKey, metrics: &Metrics) {
        metrics.add_decode_failures(key.topic.as_str(), self.count);
        if self.count > LOGGED_FAILURES as u64 {
            tracing::warn!(
                topic = %key.topic, partition = key.partition.0, range = %key.range,
                failures = self.count, "more records of this chunk did not decode"
            );
        }
    }
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
        FetchError::Timeout { .. }
        | FetchError::EndNotReached { .. }
        | FetchError::Corrupt { .. }
        | FetchError::Kafka { .. }
        | FetchError::Interrupted { .. } => {
            ServiceError::Unavailable { what: "Kafka".into(), reason: error.to_string() }
        }
    }
}

fn disk(folder: &Path, error: &std::io::Error) -> ServiceError {
    ServiceError::Unavailable {
        what: format!("the cache folder {}", folder.display()),
        reason: format!("{error}; is it writable and the disk not full?"),
    }
}

/// Passes bytes on and digests them: with BLAKE3, since SHA-256 took a tenth of an encoding's time on
/// processors without instructions for it.
struct HashingWriter<W> {
    inner: W,
    hash: blake3::Hasher,
}

impl HashingWriter<BufWriter<File>> {
    fn finish(mut self) -> std::io::Result<[u8; 32]> {
        self.inner.flush()?;
        Ok(self.hash.finalize().into())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
