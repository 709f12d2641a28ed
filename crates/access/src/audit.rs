//! The audit log: who read or changed which table, when, from where, and whether they were let.
//!
//! One JSON object a line, to a file or to the service's own log. Edges hand events over and go on; a thread writes
//! them. What reads of objects say is gathered for a while, since one query reads thousands: the first is written at
//! once, and how many followed when the while is over.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::principal::TableName;

/// Events that wait to be written at the most.
const WAITING: usize = 16_384;

/// Different events that are gathered at the most.
const GATHERED: usize = 10_000;

/// What the lines in the service's own log are told apart by.
const TARGET: &str = "isk_audit";

/// Where the audit log goes, and how.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// A file that lines are added to. One that was moved away is made anew.
    pub file: Option<PathBuf>,
    /// Whether they go to the service's own log.
    pub log: bool,
    /// For how long reads of objects are gathered.
    pub gather: Duration,
}

/// Something that somebody did, or was kept from doing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// Where it was asked: `catalog` or `gateway`.
    pub port: &'static str,
    /// The principal's name; `None`: nobody known.
    pub principal: Option<String>,
    /// The other end of the connection: without its port, which differs with each.
    pub from: Option<IpAddr>,
    /// What was asked for.
    pub action: &'static str,
    /// The tables it is about.
    pub tables: Vec<TableName>,
    /// Whether it was let.
    pub allowed: bool,
    /// The answer's HTTP status.
    pub status: u16,
}

/// A line, as it is written.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    port: &'a str,
    principal: Option<&'a str>,
    from: Option<String>,
    action: &'a str,
    tables: Vec<String>,
    decision: &'a str,
    status: u16,
    requests: u64,
}

struct Noted {
    event: Event,
    at: SystemTime,
    gather: bool,
}

/// The audit log. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    to: Option<SyncSender<Box<Noted>>>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Noted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.event.fmt(f)
    }
}

#[derive(Debug, Default)]
struct Counts {
    lines: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Audit {
    /// Starts the log; without a file and without the service's own log there is none.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread started.
    pub fn start(settings: AuditSettings) -> std::io::Result<Self> {
        if settings.file.is_none() && !settings.log {
            return Ok(Self::default());
        }
        let counts = Arc::<Counts>::default();
        let file = settings.file.map(LogFile::open).transpose()?;
        let writer = Writer { file, log: settings.log, counts: Arc::clone(&counts) };
        let (to, from) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("isk-audit".to_owned())
            .spawn(move || writer.run(&from, settings.gather))?;
        Ok(Self { to: Some(to), counts })
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.to.is_some()
    }

    /// Writes an event down.
    pub fn note(&self, event: Event) {
        self.send(event, false);
    }

    /// Writes one of many alike down, with those that follow soon.
    pub fn gather(&self, event: Event) {
        self.send(event, true);
    }

    fn send(&self, event: Event, gather: bool) {
        let Some(to) = &self.to else { return };
        let noted = Box::new(Noted { event, at: SystemTime::now(), gather });
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = to.try_send(noted) {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counters in the Prometheus text format.
    pub fn metrics_text(&self) -> String {
        let mut text = String::new();
        for (name, help, count) in [
            ("lines", "Lines written to the audit log.", &self.counts.lines),
            (
                "dropped",
                "Events that the audit log has no line for: too many waited.",
                &self.counts.dropped,
            ),
            (
                "failed",
                "Lines that could not be written to the audit log's file.",
                &self.counts.failed,
            ),
        ] {
            let name = format!("isk_audit_{name}_total");
            let count = count.load(Ordering::Relaxed);
            text += &format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {count}\n");
        }
        text
    }
}

/// A file that lines are added to.
struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl LogFile {
    fn open(path: PathBuf) -> std::io::Result<Self> {
        let file = append(&path)?;
        Ok(Self { path, file, looked: Instant::now() })
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if self.looked.elapsed() >= Duration::from_secs(1) {
            self.looked = Instant::now();
            let open = self.file.metadata()?.ino();
            // Somebody may have moved it away, to begin another.
            if std::fs::metadata(&self.path).map_or(true, |named| named.ino() != open) {
                self.file = append(&self.path)?;
            }
        }
        self.file.write_all(lines)
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).append(true).mode(0o640).open(path)
}

struct Writer {
    file: Option<LogFile>,
    log: bool,
    counts: Arc<Counts>,
}

impl Writer {
    /// Writes until nobody can send any more.
    fn run(mut self, from: &Receiver<Box<Noted>>, gather: Duration) {
        let mut gathered: HashMap<Event, u64> = HashMap::new();
        let mut until = Instant::now() + gather;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match from.recv_timeout(left) {
                Ok(noted) => {
                    let Noted { event, at, gather } = *noted;
                    match gathered.get_mut(&event) {
                        Some(more) if gather => *more += 1,
                        _ => {
                            self.write(&event, at, 1);
                            if gather && gathered.len() < GATHERED {
                                gathered.insert(event, 0);
                            }
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.write_gathered(&mut gathered);
                    return;
                }
            }
            if Instant::now() >= until {
                self.write_gathered(&mut gathered);
                until = Instant::now() + gather;
            }
        }
    }

    fn write_gathered(&mut self, gathered: &mut HashMap<Event, u64>) {
        for (event, more) in gathered.drain().filter(|(_, more)| *more > 0) {
            self.write(&event, SystemTime::now(), more);
        }
    }

    fn write(&mut self, event: &Event, at: SystemTime, requests: u64) {
        let line = Line {
            at: DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Millis, true),
            port: event.port,
            principal: event.principal.as_deref(),
            from: event.from.map(|address| address.to_canonical().to_string()),
            action: event.action,
            tables: event.tables.iter().map(|t| format!("{}.{}", t.namespace, t.table)).collect(),
            decision: if event.allowed { "allowed" } else { "denied" },
            status: event.status,
            requests,
        };
        // Texts and numbers always have JSON.
        let Ok(text) = serde_json::to_string(&line) else { return };
        if self.log {
            tracing::info!(target: TARGET, "{text}");
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(format!("{text}\n").as_bytes())
        {
            if self.counts.failed.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
                tracing::error!(file = %file.path.display(), %error, "the audit log cannot be written");
            }
            return;
        }
        self.counts.lines.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &'static str, table: &str) -> Event {
        Event {
            port: "gateway",
            principal: Some("a \"b\"\n".to_owned()),
            from: Some([127, 0, 0, 1].into()),
            action,
            tables: vec![TableName::new("hotset", table)],
            allowed: true,
            status: 200,
        }
    }

    fn lines(path: &Path, count: usize) -> Vec<serde_json::Value> {
        for _ in 0..500 {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<_> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if lines.len() >= count {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{count} lines never came");
    }

    #[test]
    fn many_alike_are_two_lines_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let settings = AuditSettings {
            file: Some(path.clone()),
            log: false,
            gather: Duration::from_millis(200),
        };
        let audit = Audit::start(settings).unwrap();
        for _ in 0..100 {
            audit.gather(event("read", "t"));
        }
        audit.note(event("load", "t"));
        audit.note(event("load", "t"));
        audit.gather(event("read", "u"));
        let seen = lines(&path, 5);
        let sum = |action: &str, table: &str| -> u64 {
            let of = |line: &&serde_json::Value| {
                line["action"] == action && line["tables"][0] == format!("hotset.{table}").as_str()
            };
            seen.iter().filter(of).map(|line| line["requests"].as_u64().unwrap()).sum()
        };
        assert_eq!([sum("read", "t"), sum("load", "t"), sum("read", "u")], [100, 2, 1]);
        assert_eq!(seen[0]["principal"], "a \"b\"\n");
        assert_eq!(
            (&seen[0]["from"], &seen[0]["decision"]),
            (&"127.0.0.1".into(), &"allowed".into())
        );
        // What moves the file away gets no more lines.
        let moved = dir.path().join("audit.1");
        std::fs::rename(&path, &moved).unwrap();
        std::thread::sleep(Duration::from_millis(1100));
        audit.note(event("load", "v"));
        assert_eq!(lines(&path, 1)[0]["tables"][0], "hotset.v");
        assert_eq!(std::fs::read_to_string(&moved).unwrap().lines().count(), seen.len());
    }

    #[test]
    fn without_a_place_to_go_there_is_no_log() {
        let off = AuditSettings { file: None, log: false, gather: Duration::ZERO };
        let audit = Audit::start(off).unwrap();
        audit.note(event("load", "t"));
        assert!(!audit.is_on() && audit.metrics_text().contains("isk_audit_dropped_total 0"));
    }
}
