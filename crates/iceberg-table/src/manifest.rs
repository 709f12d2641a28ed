//! Manifests: Avro files of the entries of one group of files (specification, "Manifests", v2).

use std::collections::BTreeMap;

use isk_model::{ChunkExponent, ColumnMetrics, EARLIEST_TIMESTAMP_MS, Offset};

use crate::avro::{Encoder, container};
use crate::build::{BuildError, NamedFile, checked_schema, metadata_uri};
use crate::digest::hex128;
use crate::list::ListedManifest;
use crate::partition::{PartitionBounds, Placement};
use crate::plan::{Evidence, PlannedFile, TableHead};
use crate::row_id::{first_row_id, has_row_ids};

/// The status of all entries. By which snapshot they were added, and under which sequence number, is not said
/// here but in the manifest list, from which readers inherit both (specification, "Sequence Number Inheritance"):
/// so the same manifest stands in many snapshots, as new or as known for long, and beside any state of a
/// cold table.
const ADDED: i64 = 1;

/// No row has an earlier timestamp.
const EARLIEST_MICROS: i64 = EARLIEST_TIMESTAMP_MS * 1000;

/// What a manifest lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Data,
    Deletes,
}

impl Content {
    /// The value of the manifest list's field `content`.
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Data => 0,
            Self::Deletes => 1,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Deletes => "deletes",
        }
    }
}

/// What all manifests of a table have in common: made once, and good for as long as the table's columns
/// and place do not change.
#[derive(Debug)]
pub struct ManifestWriter {
    location: String,
    /// The table's schema as JSON.
    schema: String,
    schema_id: i32,
    /// The partition spec's fields as JSON.
    spec_fields: String,
    chunk_exponent: ChunkExponent,
    placement: Placement,
    /// The Avro schema of the entries.
    entry_schema: String,
    /// Whether entries have the first row ids of their files: format v3.
    row_ids: bool,
    delete_file_size: u64,
}

/// What the manifest list and the summary say of one group's manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupManifests {
    pub(crate) listed: Vec<ListedManifest>,
    pub(crate) data_files: u64,
    pub(crate) delete_files: u64,
    pub(crate) rows: u64,
    /// Whether the rows are exactly these many.
    pub(crate) exact: bool,
    proven_rows: u64,
    unproven_files: u64,
}

impl GroupManifests {
    /// The rows of the files that were proven.
    pub fn proven_rows(&self) -> u64 {
        self.proven_rows
    }

    /// The files that were not.
    pub fn unproven_files(&self) -> u64 {
        self.unproven_files
    }

    /// The manifests' names within `<location>/metadata/`, and their lengths in bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        let name = |uri: &'_ str| uri.rfind('/').map_or(0, |slash| slash + 1);
        self.listed.iter().map(move |listed| (&listed.uri[name(&listed.uri)..], listed.length))
    }
}

impl ManifestWriter {
    /// What the manifests of this table need of it.
    ///
    /// # Errors
    /// The schema lacks the Kafka columns, or has no JSON.
    pub fn new(head: &TableHead) -> Result<Self, BuildError> {
        let row_ids = has_row_ids(head);
        Ok(Self {
            location: head.location.clone(),
            schema: serde_json::to_string(&checked_schema(head)?)?,
            schema_id: head.schema_id,
            spec_fields: serde_json::to_string(&head.placement.spec(head.chunk_exponent).fields)?,
            chunk_exponent: head.chunk_exponent,
            placement: head.placement.clone(),
            entry_schema: entry_schema(&head.placement, row_ids),
            row_ids,
            delete_file_size: head.delete_file_size,
        })
    }

    /// The manifests of one group: data first, then the deletes beside them. The cost is linear in the
    /// number of files.
    ///
    /// # Errors
    /// A file lies in no chunk, or its size or rows fit no `long`.
    pub fn group(
        &self,
        mut files: Vec<PlannedFile>,
    ) -> Result<(GroupManifests, Vec<NamedFile>), BuildError> {
        files.iter().try_for_each(|file| self.check(file))?;
        // An entry of no rows is pruned by some clients and trips others: nothing is missed.
        files.retain(|file| row_count(file) > 0);
        files.sort_by_key(|file| (file.partition, file.chunk.range.start()));
        let data: Vec<&PlannedFile> = files.iter().collect();
        let deletes = data.iter().copied().filter(|file| file.evidence.delete_uri().is_some());
        let deletes: Vec<&PlannedFile> = deletes.collect();
        let certain = |file: &PlannedFile| {
            matches!(&file.evidence, Evidence::Proven { keep_delete_entry: None, .. })
        };
        let proven = |file: &PlannedFile| matches!(file.evidence, Evidence::Proven { .. });
        let mut group = GroupManifests {
            listed: Vec::new(),
            data_files: data.len() as u64,
            delete_files: deletes.len() as u64,
            rows: files.iter().fold(0u64, |n, file| n.saturating_add(row_count(file))),
            exact: files.iter().all(certain),
            proven_rows: files.iter().filter(|file| proven(file)).map(row_count).sum(),
            unproven_files: files.iter().filter(|file| !proven(file)).count() as u64,
        };
        let mut manifests = Vec::new();
        for (content, files, rows) in
            [(Content::Data, data, group.rows), (Content::Deletes, deletes, group.delete_files)]
        {
            let Some(bounds) = PartitionBounds::of(files.iter().copied()) else { continue };
            let bytes = self.encode(content, &files);
            let name = format!("{}-{}.avro", content.name(), hex128(&bytes));
            group.listed.push(ListedManifest {
                uri: metadata_uri(&self.location, &name),
                length: bytes.len() as u64,
                content,
                files: files.len(),
                rows,
                bounds,
                first_row_id: match content {
                    Content::Data if self.row_ids => smallest_row_id(&files),
                    Content::Data | Content::Deletes => None,
                },
            });
            manifests.push(NamedFile { name, bytes: bytes.into() });
        }
        Ok((group, manifests))
    }

    fn check(&self, file: &PlannedFile) -> Result<(), BuildError> {
        let (k, chunk) = (self.chunk_exponent, &file.chunk);
        let last = Offset(chunk.range.end().0 - 1);
        if k.align(chunk.range.start()) != chunk.aligned_start
            || k.align(last) != chunk.aligned_start
        {
            let (uri, chunk) = (file.data_uri.clone(), Box::new(file.chunk));
            return Err(BuildError::Chunk { uri, chunk });
        }
        let fits = |n: u64| i64::try_from(n).is_ok();
        if fits(file.declared_size) && fits(row_count(file)) {
            Ok(())
        } else {
            Err(BuildError::Long { uri: file.data_uri.clone() })
        }
    }

    /// The manifest of these files' data entries or of the delete entries beside them.
    fn encode(&self, content: Content, files: &[&PlannedFile]) -> Vec<u8> {
        let mut out = Encoder::default();
        for file in files {
            self.entry(&mut out, content, file);
        }
        let metadata = [
            ("schema", self.schema.as_str()),
            ("schema-id", &self.schema_id.to_string()),
            ("partition-spec", &self.spec_fields),
            ("partition-spec-id", &self.placement.spec_id.to_string()),
            ("format-version", if self.row_ids { "3" } else { "2" }),
            ("content", content.name()),
        ];
        container(&self.entry_schema, &metadata, files.len(), out)
    }

    fn entry(&self, out: &mut Encoder, content: Content, file: &PlannedFile) {
        out.long(ADDED);
        out.null(); // snapshot_id
        out.null(); // sequence_number
        out.null(); // file_sequence_number
        let (uri, rows, size) = match content {
            Content::Data => (file.data_uri.as_str(), row_count(file), file.declared_size),
            Content::Deletes => {
                (file.evidence.delete_uri().unwrap_or_default(), 1, self.delete_file_size)
            }
        };
        out.long(content.code());
        out.string(uri);
        out.string("PARQUET");
        out.present(true);
        out.long(i64::from(file.partition.0));
        out.present(true);
        out.long(file.chunk.aligned_start.0);
        out.long(rows.cast_signed());
        out.long(size.cast_signed());
        match content {
            Content::Data => metrics(&self.placement, out, file),
            Content::Deletes => Metrics::default().encode(out),
        }
        out.null(); // key_metadata
        match content {
            // One split: a split that began in the hole would only read the footer again.
            Content::Data => {
                out.present(true);
                out.array([4].into_iter(), Encoder::long);
            }
            Content::Deletes => out.null(),
        }
        out.null(); // equality_ids
        out.null(); // sort_order_id
        if self.row_ids {
            // Delete files have no row ids.
            let first = first_row_id(file).filter(|_| content == Content::Data);
            out.present(first.is_some());
            first.into_iter().for_each(|id| out.long(id));
        }
    }
}

/// The smallest row id of these files; `None` where not all of them have one. Readers count on from a
/// manifest's for files without, and these would not be the ids of any record.
fn smallest_row_id(files: &[&PlannedFile]) -> Option<i64> {
    let ids: Option<Vec<i64>> = files.iter().map(|file| first_row_id(file)).collect();
    ids?.into_iter().min()
}

/// The rows an entry claims: exact when proven, else the most there can be.
fn row_count(file: &PlannedFile) -> u64 {
    match &file.evidence {
        Evidence::Unproven { .. } => file.chunk.range.span(),
        Evidence::Proven { rows, .. } => *rows,
    }
}

fn metrics(placement: &Placement, out: &mut Encoder, file: &PlannedFile) {
    match &file.evidence {
        Evidence::Unproven { timestamp_upper_ms, .. } => {
            unproven_metrics(placement, file, *timestamp_upper_ms).encode(out);
        }
        Evidence::Proven { columns, .. } => proven_metrics(columns).encode(out),
    }
}

/// What is certain of a file that nobody has read: which partition and offsets its rows have, and
/// that these two are never null. Counts are not.
fn unproven_metrics(
    placement: &Placement,
    file: &PlannedFile,
    timestamp_upper_ms: Option<i64>,
) -> Metrics {
    let Placement { partition_column, offset_column, timestamp_column, .. } = *placement;
    let partition = file.partition.0.to_le_bytes().to_vec();
    let range = file.chunk.range;
    let offset = |offset: i64| offset.to_le_bytes().to_vec();
    let mut upper =
        vec![(partition_column, partition.clone()), (offset_column, offset(range.end().0 - 1))];
    // A bound in milliseconds holds for the whole of its last millisecond. One that does not fit
    // into microseconds is no bound.
    let micros = timestamp_upper_ms.and_then(|ms| ms.checked_mul(1000)?.checked_add(999));
    let timestamp = timestamp_column.zip(micros);
    upper.extend(timestamp.map(|(id, micros)| (id, micros.to_le_bytes().to_vec())));
    let mut lower = vec![(partition_column, partition), (offset_column, offset(range.start().0))];
    // DuckDB goes by an upper bound only where there is a lower one too.
    lower.extend(timestamp.map(|(id, _)| (id, EARLIEST_MICROS.to_le_bytes().to_vec())));
    Metrics {
        null_value_counts: vec![(partition_column, 0), (offset_column, 0)],
        lower_bounds: lower,
        upper_bounds: upper,
        ..Metrics::default()
    }
}

fn proven_metrics(columns: &BTreeMap<i32, ColumnMetrics>) -> Metrics {
    let mut all = Metrics::default();
    for (&id, column) in columns {
        all.column_sizes.push((id, column.column_size.cast_signed()));
        all.value_counts.push((id, column.value_count.cast_signed()));
        all.null_value_counts.extend(column.null_count.map(|n| (id, n.cast_signed())));
        all.lower_bounds.extend(column.lower.clone().map(|bound| (id, bound)));
        all.upper_bounds.extend(column.upper.clone().map(|bound| (id, bound)));
    }
    all
}

/// The metrics of an entry, in the order in which the entry's schema has them.
#[derive(Debug, Default)]
struct Metrics {
    column_sizes: Vec<(i32, i64)>,
    value_counts: Vec<(i32, i64)>,
    null_value_counts: Vec<(i32, i64)>,
    lower_bounds: Vec<(i32, Vec<u8>)>,
    upper_bounds: Vec<(i32, Vec<u8>)>,
}

impl Metrics {
    fn encode(self, out: &mut Encoder) {
        for counts in [self.column_sizes, self.value_counts, self.null_value_counts] {
            map(out, counts, |out, count| out.long(count));
        }
        out.null(); // nan_value_counts
        for bounds in [self.lower_bounds, self.upper_bounds] {
            map(out, bounds, |out, bound| out.bytes(&bound));
        }
    }
}

/// An optional map by field id; an empty one is written as none.
fn map<T>(out: &mut Encoder, entries: Vec<(i32, T)>, mut value: impl FnMut(&mut Encoder, T)) {
    out.present(!entries.is_empty());
    if !entries.is_empty() {
        out.array(entries.into_iter(), |out, (id, v)| {
            out.long(i64::from(id));
            value(out, v);
        });
    }
}

/// The Avro schema of the manifest entries of hot files.
fn entry_schema(placement: &Placement, row_ids: bool) -> String {
    let field = |name: &str, ty: &str, id: i32| {
        format!(r#"{{"name":"{name}","type":{ty},"field-id":{id}}}"#)
    };
    let optional = |name: &str, ty: &str, id: i32| {
        format!(r#"{{"name":"{name}","type":["null",{ty}],"default":null,"field-id":{id}}}"#)
    };
    let map = |name: &str, value: &str, id: i32, key_id: i32, value_id: i32| {
        let key = field("key", r#""int""#, key_id);
        let value = field("value", value, value_id);
        let item = format!(
            r#"{{"type":"record","name":"k{key_id}_v{value_id}","fields":[{key},{value}]}}"#
        );
        let array = format!(r#"{{"type":"array","items":{item},"logicalType":"map"}}"#);
        optional(name, &array, id)
    };
    let list = |name: &str, item: &str, id: i32, item_id: i32| {
        let array = format!(r#"{{"type":"array","items":{item},"element-id":{item_id}}}"#);
        optional(name, &array, id)
    };
    let (int, long, string, bytes) = (r#""int""#, r#""long""#, r#""string""#, r#""bytes""#);
    let partition = format!(
        r#"{{"type":"record","name":"r102","fields":[{},{}]}}"#,
        optional(placement.partition_field_names[0], int, placement.first_partition_field),
        optional(placement.partition_field_names[1], long, placement.last_partition_field()),
    );
    let mut data_file = vec![
        field("content", int, 134),
        field("file_path", string, 100),
        field("file_format", string, 101),
        field("partition", &partition, 102),
        field("record_count", long, 103),
        field("file_size_in_bytes", long, 104),
        map("column_sizes", long, 108, 117, 118),
        map("value_counts", long, 109, 119, 120),
        map("null_value_counts", long, 110, 121, 122),
        map("nan_value_counts", long, 137, 138, 139),
        map("lower_bounds", bytes, 125, 126, 127),
        map("upper_bounds", bytes, 128, 129, 130),
        optional("key_metadata", bytes, 131),
        list("split_offsets", long, 132, 133),
        list("equality_ids", int, 135, 136),
        optional("sort_order_id", int, 140),
    ];
    data_file.extend(row_ids.then(|| optional("first_row_id", long, 142)));
    let data_file = data_file.join(",");
    let data_file = format!(r#"{{"type":"record","name":"r2","fields":[{data_file}]}}"#);
    let entry = [
        field("status", int, 0),
        optional("snapshot_id", long, 1),
        optional("sequence_number", long, 3),
        optional("file_sequence_number", long, 4),
        field("data_file", &data_file, 2),
    ]
    .join(",");
    format!(r#"{{"type":"record","name":"manifest_entry","fields":[{entry}]}}"#)
}
