//! Writes the position-delete file that deletes nothing to standard output. Its bytes are kept in the
//! source tree, so that they stay the same whatever version of the Parquet library is in use:
//! `cargo run -p isk-parquet-file --example empty_delete_file > crates/parquet-file/src/empty-position-delete.parquet`

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use isk_parquet_file::{ParquetRenderer, RenderProfile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The ids that Iceberg reserves for the two columns of position-delete files.
    let field = |name: &str, data_type, id: i32| {
        let id = HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]);
        Field::new(name, data_type, false).with_metadata(id)
    };
    let schema = Arc::new(Schema::new(vec![
        field("file_path", DataType::Utf8, 2_147_483_546),
        field("pos", DataType::Int64, 2_147_483_545),
    ]));
    let rows = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(StringArray::from(vec!["isk:no-such-file"])),
            Arc::new(Int64Array::from(vec![0])),
        ],
    )?;
    let mut renderer = ParquetRenderer::new(io::stdout(), schema, &RenderProfile::default())?;
    renderer.write(&rows)?;
    renderer.finish()?;
    Ok(())
}
