//! How often new ticks are made.

use std::time::Instant;

/// New ticks at once, and how many more by the second. Beyond, a load is answered with the last tick.
const BURST: f64 = 60.0;
const TICKS_PER_SECOND: f64 = 1.0;

/// How many ticks may be made now.
pub(super) struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self { tokens: BURST, filled: Instant::now() }
    }

    pub(super) fn take(&mut self) -> bool {
        let now = Instant::now();
        let more = now.duration_since(self.filled).as_secs_f64() * TICKS_PER_SECOND;
        (self.tokens, self.filled) = ((self.tokens + more).min(BURST), now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}
