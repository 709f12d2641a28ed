//! Positions out of an Avro file, which is read from its beginning to its end, block by block.

use std::collections::BTreeMap;
use std::io::{self, Read};

use apache_avro::types::Value;
use apache_avro::{Reader, Schema};
use bytes::{Buf, Bytes};
use futures::StreamExt;
use isk_model::{KafkaPartition, OffsetSet};
use isk_outbound::chain;
use tokio::sync::mpsc;

use super::gather::Gather;
use crate::store::ByteStream;
use crate::{ColdFile, ColdStore, ColdsetError, KafkaColumns, ObjectUri};

/// How many pieces of the file wait for the decoder.
const PIECES_AHEAD: usize = 4;

/// The property that Iceberg gives a record's field.
const FIELD_ID: &str = "field-id";

pub(super) async fn positions(
    store: &ColdStore,
    file: &ColdFile,
    columns: &KafkaColumns,
) -> Result<BTreeMap<KafkaPartition, OffsetSet>, ColdsetError> {
    let ObjectUri { bucket, key } = file.uri.parse()?;
    let (_, stream) = store.read(&bucket, &key, None).await?;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let wanted = Wanted {
        columns: columns.clone(),
        partition: file.partition.single(),
        records: file.records,
    };
    // The decoder waits for bytes in a thread of its own, where a panic over broken ones ends.
    let decoder = tokio::task::spawn_blocking(move || decode(Pieces::new(receiver), &wanted));
    let (fed, decoded) = tokio::join!(feed(stream, sender), decoder);
    fed?;
    decoded
        .map_err(|_| "its blocks are broken".to_owned())
        .flatten()
        .map_err(|reason| ColdsetError::unreadable(&file.uri, reason))
}

/// What the decoder looks for.
struct Wanted {
    columns: KafkaColumns,
    /// The Kafka partition of all rows, for a file without that column.
    partition: Option<i64>,
    records: u64,
}

/// Hands the file's bytes on. An end that is no end is the decoder's to notice: it gets none.
async fn feed(
    mut stream: ByteStream,
    sender: mpsc::Sender<Option<Bytes>>,
) -> Result<(), ColdsetError> {
    while let Some(piece) = stream.next().await {
        if sender.send(Some(piece?)).await.is_err() {
            // The decoder has given up, and says why.
            return Ok(());
        }
    }
    let _ = sender.send(None).await;
    Ok(())
}

fn decode(source: Pieces, wanted: &Wanted) -> Result<BTreeMap<KafkaPartition, OffsetSet>, String> {
    let reader = Reader::new(source).map_err(|error| chain(&error))?;
    let at = |column: &(i32, String)| place(reader.writer_schema(), column);
    let (partition, offset) = (at(&wanted.columns.partition)?, at(&wanted.columns.offset)?);
    let mut gather = Gather::default();
    let mut rows = 0_u64;
    for value in reader {
        let Value::Record(fields) = value.map_err(|error| chain(&error))? else {
            return Err("its values are no records".into());
        };
        let value = |place: Option<usize>| match place.and_then(|at| fields.get(at)) {
            Some((name, value)) => whole(name, value),
            None => Ok(None),
        };
        let in_partition = if partition.is_some() { value(partition)? } else { wanted.partition };
        gather.row(in_partition, value(offset)?)?;
        rows += 1;
    }
    // A file that was cut between two blocks looks whole.
    if rows != wanted.records {
        let records = wanted.records;
        return Err(format!("it holds {rows} rows, and its manifest says {records}"));
    }
    gather.finish()
}

/// A column's place among the fields: by id, or by name where no field has an id.
fn place(schema: &Schema, (id, name): &(i32, String)) -> Result<Option<usize>, String> {
    let Schema::Record(record) = schema else { return Err("its schema is no record".into()) };
    let ids: Vec<Option<i64>> =
        record.fields.iter().map(|field| field.custom_attributes.get(FIELD_ID)?.as_i64()).collect();
    if ids.iter().any(Option::is_some) {
        return Ok(ids.iter().position(|found| *found == Some(i64::from(*id))));
    }
    Ok(record.fields.iter().position(|field| field.name == *name))
}

fn whole(name: &str, value: &Value) -> Result<Option<i64>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Int(value) => Ok(Some(i64::from(*value))),
        Value::Long(value) => Ok(Some(*value)),
        Value::Union(_, inner) => whole(name, inner),
        _ => Err(format!("its field {name:?} must be an int or a long")),
    }
}

/// The bytes that come through a channel, as a thread reads them.
struct Pieces {
    receiver: mpsc::Receiver<Option<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Pieces {
    fn new(receiver: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self { receiver, piece: Bytes::new(), ended: false }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.ended = true,
                // An `UnexpectedEof` would be taken for the file's end.
                None => return Err(io::Error::other("the file could not be read to its end")),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
