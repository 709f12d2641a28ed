//! How long and how much, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds of one port's connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Connections at a time; those beyond are told to come again.
    pub connections: usize,
    /// The bytes of a request's head.
    pub head_bytes: usize,
    /// How long a head may take from its first byte on, and a new connection until its first head is there.
    pub head: Duration,
    /// How long a connection may be without a request.
    pub idle: Duration,
    /// How long a request's body may give next to nothing.
    pub body_stall: Duration,
    /// How long a client may take next to nothing of an answer.
    pub reader_stall: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 4000,
            head_bytes: 64 << 10,
            head: Duration::from_secs(20),
            // Longer than clients keep idle connections, so that it is mostly them who close.
            idle: Duration::from_secs(75),
            body_stall: Duration::from_secs(30),
            reader_stall: Duration::from_secs(120),
        }
    }
}

/// What happened on one port.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections there are.
    pub(crate) open: AtomicU64,
    /// Connections beyond the bound.
    pub(crate) refused: AtomicU64,
    /// Connections that ended because their client was too slow.
    pub(crate) timed_out: AtomicU64,
    /// Heads that were refused before anybody read them.
    pub(crate) bad_heads: AtomicU64,
    /// TLS handshakes that failed.
    pub(crate) handshakes: AtomicU64,
}

impl Counters {
    /// The counters of several ports in the Prometheus text format.
    pub fn text(ports: &[(&str, &Self)]) -> String {
        type Of = fn(&Counters) -> &AtomicU64;
        let families: [(&str, &str, &str, Of); 5] = [
            ("isk_connections", "gauge", "Connections that are open.", |c| &c.open),
            (
                "isk_connections_refused_total",
                "counter",
                "Connections that were refused since there were limits.connections of them.",
                |c| &c.refused,
            ),
            (
                "isk_connections_timed_out_total",
                "counter",
                "Connections that were ended since their client was too slow.",
                |c| &c.timed_out,
            ),
            (
                "isk_bad_heads_total",
                "counter",
                "Requests whose head was too long or could be read in two ways.",
                |c| &c.bad_heads,
            ),
            ("isk_tls_handshakes_failed_total", "counter", "TLS handshakes that failed.", |c| {
                &c.handshakes
            }),
        ];
        let mut text = String::new();
        for (name, kind, help, of) in families {
            text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (port, counters) in ports {
                let value = of(counters).load(Ordering::Relaxed);
                text += &format!("{name}{{port=\"{port}\"}} {value}\n");
            }
        }
        text
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
