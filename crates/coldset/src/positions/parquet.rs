//! Positions out of a Parquet file: its footer, then two columns' chunks, one row group at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use isk_model::{KafkaPartition, OffsetSet};
use isk_outbound::chain;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::schema::types::{SchemaDescriptor, Type};

use super::batch::{Source, gather_batch};
use super::gather::Gather;
use crate::{ColdFile, ColdStore, ColdsetError, KafkaColumns};

/// Most footers are read with their first request, in bytes.
const TAIL: usize = 64 << 10;

/// A longer footer is refused, in bytes.
const MAX_FOOTER: u64 = 64 << 20;

/// The two columns' chunks of one row group that are held at once, in bytes.
const MAX_CHUNKS: u64 = 256 << 20;

pub(super) async fn positions(
    store: &ColdStore,
    file: &ColdFile,
    columns: &KafkaColumns,
) -> Result<BTreeMap<KafkaPartition, OffsetSet>, ColdsetError> {
    let bad = |reason: String| ColdsetError::unreadable(&file.uri, reason);
    let failed = |error: ParquetError| named(&file.uri, error);
    let mut reader = Ranges { store: store.clone(), uri: file.uri.clone(), size: file.size };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load_async(&mut reader, options).await.map_err(failed)?;
    let schema = metadata.metadata().file_metadata().schema_descr();
    let find = |(id, name): &(i32, String), known: Option<i64>| {
        source(schema, *id, name, known).map_err(bad)
    };
    let partition = find(&columns.partition, file.partition.single())?;
    let offset = find(&columns.offset, file.offset.single().filter(|_| file.records == 1))?;
    if partition == Source::Nowhere || offset == Source::Nowhere {
        return Ok(BTreeMap::new());
    }
    let leaves: Vec<usize> = [partition, offset].into_iter().filter_map(Source::column).collect();
    for group in metadata.metadata().row_groups() {
        check_chunks(group, &leaves).map_err(bad)?;
    }
    let mask = ProjectionMask::leaves(schema, leaves.iter().copied());
    let mut stream = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
        .with_projection(mask)
        .build()
        .map_err(failed)?;
    let mut gather = Gather::default();
    while let Some(group) = stream.next_row_group().await.map_err(failed)? {
        // Decoding takes its time, and may panic over pages it did not expect.
        let work = move || decode(group, partition, offset, gather);
        gather = match tokio::task::spawn_blocking(work).await {
            Ok(gather) => gather.map_err(bad)?,
            Err(_) => return Err(bad("its pages are broken".into())),
        };
    }
    gather.finish().map_err(bad)
}

/// Finds a column at the top level of the schema.
fn source(
    schema: &SchemaDescriptor,
    id: i32,
    name: &str,
    known: Option<i64>,
) -> Result<Source, String> {
    let with_ids = schema.root_schema().get_fields().iter().any(|f| has_ids(f));
    let found = (0..schema.num_columns()).find(|leaf| {
        let column = schema.column(*leaf);
        let info = column.self_type().get_basic_info();
        column.path().parts().len() == 1
            && if with_ids { info.has_id() && info.id() == id } else { info.name() == name }
    });
    let Some(leaf) = found else {
        return Ok(known.map_or(Source::Nowhere, Source::Constant));
    };
    match schema.column(leaf).physical_type() {
        PhysicalType::INT32 | PhysicalType::INT64 => Ok(Source::Column(leaf)),
        other => Err(format!("its column {name:?} is {other}; it must be an INT32 or INT64")),
    }
}

/// Whether a field, or one inside it, has an id: one id anywhere makes names meaningless.
fn has_ids(field: &Type) -> bool {
    field.get_basic_info().has_id()
        || (field.is_group() && field.get_fields().iter().any(|inner| has_ids(inner)))
}

/// Refuses what would take too much memory, or has offsets that the library would panic over.
fn check_chunks(group: &RowGroupMetaData, leaves: &[usize]) -> Result<(), String> {
    let mut total = 0_u64;
    for leaf in leaves {
        let column = group.columns().get(*leaf).ok_or("a row group lacks a column")?;
        let places =
            [column.data_page_offset(), column.dictionary_page_offset().unwrap_or_default()];
        let size = u64::try_from(column.compressed_size()).map_err(|_| "a size is negative")?;
        if places.iter().any(|place| *place < 0) {
            return Err("an offset is negative".into());
        }
        total = total.saturating_add(size);
    }
    if total > MAX_CHUNKS {
        return Err(format!(
            "the Kafka columns of one row group take {total} bytes, and at most {MAX_CHUNKS} are \
             read at once; rewrite the file with smaller row groups"
        ));
    }
    Ok(())
}

fn decode(
    group: ParquetRecordBatchReader,
    partition: Source,
    offset: Source,
    mut gather: Gather,
) -> Result<Gather, String> {
    for batch in group {
        let batch = batch.map_err(|error| chain(&error))?;
        gather_batch(&mut gather, &batch, partition, offset)?;
    }
    Ok(gather)
}

/// An error of the library, or the store's own that went through it.
fn named(uri: &str, error: ParquetError) -> ColdsetError {
    match error {
        ParquetError::External(inner) => match inner.downcast::<ColdsetError>() {
            Ok(own) => *own,
            Err(other) => ColdsetError::unreadable(uri, chain(other.as_ref())),
        },
        other => ColdsetError::unreadable(uri, other.to_string()),
    }
}

/// A file's ranges, for the library.
struct Ranges {
    store: ColdStore,
    uri: String,
    size: u64,
}

impl Ranges {
    async fn fetch(&self, range: Range<u64>, limit: u64) -> Result<Bytes, ParquetError> {
        let wanted = range.end.saturating_sub(range.start);
        let external = |error| ParquetError::External(Box::new(error));
        let bytes = self.store.get_uri(&self.uri, Some(range), limit).await.map_err(external)?;
        if bytes.len() as u64 != wanted {
            return Err(external(ColdsetError::unreadable(
                &self.uri,
                format!("it is shorter than the {} bytes its manifest says", self.size),
            )));
        }
        Ok(bytes)
    }
}

impl AsyncFileReader for Ranges {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.fetch(range, MAX_CHUNKS.max(MAX_FOOTER)).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(TAIL));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}
