//! How late the records of a partition can be, from lookups by time. Pure.
//!
//! The broker answers a lookup with the first offset whose timestamp is at or after a time. All
//! records before it are older, in whatever order producers' clocks wrote them. That stays true while
//! records arrive (behind the answer), expire or are compacted; it ends where a log is cut back and
//! written anew, which raises the partition's leader epoch. No answer is no bound: a broker looks into
//! one segment only.

use isk_model::{
    ChunkExponent, KafkaPartition, LeaderEpoch, Offset, OffsetRange, PartitionOffsets,
};
use serde::{Deserialize, Serialize};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How far back a partition is looked up that was never looked up before: milliseconds. A plan waits for
/// these, each a request to every leader; what lies between is told apart in the background.
const BACK: [i64; 6] = [15 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY];

/// A record dated further ahead than this is reported. Clocks differ.
const AHEAD: i64 = MINUTE;

/// The least time between two looks at one partition.
const PAUSE: i64 = MINUTE;

/// The finest that times are told apart, as a part of their age: a chunk of 32 hours ago is known to
/// the hour.
const FINENESS: i64 = 32;

/// What lookups by time have shown of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionTimes {
    /// The leader epoch at the time of the lookups.
    epoch: i32,
    /// `(time, offset)`: all records before the offset are older than the time. Both grow.
    firsts: Vec<(i64, i64)>,
    /// When the partition was last asked, in milliseconds.
    asked_ms: i64,
    /// `(offset, time)` of a record that was dated ahead when it was seen. No lookup before that time
    /// bounds what lies behind it.
    ahead: Option<(i64, i64)>,
}

/// Why a partition is to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// It never was, or its log was written anew.
    Never,
    /// There are full chunks, or an end at rest, that nothing is known of.
    More,
}

impl PartitionTimes {
    pub(crate) fn new(epoch: LeaderEpoch) -> Self {
        Self { epoch: epoch.0, firsts: Vec::new(), asked_ms: i64::MIN, ahead: None }
    }

    /// Whether what is known is of this log: not of one that was cut back and written anew.
    pub(crate) fn is_of(&self, now: &PartitionOffsets) -> bool {
        let known_end = self.firsts.last().map_or(0, |&(_, offset)| offset);
        self.epoch == now.leader_epoch.0 && known_end <= now.last_stable.0
    }

    /// Milliseconds since the epoch that no record before `end` is above, if known.
    pub(crate) fn upper_bound(&self, end: Offset) -> Option<i64> {
        let at = self.firsts.partition_point(|&(_, offset)| offset < end.0);
        self.firsts.get(at).map(|&(time, _)| time - 1)
    }

    /// The lookups that the bounds within a range are made of.
    pub(crate) fn of(&self, range: OffsetRange) -> impl Iterator<Item = (i64, Offset)> {
        let first = self.firsts.partition_point(|&(_, offset)| offset <= range.start().0);
        let last = self.firsts.partition_point(|&(_, offset)| offset < range.end().0);
        let of = self.firsts.get(first..=last).or_else(|| self.firsts.get(first..));
        of.into_iter().flatten().map(|&(time, offset)| (time, Offset(offset)))
    }

    /// Takes an answer in: all records before `first` are older than `time`.
    pub(crate) fn learn(&mut self, time: i64, first: Offset) {
        let says_no_less = |&(t, o): &(i64, i64)| t <= time && o >= first.0;
        if self.firsts.iter().any(says_no_less) {
            return;
        }
        self.firsts.retain(|&(t, o)| t < time || o > first.0);
        let at = self.firsts.partition_point(|&(t, _)| t < time);
        self.firsts.insert(at, (time, first.0));
    }

    /// Takes the partition's latest record in, as it was when all offsets before `end` were there.
    pub(crate) fn learn_latest(&mut self, latest: (Offset, i64), end: Offset, now_ms: i64) {
        let (offset, time) = latest;
        if time > now_ms.saturating_add(AHEAD) {
            self.ahead = Some((offset.0, time));
        } else {
            self.ahead = None;
            self.learn(time + 1, end);
        }
    }

    /// Notes when the partition was asked.
    pub(crate) fn asked(&mut self, now_ms: i64) {
        self.asked_ms = now_ms;
    }

    /// The offset of a record that is dated ahead of now.
    pub(crate) fn dated_ahead(&self, now_ms: i64) -> Option<Offset> {
        self.ahead.filter(|&(_, time)| time > now_ms.saturating_add(AHEAD)).map(|(o, _)| Offset(o))
    }

    /// Whether another look would tell something new. `at_rest` says that the end has not moved for
    /// some time, so that what lies before it is worth a bound.
    pub(crate) fn due(
        &self,
        now: &PartitionOffsets,
        k: ChunkExponent,
        at_rest: bool,
        now_ms: i64,
    ) -> Option<Due> {
        if self.asked_ms == i64::MIN {
            return Some(Due::Never);
        }
        let end = if at_rest { now.last_stable } else { k.align(now.last_stable) };
        // What lies behind a record dated ahead has no bound before that time has come.
        let wanted = match self.dated_ahead(now_ms) {
            Some(ahead) => end.min(k.align(ahead)),
            None => end,
        };
        let due = self.known_to(now) < wanted && now_ms.saturating_sub(self.asked_ms) >= PAUSE;
        due.then_some(Due::More)
    }

    /// Up to where there are bounds.
    pub(crate) fn known_to(&self, now: &PartitionOffsets) -> Offset {
        self.firsts.last().map_or(now.log_start, |&(_, offset)| Offset(offset))
    }

    /// The round times to look up now, the newest first: all of them the first time, later those since
    /// the newest that is known.
    pub(crate) fn times_to_ask(&self, now_ms: i64) -> impl Iterator<Item = i64> {
        let newest = self.firsts.last().map_or(0, |&(time, _)| time);
        // A minute more: a filter's own now is older than this look, and must not lie before the time.
        let back = move |back: i64| round(now_ms - back - MINUTE);
        BACK.into_iter().map(back).filter(move |&time| time > newest)
    }
}

/// Down to the whole minute, so that replicas and restarts ask for the same times.
fn round(ms: i64) -> i64 {
    ms.div_euclid(MINUTE) * MINUTE
}

/// Telling chunks apart that share a bound: bisection of the time between two lookups.
#[derive(Debug)]
pub(crate) struct Refining {
    pub(crate) partition: KafkaPartition,
    /// `(time, first offset at or after it)`, in the order of times.
    answers: Vec<(i64, i64)>,
    /// The ends of the full chunks to tell apart, in order.
    ends: Vec<i64>,
}

impl Refining {
    /// The chunks of a partition whose ends lie behind `from`.
    pub(crate) fn new(
        partition: KafkaPartition,
        times: &PartitionTimes,
        now: &PartitionOffsets,
        from: Offset,
        k: ChunkExponent,
    ) -> Self {
        let start = now.log_start.0.max(from.0);
        let before = times.firsts.iter().rev().find(|&&(_, o)| o <= start).map_or(0, |&(t, _)| t);
        let mut answers = vec![(before, start)];
        answers.extend(times.firsts.iter().filter(|&&(_, o)| o > start));
        let first = k.align(Offset(start)).0.saturating_add(k.width());
        let last = k.align(now.last_stable).0;
        let ends = (0..).map_while(|n| {
            let end = first.checked_add(k.width().checked_mul(n)?)?;
            (end <= last).then_some(end)
        });
        Self { partition, answers, ends: ends.collect() }
    }

    /// The time to look up next: in the middle of the stretch that most chunks share. `None` when all
    /// are told apart as finely as is worth it.
    pub(crate) fn next(&self, now_ms: i64) -> Option<i64> {
        let stretches = self.answers.windows(2).filter_map(|pair| {
            let [(before, low), (after, high)] = pair else { return None };
            let within = |offset: i64| self.ends.partition_point(|&end| end <= offset);
            let chunks = within(*high) - within(*low);
            let fine = MINUTE.max((now_ms - after) / FINENESS);
            let middle = round(before + (after - before) / 2);
            let splits = chunks > 0 && after - before > fine && middle > *before && middle < *after;
            splits.then_some((chunks, after - before, middle))
        });
        stretches.max_by_key(|&(chunks, wide, _)| (chunks, wide)).map(|(_, _, middle)| middle)
    }

    /// Takes an answer in. No answer says as little as the next later one.
    pub(crate) fn learn(&mut self, time: i64, first: Option<Offset>) {
        let at = self.answers.partition_point(|&(t, _)| t < time);
        let later = self.answers.get(at).map_or(i64::MAX, |&(_, offset)| offset);
        let earlier = at.checked_sub(1).and_then(|at| self.answers.get(at)).map_or(0, |&(_, o)| o);
        let first = first.map_or(later, |first| first.0.clamp(earlier, later));
        self.answers.insert(at, (time, first));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn offsets(start: i64, end: i64) -> PartitionOffsets {
        PartitionOffsets {
            log_start: Offset(start),
            last_stable: Offset(end),
            leader_epoch: LeaderEpoch(3),
        }
    }

    fn k(k: u8) -> ChunkExponent {
        ChunkExponent::new(k).unwrap()
    }

    /// What a broker answers: the first offset at or after a time.
    fn lookup(log: &[i64], start: usize, time: i64) -> Option<Offset> {
        let found = log.iter().enumerate().skip(start).find(|&(_, &t)| t >= time);
        found.map(|(offset, _)| Offset(offset as i64))
    }

    proptest! {
        /// Whatever clocks wrote, whatever expired between two looks: no record is above its bound.
        #[test]
        fn no_record_is_above_its_bound(
            log in prop::collection::vec(0i64..100, 1..60),
            looks in prop::collection::vec((0i64..110, 0usize..40), 0..20),
            latest in any::<bool>(),
        ) {
            let mut times = PartitionTimes::new(LeaderEpoch(3));
            for (time, start) in looks {
                if let Some(first) = lookup(&log, start, time) {
                    times.learn(time, first);
                }
            }
            if latest {
                let (at, time) = log.iter().enumerate().max_by_key(|&(_, t)| t).unwrap();
                times.learn_latest((Offset(at as i64), *time), Offset(log.len() as i64), NOW);
            }
            let mut tighter = None;
            for end in (1..=log.len()).rev() {
                let bound = times.upper_bound(Offset(end as i64));
                // Looks after records had expired say nothing of those that were gone.
                let kept = log.iter().take(end).skip(40);
                prop_assert!(bound.is_none_or(|bound| kept.max().is_none_or(|max| bound >= *max)));
                prop_assert!(tighter.is_none() || bound.is_some() && bound <= tighter);
                tighter = bound.or(tighter);
            }
        }
    }

    #[test]
    fn the_smallest_bound_that_holds_for_the_whole_range() {
        let mut times = PartitionTimes::new(LeaderEpoch(3));
        for (time, first) in [(300, 30), (100, 10), (200, 10), (250, 20)] {
            times.learn(time, Offset(first));
        }
        let bound = |end| times.upper_bound(Offset(end));
        assert_eq!([bound(5), bound(10), bound(11), bound(20)], [99, 99, 249, 249].map(Some));
        assert_eq!([bound(30), bound(31)], [Some(299), None]);
        assert_eq!(times.firsts, [(100, 10), (250, 20), (300, 30)]);
        // What a range's bounds are made of stays the same when more is known of what lies behind it.
        let of = |start, end| {
            let range = OffsetRange::new(Offset(start), Offset(end)).unwrap();
            times.of(range).map(|(time, _)| time).collect::<Vec<_>>()
        };
        assert_eq!(of(0, 10), [100]);
        assert_eq!(of(0, 11), [100, 250]);
        assert_eq!(of(10, 20), [250]);
        assert_eq!(of(25, 40), [300]);
    }

    #[test]
    fn a_log_of_another_epoch_or_a_shorter_one_is_another_log() {
        let mut times = PartitionTimes::new(LeaderEpoch(3));
        times.learn(100, Offset(50));
        assert!(times.is_of(&offsets(0, 50)));
        assert!(!times.is_of(&offsets(0, 49)));
        for epoch in [2, 4] {
            let other = PartitionOffsets { leader_epoch: LeaderEpoch(epoch), ..offsets(0, 50) };
            assert!(!times.is_of(&other), "{epoch}");
        }
    }

    #[test]
    fn nothing_is_asked_again_that_is_known() {
        let mut times = PartitionTimes::new(LeaderEpoch(3));
        let now = offsets(0, 100);
        assert_eq!(times.due(&now, k(4), false, NOW), Some(Due::Never));
        times.asked(NOW);
        times.learn_latest((Offset(99), NOW - 10), Offset(100), NOW);
        let later = NOW + PAUSE;
        assert_eq!(times.due(&now, k(4), true, later), None);
        // The open chunk grows: nothing to know of it before it rests.
        assert_eq!(times.due(&offsets(0, 105), k(4), false, later), None);
        assert_eq!(times.due(&offsets(0, 105), k(4), true, later), Some(Due::More));
        // One more is full.
        assert_eq!(times.due(&offsets(0, 112), k(4), false, later), Some(Due::More));
        assert_eq!(times.due(&offsets(0, 112), k(4), false, later - 1), None);
        let after_a_day: Vec<_> = times.times_to_ask(NOW + DAY + HOUR).collect();
        assert_eq!(after_a_day.len(), 4);
        assert!(after_a_day.iter().all(|&time| time > NOW - 10));
    }

    #[test]
    fn a_record_dated_ahead_spoils_what_lies_behind_it_until_its_time() {
        let mut times = PartitionTimes::new(LeaderEpoch(3));
        times.asked(NOW);
        let far = NOW + 10 * DAY;
        times.learn(NOW - HOUR, Offset(40));
        times.learn_latest((Offset(40), far), Offset(100), NOW);
        assert_eq!(times.upper_bound(Offset(32)), Some(NOW - HOUR - 1));
        assert_eq!(times.upper_bound(Offset(48)), None);
        assert_eq!(times.dated_ahead(NOW), Some(Offset(40)));
        assert_eq!(times.due(&offsets(0, 200), k(4), true, NOW + DAY), None);
        assert_eq!(times.dated_ahead(far), None);
        assert_eq!(times.due(&offsets(0, 200), k(4), true, far), Some(Due::More));
    }

    #[test]
    fn round_times_back_from_now() {
        let times = PartitionTimes::new(LeaderEpoch(3));
        let asked: Vec<_> = times.times_to_ask(NOW).collect();
        assert_eq!(asked.len(), BACK.len());
        assert!(asked.iter().all(|time| time % MINUTE == 0));
        // Who asked for the last hour up to a minute ago finds a time that is no later.
        let hour = asked.iter().find(|&&time| time <= NOW - MINUTE - HOUR).unwrap();
        assert!(NOW - HOUR - hour < 2 * MINUTE);
    }

    #[test]
    fn bisection_tells_chunks_apart() {
        // A record a minute for 4,096 minutes, ending two days ago.
        let log: Vec<i64> = (0..4096).map(|n| NOW - 2 * DAY - (4096 - n) * MINUTE).collect();
        let now = offsets(0, 4096);
        let mut times = PartitionTimes::new(LeaderEpoch(3));
        times.learn_latest((Offset(4095), log[4095]), Offset(4096), NOW);
        let mut refining = Refining::new(KafkaPartition(0), &times, &now, Offset(0), k(9));
        let mut asked = 0;
        while let Some(time) = refining.next(NOW) {
            let first = lookup(&log, 0, time);
            refining.learn(time, first);
            if let Some(first) = first {
                times.learn(time, first);
            }
            asked += 1;
        }
        assert!(asked < 64, "{asked}");
        for end in (512..=4096).step_by(512) {
            let (true_max, bound) = (log[end - 1], times.upper_bound(Offset(end as i64)).unwrap());
            let fine = (NOW - true_max) / FINENESS + MINUTE;
            assert!(bound >= true_max && bound - true_max <= 2 * fine, "{end}: {bound} {true_max}");
        }
    }
}
