//! The gateway's path: parse key → columns → encoded file → pad → slice.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use isk_kafka::TopicDescription;
use isk_model::{ColumnRules, DataFileKey, ObjectKey, SchemaVersion, folder};
use isk_parquet_file::{PaddedLayout, Segment, empty_delete_file};
use isk_schema::TableSchema;

use crate::api::{ObjectInfo, ObjectStream, ServiceError};
use crate::beside::relabelled;
use crate::cache::EncodedFile;
use crate::encode::Rows;
use crate::layout::Layout;
use crate::manners::Errand;
use crate::metrics::add;
use crate::plan::{View, render_digest};
use crate::render::Order;
use crate::restricted::{restricted, withheld};
use crate::scans::Reading;
use crate::service::Service;
use crate::undecoded::{Decoding, Undecoded};

/// Bytes handed to the client at once.
const PIECE: u64 = 256 << 10;

/// Readers that do not know where a footer begins ask for so much of a file's end, at the most.
const END: u64 = 1 << 20;

/// `PAR1`.
const MAGIC: u64 = 4;

/// Zeros for holes.
static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];

/// 2020-01-01: every object's modification time. It is a constant of the key, like all HEAD says.
const LAST_MODIFIED: Duration = Duration::from_secs(1_577_836_800);

impl Service {
    /// What HEAD says of an object, to a caller under these rules about the table's columns. Reads nothing from
    /// Kafka's log.
    pub async fn head_object(
        &self,
        bucket: &str,
        key: &str,
        columns: Option<&Arc<ColumnRules>>,
    ) -> Result<ObjectInfo, ServiceError> {
        let key = self.parse(bucket, key, columns).await?;
        self.info(&key)
    }

    /// A range of an object's bytes, for a caller under these rules about the table's columns; `range` lies within `0..size`. An empty range is an empty
    /// stream. Errors that can be known before the first byte are known when this returns.
    pub async fn read_object(
        &self,
        bucket: &str,
        key: &str,
        columns: Option<&Arc<ColumnRules>>,
        range: Range<u64>,
    ) -> Result<ObjectStream, ServiceError> {
        add(&self.metrics.objects_read, 1);
        let mut view = self.view_of(bucket)?;
        let key = self.parse(bucket, key, columns).await?;
        if let Some(rules) = columns {
            view = View::Restricted(Arc::clone(rules));
        }
        let whole = match &key {
            ObjectKey::Data(key) => return self.read_data(view, key, range).await,
            ObjectKey::Delete(_) => Bytes::from_static(empty_delete_file()),
            ObjectKey::Metadata { topic, columns, file } => {
                let (metadata, folder) = (Arc::clone(&self.metadata), folder(topic, *columns));
                let file = file.clone();
                let read = tokio::task::spawn_blocking(move || metadata.get(&folder, &file)).await;
                read.map_err(|e| ServiceError::Internal(format!("reading {key}: {e}")))??
                    .ok_or_else(|| no_such_metadata(&key))?
            }
        };
        let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(whole.len());
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
        Ok(stream::iter([Ok(whole.slice(start..end))]).boxed())
    }

    /// A range of a virtual data file.
    async fn read_data(
        &self,
        view: View,
        key: &DataFileKey,
        range: Range<u64>,
    ) -> Result<ObjectStream, ServiceError> {
        let topic = self.topics.get(key.topic.as_str()).await?;
        if topic.id != key.topic_id {
            return Err(gone(key, format!("the topic was recreated (its id is now {})", topic.id)));
        }
        self.check_promise(&topic, key).await?;
        let order = self.order(&view, &topic, key).await?;
        let full = order.full;
        self.ahead.asked(&view, key);
        let file = self.encoded(&topic, order).await?;
        self.learn(key, &file, full).await?;
        let layout = PaddedLayout::new(file.body_len, file.footer_len, key.declared_size);
        let layout = layout.map_err(|e| {
            if let Some(pin) = self.pinned(&topic) {
                // The facts of this chunk are known now; its neighbours will be declared larger.
                let learnt = pin.outgrown(e.actual, key.range);
                if let Err(error) = self.keep_pin(&topic, learnt) {
                    tracing::warn!(%error, "a larger size bound could not be kept");
                }
            }
            gone(key, format!("its records encode to {} bytes, more than was planned", e.actual))
        })?;
        let reading = is_of_pages(&range, file.body_len, key.declared_size)
            .then(|| self.ahead.reads(&view, key))
            .flatten();
        let segments: Vec<Segment> = layout.segments(range).collect();
        Ok(stream_segments(file, segments, reading))
    }

    /// Binds a name to the bytes of its file, on disk, before the first of them is served.
    async fn learn(
        &self,
        key: &DataFileKey,
        file: &Arc<EncodedFile>,
        full: bool,
    ) -> Result<(), ServiceError> {
        if self.facts.knows(key, &file.encoding) {
            return Ok(());
        }
        let (facts, learnt, file) = (Arc::clone(&self.facts), key.clone(), Arc::clone(file));
        let learn = move || facts.learn(&learnt, &file.encoding, full);
        match tokio::task::spawn_blocking(learn).await {
            Ok(learnt) => learnt?.map_err(|_| {
                gone(key, "Kafka's log cleaner or retention has changed its records".into())
            }),
            Err(error) => Err(ServiceError::Internal(format!("facts of {key}: {error}"))),
        }
    }

    /// What a reader wants of a name that was planned.
    pub(crate) async fn order(
        &self,
        view: &View,
        topic: &TopicDescription,
        key: &DataFileKey,
    ) -> Result<Order, ServiceError> {
        let not_kept = || gone(key, "what it was planned with is not kept any more".into());
        let layout = match key.layout {
            Some(digest) => Some(self.kept_layout(&topic.name, digest)?.ok_or_else(not_kept)?),
            None => None,
        };
        let row_ids = layout.as_ref().is_some_and(|layout| layout.row_ids);
        let (table, decoding) = self.meaning(view, key, topic, layout.as_deref()).await?;
        let left_out = match key.covered {
            Some(digest) => Some(self.kept_left_out(&topic.name, digest)?.ok_or_else(not_kept)?),
            None => None,
        };
        let full = self.is_full(topic, key);
        let columns = match view {
            View::Restricted(rules) => Some(Arc::clone(rules)),
            _ => None,
        };
        let rows = Rows { table, row_ids, left_out, columns, decoding };
        Ok(Order { key: key.clone(), rows, full, errand: Errand::Read })
    }

    /// What a recipe means, as the digest in it confirms: the columns of its schema version, and how records become
    /// rows. Layouts that need no schema have version 0; the digest tells them apart. For a caller under rules about
    /// columns, it is the columns before they are hidden.
    async fn meaning(
        &self,
        view: &View,
        key: &DataFileKey,
        topic: &TopicDescription,
        layout: Option<&Layout>,
    ) -> Result<(Arc<TableSchema>, Decoding), ServiceError> {
        let mut candidates = Vec::new();
        if key.schema == SchemaVersion::default() {
            candidates.extend([Arc::clone(&self.schemas.raw), Arc::clone(&self.schemas.json_text)]);
        } else {
            let table = self.schemas.at(&topic.name, topic.id, key.schema).await?;
            candidates.push(Arc::clone(&table));
            for kind in table.record_kinds() {
                candidates.extend(self.schemas.of_type(topic, &table, &kind.column)?);
            }
        }
        let undecoded = match view {
            View::Errors => Undecoded::Only,
            _ => Undecoded::By(self.error_policies.of(&topic.name)),
        };
        let states = self.schemas.writers.states(&topic.name, topic.id)?;
        for mut table in candidates {
            if let Some(layout) = layout {
                table = Arc::new(relabelled(&table, Arc::clone(&layout.columns)));
            }
            let shown = match view {
                View::Restricted(rules) => Arc::new(restricted(&table, &topic.name, rules)?),
                _ => Arc::clone(&table),
            };
            for writers in states.clone() {
                let decoding = Decoding { undecoded, writers };
                if render_digest(&shown, self.renders.profile(), &decoding)? == key.render {
                    return Ok((table, decoding));
                }
            }
        }
        Err(gone(key, "it was planned with other settings or columns".into()))
    }

    /// The file of an order. Where the log no longer holds what was ordered, the next plan asks for it
    /// under another name.
    pub(crate) async fn encoded(
        &self,
        topic: &TopicDescription,
        order: Order,
    ) -> Result<Arc<EncodedFile>, ServiceError> {
        let (partition, start) = (order.key.partition, order.key.range.start());
        let file = self.renders.get(order).await;
        if let Err(ServiceError::Gone { .. }) = file {
            self.epochs.rewritten(topic, partition, start)?;
        }
        file
    }

    /// Whether a file ends where its chunk does.
    fn is_full(&self, topic: &TopicDescription, key: &DataFileKey) -> bool {
        let width = self.pinned(topic).map(|pin| pin.chunk_exponent().width());
        width.is_some_and(|width| key.range.end().0 % width == 0)
    }

    /// A key that belongs to a served topic. Costs no question to the brokers beyond the topic's
    /// description.
    async fn parse(
        &self,
        bucket: &str,
        key: &str,
        columns: Option<&Arc<ColumnRules>>,
    ) -> Result<ObjectKey, ServiceError> {
        let view = self.view_of(bucket)?;
        let parsed: ObjectKey = key.parse().map_err(|e: isk_model::KeyError| {
            ServiceError::NoSuchKey { key: e.key, reason: e.reason.into() }
        })?;
        let folder_is_theirs = parsed.columns() == columns.map(|rules| rules.digest());
        if !folder_is_theirs || (columns.is_some() && view != View::Hot) {
            let reason =
                "it is in a folder for callers who see other columns; load the table again";
            return Err(withheld(key.chars().take(300).collect(), reason));
        }
        match self.topics.get(parsed.topic().as_str()).await {
            Ok(_) => Ok(parsed),
            Err(ServiceError::NoSuchTable { .. }) => Err(ServiceError::NoSuchKey {
                key: key.into(),
                reason: format!("no topic {} is served", parsed.topic()),
            }),
            Err(error) => Err(error),
        }
    }

    fn info(&self, key: &ObjectKey) -> Result<ObjectInfo, ServiceError> {
        match (info_of(key), key) {
            (Some(info), _) => Ok(info),
            (None, ObjectKey::Metadata { topic, columns, file }) => {
                let size = self.metadata.size(&folder(topic, *columns), file)?;
                size.map(|size| constant_info(key, size)).ok_or_else(|| no_such_metadata(key))
            }
            (None, _) => Err(no_such_metadata(key)),
        }
    }
}

/// What HEAD says of an object whose size is a constant of its key: `None` for metadata files.
pub(crate) fn info_of(key: &ObjectKey) -> Option<ObjectInfo> {
    match key {
        ObjectKey::Data(data) => Some(constant_info(key, data.declared_size)),
        ObjectKey::Delete(_) => Some(constant_info(key, empty_delete_file().len() as u64)),
        ObjectKey::Metadata { .. } => None,
    }
}

/// What HEAD says of an object of this size.
pub(crate) fn constant_info(key: &ObjectKey, size: u64) -> ObjectInfo {
    let content_type = match key {
        ObjectKey::Metadata { file, .. } if file.ends_with(".json") => "application/json",
        ObjectKey::Metadata { .. } => "application/octet-stream",
        ObjectKey::Data(_) | ObjectKey::Delete(_) => "application/vnd.apache.parquet",
    };
    ObjectInfo {
        size,
        etag: etag(&key.to_string()),
        last_modified: SystemTime::UNIX_EPOCH + LAST_MODIFIED,
        content_type,
    }
}

/// A key names one content for ever, so its digest serves as the content's.
fn etag(key: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn gone(key: &DataFileKey, reason: String) -> ServiceError {
    ServiceError::Gone { key: key.to_string(), reason }
}

fn no_such_metadata(key: &ObjectKey) -> ServiceError {
    ServiceError::NoSuchKey {
        key: key.to_string(),
        reason: "no such metadata file is kept (any more); load the table again".into(),
    }
}

/// Whether a range is of pages: neither of the magic bytes at the start alone, nor of the end, where the footer is looked for.
fn is_of_pages(range: &Range<u64>, body_len: u64, size: u64) -> bool {
    let is_end = range.start > 0 && range.end == size && range.end - range.start <= END;
    range.start < body_len && range.end > MAGIC && !is_end
}

/// The bytes of the segments, read piece by piece as the client takes them.
fn stream_segments(
    file: Arc<EncodedFile>,
    segments: Vec<Segment>,
    reading: Option<Reading>,
) -> ObjectStream {
    let body_len = file.body_len;
    let pieces = segments.into_iter().flat_map(pieces);
    stream::iter(pieces)
        .then(move |piece| {
            // It ends with the stream.
            let _ = &reading;
            let file = Arc::clone(&file);
            async move {
                match piece {
                    Segment::Hole(len) => {
                        let len = usize::try_from(len).unwrap_or(ZEROS.len()).min(ZEROS.len());
                        Ok(Bytes::from_static(&ZEROS[..len]))
                    }
                    Segment::Body(range) => read_file(file, range).await,
                    Segment::Footer(range) => {
                        read_file(file, body_len + range.start..body_len + range.end).await
                    }
                }
            }
        })
        .boxed()
}

/// Cuts a segment into pieces of at most [`PIECE`] bytes, lazily.
fn pieces(segment: Segment) -> impl Iterator<Item = Segment> {
    let len = segment.byte_len();
    (0..len.div_ceil(PIECE)).map(move |n| {
        let (start, end) = (n * PIECE, ((n + 1) * PIECE).min(len));
        match &segment {
            Segment::Body(r) => Segment::Body(r.start + start..r.start + end),
            Segment::Hole(_) => Segment::Hole(end - start),
            Segment::Footer(r) => Segment::Footer(r.start + start..r.start + end),
        }
    })
}

async fn read_file(file: Arc<EncodedFile>, range: Range<u64>) -> Result<Bytes, ServiceError> {
    let read = tokio::task::spawn_blocking(move || file.read(range));
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => Err(ServiceError::Unavailable {
            what: "an encoded file in the cache".into(),
            reason: format!("{error}; was it written to? It is made again for the next read"),
        }),
        Err(error) => Err(ServiceError::Internal(format!("reading panicked: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_from_magic_bytes_and_from_the_end() {
        // Of a file that declares 40 MB: 10 MB of pages, a hole, and the footer.
        let (body, size) = (10_000_000, 40_000_000);
        let of_pages = |range: Range<u64>| is_of_pages(&range, body, size);
        for pages in [4..1000, 0..size, 9_999_999..10_000_001, 9_000_000..size, 0..5] {
            assert!(of_pages(pages.clone()), "{pages:?}");
        }
        for other in [0..4, 0..0, size - 8..size, size - END..size, body..size, body..body + 9] {
            assert!(!of_pages(other.clone()), "{other:?}");
        }
        // Without a hole, a look for the footer may begin within the pages.
        assert!(!is_of_pages(&(9_990_000..10_020_000), body, 10_020_000));
        assert!(is_of_pages(&(0..70_000), 60_000, 70_000), "all of a small one");
    }
}
