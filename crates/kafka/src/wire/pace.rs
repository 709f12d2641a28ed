//! How a fetch over the wire gets on: what it asks for, how long it waits, and why it stops.

use std::time::{Duration, Instant};

use crate::error::FetchError;
use crate::fetch::Stop;

/// An answer ends within a batch, which is sent again with the next: not asked for in too small bits.
const LEAST_REQUEST: usize = 64 << 10;
/// Pauses between attempts while brokers restart and leaders move.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How a fetch over the wire ended, other than well.
pub(crate) enum Ended {
    Stopped(Stop),
    /// A batch of an old format, or TLS that is not taken here: librdkafka can go on from where this fetch is.
    ForLibrdkafka,
}

impl From<Stop> for Ended {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

impl From<FetchError> for Ended {
    fn from(error: FetchError) -> Self {
        Self::Stopped(Stop::Failed(error))
    }
}

/// Why an attempt did not get on.
pub(super) enum Trouble {
    Ended(Ended),
    /// Passes by itself.
    Passing(String),
}

impl<E: Into<Ended>> From<E> for Trouble {
    fn from(ended: E) -> Self {
        Self::Ended(ended.into())
    }
}

/// How far reading got, and since when it does not get on.
pub(super) struct Patience {
    pub(super) progress: Instant,
    pub(super) answered: Option<Instant>,
    pub(super) last_error: Option<String>,
    pub(super) pause: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        let progress = Instant::now();
        Self { progress, answered: None, last_error: None, pause: FIRST_PAUSE }
    }

    pub(super) fn got_on(&mut self) {
        self.progress = Instant::now();
        self.pause = FIRST_PAUSE;
    }

    pub(super) fn next_pause(&mut self) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

/// How many bytes to ask for, learnt from what came.
pub(super) struct Appetite {
    most: usize,
    first: usize,
    bytes: u64,
    offsets: u64,
}

impl Appetite {
    /// Asks for `first` bytes to begin with, and never for more than `most`.
    pub(super) fn new(first: usize, most: usize) -> Self {
        Self { most, first, bytes: 0, offsets: 0 }
    }

    /// So many bytes held so many offsets.
    pub(super) fn learn(&mut self, bytes: u64, offsets: u64) {
        self.bytes += bytes;
        self.offsets += offsets;
    }

    /// For so many offsets that are still to come.
    pub(super) fn request(&self, left: u64) -> usize {
        if self.offsets == 0 {
            return self.first;
        }
        // A sixteenth more, because records are not all alike.
        let expected = u128::from(left) * u128::from(self.bytes) / u128::from(self.offsets);
        let expected = usize::try_from(expected + expected / 16).unwrap_or(usize::MAX);
        expected.saturating_add(LEAST_REQUEST / 4).clamp(LEAST_REQUEST.min(self.most), self.most)
    }
}
