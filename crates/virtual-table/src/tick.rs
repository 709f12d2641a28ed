//! From all that a plan depends on to a published snapshot: head → groups → manifests → metadata files.
//! As long as the last tick is remembered, the same inputs are the same snapshot, under the same metadata location.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use isk_iceberg_table::{GroupManifests, NamedFile, TableHead};
use isk_model::{ObjectKey, TopicName};

use crate::api::{ListedObject, LoadedTable, ServiceError};
use crate::beside::Merged;
use crate::error_files::known_errors;
use crate::files::group_files;
use crate::load_table::bucket_of;
use crate::manifests::{Fingerprint, ManifestBook, build_error, fingerprints};
use crate::plan::{Inputs, View, head, location, uri};
use crate::read_object::{constant_info, info_of};

/// By how many milliseconds a snapshot's timestamp lies before the moment it was planned at.
///
/// DuckDB up to 1.5 reads a table as of its transaction's start, and refuses one whose only snapshot
/// is younger; a query's own start is always a little before its `loadTable`, and clocks differ.
pub(crate) const BACKDATED_MS: i64 = 60_000;

/// The last plan of a topic, and what came of it. The same plan is the same snapshot.
pub(crate) struct Tick {
    inputs: Inputs,
    head: TableHead,
    manifests: Vec<Arc<GroupManifests>>,
    fingerprint: Fingerprint,
    made: Instant,
    pub(crate) loaded: LoadedTable,
    /// Metadata file and manifest list: names and sizes in bytes.
    files: Vec<(String, u64)>,
    objects: OnceLock<Vec<ListedObject>>,
}

impl Tick {
    /// The last tick where nothing that counts has changed since, else a new one, published.
    pub(crate) fn settle(
        inputs: Inputs,
        last: Option<&Arc<Self>>,
        book: &ManifestBook,
    ) -> Result<Arc<Self>, ServiceError> {
        let mut head = head(&inputs, now_ms() - BACKDATED_MS);
        let (groups, fingerprint) = fingerprints(&inputs, &head, inputs.groups())?;
        if let Some(last) = last.filter(|last| last.fingerprint == fingerprint) {
            return Ok(Arc::clone(last));
        }
        let manifests = book.manifests(&inputs, &head, &groups)?;
        if inputs.view == View::Errors {
            head.properties.extend(known_errors(&manifests));
        }
        match last.filter(|last| last.holds(&head, &manifests)) {
            // What is known anew changes nothing.
            Some(last) => Ok(last.known_anew(inputs, manifests, fingerprint)),
            None => publish(inputs, head, manifests, fingerprint, book).map(Arc::new),
        }
    }

    /// The tick after its files were published.
    pub(crate) fn published(
        inputs: Inputs,
        head: TableHead,
        manifests: Vec<Arc<GroupManifests>>,
        fingerprint: Fingerprint,
        [metadata, manifest_list]: [&NamedFile; 2],
    ) -> Self {
        let location = location(&inputs.view, &inputs.topic.name);
        let mut credential_prefixes = vec![location.clone()];
        let cold = head.cold.as_ref().and_then(|cold| cold.metadata.get("location")?.as_str());
        let cold = cold.map(|cold| [cold.trim_end_matches('/').to_owned(), bucket_of(cold)]);
        credential_prefixes.extend(cold.into_iter().flatten());
        let key = metadata_key(&inputs, &metadata.name);
        let loaded = LoadedTable {
            metadata_location: uri(inputs.view.bucket(), &key),
            metadata: metadata.bytes.clone(),
            location,
            credential_prefixes,
        };
        let size = |file: &NamedFile| (file.name.clone(), file.bytes.len() as u64);
        Self {
            files: [metadata, manifest_list].map(size).to_vec(),
            inputs,
            head,
            manifests,
            fingerprint,
            made: Instant::now(),
            loaded,
            objects: OnceLock::new(),
        }
    }

    /// The topic it is of.
    pub(crate) fn topic(&self) -> &TopicName {
        &self.inputs.topic.name
    }

    /// All that it depends on.
    pub(crate) fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Whether it was published under this fingerprint.
    pub(crate) fn is(&self, fingerprint: Fingerprint) -> bool {
        self.fingerprint == fingerprint
    }

    /// Whether it is a table of this head and these manifests, whenever it was planned.
    pub(crate) fn holds(&self, head: &TableHead, manifests: &[Arc<GroupManifests>]) -> bool {
        same_but_for_time(&self.head, head) && self.manifests == manifests
    }

    /// The same tick, and what its fingerprint has come to be.
    pub(crate) fn known_anew(
        &self,
        inputs: Inputs,
        manifests: Vec<Arc<GroupManifests>>,
        fingerprint: Fingerprint,
    ) -> Arc<Self> {
        Arc::new(Self {
            loaded: self.loaded.clone(),
            files: self.files.clone(),
            head: self.head.clone(),
            made: self.made,
            objects: OnceLock::new(),
            inputs,
            manifests,
            fingerprint,
        })
    }

    /// How long ago it was published.
    pub(crate) fn age(&self) -> Duration {
        self.made.elapsed()
    }

    /// All objects of the snapshot, sorted by key. Data files are told from what is known of them now.
    pub(crate) fn objects(&self) -> &[ListedObject] {
        self.objects.get_or_init(|| {
            let metadata = |file: &str, size| {
                let key = metadata_key(&self.inputs, file);
                ListedObject { key: key.to_string(), info: constant_info(&key, size) }
            };
            let listed = self.manifests.iter().flat_map(|group| group.files());
            let named = self.files.iter().map(|(name, size)| (name.as_str(), *size)).chain(listed);
            let mut objects: Vec<_> = named.map(|(name, size)| metadata(name, size)).collect();
            for group in self.inputs.groups() {
                for file in group_files(&self.inputs, &group).0 {
                    let uris = [Some(file.data_uri.as_str()), file.evidence.delete_uri()];
                    for key in uris.into_iter().flatten().filter_map(key_of) {
                        let info = info_of(&key);
                        objects
                            .extend(info.map(|info| ListedObject { key: key.to_string(), info }));
                    }
                }
            }
            objects.sort_by(|a, b| a.key.cmp(&b.key));
            objects
        })
    }
}

/// Builds a plan's metadata file and manifest list and puts them into the store.
fn publish(
    inputs: Inputs,
    head: TableHead,
    manifests: Vec<Arc<GroupManifests>>,
    fingerprint: Fingerprint,
    book: &ManifestBook,
) -> Result<Tick, ServiceError> {
    if let Some(Merged { layout, .. }) = inputs.merged() {
        book.put(&inputs, &layout.name, &layout.bytes)?;
    }
    let built =
        isk_iceberg_table::build(&head, &manifests).map_err(|e| build_error(&inputs, &e))?;
    for file in [&built.manifest_list, &built.metadata] {
        book.put(&inputs, &file.name, &file.bytes)?;
    }
    let files = [&built.metadata, &built.manifest_list];
    Ok(Tick::published(inputs, head, manifests, fingerprint, files))
}

/// Two tables are one snapshot when they differ in nothing but the moment they were planned.
fn same_but_for_time(a: &TableHead, b: &TableHead) -> bool {
    *a == TableHead { timestamp_ms: a.timestamp_ms, ..b.clone() }
}

fn metadata_key(inputs: &Inputs, file: &str) -> ObjectKey {
    let (topic, columns) = (inputs.topic.name.clone(), inputs.view.columns());
    ObjectKey::Metadata { topic, columns, file: file.to_owned() }
}

/// The object of a URI of ours.
pub(crate) fn key_of(uri: &str) -> Option<ObjectKey> {
    uri.strip_prefix("s3://")?.split_once('/')?.1.parse().ok()
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
