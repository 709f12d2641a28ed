//! The counts of manifest lists of format v1, which writers name in two ways.
//!
//! Readers take a manifest that counts no files for one without any, so a count must not get lost. The
//! specification goes by field ids; the library that parses lists goes by one of the names.

use std::collections::HashMap;

use apache_avro::types::Value;
use apache_avro::{Reader, Schema};
use iceberg::spec::ManifestFile;
use isk_outbound::chain;

/// The property that Iceberg gives a record's field.
const FIELD_ID: &str = "field-id";

/// The field id of a manifest's path.
const PATH: i64 = 500;

/// The field ids of the counts (specification, "Manifest Lists"): files and rows, of each those that
/// were added, that exist and that are deleted.
const COUNTS: [i64; 6] = [504, 505, 506, 512, 513, 514];

/// Fills in the counts that are missing, from the bytes of the list itself.
pub(crate) fn complete(manifests: &mut [ManifestFile], bytes: &[u8]) -> Result<(), String> {
    let reader = Reader::new(bytes).map_err(|error| chain(&error))?;
    let Schema::Record(record) = reader.writer_schema() else {
        return Err("its entries are no records".into());
    };
    let ids: Vec<Option<i64>> =
        record.fields.iter().map(|field| field.custom_attributes.get(FIELD_ID)?.as_i64()).collect();
    let mut by_path: HashMap<String, HashMap<i64, u64>> = HashMap::new();
    for value in reader {
        let Value::Record(fields) = value.map_err(|error| chain(&error))? else {
            return Err("its entries are no records".into());
        };
        let mut path = None;
        let mut counts = HashMap::new();
        for (id, (_, value)) in ids.iter().zip(fields) {
            match (id, value) {
                (Some(PATH), Value::String(text)) => path = Some(text),
                (Some(id), value) if COUNTS.contains(id) => {
                    counts.extend(whole(&value).map(|count| (*id, count)));
                }
                _ => {}
            }
        }
        by_path.extend(path.map(|path| (path, counts)));
    }
    for manifest in manifests {
        let Some(counts) = by_path.get(&manifest.manifest_path) else { continue };
        let rows = |id: i64| counts.get(&id).copied();
        let files = |id: i64| rows(id).and_then(|count| u32::try_from(count).ok());
        let [added, existing, deleted, added_rows, existing_rows, deleted_rows] = COUNTS;
        manifest.added_files_count = manifest.added_files_count.or(files(added));
        manifest.existing_files_count = manifest.existing_files_count.or(files(existing));
        manifest.deleted_files_count = manifest.deleted_files_count.or(files(deleted));
        manifest.added_rows_count = manifest.added_rows_count.or(rows(added_rows));
        manifest.existing_rows_count = manifest.existing_rows_count.or(rows(existing_rows));
        manifest.deleted_rows_count = manifest.deleted_rows_count.or(rows(deleted_rows));
    }
    Ok(())
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Int(value) => u64::try_from(*value).ok(),
        Value::Long(value) => u64::try_from(*value).ok(),
        Value::Union(_, inner) => whole(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Writer;
    use apache_avro::types::Record;
    use iceberg::spec::{FormatVersion, ManifestList};

    use super::*;

    /// A list as Iceberg's Java library writes it in format v1.
    fn list() -> Vec<u8> {
        let long = r#"["null","long"],"default":null"#;
        let int = r#"["null","int"],"default":null"#;
        let fields: Vec<String> = [
            ("manifest_path", r#""string""#, 500),
            ("manifest_length", r#""long""#, 501),
            ("partition_spec_id", r#""int""#, 502),
            ("added_snapshot_id", r#""long""#, 503),
            ("added_files_count", int, 504),
            ("existing_files_count", int, 505),
            ("deleted_files_count", int, 506),
            ("added_rows_count", long, 512),
            ("existing_rows_count", long, 513),
            ("deleted_rows_count", long, 514),
        ]
        .iter()
        .map(|(name, ty, id)| format!(r#"{{"name":"{name}","type":{ty},"field-id":{id}}}"#))
        .collect();
        let text = format!(
            r#"{{"type":"record","name":"manifest_file","fields":[{}]}}"#,
            fields.join(",")
        );
        let schema = Schema::parse_str(&text).unwrap();
        let mut writer = Writer::new(&schema, Vec::new());
        let mut record = Record::new(&schema).unwrap();
        record.put("manifest_path", "s3://b/m.avro");
        record.put("manifest_length", 10_i64);
        record.put("partition_spec_id", 0_i32);
        record.put("added_snapshot_id", 9_i64);
        for (name, count) in
            [("added_files_count", 1_i32), ("existing_files_count", 2), ("deleted_files_count", 0)]
        {
            record.put(name, Some(count));
        }
        for (name, count) in
            [("added_rows_count", 5_i64), ("existing_rows_count", 6), ("deleted_rows_count", 0)]
        {
            record.put(name, Some(count));
        }
        writer.append(record).unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn counts_are_found_by_their_ids() {
        let bytes = list();
        let parsed = ManifestList::parse_with_version(&bytes, FormatVersion::V1).unwrap();
        let mut manifests: Vec<_> = parsed.consume_entries().into_iter().collect();
        complete(&mut manifests, &bytes).unwrap();
        let one = &manifests[0];
        assert_eq!((one.added_files_count, one.existing_files_count), (Some(1), Some(2)));
        assert_eq!((one.deleted_files_count, one.deleted_rows_count), (Some(0), Some(0)));
        assert_eq!((one.added_rows_count, one.existing_rows_count), (Some(5), Some(6)));
    }
}
