//! What a client asks for when it has a scan planned here, and what it gets.

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::{DataContentType, DataFile, Datum, Literal, PrimitiveLiteral};

use crate::scan_filter::Filter;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The snapshot to scan; the current one where there is none.
    pub snapshot_id: Option<i64>,
    /// The predicate.
    pub filter: Filter,
    /// Whether column names in the predicate are to be taken as they are written.
    pub case_sensitive: bool,
    /// The columns whose metrics the client wants.
    pub stats_fields: Vec<String>,
    /// The part of a large plan that is asked for: manifests by their places in the list.
    pub part: Option<(usize, usize)>,
}

/// What a scan reads.
#[derive(Debug, Clone, Default)]
pub struct ScanPlan {
    /// The snapshot that was planned; 0 for a table without one.
    pub snapshot_id: i64,
    /// The data files.
    pub files: Vec<ScanFile>,
    /// The delete files beside them.
    pub deletes: Vec<ContentFile>,
    /// Parts to be asked for one by one; with them, there are no files.
    pub parts: Vec<(usize, usize)>,
    /// The prefixes of the URIs of all files.
    pub credential_prefixes: Vec<String>,
}

/// A file as the manifests have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentFile {
    /// Its URI.
    pub uri: String,
    /// The id of its partition spec.
    pub spec_id: i32,
    /// The Kafka partition, and the first offset of its chunk.
    pub partition: (i32, i64),
    /// Its length in bytes.
    pub size: u64,
    /// Its records, as they are claimed.
    pub records: u64,
}

/// A data file, and what is to be known to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanFile {
    /// The file.
    pub file: ContentFile,
    /// Places in [`ScanPlan::deletes`].
    pub deletes: Vec<usize>,
    /// Where it may be split.
    pub split_offsets: Vec<i64>,
    /// Metrics of the columns that were asked for, by field id.
    pub stats: BTreeMap<i32, ColumnStats>,
}

/// Metrics of a column, as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnStats {
    /// Values, nulls included.
    pub values: Option<u64>,
    /// Nulls.
    pub nulls: Option<u64>,
    /// The lower bound, single-value serialized.
    pub lower: Option<Vec<u8>>,
    /// The upper bound, single-value serialized.
    pub upper: Option<Vec<u8>>,
}

/// A file's place: its Kafka partition and its chunk's first offset.
pub(crate) fn place(file: &DataFile) -> Option<(i32, i64)> {
    let [partition, offset] = file.partition().fields() else { return None };
    match (partition, offset) {
        (
            Some(Literal::Primitive(PrimitiveLiteral::Int(partition))),
            Some(Literal::Primitive(PrimitiveLiteral::Long(offset))),
        ) => Some((*partition, *offset)),
        _ => None,
    }
}

fn content_file(file: &DataFile, spec_id: i32) -> Option<ContentFile> {
    Some(ContentFile {
        uri: file.file_path().to_owned(),
        spec_id,
        partition: place(file)?,
        size: file.file_size_in_bytes(),
        records: file.record_count(),
    })
}

/// The answer of these data files and the delete files at their places.
pub(crate) fn assemble(
    mut plan: ScanPlan,
    data: &[DataFile],
    deletes: &HashMap<(i32, i64), Vec<DataFile>>,
    stats: &[i32],
) -> ScanPlan {
    let mut places: HashMap<&str, usize> = HashMap::new();
    for file in data {
        // The one spec of tables of hot files alone.
        let Some(content) = content_file(file, 0) else { continue };
        let beside = deletes.get(&content.partition).map_or(&[][..], Vec::as_slice);
        let mut references = Vec::new();
        for delete in beside.iter().filter(|d| d.content_type() != DataContentType::Data) {
            let at = *places.entry(delete.file_path()).or_insert_with(|| {
                plan.deletes.extend(content_file(delete, 0));
                plan.deletes.len() - 1
            });
            references.push(at);
        }
        plan.files.push(ScanFile {
            file: content,
            deletes: references,
            split_offsets: file.split_offsets().unwrap_or_default().to_vec(),
            stats: stats.iter().map(|&field| (field, column_stats(file, field))).collect(),
        });
    }
    plan
}

fn column_stats(file: &DataFile, field: i32) -> ColumnStats {
    let bytes = |bound: Option<&Datum>| Some(bound?.to_bytes().ok()?.to_vec());
    ColumnStats {
        values: file.value_counts().get(&field).copied(),
        nulls: file.null_value_counts().get(&field).copied(),
        lower: bytes(file.lower_bounds().get(&field)),
        upper: bytes(file.upper_bounds().get(&field)),
    }
}
