//! What the service counts, as Prometheus text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use isk_model::Histogram;

use crate::failures::DecodeFailures;

/// Counters of one service. They only grow.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) tables_loaded: AtomicU64,
    pub(crate) plans_built: AtomicU64,
    pub(crate) scans_planned: AtomicU64,
    pub(crate) chunks_rendered: AtomicU64,
    pub(crate) render_errors: AtomicU64,
    pub(crate) chunks_ahead: AtomicU64,
    pub(crate) chunks_ahead_read: AtomicU64,
    pub(crate) rows_rendered: AtomicU64,
    pub(crate) bytes_rendered: AtomicU64,
    pub(crate) objects_read: AtomicU64,
    pub(crate) decode_failures: DecodeFailures,
    /// Of chunks: how long they took in each stage.
    pub(crate) stages: Stages,
    /// By cold table: of offsets that neither it nor Kafka has.
    holes: Mutex<BTreeMap<String, u64>>,
    /// By topic: of partitions with a record that is dated ahead.
    dated_ahead: Mutex<BTreeMap<String, u64>>,
    /// By topic: of offsets between the last stable offset and the high watermark.
    behind_transactions: Mutex<BTreeMap<String, u64>>,
}

/// How long chunks took to be made.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    /// Waiting for records.
    pub(crate) fetch: Histogram,
    /// From records to columns.
    pub(crate) decode: Histogram,
    /// From columns to a file.
    pub(crate) encode: Histogram,
}

impl Metrics {
    /// Notes how many partitions of a topic have a record that is dated ahead.
    pub(crate) fn set_dated_ahead(&self, topic: &str, partitions: u64) {
        set(&self.dated_ahead, topic, partitions);
    }

    /// Notes how many of a topic's offsets lie behind the start of an open transaction.
    pub(crate) fn set_behind_transactions(&self, topic: &str, offsets: u64) {
        set(&self.behind_transactions, topic, offsets);
    }

    /// Notes how many offsets are in neither a cold table nor Kafka. A hole that grows is logged.
    pub(crate) fn set_holes(&self, table: &str, offsets: u64, named: &str) {
        let mut all = self.holes.lock().unwrap_or_else(|e| e.into_inner());
        let before = all.insert(table.to_owned(), offsets).unwrap_or(0);
        if offsets > before {
            tracing::warn!(
                table,
                offsets,
                holes = named,
                "offsets between the cold table's rows and Kafka's start are in neither (unless they \
                 were transaction markers or compacted): merged cannot show them"
            );
        }
    }

    /// All counters in the Prometheus text exposition format, version 0.0.4.
    pub(crate) fn render(&self, kafka: &isk_kafka::KafkaMetricsSnapshot, cached: u64) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut out = String::new();
        let counters: [(&str, &str, u64); 20] = [
            ("tables_loaded_total", "Tables loaded.", get(&self.tables_loaded)),
            ("plans_built_total", "Snapshots planned anew.", get(&self.plans_built)),
            ("scans_planned_total", "Scans planned for clients.", get(&self.scans_planned)),
            ("chunks_rendered_total", "Chunks encoded.", get(&self.chunks_rendered)),
            ("render_errors_total", "Chunks that failed to encode.", get(&self.render_errors)),
            (
                "chunks_ahead_total",
                "Chunks encoded ahead of a reader. They are among those encoded.",
                get(&self.chunks_ahead),
            ),
            (
                "chunks_ahead_read_total",
                "Such chunks, then read. The rest was encoded for a scan that stopped.",
                get(&self.chunks_ahead_read),
            ),
            ("rows_rendered_total", "Rows encoded.", get(&self.rows_rendered)),
            ("rendered_bytes_total", "Bytes of encoded files.", get(&self.bytes_rendered)),
            ("objects_read_total", "Object reads begun.", get(&self.objects_read)),
            ("kafka_fetches_total", "Offset ranges fetched.", kafka.fetches),
            ("kafka_fetch_errors_total", "Fetches that failed.", kafka.fetch_errors),
            ("kafka_records_delivered_total", "Records used.", kafka.records_delivered),
            ("kafka_delivered_bytes_total", "Record bytes used.", kafka.bytes_delivered),
            ("kafka_records_fetched_total", "Records fetched, unused too.", kafka.records_fetched),
            ("kafka_fetched_bytes_total", "Record bytes fetched, unused too.", kafka.bytes_fetched),
            ("kafka_wire_bytes_total", "Fetch answers on the network.", kafka.wire_bytes),
            ("kafka_admin_requests_total", "Other questions to brokers.", kafka.admin_requests),
            ("kafka_admin_errors_total", "Such questions that failed.", kafka.admin_errors),
            ("kafka_clients_opened_total", "Kafka clients opened.", kafka.clients_opened),
        ];
        for (name, help, value) in counters {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP isk_{name} {help}\n# TYPE isk_{name} counter");
            let _ = writeln!(out, "isk_{name} {value}");
        }
        let _ = writeln!(
            out,
            "# HELP isk_cache_bytes Encoded files kept on disk.\n# TYPE isk_cache_bytes gauge\n\
             isk_cache_bytes {cached}"
        );
        let Stages { fetch, decode, encode } = &self.stages;
        let stages = [("fetch", fetch), ("decode", decode), ("encode", encode)];
        let about = "How long chunks took to be made: waiting for records, decoding, encoding.";
        Histogram::render(&mut out, ("isk_chunk_seconds", about), "stage", stages);
        self.decode_failures.render(&mut out);
        for (name, help, values) in [
            (
                "future_dated_partitions",
                "Partitions with a record dated more than a minute ahead, as of the last lookup.",
                &self.dated_ahead,
            ),
            (
                "lso_lag_offsets",
                "Offsets behind the start of an open transaction, as of a recent load of the table.",
                &self.behind_transactions,
            ),
        ] {
            let _ = writeln!(out, "# HELP isk_{name} {help}\n# TYPE isk_{name} gauge");
            for (topic, value) in values.lock().unwrap_or_else(|e| e.into_inner()).iter() {
                let _ = writeln!(out, "isk_{name}{{topic=\"{topic}\"}} {value}");
            }
        }
        let _ = writeln!(
            out,
            "# HELP isk_hole_offsets Offsets that neither the cold table nor Kafka has.\n\
             # TYPE isk_hole_offsets gauge"
        );
        for (table, value) in self.holes.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            let table = table.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(out, "isk_hole_offsets{{table=\"{table}\"}} {value}");
        }
        out
    }
}

/// Sets a topic's gauge. One that was never above zero is not shown.
fn set(gauge: &Mutex<BTreeMap<String, u64>>, topic: &str, value: u64) {
    let mut all = gauge.lock().unwrap_or_else(|e| e.into_inner());
    if value > 0 || all.contains_key(topic) {
        all.insert(topic.to_owned(), value);
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
