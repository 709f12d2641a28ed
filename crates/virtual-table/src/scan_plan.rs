//! A query's own plan: the files of a snapshot that may hold rows which its predicate wants.
//!
//! It is made of the metadata files that clients would read, so that both see one snapshot, and prunes
//! what those cannot: a bound of the time is looked up in the log at the very moment that is asked for.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{
    DataFile, Datum, FormatVersion, Manifest, ManifestContentType, ManifestFile, ManifestList,
    TableMetadata, Transform,
};
use isk_kafka::TopicDescription;
use isk_model::{ColumnRules, KafkaPartition, ObjectKey, Offset, folder};

use crate::api::{ERRORS, HOTSET, ServiceError};
use crate::metrics::add;
use crate::scan::{ScanPlan, ScanRequest, assemble, place};
use crate::scan_filter::{Bound, ColumnFacts};
use crate::service::Service;

/// Field ids of the Kafka columns of tables of hot files alone.
const PARTITION: i32 = 1;
const OFFSET: i32 = 2;
const TIMESTAMP: i32 = 3;

/// The most files of one answer, about. A larger plan is handed out in parts.
const FILES_AT_ONCE: u64 = 2000;

/// The most bounds of the time that are looked up for one plan.
const LOOKUPS: usize = 4;

/// One scan under way.
struct Scan {
    topic: Arc<TopicDescription>,
    /// Of the table's objects.
    folder: String,
    bound: Bound,
    /// The width of chunks.
    width: i64,
}

impl Service {
    /// Plans a scan of a table of `hotset` or `errors`.
    pub async fn plan_scan(
        &self,
        namespace: &str,
        table: &str,
        columns: Option<&Arc<ColumnRules>>,
        request: &ScanRequest,
    ) -> Result<ScanPlan, ServiceError> {
        if !self.namespaces().iter().any(|known| known == namespace) {
            return Err(ServiceError::NoSuchNamespace(namespace.to_owned()));
        }
        if ![HOTSET, ERRORS].contains(&namespace) {
            return Err(ServiceError::Unsupported {
                what: format!("a scan of {namespace}.{table}, planned by this service,"),
                reason:
                    "tables of hotset and errors alone are planned here: set scan-planning-mode to client \
                         for this catalog"
                        .into(),
            });
        }
        add(&self.metrics.scans_planned, 1);
        let loaded = self.load_table(namespace, table, columns).await?;
        let topic = self.topics.get(self.topic_of_table(namespace, table)).await?;
        let broken = |e: &dyn std::fmt::Display| {
            ServiceError::Internal(format!("the metadata at {}: {e}", loaded.metadata_location))
        };
        let metadata: TableMetadata =
            serde_json::from_slice(&loaded.metadata).map_err(|e| broken(&e))?;
        let Some(snapshot_id) = request.snapshot_id.or(metadata.current_snapshot_id()) else {
            return Ok(ScanPlan::default());
        };
        let folder = folder(&topic.name, columns.map(|rules| rules.digest()));
        let list = self.manifest_list(&folder, &metadata, snapshot_id)?;
        let scan = Scan::new(topic, folder, &metadata, request);
        let wanted = scan.wanted(&list, request.part);
        let files: u64 = wanted.iter().map(|(_, manifest)| files_of(manifest)).sum();
        let credential_prefixes = loaded.credential_prefixes.clone();
        if request.part.is_none() && files > 2 * FILES_AT_ONCE {
            let parts = parts(&wanted);
            return Ok(ScanPlan { snapshot_id, parts, credential_prefixes, ..ScanPlan::default() });
        }
        let mut data = Vec::new();
        for (_, manifest) in wanted {
            let manifest = self.manifest(&scan.folder, manifest)?;
            data.extend(manifest.entries().iter().map(|entry| entry.data_file.clone()));
        }
        let begins = self.begins(&scan, &data).await;
        data.retain(|file| scan.may_match(file, &begins));
        let deletes = self.deletes_beside(&scan, &list, &data)?;
        let stats: Vec<i32> = request
            .stats_fields
            .iter()
            .filter_map(|name| metadata.current_schema().field_id_by_name(name))
            .collect();
        let plan = ScanPlan { snapshot_id, credential_prefixes, ..ScanPlan::default() };
        Ok(assemble(plan, &data, &deletes, &stats))
    }

    /// The manifest list of a snapshot: of one that the table names, or of an earlier one that is kept.
    fn manifest_list(
        &self,
        folder: &str,
        metadata: &TableMetadata,
        snapshot_id: i64,
    ) -> Result<ManifestList, ServiceError> {
        let gone = || ServiceError::Unsupported {
            what: format!("snapshot {snapshot_id} of {folder}"),
            reason: "its metadata is not kept (any more): load the table again".into(),
        };
        let named = metadata.snapshot_by_id(snapshot_id);
        let name = match named.and_then(|s| s.manifest_list().rsplit('/').next()) {
            Some(name) => name.to_owned(),
            None => {
                let prefix = format!("snap-{snapshot_id}-");
                self.metadata.named(folder, &prefix)?.ok_or_else(gone)?
            }
        };
        let bytes = self.metadata.get(folder, &name)?.ok_or_else(gone)?;
        ManifestList::parse_with_version(&bytes, FormatVersion::V2)
            .map_err(|e| ServiceError::Internal(format!("{name} of {folder}: {e}")))
    }

    /// A manifest, parsed. Its name stands for its content, so it is kept in memory.
    fn manifest(&self, folder: &str, named: &ManifestFile) -> Result<Arc<Manifest>, ServiceError> {
        let uri = &named.manifest_path;
        if let Some(known) = self.parsed.get(uri) {
            return Ok(known);
        }
        let name = uri.rsplit('/').next().unwrap_or_default();
        let bytes = self.metadata.get(folder, name)?.ok_or_else(|| {
            let reason = "its metadata is not kept any more: load the table again".into();
            ServiceError::Unsupported { what: format!("manifest {uri}"), reason }
        })?;
        let parsed = Manifest::parse_avro(&bytes)
            .map_err(|e| ServiceError::Internal(format!("manifest {uri}: {e}")))?;
        let parsed = Arc::new(parsed);
        self.parsed.insert(uri.clone(), Arc::clone(&parsed));
        Ok(parsed)
    }

    /// Where the times that the predicate names begin in the partitions that are left: all offsets
    /// before are older. `(partition, milliseconds) → offset`; what cannot be told is left out.
    async fn begins(
        &self,
        scan: &Scan,
        data: &[DataFile],
    ) -> HashMap<KafkaPartition, Vec<(i64, Offset)>> {
        let mut times = scan.bound.floors_ms(TIMESTAMP);
        times.truncate(LOOKUPS);
        let mut partitions: Vec<KafkaPartition> = data
            .iter()
            .filter(|file| scan.may_match(file, &HashMap::new()))
            .filter_map(|file| Some(KafkaPartition(place(file)?.0)))
            .collect();
        partitions.sort_unstable();
        partitions.dedup();
        let asked: Vec<_> =
            partitions.iter().flat_map(|&p| times.iter().map(move |&time| (p, time))).collect();
        if asked.is_empty() {
            return HashMap::new();
        }
        let answers = self.kafka.first_offsets_at(&scan.topic.name, &asked).await;
        let answers = answers.unwrap_or_else(|error| {
            tracing::debug!(topic = %scan.topic.name, %error, "no lookup by time for a scan");
            Vec::new()
        });
        let mut begins: HashMap<KafkaPartition, Vec<(i64, Offset)>> = HashMap::new();
        for ((partition, time), first) in asked.into_iter().zip(answers) {
            begins.entry(partition).or_default().extend(first.map(|first| (time, first)));
        }
        begins
    }

    /// The delete files beside data files, by their places.
    fn deletes_beside(
        &self,
        scan: &Scan,
        list: &ManifestList,
        data: &[DataFile],
    ) -> Result<HashMap<(i32, i64), Vec<DataFile>>, ServiceError> {
        let mut deletes: HashMap<(i32, i64), Vec<DataFile>> =
            data.iter().filter_map(|file| Some((place(file)?, Vec::new()))).collect();
        for manifest in list.entries() {
            if manifest.content != ManifestContentType::Deletes
                || !deletes.keys().any(|&place| may_hold(manifest, place))
            {
                continue;
            }
            for entry in self.manifest(&scan.folder, manifest)?.entries() {
                let beside = place(&entry.data_file).and_then(|place| deletes.get_mut(&place));
                beside.into_iter().for_each(|all| all.push(entry.data_file.clone()));
            }
        }
        Ok(deletes)
    }
}

impl Scan {
    fn new(
        topic: Arc<TopicDescription>,
        folder: String,
        metadata: &TableMetadata,
        request: &ScanRequest,
    ) -> Self {
        let schema = metadata.current_schema();
        let bound = Bound::new(&request.filter, schema, request.case_sensitive);
        let fields = metadata.default_partition_spec().fields().iter();
        let mut width = fields.filter_map(|field| match field.transform {
            Transform::Truncate(width) => Some(i64::from(width)),
            _ => None,
        });
        let width = width.next_back().unwrap_or(i64::MAX);
        Self { topic, folder, bound, width }
    }

    /// The data manifests that may hold what is wanted, with their places in the list.
    fn wanted<'m>(
        &self,
        list: &'m ManifestList,
        part: Option<(usize, usize)>,
    ) -> Vec<(usize, &'m ManifestFile)> {
        let (from, to) = part.unwrap_or((0, usize::MAX));
        let all = list.entries().iter().enumerate();
        all.filter(|(at, manifest)| {
            (from..to).contains(at)
                && manifest.content == ManifestContentType::Data
                && self.bound.may_match(&|field| self.manifest_facts(manifest, field))
        })
        .collect()
    }

    /// What a manifest's summary says of the Kafka columns.
    fn manifest_facts(&self, manifest: &ManifestFile, field: i32) -> ColumnFacts {
        let Some([partition, offset]) = manifest.partitions.as_deref() else {
            return ColumnFacts::default();
        };
        let (low, high) = match field {
            PARTITION => (number(&partition.lower_bound), number(&partition.upper_bound)),
            OFFSET => (
                number(&offset.lower_bound),
                number(&offset.upper_bound).and_then(|start| start.checked_add(self.width - 1)),
            ),
            _ => return ColumnFacts::default(),
        };
        let datum = |value: i64| match field {
            PARTITION => i32::try_from(value).ok().map(Datum::int),
            _ => Some(Datum::long(value)),
        };
        let (lower, upper) = (low.and_then(datum), high.and_then(datum));
        ColumnFacts { lower, upper, nulls: Some(0), values: None }
    }

    /// Whether a file may hold rows that are wanted, also by where times begin in its partition.
    fn may_match(
        &self,
        file: &DataFile,
        begins: &HashMap<KafkaPartition, Vec<(i64, Offset)>>,
    ) -> bool {
        let older_than = self.older_than(file, begins);
        self.bound.may_match(&|field| {
            let mut facts = ColumnFacts {
                lower: file.lower_bounds().get(&field).cloned(),
                upper: file.upper_bounds().get(&field).cloned(),
                nulls: file.null_value_counts().get(&field).copied(),
                values: file.value_counts().get(&field).copied(),
            };
            let before = older_than.filter(|_| field == TIMESTAMP);
            if let Some(before) = before.map(|ms| Datum::timestamptz_micros((ms - 1) * 1000))
                && facts.upper.as_ref().is_none_or(|upper| before < *upper)
            {
                facts.upper = Some(before);
            }
            facts
        })
    }

    /// The milliseconds that all records of a file lie before, if a lookup shows it. A lookup is of the
    /// topic as it is now: a file of an earlier one of its name is left as it is.
    fn older_than(
        &self,
        file: &DataFile,
        begins: &HashMap<KafkaPartition, Vec<(i64, Offset)>>,
    ) -> Option<i64> {
        let key = file.file_path().strip_prefix("s3://")?.split_once('/')?.1.parse().ok()?;
        let ObjectKey::Data(key) = key else { return None };
        if key.topic_id != self.topic.id {
            return None;
        }
        let begins = begins.get(&key.partition)?;
        begins.iter().filter(|(_, first)| *first >= key.range.end()).map(|&(ms, _)| ms).min()
    }
}

/// Consecutive manifests, as many as make up one answer each.
fn parts(wanted: &[(usize, &ManifestFile)]) -> Vec<(usize, usize)> {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    let mut files = 0;
    for &(at, manifest) in wanted {
        match parts.last_mut() {
            Some(part) if files + files_of(manifest) <= FILES_AT_ONCE => part.1 = at + 1,
            _ => {
                files = 0;
                parts.push((at, at + 1));
            }
        }
        files += files_of(manifest);
    }
    parts
}

fn files_of(manifest: &ManifestFile) -> u64 {
    let counts = [manifest.added_files_count, manifest.existing_files_count];
    counts.into_iter().flatten().map(u64::from).sum()
}

/// An int or a long, single-value serialized.
fn number(bytes: &Option<impl AsRef<[u8]>>) -> Option<i64> {
    let bytes = bytes.as_ref()?.as_ref();
    match bytes.len() {
        4 => Some(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        _ => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
    }
}

/// Whether a manifest's summary allows for a place.
fn may_hold(manifest: &ManifestFile, (partition, offset): (i32, i64)) -> bool {
    let Some([partitions, offsets]) = manifest.partitions.as_deref() else { return true };
    let within = |summary: &iceberg::spec::FieldSummary, value: i64| {
        number(&summary.lower_bound).is_none_or(|lower| lower <= value)
            && number(&summary.upper_bound).is_none_or(|upper| value <= upper)
    };
    within(partitions, partition.into()) && within(offsets, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(files: u32) -> ManifestFile {
        ManifestFile {
            manifest_path: String::new(),
            manifest_length: 1,
            partition_spec_id: 0,
            content: ManifestContentType::Data,
            sequence_number: 1,
            min_sequence_number: 1,
            added_snapshot_id: 1,
            added_files_count: Some(0),
            existing_files_count: Some(files),
            deleted_files_count: Some(0),
            added_rows_count: None,
            existing_rows_count: None,
            deleted_rows_count: None,
            partitions: None,
            key_metadata: None,
            first_row_id: None,
        }
    }

    #[test]
    fn a_large_plan_is_cut_between_manifests() {
        let manifests = [256, 1000, 1000, 5000, 10].map(manifest);
        // The second is not wanted: a part that spans it reads it again, and prunes it again.
        let wanted: Vec<_> = manifests.iter().enumerate().filter(|(at, _)| *at != 1).collect();
        assert_eq!(parts(&wanted), [(0, 3), (3, 4), (4, 5)]);
        assert_eq!(parts(&[]), []);
    }
}
