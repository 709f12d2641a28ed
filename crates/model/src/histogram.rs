//! How long things took, counted by duration: what Prometheus calls a histogram.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in milliseconds: from what a cache answers to what somebody gives up on.
const BOUNDS_MS: [u64; 13] =
    [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 60_000, 120_000, 300_000];

/// Durations, counted. It takes no lock.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many were at most as long as each bound, and longer than the one before.
    counts: [AtomicU64; BOUNDS_MS.len()],
    /// How many there were.
    all: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let fits = |bound: &u64| micros <= bound * 1000;
        if let Some(count) = BOUNDS_MS.iter().position(fits).and_then(|at| self.counts.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes several as one metric in the Prometheus text format, each with its label's value. Those that have
    /// counted nothing are left out.
    pub fn render<'h>(
        out: &mut String,
        (name, help): (&str, &str),
        label: &str,
        all: impl IntoIterator<Item = (&'h str, &'h Self)>,
    ) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (value, histogram) in all {
            let total = histogram.all.load(Ordering::Relaxed);
            if total == 0 {
                continue;
            }
            let mut below = 0;
            for (count, bound) in histogram.counts.iter().zip(BOUNDS_MS) {
                below += count.load(Ordering::Relaxed);
                let (whole, thousandths) = (bound / 1000, bound % 1000);
                let _ = writeln!(
                    out,
                    "{name}_bucket{{{label}=\"{value}\",le=\"{whole}.{thousandths:03}\"}} {below}"
                );
            }
            // Whoever counted in between is in a bucket and not yet in the sum.
            let total = total.max(below);
            let _ = writeln!(out, "{name}_bucket{{{label}=\"{value}\",le=\"+Inf\"}} {total}");
            let micros = histogram.micros.load(Ordering::Relaxed);
            let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
            let _ = writeln!(out, "{name}_sum{{{label}=\"{value}\"}} {whole}.{rest:06}");
            let _ = writeln!(out, "{name}_count{{{label}=\"{value}\"}} {total}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let (some, none) = (Histogram::default(), Histogram::default());
        for ms in [0, 1, 2, 40, 400_000] {
            some.observe(Duration::from_millis(ms));
        }
        let mut text = String::new();
        let all = [("read", &some), ("never", &none)];
        Histogram::render(&mut text, ("isk_x_seconds", "What it is."), "what", all);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..2],
            ["# HELP isk_x_seconds What it is.", "# TYPE isk_x_seconds histogram"]
        );
        let bucket = |le: &str| {
            let begin = format!("isk_x_seconds_bucket{{what=\"read\",le=\"{le}\"}} ");
            lines.iter().find_map(|line| line.strip_prefix(&begin)).unwrap()
        };
        assert_eq!(
            ["0.001", "0.003", "0.100", "300.000", "+Inf"].map(bucket),
            ["2", "3", "4", "4", "5"]
        );
        assert_eq!(lines[lines.len() - 2], "isk_x_seconds_sum{what=\"read\"} 400.043000");
        assert_eq!(lines[lines.len() - 1], "isk_x_seconds_count{what=\"read\"} 5");
        assert!(!text.contains("never"));
    }
}
