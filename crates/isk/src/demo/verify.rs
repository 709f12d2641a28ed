//! `--once`: the SQL client's answers against what the embedded broker knows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use isk_embedded::{EmbeddedBroker, SampleData};
use isk_model::TopicName;

use super::engine::{Audit, Engine, Offsets};
use super::{MOVES, TOPIC};

/// How long the live producer may stand still.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that can be verified while records arrive: hot counts, then a move to cold.
pub async fn while_live(engine: &Engine, broker: &EmbeddedBroker, data: &SampleData) -> Result<()> {
    grows(engine, data).await?;
    println!("{}\n", engine.create_cold(TOPIC).await?);
    for filter in MOVES {
        moved(engine, broker, data, filter).await?;
    }
    println!("{}", engine.analysis().await?);
    Ok(())
}

/// When nothing arrives any more, hot and merged count what was acknowledged.
pub async fn at_rest(engine: &Engine, data: &SampleData) -> Result<()> {
    let expected = data.expected();
    for namespace in ["hotset", "merged"] {
        let answered = engine.counts(namespace, expected.keys()).await?;
        within(namespace, &answered, &expected, &expected)?;
        for (topic, [count, _]) in answered {
            println!("  {namespace}.{topic}: {count} rows, {count} records acknowledged");
        }
    }
    Ok(())
}

/// While records arrive, a count lies between what was acknowledged before and after it; and it grows.
async fn grows(engine: &Engine, data: &SampleData) -> Result<()> {
    let mut last = None;
    for _ in 0..2 {
        let before = data.expected();
        let answered = engine.counts("hotset", before.keys()).await?;
        within("hotset", &answered, &before, &data.expected())?;
        let count = answered.get(TOPIC).map_or(0, |[count, _]| *count);
        if let Some(last) = last {
            ensure!(count > last, "the count of {TOPIC} did not grow: {last}, then {count}");
        }
        last = Some(count);
        more_than(data, count).await?;
    }
    Ok(())
}

/// One move. The ends are read once, before it: below them nothing may change in merged.
async fn moved(
    engine: &Engine,
    broker: &EmbeddedBroker,
    data: &SampleData,
    filter: &str,
) -> Result<()> {
    let ends = broker.handle().offsets(&topic()?);
    let before = Tables::audit(engine, &ends).await?;
    before.check(&ends).context("before the move")?;
    println!("{}\n", engine.move_to_cold(TOPIC, &ends, filter).await?);
    more_than(data, spans(&ends)).await.context("while the rows were moved")?;
    let after = Tables::audit(engine, &ends).await?;
    after.check(&ends).context("after the move")?;
    ensure!(
        after.merged == before.merged,
        "the move changed rows of merged.{TOPIC}: {:?}, then {:?}",
        before.merged,
        after.merged
    );
    let (before, after) = (rows(&before.cold), rows(&after.cold));
    ensure!(after > before, "coldset.{TOPIC} did not grow: {before} rows, then {after}");
    Ok(())
}

/// What the tables of the topic hold below the same ends.
struct Tables {
    hot: Audit,
    cold: Audit,
    merged: Audit,
    unmoved: Audit,
}

impl Tables {
    async fn audit(engine: &Engine, ends: &Offsets) -> Result<Self> {
        let merged = engine.audit(&format!("merged.{TOPIC}"), ends).await?;
        let hot = engine.audit(&format!("hotset.{TOPIC}"), ends).await?;
        let cold = engine.audit(&format!("coldset.{TOPIC}"), ends).await?;
        let unmoved = engine.audit(&format!("hotset.{TOPIC}$unmoved"), ends).await?;
        Ok(Self { hot, cold, merged, unmoved })
    }

    /// Hot and merged hold every offset of the broker once, and are the same rows; cold and what is
    /// not moved yet share them out.
    fn check(&self, ends: &Offsets) -> Result<()> {
        for (name, audit) in [("hotset", &self.hot), ("merged", &self.merged)] {
            for (partition, range) in ends {
                let Some(held) = audit.get(&partition.0) else {
                    bail!("{name}.{TOPIC} has no row of partition {}", partition.0);
                };
                let seen = (held.rows, held.offsets, held.first, held.last);
                let expected = (range.span(), range.span(), range.start().0, range.end().0 - 1);
                ensure!(
                    seen == expected,
                    "{name}.{TOPIC}, partition {}: rows, offsets, first and last are {seen:?}; the \
                     broker holds {expected:?}",
                    partition.0
                );
            }
        }
        for (partition, range) in ends {
            let part =
                |audit: &Audit| audit.get(&partition.0).map_or((0, 0), |h| (h.rows, h.offsets));
            let (cold, unmoved) = (part(&self.cold), part(&self.unmoved));
            ensure!(
                cold.0 == cold.1 && unmoved.0 == unmoved.1 && cold.0 + unmoved.0 == range.span(),
                "partition {} of {TOPIC}: coldset holds {} rows of {} offsets, \"{TOPIC}$unmoved\" {} \
                 of {}; together they should be {}",
                partition.0,
                cold.0,
                cold.1,
                unmoved.0,
                unmoved.1,
                range.span()
            );
        }
        ensure!(
            self.hot == self.merged,
            "hotset.{TOPIC} and merged.{TOPIC} hold different rows: {:?} and {:?}",
            self.hot,
            self.merged
        );
        Ok(())
    }
}

/// Waits until more than `count` records of the topic have been acknowledged.
async fn more_than(data: &SampleData, count: u64) -> Result<()> {
    let begun = Instant::now();
    let name = topic()?;
    while data.expected().get(&name).is_none_or(|&acknowledged| acknowledged <= count) {
        ensure!(begun.elapsed() < PATIENCE, "the live producer stands still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn within(
    namespace: &str,
    answered: &BTreeMap<String, [u64; 2]>,
    least: &BTreeMap<TopicName, u64>,
    most: &BTreeMap<TopicName, u64>,
) -> Result<()> {
    for (topic, &least) in least {
        let most = most.get(topic).copied().unwrap_or(least);
        let Some(counts) = answered.get(topic.as_str()) else {
            bail!("the SQL client gave no count of {namespace}.{topic}");
        };
        for count in counts {
            ensure!(
                (least..=most).contains(count),
                "the SQL client counts {count} rows in {namespace}.{topic}; the broker acknowledged \
                 {least} to {most}"
            );
        }
    }
    Ok(())
}

fn topic() -> Result<TopicName> {
    Ok(TopicName::new(TOPIC)?)
}

fn rows(audit: &Audit) -> u64 {
    audit.values().map(|held| held.rows).sum()
}

fn spans(ends: &Offsets) -> u64 {
    ends.values().map(|range| range.span()).sum()
}

#[cfg(test)]
mod tests {
    use isk_model::{KafkaPartition, Offset, OffsetRange};

    use super::super::engine::Held;
    use super::*;

    fn held(rows: u64, offsets: u64, first: i64, last: i64) -> Held {
        Held { rows, offsets, first, last, digest: "d".into() }
    }

    fn audit(partitions: &[Held]) -> Audit {
        (0..).zip(partitions.iter().cloned()).collect()
    }

    /// Ten offsets in partition 0, of which cold has four; five in partition 1, none of them in cold.
    fn good() -> (Offsets, Tables) {
        let range = |start, end| OffsetRange::new(Offset(start), Offset(end)).unwrap();
        let ends = [(KafkaPartition(0), range(0, 10)), (KafkaPartition(1), range(3, 8))];
        let both = audit(&[held(10, 10, 0, 9), held(5, 5, 3, 7)]);
        let tables = Tables {
            hot: both.clone(),
            cold: audit(&[held(4, 4, 0, 3)]),
            merged: both,
            unmoved: audit(&[held(6, 6, 4, 9), held(5, 5, 3, 7)]),
        };
        (ends.into_iter().collect(), tables)
    }

    #[test]
    fn what_is_missing_doubled_or_different_is_told() {
        let (ends, tables) = good();
        tables.check(&ends).unwrap();
        type Spoil = (&'static str, fn(&mut Tables));
        let spoils: [Spoil; 7] = [
            ("merged.transactions, partition 0", |t| {
                t.merged.insert(0, held(9, 9, 0, 9));
            }),
            ("merged.transactions, partition 0", |t| {
                t.merged.insert(0, held(11, 10, 0, 9));
            }),
            ("merged.transactions has no row of partition 1", |t| {
                t.merged.remove(&1);
            }),
            ("hotset.transactions, partition 1", |t| {
                t.hot.insert(1, held(5, 5, 4, 8));
            }),
            ("coldset holds 5 rows of 4 offsets", |t| {
                t.cold.insert(0, held(5, 4, 0, 3));
            }),
            ("together they should be 5", |t| {
                t.unmoved.remove(&1);
            }),
            ("different rows", |t| {
                t.merged.insert(1, Held { digest: "e".into(), ..held(5, 5, 3, 7) });
            }),
        ];
        for (named, spoil) in spoils {
            let (_, mut tables) = good();
            spoil(&mut tables);
            let error = tables.check(&ends).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
