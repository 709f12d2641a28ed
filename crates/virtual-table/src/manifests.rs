//! The manifests of a topic's groups of chunks: made once, and again only when something changed that
//! they depend on.
//!
//! Each group has a **fingerprint** of all that decides its manifests, which is told without looking at
//! its chunks. So a plan costs in proportion to the groups, and to the chunks of those that changed.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::time::Duration;

use isk_iceberg_table::{BuildError, Group, GroupManifests, ManifestWriter, Place, TableHead};
use isk_traces::{count, span};
use tracing::field::Empty;

use crate::api::ServiceError;
use crate::files::group_files;
use crate::metadata_store::MetadataStore;
use crate::plan::Inputs;

/// Groups remembered. Each takes some hundreds of bytes; a topic of a million chunks has some thousands.
const REMEMBERED: u64 = 100_000;

/// A digest of all that decides something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint([u8; 32]);

/// The manifests of groups, by fingerprint.
pub(crate) struct ManifestBook {
    metadata: Arc<MetadataStore>,
    known: moka::sync::Cache<Fingerprint, Arc<GroupManifests>>,
}

impl ManifestBook {
    /// Manifests are put to `metadata` when they are made, and made again after half of its
    /// `retention`: files that are not named again are swept away some day.
    pub(crate) fn new(metadata: Arc<MetadataStore>, retention: Duration) -> Self {
        let known = moka::sync::Cache::builder()
            .max_capacity(REMEMBERED)
            .time_to_live(retention / 2)
            .build();
        Self { metadata, known }
    }

    /// The manifests of all groups of a table, in order. Those that are made now are in the metadata
    /// store when this returns, and so is what their files' recipes name.
    pub(crate) fn manifests(
        &self,
        inputs: &Inputs,
        head: &TableHead,
        groups: &[(Group, Fingerprint)],
    ) -> Result<Vec<Arc<GroupManifests>>, ServiceError> {
        let span = span!("manifests", isk.groups = count(groups.len()), isk.groups.made = Empty);
        let _entered = span.enter();
        let writer = OnceCell::new();
        let new = Cell::new(0_u64);
        let make = |group: &Group, fingerprint: &Fingerprint| {
            if let Some(known) = self.known.get(fingerprint) {
                return Ok(known);
            }
            let writer = match writer.get() {
                Some(writer) => writer,
                None => {
                    let made = ManifestWriter::new(head).map_err(|e| build_error(inputs, &e))?;
                    writer.get_or_init(|| made)
                }
            };
            let made = Arc::new(self.make(inputs, writer, group)?);
            self.known.insert(*fingerprint, Arc::clone(&made));
            new.set(new.get() + 1);
            Ok(made)
        };
        let all = groups.iter().map(|(group, fingerprint)| make(group, fingerprint)).collect();
        span.record("isk.groups.made", count(new.get()));
        all
    }

    /// The manifests of these groups of a table, as [`Self::manifests`].
    pub(crate) fn of(
        &self,
        inputs: &Inputs,
        head: &TableHead,
        groups: Vec<Group>,
    ) -> Result<Vec<Arc<GroupManifests>>, ServiceError> {
        self.manifests(inputs, head, &fingerprints(inputs, head, groups)?.0)
    }

    /// Keeps a file of the table's metadata folder.
    pub(crate) fn put(
        &self,
        inputs: &Inputs,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), ServiceError> {
        self.metadata.put(&inputs.folder(), name, bytes)
    }

    fn make(
        &self,
        inputs: &Inputs,
        writer: &ManifestWriter,
        group: &Group,
    ) -> Result<GroupManifests, ServiceError> {
        let (files, attachments) = group_files(inputs, group);
        for attachment in attachments {
            self.put(inputs, &attachment.name, &attachment.bytes)?;
        }
        let (group, manifests) = writer.group(files).map_err(|e| build_error(inputs, &e))?;
        for file in manifests {
            self.put(inputs, &file.name, &file.bytes)?;
        }
        Ok(group)
    }
}

/// These groups of a table with their fingerprints, and the fingerprint of the whole.
pub(crate) fn fingerprints(
    inputs: &Inputs,
    head: &TableHead,
    all: Vec<Group>,
) -> Result<(Vec<(Group, Fingerprint)>, Fingerprint), ServiceError> {
    let shared = shared_fingerprint(inputs, head)?;
    let mut whole = blake3::Hasher::new();
    whole.update(&shared.0);
    for text in head.properties.iter().chain(&head.summary).flat_map(|(key, value)| [key, value]) {
        part(&mut whole, text.as_bytes());
    }
    let cold = head.cold.as_ref().map_or("", |cold| cold.metadata_location.as_str());
    part(&mut whole, cold.as_bytes());
    let mut groups = Vec::new();
    for group in all {
        let fingerprint = group_fingerprint(inputs, shared, &group);
        whole.update(&fingerprint.0);
        groups.push((group, fingerprint));
    }
    Ok((groups, Fingerprint(whole.finalize().into())))
}

/// Of what is the same for all groups.
fn shared_fingerprint(inputs: &Inputs, head: &TableHead) -> Result<Fingerprint, ServiceError> {
    let schema = serde_json::to_vec(head.schema.as_ref())
        .map_err(|e| ServiceError::Internal(format!("a table schema has no JSON: {e}")))?;
    let mut hash = blake3::Hasher::new();
    part(&mut hash, &schema);
    part(&mut hash, head.location.as_bytes());
    part(&mut hash, head.table_uuid.as_bytes());
    let merged = inputs.merged();
    let text = format!(
        "{:?} {} {:?} {} {:?} {} {:?} {:?} {} {:?} {:?} {:?}",
        inputs.view,
        head.schema_id,
        head.placement,
        head.delete_file_size,
        inputs.topic.id,
        inputs.topic.name,
        inputs.table.version,
        inputs.render,
        inputs.max_message_bytes,
        inputs.cleaning,
        inputs.pin,
        merged.map(|merged| (merged.layout.digest, &merged.widened)),
    );
    part(&mut hash, text.as_bytes());
    Ok(Fingerprint(hash.finalize().into()))
}

fn group_fingerprint(inputs: &Inputs, shared: Fingerprint, group: &Group) -> Fingerprint {
    let mut hash = blake3::Hasher::new();
    hash.update(&shared.0);
    let open = [u8::from(matches!(group.place, Place::Tail))];
    hash.update(&open);
    for &(partition, range) in &group.parts {
        hash.update(&partition.0.to_le_bytes());
        hash.update(&range.start().0.to_le_bytes());
        hash.update(&range.end().0.to_le_bytes());
        let facts = inputs.facts.generation(inputs.topic.id, partition, range);
        hash.update(&facts.to_le_bytes());
        for (start, epoch) in
            inputs.epochs.get(&partition).iter().flat_map(|h| h.below(range.end()))
        {
            hash.update(&start.to_le_bytes());
            hash.update(&epoch.to_le_bytes());
        }
        hash.update(&[0xff; 16]);
        for (time, offset) in inputs.times.of(partition, range) {
            hash.update(&time.to_le_bytes());
            hash.update(&offset.0.to_le_bytes());
        }
        for cut in inputs.cuts.get(&partition).into_iter().flat_map(|cuts| cuts.within(range)) {
            hash.update(&cut.0.to_le_bytes());
        }
        hash.update(&[0xff; 16]);
        if let Some(covered) = inputs.covered() {
            hash.update(&covered.fingerprint(partition, range));
        }
    }
    Fingerprint(hash.finalize().into())
}

/// Adds a part that cannot run into the next.
fn part(hash: &mut blake3::Hasher, bytes: &[u8]) {
    hash.update(&(bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// A plan that is no table, as the service's error.
pub(crate) fn build_error(inputs: &Inputs, error: &BuildError) -> ServiceError {
    let topic = &inputs.topic.name;
    match error {
        BuildError::Cold(_) => ServiceError::Unsupported {
            what: format!("the merged table of topic {topic}"),
            reason: error.to_string(),
        },
        _ => ServiceError::Internal(format!("the metadata of {topic}: {error}")),
    }
}
