//! The SQL client: a program that is asked one question at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isk_model::{KafkaPartition, OffsetRange, TopicName};
use serde::Deserialize;

/// How long one run of the SQL client may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A topic's offsets at one moment.
pub type Offsets = BTreeMap<KafkaPartition, OffsetRange>;

/// The SQL client and the catalogs it is to attach.
pub struct Engine {
    /// The program.
    pub program: PathBuf,
    /// Ours, as `isk`.
    pub catalog: String,
    /// The lake's, as `direct`.
    pub lake: String,
}

/// What one table holds of one Kafka partition, below the end it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Held {
    /// Rows.
    pub rows: u64,
    /// Offsets, each counted once.
    pub offsets: u64,
    /// The lowest offset.
    pub first: i64,
    /// The highest offset.
    pub last: i64,
    /// A digest over all columns of all rows, whatever their order.
    pub digest: String,
}

/// What one table holds, by Kafka partition.
pub type Audit = BTreeMap<i32, Held>;

impl Engine {
    /// Makes the cold table, empty, with the columns that the topic's table has.
    pub async fn create_cold(&self, topic: &str) -> Result<String> {
        self.ask(&["create", &self.catalog, &self.lake, topic]).await
    }

    /// An analysis over the merged table, and what it answered.
    pub async fn analysis(&self) -> Result<String> {
        self.ask(&["sql", &self.catalog, &self.lake]).await
    }

    /// Moves from hot to cold what meets the condition, and shows the counts before and after.
    pub async fn move_to_cold(&self, topic: &str, ends: &Offsets, filter: &str) -> Result<String> {
        self.ask(&["move", &self.catalog, &self.lake, topic, &written(ends), filter]).await
    }

    /// Looks at every row of a table (`namespace.table`) below the ends.
    pub async fn audit(&self, table: &str, ends: &Offsets) -> Result<Audit> {
        let answer = self.ask(&["audit", &self.catalog, &self.lake, table, &written(ends)]).await?;
        parse(&answer)
    }

    /// The row counts of tables in a namespace, each counted in two ways.
    pub async fn counts<'a>(
        &'a self,
        namespace: &'a str,
        tables: impl Iterator<Item = &'a TopicName>,
    ) -> Result<BTreeMap<String, [u64; 2]>> {
        let mut arguments = vec!["counts", self.catalog.as_str(), self.lake.as_str(), namespace];
        arguments.extend(tables.map(TopicName::as_str));
        parse(&self.ask(&arguments).await?)
    }

    /// Runs the SQL client and returns what it printed.
    async fn ask(&self, arguments: &[&str]) -> Result<String> {
        let program = self.program.display();
        let mut command = tokio::process::Command::new(&self.program);
        command.args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(TIMEOUT, command.output())
            .await
            .with_context(|| format!("{program} did not answer in time"))?
            .with_context(|| format!("{program} cannot be run"))?;
        ensure!(
            output.status.success(),
            "{program} {} failed:\n{}",
            arguments.first().copied().unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

/// `partition:end` of each partition, comma-separated.
fn written(ends: &Offsets) -> String {
    let pairs = ends.iter().map(|(partition, range)| format!("{}:{}", partition.0, range.end()));
    pairs.collect::<Vec<_>>().join(",")
}

fn parse<T: for<'de> Deserialize<'de>>(answer: &str) -> Result<T> {
    serde_json::from_str(answer).with_context(|| format!("the SQL client answered {answer:?}"))
}
