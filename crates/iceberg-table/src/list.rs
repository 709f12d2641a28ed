//! The manifest list (specification, "Manifest Lists", v2).

use crate::avro::{Encoder, container};
use crate::manifest::{Content, SEQUENCE_NUMBER};
use crate::partition::{PartitionBounds, SPEC_ID};

/// One manifest, as the list names it.
#[derive(Debug)]
pub(crate) struct ListedManifest {
    pub(crate) uri: String,
    pub(crate) length: u64,
    pub(crate) content: Content,
    pub(crate) files: usize,
    pub(crate) rows: u64,
    pub(crate) bounds: PartitionBounds,
}

/// The manifest list's bytes.
pub(crate) fn encode_list(
    manifests: &[ListedManifest],
    snapshot_id: i64,
    origin_snapshot: i64,
) -> Vec<u8> {
    let mut out = Encoder::default();
    for manifest in manifests {
        entry(&mut out, manifest, origin_snapshot);
    }
    let metadata = [
        ("snapshot-id", &*snapshot_id.to_string()),
        ("parent-snapshot-id", "null"),
        ("sequence-number", &SEQUENCE_NUMBER.to_string()),
        ("format-version", "2"),
    ];
    container(LIST_SCHEMA, &metadata, manifests.len(), out)
}

fn entry(out: &mut Encoder, manifest: &ListedManifest, origin_snapshot: i64) {
    out.string(&manifest.uri);
    out.long(manifest.length.cast_signed());
    out.long(i64::from(SPEC_ID));
    out.long(manifest.content.code());
    out.long(SEQUENCE_NUMBER);
    out.long(SEQUENCE_NUMBER); // min_sequence_number
    out.long(origin_snapshot);
    out.long(0); // added files
    out.long(manifest.files as i64);
    out.long(0); // deleted files
    out.long(0); // added rows
    out.long(manifest.rows.cast_signed());
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
