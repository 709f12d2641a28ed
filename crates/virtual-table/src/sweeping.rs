//! What is forgotten in the background: metadata files that nobody names, the histories of topics that are gone,
//! and facts of records that are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use isk_kafka::TopicDescription;
use isk_model::{DataFileKey, KafkaPartition, ObjectKey, Offset, TopicId, TopicName};
use serde::{Deserialize, Serialize};

use crate::api::ServiceError;
use crate::facts::FactBook;
use crate::service::Service;
use crate::store::{Changes, Kind, Store};
use crate::thinning::SPAN;
use crate::tick::now_ms;
use crate::topics::kafka_error;

/// How often it is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Facts that are forgotten at once.
const PAGE: usize = 10_000;

/// What is kept of a topic under its name and id, beside its facts and its history.
const OF_TOPICS: [Kind; 7] = [
    Kind::Cuts,
    Kind::Times,
    Kind::Epochs,
    Kind::Cleaned,
    Kind::TopicPin,
    Kind::Starts,
    Kind::Discovered,
];

type Place = (TopicName, TopicId);

/// Where the partitions of a topic began at a moment: `(milliseconds since the epoch, [(partition, offset)])`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Starts(i64, Vec<(i32, i64)>);

/// What of a topic's facts is gone.
#[derive(Debug, PartialEq, Eq)]
enum Gone {
    /// The topic is.
    All,
    /// The records before these offsets are, and so long ago that no query is planned on them.
    Before(BTreeMap<KafkaPartition, Offset>),
}

impl Gone {
    fn holds(&self, key: &DataFileKey) -> bool {
        match self {
            Self::All => true,
            Self::Before(starts) => {
                starts.get(&key.partition).is_some_and(|&start| key.range.end() <= start)
            }
        }
    }
}

impl Service {
    /// Sweeps away what nobody needs any more, until the task is dropped.
    pub async fn sweep_forever(&self) {
        if self.sweeping.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut absent = BTreeSet::new();
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.sweep_histories().await;
            let (metadata, retention) = (Arc::clone(&self.metadata), self.metadata_retention);
            match tokio::task::spawn_blocking(move || metadata.sweep(retention)).await {
                Ok(Ok(0)) => {}
                Ok(Ok(files)) => tracing::debug!(files, "old metadata files swept away"),
                Ok(Err(error)) => tracing::warn!(%error, "old metadata files cannot be swept away"),
                Err(error) => tracing::warn!(%error, "sweeping failed"),
            }
            if let Err(error) = self.facts.sweep(self.kept_for()) {
                tracing::warn!(%error, "old facts cannot be swept away");
            }
            match self.sweep_topics(&mut absent).await {
                Ok(0) => {}
                Ok(facts) => tracing::debug!(facts, "facts of records that are gone are forgotten"),
                Err(error) => tracing::warn!(%error, "facts of what is gone cannot be swept away"),
            }
        }
    }

    /// For how long a query may be planned on what is gone since.
    fn kept_for(&self) -> Duration {
        self.metadata_retention.max(SPAN)
    }

    /// Keeps the files that histories name, and forgets the histories of topics that are gone.
    async fn sweep_histories(&self) {
        self.histories.rest();
        let forgotten = match self.topics.names().await {
            Ok(topics) => self.histories.forget_others(&topics),
            // Nothing is known of topics now.
            Err(_) => Ok(()),
        };
        if let Err(error) = forgotten.and_then(|()| self.histories.touch(&self.metadata)) {
            tracing::warn!(%error, "the histories of topics cannot be looked through");
        }
    }

    /// Forgets the facts of records that are gone, and all of topics that are. `absent` are those that were not
    /// there at the last sweep: a topic is gone when it is not there twice.
    async fn sweep_topics(&self, absent: &mut BTreeSet<Place>) -> Result<usize, ServiceError> {
        let there = self.kafka.topics().await.map_err(|e| kafka_error(&e))?;
        let there: HashMap<Place, TopicDescription> =
            there.into_iter().map(|topic| ((topic.name.clone(), topic.id), topic)).collect();
        let store = Arc::clone(&self.store);
        let known = tokio::task::spawn_blocking(move || known_topics(&store))
            .await
            .map_err(|e| ServiceError::Internal(format!("looking through the store: {e}")))??;
        let before = std::mem::take(absent);
        let mut forgotten = 0;
        for place in known {
            let gone = match there.get(&place) {
                Some(topic) => self.expired(&place, topic).await?,
                None if before.contains(&place) => Some(Gone::All),
                None => {
                    absent.insert(place);
                    continue;
                }
            };
            let Some(gone) = gone else { continue };
            let facts = Arc::clone(&self.facts);
            let sweep = move || forget(&facts, &place, &gone);
            forgotten += tokio::task::spawn_blocking(sweep)
                .await
                .map_err(|e| ServiceError::Internal(format!("forgetting facts: {e}")))??;
        }
        Ok(forgotten)
    }

    /// What has expired of a topic for long enough, once in that time.
    async fn expired(
        &self,
        place: &Place,
        topic: &TopicDescription,
    ) -> Result<Option<Gone>, ServiceError> {
        let key = format!("{}/{}", place.0, place.1);
        let known: Option<Starts> = self.store.get(Kind::Starts, &key)?;
        let kept_ms = i64::try_from(self.kept_for().as_millis()).unwrap_or(i64::MAX);
        if known.as_ref().is_some_and(|known| now_ms().saturating_sub(known.0) < kept_ms) {
            return Ok(None);
        }
        let offsets = self.offsets(topic).await?;
        let starts = offsets.iter().map(|(partition, log)| (partition.0, log.log_start.0));
        self.store.put(Kind::Starts, &key, &Starts(now_ms(), starts.collect()))?;
        let before = |starts: Starts| {
            let starts = starts.1.into_iter();
            Gone::Before(starts.map(|(p, start)| (KafkaPartition(p), Offset(start))).collect())
        };
        Ok(known.map(before))
    }
}

/// The topics that there are facts or cuts of.
fn known_topics(store: &Store) -> Result<BTreeSet<Place>, ServiceError> {
    let mut found = BTreeSet::new();
    for kind in [Kind::Facts, Kind::Cuts] {
        let mut from = String::new();
        // From the first key of one topic to the first behind all of its keys.
        loop {
            let mut next = None;
            store.between(kind, &from, LAST, |key, _| {
                next = Some(key.to_owned());
                false
            })?;
            let Some(key) = next else { break };
            let mut folder = None;
            let place = match kind {
                Kind::Facts => {
                    folder = key.split_once('/').map(|(folder, _)| folder.to_owned());
                    place_of(&key)
                }
                _ => key.split_once('/').and_then(|(topic, rest)| {
                    let id = u128::from_str_radix(rest.split('/').next()?, 16).ok()?;
                    Some((TopicName::new(topic).ok()?, TopicId(id)))
                }),
            };
            from = match place {
                Some(place) => {
                    let behind = match kind {
                        Kind::Facts => {
                            format!("{}/data/{}0", folder.unwrap_or_default(), place.1)
                        }
                        _ => format!("{}/{}0", place.0, place.1),
                    };
                    found.insert(place);
                    behind
                }
                None => format!("{key}\0"),
            };
        }
    }
    Ok(found)
}

/// Behind all keys.
const LAST: &str = "\u{10ffff}";

fn place_of(recipe: &str) -> Option<Place> {
    match recipe.parse() {
        Ok(ObjectKey::Data(key)) => Some((key.topic, key.topic_id)),
        _ => None,
    }
}

/// Forgets what is gone of a topic; returns how many facts that were.
fn forget(facts: &FactBook, (name, id): &Place, gone: &Gone) -> Result<usize, ServiceError> {
    // '0' comes next behind '/'.
    let own = forget_between(
        facts,
        *id,
        gone,
        format!("{name}/data/{id}/"),
        &format!("{name}/data/{id}0"),
    )?;
    // The folders of those who do not see all columns.
    let theirs = forget_between(facts, *id, gone, format!("{name}~"), &format!("{name}~g"))?;
    if *gone == Gone::All {
        forget_topic(facts, name, *id)?;
    }
    Ok(own + theirs)
}

/// Forgets the facts of what is gone of a topic, among the recipes from `from` to `to`.
fn forget_between(
    facts: &FactBook,
    id: TopicId,
    gone: &Gone,
    mut from: String,
    to: &str,
) -> Result<usize, ServiceError> {
    let mut forgotten = 0;
    loop {
        let (mut page, mut looked, mut last) = (Vec::new(), 0, None);
        facts.store().between(Kind::Facts, &from, to, |recipe, _| {
            if let Ok(ObjectKey::Data(key)) = recipe.parse()
                && key.topic_id == id
                && gone.holds(&key)
            {
                page.push(recipe.to_owned());
            }
            looked += 1;
            if looked == PAGE {
                last = Some(recipe.to_owned());
            }
            looked < PAGE
        })?;
        forgotten += page.len();
        facts.forget(page)?;
        match last {
            Some(last) => from = format!("{last}\0"),
            None => return Ok(forgotten),
        }
    }
}

/// Forgets what else is kept of a topic.
fn forget_topic(facts: &FactBook, name: &TopicName, id: TopicId) -> Result<(), ServiceError> {
    let mut changes = Changes::default();
    let (own, within) = (format!("{name}/{id}"), format!("{name}/{id}/"));
    for kind in OF_TOPICS {
        facts.store().between(kind, &own, &format!("{name}/{id}0"), |key, _| {
            if key == own || key.starts_with(&within) {
                changes.remove(kind, key.to_owned());
            }
            true
        })?;
    }
    facts.store().apply(&changes)
}

#[cfg(test)]
mod tests {
    use isk_model::OffsetRange;

    use super::*;
    use crate::facts::recipe;
    use crate::facts::tests::{encoding, key};

    #[test]
    fn what_is_gone_is_forgotten_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("isk.redb")).unwrap());
        let facts = FactBook::new(Arc::clone(&store));
        let at = |topic: &str, partition, start| DataFileKey {
            partition: KafkaPartition(partition),
            range: OffsetRange::new(Offset(start), Offset(start + 16)).unwrap(),
            ..key(topic)
        };
        let mut all: Vec<DataFileKey> = ["a", "ab", "b"]
            .into_iter()
            .flat_map(|topic| (0..2).map(move |p| (topic, p)))
            .flat_map(|(topic, p)| (0..3).map(move |n| at(topic, p, 16 * n)))
            .collect();
        // What was made for those who do not see all columns goes with the rest.
        let ruled = |key: &DataFileKey| DataFileKey {
            columns: Some(isk_model::ContentDigest(u128::MAX)),
            ..key.clone()
        };
        all.extend(all.iter().map(ruled).collect::<Vec<_>>());
        for key in &all {
            facts.prove(key, &encoding(1, 100), true).unwrap();
        }
        store.put(Kind::Cuts, &format!("ab/{}/0", TopicId(1)), &vec![5i64]).unwrap();
        store.put(Kind::Cuts, &format!("b/{}/0", TopicId(1)), &vec![5i64]).unwrap();
        store.put(Kind::Epochs, &format!("ab/{}", TopicId(1)), &0).unwrap();
        let place = |name: &str| (TopicName::new(name).unwrap(), TopicId(1));
        let known: Vec<Place> = known_topics(&store).unwrap().into_iter().collect();
        assert_eq!(known, [place("a"), place("ab"), place("b")]);

        let before = Gone::Before(BTreeMap::from([(KafkaPartition(0), Offset(40))]));
        assert_eq!(forget(&facts, &place("a"), &before).unwrap(), 4);
        assert_eq!(forget(&facts, &place("ab"), &Gone::All).unwrap(), 12);
        for book in [facts, FactBook::new(Arc::clone(&store))] {
            for key in &all {
                let expired = key.partition.0 == 0 && key.range.end().0 <= 40;
                let gone = key.topic.as_str() == "ab" || key.topic.as_str() == "a" && expired;
                assert_eq!(book.get(&recipe(key)).is_none(), gone, "{key}");
            }
        }
        let kept = |kind, key: &str| store.get::<serde_json::Value>(kind, key).unwrap().is_some();
        assert!(kept(Kind::Cuts, &format!("b/{}/0", TopicId(1))));
        assert!(!kept(Kind::Cuts, &format!("ab/{}/0", TopicId(1))));
        assert!(!kept(Kind::Epochs, &format!("ab/{}", TopicId(1))));
    }
}
