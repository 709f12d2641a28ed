//! The chunk that a reader who scans will ask for next is encoded while the reader is busy with the one before.
//!
//! `scans.rs` says which reader that is, the last ticks what the file is called: a name is encoded only where the same plan
//! has it behind the file that is read. `render.rs` and `manners.rs` keep it out of the way of all who wait. Nothing is
//! encoded ahead among replicas: the next request may go to another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use isk_model::DataFileKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::api::ServiceError;
use crate::facts::recipe;
use crate::files::file_behind;
use crate::plan::View;
use crate::scans::{Reading, Scans};
use crate::service::Service;

/// Files that are waited for, and how many are looked at, or encoded, at a time. What is beyond is not encoded ahead.
const WISHES: usize = 64;
const AT_ONCE: usize = 16;

/// What is behind a file that is being read.
struct Wish {
    view: View,
    read: DataFileKey,
}

/// Who scans, and what is to be encoded ahead of them.
pub(crate) struct ReadAhead {
    scans: Arc<Scans>,
    /// None: nothing is encoded ahead.
    wishes: Option<mpsc::Sender<Wish>>,
    queue: Mutex<Option<mpsc::Receiver<Wish>>>,
}

impl ReadAhead {
    pub(crate) fn new(enabled: bool) -> Self {
        let (wishes, queue) = mpsc::channel(WISHES);
        Self {
            scans: Arc::default(),
            wishes: enabled.then_some(wishes),
            queue: Mutex::new(enabled.then_some(queue)),
        }
    }

    /// A reader asks for a file.
    pub(crate) fn asked(&self, view: &View, key: &DataFileKey) {
        if let Some(wishes) = &self.wishes
            && self.scans.asked(key, Instant::now())
        {
            self.wish(wishes, view, key);
        }
    }

    /// A reader gets pages of a file, until what is returned is dropped.
    pub(crate) fn reads(&self, view: &View, key: &DataFileKey) -> Option<Reading> {
        let wishes = self.wishes.as_ref()?;
        let (reading, worth_it) = self.scans.reads(key, Instant::now());
        if worth_it {
            self.wish(wishes, view, key);
        }
        Some(reading)
    }

    fn wish(&self, wishes: &mpsc::Sender<Wish>, view: &View, key: &DataFileKey) {
        let wish = Wish { view: view.clone(), read: key.clone() };
        if wishes.try_send(wish).is_err() {
            self.scans.not_ahead(key);
        }
    }
}

impl Service {
    /// Encodes what readers will ask for next, until the task is dropped.
    pub async fn read_ahead_forever(self: &Arc<Self>) {
        let queue = self.ahead.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut queue) = queue else { return };
        let mut tasks = JoinSet::new();
        while let Some(wish) = queue.recv().await {
            while tasks.try_join_next().is_some() {}
            if tasks.len() >= AT_ONCE {
                tasks.join_next().await;
            }
            let this = Arc::clone(self);
            tasks.spawn(async move {
                let outcome = this.encode_behind(&wish).await;
                if !matches!(outcome, Ok(true)) {
                    this.ahead.scans.not_ahead(&wish.read);
                }
                if let Err(error) = outcome {
                    // Its reader is told.
                    tracing::debug!(behind = %wish.read, %error, "a chunk is not encoded ahead");
                }
            });
        }
    }

    /// Encodes the file behind one that is read. Returns whether it did.
    async fn encode_behind(&self, wish: &Wish) -> Result<bool, ServiceError> {
        let Some(next) = self.planned_behind(wish).await? else { return Ok(false) };
        let topic = self.topics.get(next.topic.as_str()).await?;
        let order = self.order(&wish.view, &topic, &next).await?;
        self.renders.ahead(order).await
    }

    /// The file behind one that is read, by the last ticks that have both. None where they differ: any of them may be the
    /// reader's.
    async fn planned_behind(&self, wish: &Wish) -> Result<Option<DataFileKey>, ServiceError> {
        let Wish { view, read } = wish;
        let mut ticks: Vec<_> = self
            .ticks
            .iter()
            .filter(|(of, _)| {
                let (of, topic) = &**of;
                *topic == read.topic && of.bucket() == view.bucket() && of.columns() == read.columns
            })
            .map(|(_, tick)| tick)
            .collect();
        if *view == View::Hot {
            let topic = self.topics.get(read.topic.as_str()).await?;
            ticks.extend(self.histories.last(&topic).await);
        }
        let read = read.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let mut behind = ticks.iter().filter_map(|tick| file_behind(tick.inputs(), &read));
            let first = behind.next()?;
            behind.all(|other| recipe(&other) == recipe(&first)).then_some(first)
        });
        looked
            .await
            .map_err(|e| ServiceError::Internal(format!("looking for a next chunk panicked: {e}")))
    }
}
