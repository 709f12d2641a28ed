//! Who scans a Kafka partition, and may therefore be expected to ask for its next chunk. Pure, but for a lock.
//!
//! A reader that scans **comes back**: it has read a chunk and only then asks for one further on. The first files of a query
//! say nothing, however many it opens at once: one that stops early (`LIMIT`) opens as many. So what follows is worth
//! encoding ahead when a reader that has come back reads where another chunk ended that was read, and from then on
//! whenever the next chunk is asked for. At most one chunk of a partition is ahead of its readers: that is what a scan that
//! ends there costs.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isk_model::{
    ContentDigest, DataFileKey, KafkaPartition, Offset, OffsetRange, RenderDigest, SchemaVersion,
    TopicId, TopicName,
};

/// What was read longer ago belongs to another query.
const RECENT: Duration = Duration::from_secs(30);

/// Scans remembered, and chunks of each.
const MOST: usize = 1_000;
const CHUNKS: usize = 32;

/// What the files of one Kafka partition in one table have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Family {
    topic: TopicName,
    columns: Option<ContentDigest>,
    topic_id: TopicId,
    partition: KafkaPartition,
    schema: SchemaVersion,
    render: RenderDigest,
    layout: Option<ContentDigest>,
}

impl Family {
    fn of(key: &DataFileKey) -> Self {
        Self {
            topic: key.topic.clone(),
            columns: key.columns,
            topic_id: key.topic_id,
            partition: key.partition,
            schema: key.schema,
            render: key.render,
            layout: key.layout,
        }
    }
}

/// A chunk that somebody asked for.
#[derive(Debug)]
struct Chunk {
    range: OffsetRange,
    /// Whether it was first asked for by a reader that had read another.
    came_back: bool,
    /// Whether pages of it were asked for, and how many answers with such are under way.
    read: bool,
    reading: usize,
    /// Whether whoever read it had read the chunk before it, too, and came back.
    scanned: bool,
    /// When it was last asked for, or read.
    at: Instant,
}

#[derive(Debug, Default)]
struct Scan {
    /// In the order of asking.
    chunks: VecDeque<Chunk>,
    /// Where the chunk begins that is ahead of its readers, and since when.
    ahead: Option<(Offset, Instant)>,
}

impl Scan {
    fn chunk(&mut self, range: OffsetRange) -> Option<&mut Chunk> {
        self.chunks.iter_mut().find(|chunk| chunk.range == range)
    }

    /// The chunk that ends where this one begins.
    fn before(&self, range: OffsetRange) -> Option<&Chunk> {
        self.chunks.iter().find(|chunk| chunk.range.end() == range.start())
    }

    /// Whether what is behind a chunk is to be encoded ahead, if it is `worth_it`: nothing else may be.
    fn look_ahead(&mut self, range: OffsetRange, worth_it: bool, now: Instant) -> bool {
        let go = worth_it && self.ahead.is_none();
        if go {
            self.ahead = Some((range.end(), now));
        }
        go
    }

    /// Forgets what was read too long ago.
    fn forget(&mut self, now: Instant) {
        let recent = |at: Instant| now.saturating_duration_since(at) < RECENT;
        self.chunks.retain(|chunk| chunk.reading > 0 || recent(chunk.at));
        self.ahead = self.ahead.filter(|&(_, since)| recent(since));
    }
}

/// All scans of late.
#[derive(Default)]
pub(crate) struct Scans(Mutex<HashMap<Family, Scan>>);

impl Scans {
    /// A reader asks for a file, be it for its footer alone. Says whether the file behind it is worth encoding ahead; who is
    /// told so does it, or says [`Scans::not_ahead`].
    pub(crate) fn asked(&self, key: &DataFileKey, now: Instant) -> bool {
        let mut scans = self.lock();
        let family = Family::of(key);
        if !scans.contains_key(&family) && scans.len() >= MOST {
            scans.retain(|_, scan| {
                scan.forget(now);
                !scan.chunks.is_empty()
            });
            if scans.len() >= MOST {
                return false;
            }
        }
        let scan = scans.entry(family).or_default();
        scan.forget(now);
        let start = key.range.start();
        scan.ahead = scan.ahead.filter(|&(ahead, _)| ahead != start);
        if let Some(chunk) = scan.chunk(key.range) {
            chunk.at = now;
            return false;
        }
        let was_read = |c: &Chunk| c.read && c.reading == 0 && c.range.end() <= start;
        let came_back = scan.chunks.iter().any(was_read);
        if scan.chunks.len() == CHUNKS {
            scan.chunks.pop_front();
        }
        let goes_on = scan.before(key.range).is_some_and(|before| before.scanned);
        let (read, reading, scanned) = (false, 0, false);
        scan.chunks.push_back(Chunk {
            range: key.range,
            came_back,
            read,
            reading,
            scanned,
            at: now,
        });
        scan.look_ahead(key.range, came_back && goes_on, now)
    }

    /// A reader is about to get pages of a file, until what is returned is dropped. Also says whether the file behind it is
    /// worth encoding ahead, as [`Scans::asked`].
    pub(crate) fn reads(self: &Arc<Self>, key: &DataFileKey, now: Instant) -> (Reading, bool) {
        let is_worth_it = self.begin(key, now).unwrap_or(false);
        (Reading { scans: Arc::clone(self), key: key.clone() }, is_worth_it)
    }

    fn begin(&self, key: &DataFileKey, now: Instant) -> Option<bool> {
        let mut scans = self.lock();
        let scan = scans.get_mut(&Family::of(key))?;
        scan.forget(now);
        let goes_on = scan.before(key.range).is_some_and(|before| before.read);
        let chunk = scan.chunk(key.range)?;
        chunk.reading += 1;
        chunk.at = now;
        let first = !std::mem::replace(&mut chunk.read, true);
        if first {
            chunk.scanned = chunk.came_back && goes_on;
        }
        let worth_it = first && chunk.scanned;
        Some(scan.look_ahead(key.range, worth_it, now))
    }

    fn end(&self, key: &DataFileKey, now: Instant) {
        if let Some(chunk) =
            self.lock().get_mut(&Family::of(key)).and_then(|scan| scan.chunk(key.range))
        {
            chunk.reading = chunk.reading.saturating_sub(1);
            chunk.at = chunk.at.max(now);
        }
    }

    /// The file behind this one is not encoded ahead after all.
    pub(crate) fn not_ahead(&self, key: &DataFileKey) {
        if let Some(scan) = self.lock().get_mut(&Family::of(key)) {
            scan.ahead = scan.ahead.filter(|&(ahead, _)| ahead != key.range.end());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Family, Scan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that gets pages of a file.
pub(crate) struct Reading {
    scans: Arc<Scans>,
    key: DataFileKey,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.scans.end(&self.key, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::key;

    const WIDTH: i64 = 16;

    fn chunk(n: i64) -> DataFileKey {
        let range = OffsetRange::new(Offset(n * WIDTH), Offset((n + 1) * WIDTH)).unwrap();
        DataFileKey { range, ..key("t") }
    }

    /// Asks for a chunk's footer and then reads it; whether what is behind is to be encoded ahead.
    fn read_at(scans: &Arc<Scans>, n: i64, now: Instant) -> bool {
        let [asked, read] = [scans.asked(&chunk(n), now), scans.reads(&chunk(n), now).1];
        assert!(!(asked && read), "once for each chunk");
        asked || read
    }

    fn read(scans: &Arc<Scans>, n: i64) -> bool {
        read_at(scans, n, Instant::now())
    }

    #[test]
    fn who_reads_chunk_after_chunk_has_one_ahead() {
        let scans = Arc::default();
        let ahead: Vec<bool> = (0..4).map(|n| read(&scans, n)).collect();
        assert_eq!(ahead, [false, true, true, true]);
        assert!(!read(&scans, 3), "once for each chunk");
        // That it scans is known by now: the reader waits for chunk 4, and chunk 5 is encoded beside that.
        assert!(scans.asked(&chunk(4), Instant::now()));
        // It came to nothing, and there is a second chance.
        scans.not_ahead(&chunk(4));
        assert!(scans.reads(&chunk(4), Instant::now()).1);
    }

    #[test]
    fn who_opens_several_and_stops_has_none() {
        let scans: Arc<Scans> = Arc::default();
        let now = Instant::now();
        assert!((0..4).all(|n| !scans.asked(&chunk(n), now)));
        assert!((0..4).all(|n| !scans.reads(&chunk(n), now).1));
    }

    #[test]
    fn who_reads_two_at_a_time_has_one_ahead_when_coming_back() {
        let scans: Arc<Scans> = Arc::default();
        let now = Instant::now();
        assert!(!scans.asked(&chunk(0), now) && !scans.asked(&chunk(1), now));
        let first = scans.reads(&chunk(0), now);
        let second = scans.reads(&chunk(1), now);
        assert!(!first.1 && !second.1);
        drop(first);
        assert!(read(&scans, 2));
        // The other reader asks for what is ahead.
        assert!(read(&scans, 3));
        drop(second);
    }

    #[test]
    fn footers_tell_nothing() {
        let scans: Arc<Scans> = Arc::default();
        assert!((0..9).all(|n| !scans.asked(&chunk(n), Instant::now())));
        assert!(!scans.reads(&chunk(8), Instant::now()).1);
    }

    #[test]
    fn gaps_tell_nothing_nor_do_other_partitions_and_tables() {
        let scans: Arc<Scans> = Arc::default();
        assert!((0..9).all(|n| !read(&scans, 2 * n)));
        let next = chunk(17);
        let others = [
            DataFileKey { partition: KafkaPartition(1), ..next.clone() },
            DataFileKey { columns: Some(ContentDigest(7)), ..next.clone() },
            DataFileKey { render: RenderDigest(7), ..next.clone() },
            DataFileKey { layout: Some(ContentDigest(7)), ..next },
        ];
        for other in others {
            assert!(!scans.asked(&other, Instant::now()), "{other}");
            assert!(!scans.reads(&other, Instant::now()).1, "{other}");
        }
        assert!(read(&scans, 17));
    }

    #[test]
    fn one_chunk_is_ahead_at_a_time() {
        let scans: Arc<Scans> = Arc::default();
        assert!(!read(&scans, 0) && read(&scans, 1));
        // Somebody else goes on elsewhere; what is behind chunk 1 is not read.
        assert!(!read(&scans, 5) && !read(&scans, 6));
        scans.not_ahead(&chunk(1));
        assert!(read(&scans, 7));
        scans.not_ahead(&chunk(6));
        assert!(!read(&scans, 9) && !read(&scans, 10), "what is behind chunk 7 is ahead");
    }

    #[test]
    fn what_was_read_long_ago_is_another_query() {
        let scans: Arc<Scans> = Arc::default();
        let begun = Instant::now();
        assert!(!read_at(&scans, 0, begun));
        assert!(!read_at(&scans, 1, begun + 2 * RECENT));
        assert!(read_at(&scans, 2, begun + 2 * RECENT));
        // What was ahead and never read does not hold up later scans.
        assert!(!read_at(&scans, 10, begun + 4 * RECENT));
        assert!(read_at(&scans, 11, begun + 4 * RECENT));
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let scans: Arc<Scans> = Arc::default();
        let begun = Instant::now();
        let of = |partition: usize, n| {
            let partition = KafkaPartition(i32::try_from(partition).unwrap());
            DataFileKey { partition, ..chunk(n) }
        };
        assert!((0..=MOST).all(|partition| !scans.asked(&of(partition, 0), begun)));
        assert_eq!(scans.lock().len(), MOST);
        assert!(!scans.reads(&of(MOST, 0), begun).1);
        scans.asked(&of(MOST, 0), begun + 2 * RECENT);
        assert_eq!(scans.lock().len(), 1, "those of others were long ago");
        assert!((0..1_000).all(|n| !scans.asked(&of(0, n), begun + 2 * RECENT)));
        assert!(scans.lock().values().all(|scan| scan.chunks.len() <= CHUNKS));
    }
}
