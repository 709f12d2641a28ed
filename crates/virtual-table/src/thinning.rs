//! Which of a topic's snapshots are kept. Pure.
//!
//! The newest ones are a **chain**: each names the one before it as its parent, so a reader goes on from
//! any of them. Older ones are kept for time travel alone: fewer the older they are, and linked to nothing,
//! so a reader who rested for too long is told so and never reads with a gap.

use std::time::Duration;

/// Longest chain. It is reached only where a topic is loaded more often than once a second all the time.
const LONGEST_CHAIN: usize = 1_000;

/// How long the chain's first snapshot stays behind once retention has removed records it names, for a
/// reader who has just read it.
const GRACE_MS: i64 = 60_000;

/// How far time travel reaches back: one snapshot a minute for the first of these, one an hour for the
/// second.
const STEPS_MS: [(i64, i64); 2] = [(3_600_000, 60_000), (24 * 3_600_000, 3_600_000)];

/// The longest that a snapshot is kept, beside those that are current or of the chain.
pub(crate) const SPAN: Duration = Duration::from_secs(25 * 3600);

/// What counts of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// When it was made: milliseconds since the epoch.
    pub made_ms: i64,
    /// Whether it is one of the chain.
    pub chained: bool,
}

/// Where a chain is to begin anew: the place of the snapshot in whose stead there is to be one that holds
/// all its records as new. `all` are oldest first, and the chain is at their end. `trimmed` tells whether
/// retention has removed records that the chain's first snapshot names.
pub(crate) fn new_beginning(
    all: &[Moment],
    now_ms: i64,
    keep: Duration,
    trimmed: bool,
) -> Option<usize> {
    let first = all.iter().position(|one| one.chained)?;
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    // A reader may stand at a snapshot for as long as another has followed it.
    let followed_ms = |place: usize| Some(now_ms.saturating_sub(all.get(place + 1)?.made_ms));
    let followed_for = |place: usize, ms: i64| followed_ms(place).is_some_and(|age| age >= ms);
    let last = all.len().checked_sub(2)?;
    let length = all.len() - first;
    if length > LONGEST_CHAIN {
        return Some(first + length / 2);
    }
    if followed_for(first + 1, keep_ms) && followed_for(first, keep_ms.saturating_mul(2)) {
        return (first..=last).rev().find(|&place| followed_for(place, keep_ms));
    }
    (trimmed && followed_for(first, keep_ms.min(GRACE_MS))).then_some(first)
}

/// Whether each of these is to be kept.
pub(crate) fn kept(all: &[Moment], now_ms: i64) -> Vec<bool> {
    let mut taken = Vec::new();
    let mut keep = |one: &Moment| {
        if one.chained {
            return true;
        }
        let age = now_ms.saturating_sub(one.made_ms);
        let Some(&(_, step)) = STEPS_MS.iter().find(|&&(reach, _)| age < reach) else {
            return false;
        };
        let slot = (step, one.made_ms.div_euclid(step));
        let free = !taken.contains(&slot);
        if free {
            taken.push(slot);
        }
        free
    };
    // The newest of each minute or hour.
    let mut kept: Vec<bool> = all.iter().rev().map(&mut keep).collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(600);

    fn moments(made_s: &[i64], chained_from: usize) -> Vec<Moment> {
        let moment =
            |(n, s): (usize, &i64)| Moment { made_ms: s * 1000, chained: n >= chained_from };
        made_s.iter().enumerate().map(moment).collect()
    }

    fn beginning(made_s: &[i64], now_s: i64, trimmed: bool) -> Option<usize> {
        new_beginning(&moments(made_s, 0), now_s * 1000, KEEP, trimmed)
    }

    #[test]
    fn a_chain_begins_anew_at_the_last_that_was_followed_long_ago() {
        assert_eq!(beginning(&[], 9999, true), None);
        assert_eq!(beginning(&[0], 9999, true), None, "readers may stand at what is current");
        assert_eq!(beginning(&[0, 9000], 9599, false), None, "followed too short a time ago");
        assert_eq!(beginning(&[0, 10, 20, 700], 1209, false), None);
        assert_eq!(beginning(&[0, 10, 20, 700], 1211, false), Some(1));
        assert_eq!(beginning(&[0, 10, 20, 700], 1300, false), Some(2));
        let long: Vec<i64> = (0..1100).collect();
        assert_eq!(beginning(&long, 1100, false), Some(550));
    }

    #[test]
    fn a_beginning_whose_records_are_gone_is_renewed_after_a_while() {
        assert_eq!(beginning(&[0, 100], 150, true), None);
        assert_eq!(beginning(&[0, 100], 160, true), Some(0));
        assert_eq!(beginning(&[0, 100], 160, false), None);
    }

    #[test]
    fn older_snapshots_are_fewer() {
        let now = 200_000;
        let made: Vec<i64> = (0..now).step_by(7).collect();
        let all = moments(&made, made.len() - 10);
        let kept = kept(&all, now * 1000);
        let ages: Vec<i64> =
            made.iter().zip(&kept).filter(|(_, keep)| **keep).map(|(s, _)| now - s).collect();
        let within = |from, to| ages.iter().filter(|&&age| from <= age && age < to).count();
        assert!((59..=71).contains(&within(0, 3600)), "{ages:?}");
        assert!((22..=24).contains(&within(3600, 24 * 3600)), "{ages:?}");
        assert_eq!(within(24 * 3600, now + 1), 0);
        assert!(kept[kept.len() - 10..].iter().all(|keep| *keep));
    }
}
