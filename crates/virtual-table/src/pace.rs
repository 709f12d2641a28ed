//! How much the prover may read: so many bytes a second, and so many a day.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What was not used is saved up for so long.
const SAVED: Duration = Duration::from_secs(1);

const DAY: u64 = 24 * 3600;

/// A rate and a budget, in bytes of records.
pub(crate) struct Pace {
    bytes_per_second: u64,
    bytes_per_day: Option<u64>,
    taken: Mutex<Taken>,
}

struct Taken {
    total: u64,
    /// When all that was taken is paid for.
    paid: Instant,
    /// The day since 1970, in UTC, and what was taken on it.
    day: u64,
    today: u64,
}

impl Pace {
    /// At most so many bytes a second and, if there is a bound, a day.
    pub(crate) fn new(bytes_per_second: u64, bytes_per_day: Option<u64>) -> Self {
        let taken = Taken { total: 0, paid: Instant::now(), day: today(), today: 0 };
        Self { bytes_per_second: bytes_per_second.max(1), bytes_per_day, taken: Mutex::new(taken) }
    }

    /// Takes bytes, and says how long to wait before they are used.
    pub(crate) fn take(&self, bytes: u64) -> Duration {
        let now = Instant::now();
        let mut taken = self.lock();
        taken.total = taken.total.saturating_add(bytes);
        if taken.day != today() {
            (taken.day, taken.today) = (today(), 0);
        }
        taken.today = taken.today.saturating_add(bytes);
        let from = now.checked_sub(SAVED).map_or(taken.paid, |saved| taken.paid.max(saved));
        let seconds = bytes as f64 / self.bytes_per_second as f64;
        let until = Duration::try_from_secs_f64(seconds).ok().and_then(|d| from.checked_add(d));
        taken.paid = until.unwrap_or(from + Duration::from_secs(DAY));
        taken.paid.saturating_duration_since(now)
    }

    /// Whether the day's budget is used up.
    pub(crate) fn is_spent(&self) -> bool {
        let taken = self.lock();
        let today_bytes = if taken.day == today() { taken.today } else { 0 };
        self.bytes_per_day.is_some_and(|most| today_bytes >= most)
    }

    /// All bytes taken so far.
    pub(crate) fn total(&self) -> u64 {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_in_seconds() {
        let pace = Pace::new(1000, None);
        let first = pace.take(3000);
        assert!(
            first > Duration::from_millis(1900) && first <= Duration::from_secs(3),
            "{first:?}"
        );
        let second = pace.take(1000);
        assert!(second > first + Duration::from_millis(900), "{first:?} {second:?}");
        assert_eq!(pace.total(), 4000);
        assert!(!pace.is_spent());
    }

    #[test]
    fn a_day_has_a_budget() {
        let pace = Pace::new(u64::MAX, Some(100));
        assert_eq!(pace.take(99), Duration::ZERO);
        assert!(!pace.is_spent());
        pace.take(1);
        assert!(pace.is_spent());
    }

    #[test]
    fn no_rate_is_too_slow_to_be_counted() {
        let pace = Pace::new(0, None);
        assert!(pace.take(u64::MAX) > Duration::from_secs(3600));
        assert!(pace.take(u64::MAX) > Duration::from_secs(3600));
    }
}
