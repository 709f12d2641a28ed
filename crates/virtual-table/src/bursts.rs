//! Many who ask the same at the same time share an answer that is no older than their question.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The questions being asked, by what they are about.
pub(crate) struct Bursts<K, V> {
    slots: moka::sync::Cache<K, Arc<Slot<V>>>,
}

struct Slot<V> {
    /// How often the question was begun to be asked.
    begun: AtomicU64,
    /// The last answer, and which of the askings it is of. Held while one is asked.
    last: tokio::sync::Mutex<Option<(u64, V)>>,
}

impl<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static> Bursts<K, V> {
    /// The last answers to so many questions are held at the most.
    pub(crate) fn new(most: u64) -> Self {
        Self { slots: moka::sync::Cache::new(most) }
    }

    /// The answer to a question that begins to be asked after this is called: by this caller, or by
    /// another who waited beside it while an earlier asking was under way.
    pub(crate) async fn ask<F: Future<Output = V>>(
        &self,
        key: K,
        question: impl FnOnce() -> F,
    ) -> V {
        let slot = self.slots.get_with(key, || {
            Arc::new(Slot { begun: AtomicU64::new(0), last: tokio::sync::Mutex::new(None) })
        });
        let came = slot.begun.load(Ordering::SeqCst);
        let mut last = slot.last.lock().await;
        if let Some((asking, answer)) = &*last
            && *asking > came
        {
            return answer.clone();
        }
        let asking = slot.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let answer = question().await;
        *last = Some((asking, answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A source that counts how often it is asked; the answer is how much had happened by then.
    async fn answer(asked: &AtomicU64, happened: &AtomicU64) -> u64 {
        asked.fetch_add(1, Ordering::SeqCst);
        let seen = happened.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        seen
    }

    #[tokio::test]
    async fn a_burst_shares_answers_and_none_is_older_than_its_question() {
        let bursts = Arc::new(Bursts::<&str, u64>::new(10));
        let (asked, happened) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let before = happened.fetch_add(1, Ordering::SeqCst) + 1;
            let (bursts, asked, happened) =
                (Arc::clone(&bursts), Arc::clone(&asked), Arc::clone(&happened));
            tasks.spawn(async move {
                let seen = bursts.ask("topic", || answer(&asked, &happened)).await;
                assert!(seen >= before, "{seen} of what happened was seen, and {before} had");
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let asked = asked.load(Ordering::SeqCst);
        assert!((2..50).contains(&asked), "asked {asked} times for 100 callers");
    }

    #[tokio::test]
    async fn one_who_leaves_takes_nobody_with_it() {
        let bursts = Bursts::<&str, u64>::new(10);
        let (asked, happened) = (AtomicU64::new(0), AtomicU64::new(7));
        let first = bursts.ask("topic", || answer(&asked, &happened));
        let left = tokio::time::timeout(Duration::from_millis(5), first).await;
        assert!(left.is_err());
        assert_eq!(bursts.ask("topic", || answer(&asked, &happened)).await, 7);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
