//! Encoded files: each is made once, however many readers ask for it, and kept on disk while there is
//! room.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use isk_kafka::{FetchLimits, KafkaCluster};
use isk_model::{DataFileKey, TopicPartition};
use isk_parquet_file::RenderProfile;
use isk_threads::{NotDone, run_behind};
use isk_traces::{Instrument, Span, count, root, span};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::field::Empty;

use crate::api::ServiceError;
use crate::cache::{Claim, EncodedFile, FileCache};
use crate::encode::{Failure, Job, Made, Rows};
use crate::facts::{FactBook, recipe};
use crate::manners::{Errand, Manners, REST, Readers};
use crate::memory::{Memory, Permits, encoding_bytes};
use crate::metrics::{Metrics, add};
use crate::open_files::OpenFiles;
use crate::topic_schema::TopicSchemas;

/// Ends of partitions encoded at the same time for those who follow them.
const FOLLOWING: usize = 2;

/// How long what is to be encoded ahead of a reader waits for its turn, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);

/// How often room is made on a full disk before a read fails, and for how many bytes at least.
const TRIES_ON_A_FULL_DISK: usize = 4;
const ROOM: u64 = 64 << 20;

/// A file that somebody wants.
#[derive(Clone)]
pub(crate) struct Order {
    pub key: DataFileKey,
    pub rows: Rows,
    /// Whether the chunk no longer grows.
    pub full: bool,
    pub errand: Errand,
}

impl Order {
    /// The span of finding or making the file. What the prover wants begins a trace of its own.
    fn span(&self) -> Span {
        let errand = match self.errand {
            Errand::Read => "read",
            Errand::Follow => "follow",
            Errand::Join => "join",
            Errand::Prove(_) => "prove",
            Errand::Ahead => "ahead",
        };
        root!(
            "make file",
            otel.status_code = Empty,
            error.type = Empty,
            messaging.destination.name = self.key.topic.as_str(),
            messaging.destination.partition.id = %self.key.partition,
            isk.offset.start = self.key.range.start().0,
            isk.offset.end = self.key.range.end().0,
            isk.errand = errand,
            isk.file = Empty,
            isk.rows = Empty,
            isk.bytes = Empty,
        )
    }
}

/// A file that is being found or made, whoever waits for it; none where no reader waited any more when it was its turn,
/// or what was encoded ahead of a reader gave way to others.
type Flight = Shared<BoxFuture<'static, Result<Option<Arc<EncodedFile>>, ServiceError>>>;

/// A slot and a share of the memory.
type Turn<'a> = (Option<SemaphorePermit<'a>>, Option<SemaphorePermit<'a>>);

/// Makes and keeps encoded files.
pub(crate) struct Renders {
    kafka: KafkaCluster,
    schemas: Arc<TopicSchemas>,
    metrics: Arc<Metrics>,
    facts: Arc<FactBook>,
    profile: RenderProfile,
    cache: Arc<FileCache>,
    readers: Arc<Readers>,
    /// Readers' slots.
    reading: Arc<Permits>,
    /// Those of other errands: followers', joiners' and the prover's.
    slots: [Semaphore; 3],
    memory: Arc<Memory>,
    open: OpenFiles,
    /// Those under way, each with the span of its own.
    flights: Mutex<HashMap<String, (Flight, Span)>>,
}

impl Renders {
    /// Keeps files in `cache`, and encodes `concurrency` chunks at a time for readers, all together in
    /// `memory` bytes.
    pub(crate) fn new(
        kafka: KafkaCluster,
        schemas: Arc<TopicSchemas>,
        metrics: Arc<Metrics>,
        facts: Arc<FactBook>,
        cache: FileCache,
        concurrency: usize,
        memory: u64,
    ) -> Self {
        Self {
            kafka,
            schemas,
            metrics,
            facts,
            profile: RenderProfile::default(),
            cache: Arc::new(cache),
            readers: Arc::default(),
            reading: Arc::new(Permits::new(concurrency)),
            slots: [FOLLOWING, 1, 1].map(Semaphore::new),
            memory: Arc::new(Memory::new(memory)),
            open: OpenFiles::default(),
            flights: Mutex::default(),
        }
    }

    /// The profile that files are encoded with.
    pub(crate) fn profile(&self) -> &RenderProfile {
        &self.profile
    }

    /// Bytes of the files kept.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// The file of a recipe: from disk, or encoded now. Concurrent callers share one encoding, which
    /// goes on when they leave; one that has not begun by then does not begin. What it has shown is among the facts
    /// when this returns.
    pub(crate) async fn get(
        self: &Arc<Self>,
        order: Order,
    ) -> Result<Arc<EncodedFile>, ServiceError> {
        let span =
            span!("find file", otel.status_code = Empty, error.type = Empty, isk.file = Empty);
        let file = self.found(order).instrument(span.clone()).await;
        file.inspect_err(|error| isk_traces::failed(&span, error))
    }

    /// The current span says how: `open`, `joined` (linked to the flight's span), or `begun`, whose span is a child.
    async fn found(self: &Arc<Self>, order: Order) -> Result<Arc<EncodedFile>, ServiceError> {
        let recipe = recipe(&order.key);
        if let Some(file) = self.open.get(&recipe) {
            if file.is_untouched() {
                Span::current().record("isk.file", "open");
                self.cache.touch(&recipe);
                return Ok(self.noted(file, &order.errand));
            }
            self.open.close(&recipe);
        }
        let _waiting = matches!(order.errand, Errand::Read).then(|| self.readers.wait_for(&recipe));
        loop {
            // Who comes just when the readers before have been found gone asks anew.
            if let Some(file) = self.flight(&recipe, &order).await? {
                return Ok(self.noted(file, &order.errand));
            }
        }
    }

    /// Counts a file that was encoded ahead when its reader comes.
    fn noted(&self, file: Arc<EncodedFile>, errand: &Errand) -> Arc<EncodedFile> {
        if matches!(errand, Errand::Read) && file.ahead.swap(false, Ordering::Relaxed) {
            add(&self.metrics.chunks_ahead_read, 1);
        }
        file
    }

    /// Encodes a file ahead of its reader, where it is not there and nobody is in need of what that takes. Returns whether
    /// it was encoded.
    pub(crate) async fn ahead(self: &Arc<Self>, order: Order) -> Result<bool, ServiceError> {
        let recipe = recipe(&order.key);
        let under_way = self.flights().contains_key(&recipe);
        if under_way || self.cache.has(&recipe) || self.open.get(&recipe).is_some() {
            return Ok(false);
        }
        let order = Order { errand: Errand::Ahead, ..order };
        Ok(self.flight(&recipe, &order).await?.is_some())
    }

    /// The flight that brings a file: the one that is under way, or a new one.
    fn flight(self: &Arc<Self>, recipe: &str, order: &Order) -> Flight {
        let mut flights = self.flights();
        if let Some((flight, span)) = flights.get(recipe) {
            Span::current().record("isk.file", "joined").follows_from(span);
            return flight.clone();
        }
        Span::current().record("isk.file", "begun");
        let span = order.span();
        let landing = Landing { renders: Arc::clone(self), recipe: recipe.to_owned() };
        let order = order.clone();
        let find_or_make = async move {
            let Landing { renders, recipe } = &landing;
            let file = renders.find_or_make(recipe, &order).await?;
            if let Some(file) = &file {
                renders.open.insert(recipe, Arc::clone(file));
            }
            Ok(file)
        };
        let task = tokio::spawn(find_or_make.instrument(span.clone()));
        let ended = |e| Err(ServiceError::Internal(format!("an encoding task failed: {e}")));
        let flight = async move { task.await.unwrap_or_else(ended) }.boxed().shared();
        flights.insert(recipe.to_owned(), (flight.clone(), span));
        flight
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, (Flight, Span)>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find_or_make(
        &self,
        recipe: &str,
        order: &Order,
    ) -> Result<Option<Arc<EncodedFile>>, ServiceError> {
        // What was never encoded is declared with more than its records' bytes, what was with its own size.
        let mut records = order.key.declared_size;
        if let Some(facts) = self.facts.get(recipe) {
            records = u64::MAX;
            let (cache, name) = (Arc::clone(&self.cache), recipe.to_owned());
            let found = tokio::task::spawn_blocking(move || cache.find(&name, &facts)).await;
            if let Ok(Some(file)) = found {
                Span::current().record("isk.file", "disk");
                return Ok(Some(Arc::new(file)));
            }
        }
        let bytes = self.most_memory(records);
        let turn = async {
            match order.errand {
                Errand::Ahead => self.turn_ahead(recipe, bytes).await,
                _ => Some((self.slot(recipe, &order.errand).await, self.memory.share(bytes).await)),
            }
        };
        let Some(_turn) = turn.instrument(span!("wait for a turn")).await else { return Ok(None) };
        if matches!(order.errand, Errand::Read) && !self.readers.wait_for_this(recipe) {
            return Ok(None);
        }
        let begun = Instant::now();
        match self.make(recipe, order).await {
            Ok(None) => {
                tracing::debug!(key = %order.key, "a chunk encoded ahead of its reader was dropped");
                Ok(None)
            }
            Ok(Some(mut file)) => {
                if matches!(order.errand, Errand::Ahead) {
                    add(&self.metrics.chunks_ahead, 1);
                    file.ahead = true.into();
                }
                let span = Span::current();
                span.record("isk.file", "encoded");
                span.record("isk.rows", count(file.encoding.rows));
                span.record("isk.bytes", count(file.encoding.file_size));
                add(&self.metrics.chunks_rendered, 1);
                add(&self.metrics.rows_rendered, file.encoding.rows);
                add(&self.metrics.bytes_rendered, file.encoding.file_size);
                tracing::debug!(
                    key = %order.key, rows = file.encoding.rows, bytes = file.encoding.file_size,
                    ms = begun.elapsed().as_millis() as u64, "chunk encoded"
                );
                Ok(Some(Arc::new(file)))
            }
            Err(error) => {
                isk_traces::failed(&Span::current(), &error);
                add(&self.metrics.render_errors, 1);
                tracing::warn!(key = %order.key, %error, "a chunk could not be encoded");
                Err(error)
            }
        }
    }

    /// What an encoding of so many bytes of records holds at the most.
    fn most_memory(&self, records: u64) -> u64 {
        let answers = self.kafka.config().fetch_buffer_bytes as u64;
        encoding_bytes(records, answers, self.profile.row_group_bytes() as u64)
    }

    /// Waits for the errand's turn. Where a reader comes to wait for the same file meanwhile, it becomes the
    /// reader's errand: whoever has the slot may be giving way to that very reader.
    async fn slot(&self, recipe: &str, errand: &Errand) -> Option<SemaphorePermit<'_>> {
        let [following, joining, proving] = &self.slots;
        let own = match errand {
            Errand::Read | Errand::Ahead => return self.reading.take(1).await,
            Errand::Follow => following,
            Errand::Join => joining,
            Errand::Prove(_) => proving,
        };
        let mut turn = std::pin::pin!(own.acquire());
        loop {
            tokio::select! {
                permit = &mut turn => return permit.ok(),
                () = tokio::time::sleep(REST) => {
                    if self.readers.wait_for_this(recipe) {
                        return self.reading.take(1).await;
                    }
                }
            }
        }
    }

    /// The turn of what is encoded ahead of its reader: a reader's slot and memory that nobody waits for. None where they do
    /// not come free soon.
    async fn turn_ahead(&self, recipe: &str, bytes: u64) -> Option<Turn<'_>> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.readers.wait_for_this(recipe) {
                return Some((self.reading.take(1).await, self.memory.share(bytes).await));
            }
            if let Some(slot) = self.reading.try_take(1)
                && let Some(share) = self.memory.try_share(bytes)
            {
                return Some((Some(slot), Some(share)));
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// Encodes a chunk, notes its facts and keeps the file; none where it gave way to others. On a full disk, files that were
    /// used longest ago make room; what nobody asked for is not worth that.
    async fn make(&self, recipe: &str, order: &Order) -> Result<Option<EncodedFile>, ServiceError> {
        let mut tries = 1;
        let made = loop {
            match self.encode(recipe, order).await {
                Ok(made) => break made,
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::GaveWay) => return Ok(None),
                Err(Failure::DiskFull { written, error }) => {
                    let unasked = matches!(order.errand, Errand::Prove(_) | Errand::Ahead);
                    if tries == TRIES_ON_A_FULL_DISK
                        || (unasked && !self.readers.wait_for_this(recipe))
                    {
                        return Err(error);
                    }
                    tries += 1;
                    let freed = self.make_room(written.saturating_mul(2).max(ROOM));
                    tracing::warn!(freed, "the disk of data_dir is full; encoded files make room");
                    if freed == 0 {
                        return Err(error);
                    }
                }
            }
        };
        let claim = match order.errand {
            Errand::Read | Errand::Follow | Errand::Join | Errand::Ahead => Claim::Oldest,
            Errand::Prove(_) => Claim::FreeRoom,
        };
        let (cache, facts) = (Arc::clone(&self.cache), Arc::clone(&self.facts));
        let (recipe, key, full) = (recipe.to_owned(), order.key.clone(), order.full);
        let kept = tokio::task::spawn_blocking(move || {
            let Made { file, path, body_len, footer_len, encoding } = made;
            facts.prove(&key, &encoding, full)?;
            let parts = (body_len, footer_len, encoding);
            cache.keep(&recipe, file, path, parts, claim).map_err(|e| cache.failed(&e))
        });
        match kept.await {
            Ok(kept) => kept.map(Some),
            Err(e) => Err(ServiceError::Internal(format!("keeping a file panicked: {e}"))),
        }
    }

    /// Fetches, decodes and encodes one chunk.
    async fn encode(&self, recipe: &str, order: &Order) -> Result<Made, Failure> {
        let key = &order.key;
        let tp = TopicPartition { topic: key.topic.clone(), partition: key.partition };
        let limits =
            FetchLimits { topic_id: Some(key.topic_id), max_epoch: Some(key.leader_epoch) };
        let blocks = self.kafka.fetch(&tp, key.range, limits);
        let job = Job {
            key: key.clone(),
            rows: order.rows.clone(),
            schemas: Arc::clone(&self.schemas),
            metrics: Arc::clone(&self.metrics),
            manners: Manners::new(
                &order.errand,
                Arc::clone(&self.readers),
                Arc::clone(&self.reading),
                Arc::clone(&self.memory),
                recipe,
            ),
            runtime: tokio::runtime::Handle::current(),
        };
        let (cache, profile) = (Arc::clone(&self.cache), self.profile.clone());
        let span = Span::current();
        let made =
            run_behind("encode", move || span.in_scope(|| job.run(blocks, &cache, &profile)));
        made.await.unwrap_or_else(|e| {
            Err(match e {
                NotDone::NoThread(_) => {
                    ServiceError::Unavailable { what: "encoding".into(), reason: e.to_string() }
                }
                NotDone::Panicked => ServiceError::Internal(format!("encoding {}: {e}", order.key)),
            }
            .into())
        })
    }

    /// Drops files, and the handles that keep their bytes on disk.
    fn make_room(&self, bytes: u64) -> u64 {
        let freed = self.cache.make_room(bytes);
        self.open.close_all();
        freed
    }
}

/// The end of a flight, however it ends.
struct Landing {
    renders: Arc<Renders>,
    recipe: String,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.renders.flights().remove(&self.recipe);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use isk_kafka::KafkaConfig;
    use isk_model::ObjectKey;

    use super::*;
    use crate::discovery::{Discovery, DiscoveryConfig};
    use crate::formats::TopicFormats;
    use crate::store::Store;
    use crate::undecoded::{Decoding, ErrorPolicy, Undecoded};
    use crate::writers::WriterState;

    fn schemas(store: &Arc<Store>) -> TopicSchemas {
        let discovery = Discovery::new(DiscoveryConfig::off(), Arc::clone(store));
        TopicSchemas::new(None, TopicFormats::default(), discovery, Arc::clone(store)).unwrap()
    }

    /// One that never asks its broker anything.
    fn renders(folder: &std::path::Path) -> Renders {
        let mut config = KafkaConfig::default();
        config.properties.insert("bootstrap.servers".into(), "127.0.0.1:1".into());
        let store = Arc::new(Store::open(&folder.join("isk.redb")).unwrap());
        Renders::new(
            KafkaCluster::connect(config).unwrap(),
            Arc::new(schemas(&store)),
            Arc::default(),
            Arc::new(FactBook::new(store)),
            FileCache::open(&folder.join("cache"), 0, |_| None).unwrap(),
            1,
            1 << 30,
        )
    }

    #[tokio::test]
    async fn who_comes_to_read_what_waits_its_turn_takes_it_out_of_the_queue() {
        let dir = tempfile::tempdir().unwrap();
        let renders = renders(dir.path());
        // One is being joined, and rests, since a reader waits for another that is to be joined, too.
        let _joining = renders.slot("first", &Errand::Join).await.unwrap();
        let slow = Duration::from_secs(20);
        let second = tokio::time::timeout(slow, renders.slot("second", &Errand::Join));
        let reader = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            renders.readers.wait_for("second")
        };
        let (second, _reader) = tokio::join!(second, reader);
        assert!(second.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_ahead_of_a_reader_has_a_turn_that_nobody_waits_for() {
        let dir = tempfile::tempdir().unwrap();
        let renders = renders(dir.path());
        let reading = renders.slot("other", &Errand::Read).await.unwrap();
        assert!(renders.turn_ahead("next", 1 << 20).await.is_none());
        let (turn, ()) = tokio::join!(renders.turn_ahead("next", 1 << 20), async {
            tokio::time::sleep(PATIENCE / 4).await;
            drop(reading);
        });
        assert!(turn.is_some());
        // Its reader has come, and stands in line as readers do.
        let _reader = renders.readers.wait_for("next");
        let mut second = Box::pin(renders.turn_ahead("next", 1 << 20));
        assert!(futures::poll!(second.as_mut()).is_pending());
        assert!(renders.reading.is_waited_for());
        drop(turn);
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let renders = Arc::new(renders(dir.path()));
        let name = "t/data/00000000000000000000000000000001/00000/0000000000000000000-0000000000000000010\
                    -e0-v1.0-r0000000000000000-s1000000.parquet";
        let ObjectKey::Data(key) = name.parse().unwrap() else { panic!("{name}") };
        let decoding = Decoding {
            undecoded: Undecoded::By(ErrorPolicy::Keep),
            writers: WriterState::default(),
        };
        let table = Arc::clone(&renders.schemas.raw);
        let rows = Rows { table, row_ids: false, left_out: None, decoding, columns: None };
        let order = Order { key, rows, full: true, errand: Errand::Read };
        let others = renders.reading.take(1).await.unwrap();
        let reads = [(); 2].map(|()| Box::pin(renders.get(order.clone())));
        let [mut first, mut second] = reads;
        assert!(futures::poll!(first.as_mut()).is_pending());
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop((first, second));
        drop(others);
        let ended = async {
            while !renders.flights().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
        let errors = renders.metrics.render_errors.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(errors, 0, "it asked its broker, which is not there");
        // Who waits has it begun, and is told what is wrong.
        let read = renders.get(order).await;
        assert!(matches!(read, Err(ServiceError::Unavailable { .. })));
    }
}
