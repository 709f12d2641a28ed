//! CPU time, and the report of it.

use std::time::Instant;

use serde_json::{Map, Value, json};

/// CPU seconds this process has used, user and system.
#[allow(unsafe_code)]
fn cpu_seconds() -> f64 {
    // SAFETY: plain data that the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// What was measured so far.
pub(crate) struct Report {
    records: u64,
    runs: usize,
    only: String,
    stages: Map<String, Value>,
}

impl Report {
    pub(crate) fn new(records: u64, runs: usize, only: &str) -> Self {
        Self { records, runs, only: only.to_owned(), stages: Map::new() }
    }

    /// Runs a stage, and notes its fastest run.
    pub(crate) fn stage(
        &mut self,
        name: &str,
        mut run: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !name.contains(&self.only) {
            return Ok(());
        }
        let (mut cpu, mut wall) = (f64::MAX, f64::MAX);
        for _ in 0..self.runs {
            let (begun, before) = (Instant::now(), cpu_seconds());
            run()?;
            cpu = cpu.min(cpu_seconds() - before);
            wall = wall.min(begun.elapsed().as_secs_f64());
        }
        let records = self.records as f64;
        println!(
            "{name:16} {:7.0} ns of CPU a record, {:6.2} M records/s per core, {:6.2} M records/s",
            cpu / records * 1e9,
            records / cpu / 1e6,
            records / wall / 1e6
        );
        self.stages.insert(name.to_owned(), json!({ "cpu_s": cpu, "wall_s": wall }));
        Ok(())
    }

    /// Notes a figure that is no time.
    pub(crate) fn note(&mut self, name: &str, value: Value) {
        self.stages.insert(name.to_owned(), value);
    }

    pub(crate) fn json(self) -> Value {
        let mut all = self.stages;
        all.insert("records".to_owned(), json!(self.records));
        Value::Object(all)
    }
}
