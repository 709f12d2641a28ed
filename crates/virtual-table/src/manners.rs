//! Who wants a file encoded, and who gives way to whom.
//!
//! Readers wait for an answer and go first. What follows a partition's end is small and goes beside them.
//! All else has time: it rests while a reader waits for anything but the very file that it is encoding,
//! and the prover does not go faster than its pace. What is encoded ahead of a reader takes a slot and memory that no
//! reader waits for, and is dropped when one does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::memory::{Memory, Permits};
use crate::pace::Pace;

/// How long who gives way rests before looking again whether readers wait.
pub(crate) const REST: Duration = Duration::from_millis(10);

/// Why a file is encoded.
#[derive(Clone)]
pub(crate) enum Errand {
    /// Somebody reads it.
    Read,
    /// It is the end of a followed partition.
    Follow,
    /// It is to take the place of several pieces at the end of a followed partition.
    Join,
    /// Nobody asked for it: it is to be proven, at this pace.
    Prove(Arc<Pace>),
    /// A reader is likely to ask for it next.
    Ahead,
}

/// The files that readers wait for, by recipe, with how many do.
#[derive(Default)]
pub(crate) struct Readers(Mutex<HashMap<String, usize>>);

impl Readers {
    /// Notes that a reader waits for a file, until what is returned is dropped.
    pub(crate) fn wait_for(self: &Arc<Self>, recipe: &str) -> Waiting {
        *self.lock().entry(recipe.to_owned()).or_default() += 1;
        Waiting { readers: Arc::clone(self), recipe: recipe.to_owned() }
    }

    /// Whether a reader waits for this file.
    pub(crate) fn wait_for_this(&self, recipe: &str) -> bool {
        self.lock().contains_key(recipe)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader that waits.
pub(crate) struct Waiting {
    readers: Arc<Readers>,
    recipe: String,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.readers.lock();
        if let Some(count) = waiting.get_mut(&self.recipe) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.recipe);
            }
        }
    }
}

/// How one encoding behaves towards others.
pub(crate) struct Manners {
    errand: Errand,
    readers: Arc<Readers>,
    slots: Arc<Permits>,
    memory: Arc<Memory>,
    recipe: String,
}

impl Manners {
    /// The manners of an errand, among those who share readers' slots and the memory.
    pub(crate) fn new(
        errand: &Errand,
        readers: Arc<Readers>,
        slots: Arc<Permits>,
        memory: Arc<Memory>,
        recipe: &str,
    ) -> Self {
        Self { errand: errand.clone(), readers, slots, memory, recipe: recipe.to_owned() }
    }

    /// Called for every block of so many bytes, from a thread that may be held up: returns when it is
    /// this encoding's turn, or `false` when it is to be dropped.
    #[must_use]
    pub(crate) fn give_way(&self, bytes: u64) -> bool {
        let turn = match &self.errand {
            Errand::Read | Errand::Follow => return true,
            Errand::Join => Instant::now(),
            Errand::Prove(pace) => Instant::now() + pace.take(bytes),
            Errand::Ahead => return !self.is_in_the_way(),
        };
        while self.must_wait(turn) {
            std::thread::sleep(REST);
        }
        true
    }

    /// Whether others wait for what this encoding holds, and nobody for its file.
    fn is_in_the_way(&self) -> bool {
        (self.slots.is_waited_for() || self.memory.is_waited_for())
            && !self.readers.wait_for_this(&self.recipe)
    }

    fn must_wait(&self, turn: Instant) -> bool {
        // Who waits for memory, be it the very reader that is given way to, gets it when this has ended.
        if self.memory.is_waited_for() {
            return false;
        }
        let waiting = self.readers.lock();
        // Who waits for this file is served soonest by going on.
        !waiting.contains_key(&self.recipe) && (!waiting.is_empty() || Instant::now() < turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manners(errand: &Errand, readers: &Arc<Readers>) -> Manners {
        with_memory(errand, readers, &Arc::new(Memory::new(1 << 30)))
    }

    fn with_memory(errand: &Errand, readers: &Arc<Readers>, memory: &Arc<Memory>) -> Manners {
        let (readers, memory) = (Arc::clone(readers), Arc::clone(memory));
        Manners::new(errand, readers, Arc::new(Permits::new(1)), memory, "mine")
    }

    #[test]
    fn the_prover_rests_while_readers_wait_for_something_else() {
        let readers = Arc::new(Readers::default());
        let fast = Errand::Prove(Arc::new(Pace::new(u64::MAX, None)));
        let prover = manners(&fast, &readers);
        let now = Instant::now();
        assert!(!prover.must_wait(now));
        let other = readers.wait_for("other");
        assert!(prover.must_wait(now));
        let mine = readers.wait_for("mine");
        assert!(!prover.must_wait(now), "a reader waits for this very file");
        drop(mine);
        assert!(prover.must_wait(now));
        let again = readers.wait_for("other");
        drop(other);
        assert!(prover.must_wait(now), "one of two readers is still there");
        drop(again);
        assert!(!prover.must_wait(now));
    }

    #[test]
    fn the_prover_keeps_its_pace_unless_somebody_waits_for_its_file() {
        let readers = Arc::new(Readers::default());
        let slow = Errand::Prove(Arc::new(Pace::new(1, None)));
        let prover = manners(&slow, &readers);
        let later = Instant::now() + Duration::from_secs(60);
        assert!(prover.must_wait(later));
        let _reader = readers.wait_for("mine");
        assert!(!prover.must_wait(later));
        assert!(prover.give_way(1 << 30));
    }

    #[tokio::test]
    async fn nobody_rests_who_has_the_memory_that_somebody_waits_for() {
        let (readers, memory) = (Arc::new(Readers::default()), Arc::new(Memory::new(1 << 20)));
        let prover = with_memory(&Errand::Join, &readers, &memory);
        let share = memory.share(1 << 20).await;
        let _reader = readers.wait_for("other");
        assert!(prover.must_wait(Instant::now()));
        let waits = tokio::spawn({
            let memory = Arc::clone(&memory);
            async move { memory.share(1).await.is_some() }
        });
        while !memory.is_waited_for() {
            tokio::task::yield_now().await;
        }
        assert!(!prover.must_wait(Instant::now()));
        drop(share);
        assert!(waits.await.unwrap());
    }

    #[test]
    fn readers_and_followers_never_wait() {
        let readers = Arc::new(Readers::default());
        let _other = readers.wait_for("other");
        for errand in [Errand::Read, Errand::Follow] {
            assert!(manners(&errand, &readers).give_way(1 << 40));
        }
    }

    #[tokio::test]
    async fn what_is_ahead_of_a_reader_gives_back_what_somebody_waits_for() {
        let (readers, memory) = (Arc::new(Readers::default()), Arc::new(Memory::new(1 << 20)));
        let slots = Arc::new(Permits::new(1));
        let ahead = Manners::new(
            &Errand::Ahead,
            Arc::clone(&readers),
            Arc::clone(&slots),
            Arc::clone(&memory),
            "mine",
        );
        let _other = readers.wait_for("other");
        let (slot, share) = (slots.try_take(1).unwrap(), memory.try_share(1 << 20).unwrap());
        assert!(slots.try_take(1).is_none() && memory.try_share(1).is_none());
        assert!(ahead.give_way(1), "others are served meanwhile");
        for wants_slot in [true, false] {
            let (slots, memory) = (Arc::clone(&slots), Arc::clone(&memory));
            let waits = tokio::spawn(async move {
                if wants_slot {
                    slots.take(1).await.is_some()
                } else {
                    memory.share(1).await.is_some()
                }
            });
            while ahead.give_way(1) {
                tokio::task::yield_now().await;
            }
            let reader = readers.wait_for("mine");
            assert!(ahead.give_way(1), "it is a reader's now");
            drop(reader);
            assert!(!ahead.give_way(1));
            waits.abort();
            assert!(waits.await.is_err());
            assert!(ahead.give_way(1));
        }
        drop((slot, share));
    }
}
