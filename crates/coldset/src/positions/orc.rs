//! Positions out of an ORC file: its tail, then two columns' streams, one stripe at a time.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use isk_model::{KafkaPartition, OffsetSet};
use isk_outbound::chain;
use orc_rust::ArrowReaderBuilder;
use orc_rust::compression::{Compression, Decompressor};
use orc_rust::projection::ProjectionMask;
use orc_rust::proto;
use orc_rust::reader::ChunkReader;
use orc_rust::schema::{DataType, NamedColumn};
use prost::Message;
use tokio::runtime::Handle;

use super::batch::{Source, gather_batch};
use super::gather::Gather;
use crate::{ColdFile, ColdStore, ColdsetError, KafkaColumns};

/// The attribute in which Iceberg gives a type its field id.
const FIELD_ID: &str = "iceberg.id";

/// The end of a file that is read with the first request, in bytes.
const TAIL: u64 = 64 << 10;

/// The most bytes that are read at once: one stream of one stripe, or what of the tail is left.
const MAX_READ: u64 = 64 << 20;

pub(super) async fn positions(
    store: &ColdStore,
    file: &ColdFile,
    columns: &KafkaColumns,
) -> Result<BTreeMap<KafkaPartition, OffsetSet>, ColdsetError> {
    if file.size == 0 {
        return Err(ColdsetError::unreadable(&file.uri, "its manifest says that it is empty"));
    }
    let tail_at = file.size.saturating_sub(TAIL);
    let tail = store.get_uri(&file.uri, Some(tail_at..file.size), TAIL).await?;
    let ranges = Ranges {
        tail: (tail_at, tail),
        store: store.clone(),
        file: file.clone(),
        runtime: Handle::current(),
        failure: Arc::default(),
    };
    let failure = Arc::clone(&ranges.failure);
    let columns = columns.clone();
    // The library waits for its bytes, and panics over those that it did not expect.
    let read = tokio::task::spawn_blocking(move || decode(ranges, &columns)).await;
    let read = read.unwrap_or_else(|_| Err("it is no ORC file, or a broken one".to_owned()));
    // What the store said is more than what the library made of it.
    let failed = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    read.map_err(|reason| failed.unwrap_or_else(|| ColdsetError::unreadable(&file.uri, reason)))
}

fn decode(
    ranges: Ranges,
    columns: &KafkaColumns,
) -> Result<BTreeMap<KafkaPartition, OffsetSet>, String> {
    let (file, postscript) = (ranges.file.clone(), ranges.clone());
    let builder = ArrowReaderBuilder::try_new(ranges).map_err(|error| chain(&error))?;
    let metadata = builder.file_metadata();
    let types = types(&postscript, metadata.compression())?;
    let root = metadata.root_data_type().clone();
    let find = |column: &(i32, String), known| source(root.children(), &types, column, known);
    let partition = find(&columns.partition, file.partition.single())?;
    let offset = find(&columns.offset, file.offset.single().filter(|_| file.records == 1))?;
    if partition == Source::Nowhere || offset == Source::Nowhere {
        return Ok(BTreeMap::new());
    }
    let wanted = [partition, offset].into_iter().filter_map(Source::column);
    let batches = builder.with_projection(ProjectionMask::roots(&root, wanted)).build();
    let mut gather = Gather::default();
    let mut rows = 0_u64;
    for batch in batches {
        let batch = batch.map_err(|error| chain(&error))?;
        gather_batch(&mut gather, &batch, partition, offset)?;
        rows = rows.saturating_add(batch.num_rows() as u64);
    }
    if rows != file.records {
        let records = file.records;
        return Err(format!("it holds {rows} rows, and its manifest says {records}"));
    }
    gather.finish()
}

/// The types of the file with their attributes, which the library does not hand on. A type's place is its
/// column's number.
fn types(file: &Ranges, compression: Option<Compression>) -> Result<Vec<proto::Type>, String> {
    let short = || "its tail is cut".to_owned();
    let length = u64::from(*file.tail.1.last().ok_or_else(short)?);
    let end = file.len().checked_sub(1 + length).ok_or_else(short)?;
    let bytes = |at, length| file.get_bytes(at, length).map_err(|error| chain(&error));
    let postscript = proto::PostScript::decode(bytes(end, length)?);
    let length = postscript.map_err(|error| chain(&error))?.footer_length();
    let footer = bytes(end.checked_sub(length).ok_or_else(short)?, length)?;
    let mut plain = Vec::new();
    Decompressor::new(footer, compression, Vec::new())
        .take(MAX_READ)
        .read_to_end(&mut plain)
        .map_err(|error| chain(&error))?;
    Ok(proto::Footer::decode(plain.as_slice()).map_err(|error| chain(&error))?.types)
}

/// Finds a column at the top level: by id, or by name where no type has an id.
fn source(
    columns: &[NamedColumn],
    types: &[proto::Type],
    (id, name): &(i32, String),
    known: Option<i64>,
) -> Result<Source, String> {
    let id_of = |number: usize| {
        let attributes = types.get(number).into_iter().flat_map(|ty| &ty.attributes);
        attributes.into_iter().find(|a| a.key() == FIELD_ID)?.value().parse::<i32>().ok()
    };
    let with_ids = (0..types.len()).any(|number| id_of(number).is_some());
    let found = columns.iter().find(|column| {
        if with_ids {
            id_of(column.data_type().column_index()) == Some(*id)
        } else {
            column.name() == name
        }
    });
    match found.map(NamedColumn::data_type) {
        Some(DataType::Int { column_index } | DataType::Long { column_index }) => {
            Ok(Source::Column(*column_index))
        }
        Some(other) => Err(format!("its column {name:?} is {other}; it must be an int or a long")),
        None => Ok(known.map_or(Source::Nowhere, Source::Constant)),
    }
}

/// A file's ranges, for the library, which waits for them.
#[derive(Clone)]
struct Ranges {
    /// Where the tail begins, and the tail.
    tail: (u64, Bytes),
    store: ColdStore,
    file: ColdFile,
    runtime: Handle,
    /// Why a range could not be had.
    failure: Arc<Mutex<Option<ColdsetError>>>,
}

impl Ranges {
    fn fetch(&self, at: u64, length: u64) -> Result<Bytes, ColdsetError> {
        let (uri, size) = (&self.file.uri, self.file.size);
        let end = at.checked_add(length).filter(|end| *end <= size);
        let end = end.ok_or_else(|| {
            ColdsetError::unreadable(uri, format!("it names bytes beyond its end at {size}"))
        })?;
        let (tail_at, tail) = &self.tail;
        let bytes = match at.checked_sub(*tail_at) {
            Some(from) => {
                let range = usize::try_from(from).ok().zip(usize::try_from(end - tail_at).ok());
                let held = range.filter(|(_, to)| *to <= tail.len());
                held.map(|(from, to)| tail.slice(from..to)).unwrap_or_default()
            }
            None => self.runtime.block_on(self.store.get_uri(uri, Some(at..end), MAX_READ))?,
        };
        if bytes.len() as u64 != length {
            let reason = format!("it is shorter than the {size} bytes its manifest says");
            return Err(ColdsetError::unreadable(uri, reason));
        }
        Ok(bytes)
    }
}

impl ChunkReader for Ranges {
    type T = Reader<Bytes>;

    fn len(&self) -> u64 {
        self.file.size
    }

    fn get_read(&self, at: u64) -> io::Result<Self::T> {
        Ok(self.get_bytes(at, self.len().saturating_sub(at))?.reader())
    }

    fn get_bytes(&self, at: u64, length: u64) -> io::Result<Bytes> {
        self.fetch(at, length).map_err(|error| {
            let said = io::Error::other(error.to_string());
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            said
        })
    }
}
