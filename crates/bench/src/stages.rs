//! The stages that need no broker: framing, decoding by this project and by arrow-avro, encoding.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;

use anyhow::Context;
use arrow_array::RecordBatch;
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use isk_decode::{TopicDecoder, WriterSchema};
use isk_model::{KafkaPartition, RecordBlock, RegistrySchemaId, SchemaFormat};
use isk_parquet_file::{ParquetRenderer, RenderProfile};
use isk_schema::{FieldIdMap, SchemaText, table_schema};

use crate::time::Report;

/// Measures each on all records.
pub(crate) fn measure(
    blocks: &[RecordBlock],
    schema: &str,
    file_records: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let id = schema_id(blocks)?;
    report.stage("framing", || {
        let mut payload = 0;
        for value in blocks.iter().flat_map(RecordBlock::iter).filter_map(|record| record.value) {
            if let [0, a, b, c, d, rest @ ..] = value {
                black_box(u32::from_be_bytes([*a, *b, *c, *d]));
                payload += rest.len();
            }
        }
        black_box(payload);
        Ok(())
    })?;
    report.stage("arrow-avro", || arrow_avro(blocks, schema, id))?;
    report.stage("decode", || {
        let mut decoder = decoder(schema, id)?;
        for block in blocks {
            black_box(decoder.decode(block)?);
        }
        Ok(())
    })?;
    let mut decoder = decoder(schema, id)?;
    let mut batches = Vec::with_capacity(blocks.len());
    for block in blocks {
        let decoded = decoder.decode(block)?;
        anyhow::ensure!(decoded.failures.is_empty(), "records of the topic do not decode");
        batches.push(decoded.batch);
    }
    let mut bytes = 0;
    report.stage("encode", || {
        bytes = encode(&batches, file_records)?;
        Ok(())
    })?;
    report.note("parquet_bytes", bytes.into());
    columns(&batches, file_records, report)?;
    crate::poison::measure(blocks, schema, id, report)?;
    Ok(())
}

/// What each column costs alone, as a file of its own.
fn columns(batches: &[RecordBatch], file_records: u64, report: &mut Report) -> anyhow::Result<()> {
    let Some(first) = batches.first() else { return Ok(()) };
    for (index, field) in first.schema().fields().iter().enumerate() {
        let column = batches.iter().map(|batch| batch.project(&[index]));
        let column: Vec<RecordBatch> = column.collect::<Result<_, _>>()?;
        let mut bytes = 0;
        let name = format!("column {}", field.name());
        report.stage(&name, || {
            bytes = encode(&column, file_records)?;
            Ok(())
        })?;
        report.note(&format!("{name} bytes"), bytes.into());
    }
    Ok(())
}

/// The schema id of the first value; all others must have the same.
fn schema_id(blocks: &[RecordBlock]) -> anyhow::Result<RegistrySchemaId> {
    let mut values = blocks.iter().flat_map(RecordBlock::iter).map(|record| record.value);
    let first = values.next().flatten().context("the first record has no value")?;
    anyhow::ensure!(first.len() >= 5, "the first value is not framed");
    let (framing, _) = first.split_at(5);
    let same = values.all(|v| v.is_some_and(|v| v.starts_with(framing)));
    anyhow::ensure!(same, "the records have several schemas, or some have no value");
    let id: [u8; 4] = framing[1..].try_into()?;
    Ok(RegistrySchemaId(i32::from_be_bytes(id)))
}

pub(crate) fn decoder(schema: &str, id: RegistrySchemaId) -> anyhow::Result<TopicDecoder> {
    let writer = SchemaText {
        version: 1,
        id,
        format: SchemaFormat::Avro,
        text: schema.to_owned(),
        references: vec![],
    };
    let table = table_schema(std::slice::from_ref(&writer), &[], &mut FieldIdMap::default())?;
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(0))?;
    decoder.add_writer(id, WriterSchema::Known(writer));
    Ok(decoder)
}

/// arrow-avro as it comes: framed values in, batches of the same size out.
fn arrow_avro(blocks: &[RecordBlock], schema: &str, id: RegistrySchemaId) -> anyhow::Result<()> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let fingerprint = Fingerprint::Id(id.0.cast_unsigned());
    store.set(fingerprint, AvroSchema::new(schema.to_owned()))?;
    let mut decoder = ReaderBuilder::new()
        .with_batch_size(isk_kafka::BLOCK_MAX_RECORDS)
        .with_writer_schema_store(store)
        .with_active_fingerprint(fingerprint)
        .build_decoder()?;
    for block in blocks {
        for value in block.iter().filter_map(|record| record.value) {
            decoder.decode(value)?;
        }
        black_box(decoder.flush()?);
    }
    Ok(())
}

/// Encodes files of `file_records` rows each (whole batches); gives their bytes.
pub(crate) fn encode(batches: &[RecordBatch], file_records: u64) -> anyhow::Result<u64> {
    let profile = RenderProfile::default();
    let mut bytes = 0;
    let mut rest = batches;
    while let Some(first) = rest.first() {
        let mut renderer = ParquetRenderer::new(Nowhere, first.schema(), &profile)?;
        let mut rows = 0;
        while let Some((batch, more)) = rest.split_first().filter(|_| rows < file_records) {
            renderer.write(batch)?;
            rows += batch.num_rows() as u64;
            rest = more;
        }
        let rendered = renderer.finish()?;
        bytes += rendered.body_len + rendered.footer_len;
    }
    Ok(bytes)
}

/// A sink that keeps nothing.
struct Nowhere;

impl Write for Nowhere {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        Ok(black_box(buf).len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
