//! The manifest list (specification, "Manifest Lists", v2 and v3).

use iceberg::spec::ManifestFile;

use crate::avro::{Encoder, container};
use crate::manifest::Content;
use crate::partition::{PartitionBounds, Placement};

/// One manifest of hot files, as the list names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedManifest {
    pub(crate) uri: String,
    pub(crate) length: u64,
    pub(crate) content: Content,
    pub(crate) files: usize,
    pub(crate) rows: u64,
    pub(crate) bounds: PartitionBounds,
    /// The smallest row id of its files, where they have some. Readers take those of the files as they are
    /// only where the manifest has one.
    pub(crate) first_row_id: Option<i64>,
}

/// What a manifest list is made of.
#[derive(Debug)]
pub(crate) struct List<'a> {
    /// 2, or 3 where the list also has the first row ids of manifests.
    pub(crate) format_version: u8,
    /// The manifests of a cold table: each is named as its own list names it.
    pub(crate) cold: &'a [ManifestFile],
    /// The manifests of hot files, each with the snapshot that added its files.
    pub(crate) hot: &'a [(&'a ListedManifest, i64)],
    pub(crate) placement: &'a Placement,
    /// That of all hot manifests and the files in them.
    pub(crate) sequence_number: i64,
    pub(crate) parent: Option<i64>,
}

impl List<'_> {
    /// The manifest list's bytes.
    pub(crate) fn encode(&self, snapshot_id: i64) -> Vec<u8> {
        let mut out = Encoder::default();
        for manifest in self.cold {
            cold_entry(&mut out, manifest);
            if self.format_version >= 3 {
                optional_long(&mut out, manifest.first_row_id.map(u64::cast_signed));
            }
        }
        for (manifest, added_by) in self.hot {
            self.hot_entry(&mut out, manifest, *added_by);
            if self.format_version >= 3 {
                optional_long(&mut out, manifest.first_row_id);
            }
        }
        let metadata = [
            ("snapshot-id", &*snapshot_id.to_string()),
            (
                "parent-snapshot-id",
                &self.parent.map_or_else(|| "null".to_owned(), |parent| parent.to_string()),
            ),
            ("sequence-number", &self.sequence_number.to_string()),
            ("format-version", &self.format_version.to_string()),
        ];
        let schema = if self.format_version >= 3 {
            let fields = LIST_SCHEMA.strip_suffix(LIST_END).unwrap_or(LIST_SCHEMA);
            format!("{fields}{FIRST_ROW_ID}{LIST_END}")
        } else {
            LIST_SCHEMA.to_owned()
        };
        container(&schema, &metadata, self.cold.len() + self.hot.len(), out)
    }

    fn hot_entry(&self, out: &mut Encoder, manifest: &ListedManifest, added_by: i64) {
        out.string(&manifest.uri);
        out.long(manifest.length.cast_signed());
        out.long(i64::from(self.placement.spec_id));
        out.long(manifest.content.code());
        out.long(self.sequence_number);
        out.long(self.sequence_number); // min_sequence_number
        out.long(added_by);
        out.long(manifest.files as i64);
        out.long(0); // existing files
        out.long(0); // deleted files
        out.long(manifest.rows.cast_signed());
        out.long(0); // existing rows
        out.long(0); // deleted rows
        let PartitionBounds { partition, offset } = manifest.bounds;
        let summaries = [
            (partition.0.0.to_le_bytes().to_vec(), partition.1.0.to_le_bytes().to_vec()),
            (offset.0.0.to_le_bytes().to_vec(), offset.1.0.to_le_bytes().to_vec()),
        ];
        out.present(true);
        out.array(summaries.into_iter(), |out, (lower, upper)| {
            out.boolean(false); // contains_null
            out.null(); // contains_nan: neither field is a float
            out.present(true);
            out.bytes(&lower);
            out.present(true);
            out.bytes(&upper);
        });
        out.null(); // key_metadata
    }
}

fn cold_entry(out: &mut Encoder, manifest: &ManifestFile) {
    out.string(&manifest.manifest_path);
    out.long(manifest.manifest_length);
    out.long(i64::from(manifest.partition_spec_id));
    out.long(manifest.content as i64);
    out.long(manifest.sequence_number);
    out.long(manifest.min_sequence_number);
    out.long(manifest.added_snapshot_id);
    for files in
        [manifest.added_files_count, manifest.existing_files_count, manifest.deleted_files_count]
    {
        out.long(files.unwrap_or(0).into());
    }
    for rows in
        [manifest.added_rows_count, manifest.existing_rows_count, manifest.deleted_rows_count]
    {
        out.long(rows.unwrap_or(0).cast_signed());
    }
    out.present(manifest.partitions.is_some());
    if let Some(partitions) = &manifest.partitions {
        out.array(partitions.iter(), |out, summary| {
            out.boolean(summary.contains_null);
            out.present(summary.contains_nan.is_some());
            if let Some(nan) = summary.contains_nan {
                out.boolean(nan);
            }
            optional_bytes(out, summary.lower_bound.as_ref().map(|b| b.as_ref()));
            optional_bytes(out, summary.upper_bound.as_ref().map(|b| b.as_ref()));
        });
    }
    optional_bytes(out, manifest.key_metadata.as_deref());
}

fn optional_long(out: &mut Encoder, value: Option<i64>) {
    out.present(value.is_some());
    value.into_iter().for_each(|value| out.long(value));
}

fn optional_bytes(out: &mut Encoder, value: Option<&[u8]>) {
    out.present(value.is_some());
    value.into_iter().for_each(|value| out.bytes(value));
}

/// How the schema of a list ends.
const LIST_END: &str = r#"]}"#;

/// The field that format v3 adds.
const FIRST_ROW_ID: &str =
    r#",{"name":"first_row_id","type":["null","long"],"default":null,"field-id":520}"#;

const LIST_SCHEMA: &str = concat!(
    r#"{"type":"record","name":"manifest_file","fields":["#,
    r#"{"name":"manifest_path","type":"string","field-id":500},"#,
    r#"{"name":"manifest_length","type":"long","field-id":501},"#,
    r#"{"name":"partition_spec_id","type":"int","field-id":502},"#,
    r#"{"name":"content","type":"int","field-id":517},"#,
    r#"{"name":"sequence_number","type":"long","field-id":515},"#,
    r#"{"name":"min_sequence_number","type":"long","field-id":516},"#,
    r#"{"name":"added_snapshot_id","type":"long","field-id":503},"#,
    r#"{"name":"added_files_count","type":"int","field-id":504},"#,
    r#"{"name":"existing_files_count","type":"int","field-id":505},"#,
    r#"{"name":"deleted_files_count","type":"int","field-id":506},"#,
    r#"{"name":"added_rows_count","type":"long","field-id":512},"#,
    r#"{"name":"existing_rows_count","type":"long","field-id":513},"#,
    r#"{"name":"deleted_rows_count","type":"long","field-id":514},"#,
    r#"{"name":"partitions","type":["null",{"type":"array","items":"#,
    r#"{"type":"record","name":"r508","fields":["#,
    r#"{"name":"contains_null","type":"boolean","field-id":509},"#,
    r#"{"name":"contains_nan","type":["null","boolean"],"default":null,"field-id":518},"#,
    r#"{"name":"lower_bound","type":["null","bytes"],"default":null,"field-id":510},"#,
    r#"{"name":"upper_bound","type":["null","bytes"],"default":null,"field-id":511}]},"#,
    r#""element-id":508}],"default":null,"field-id":507},"#,
    r#"{"name":"key_metadata","type":["null","bytes"],"default":null,"field-id":519}]}"#,
);
