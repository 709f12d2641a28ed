//! `isk coverage`: what cold tables cover of their topics, and how an operator takes some of it back.
//!
//! It works on the `data_dir` of a service that is stopped, or on the `shared_dir` of replicas that all are, and asks neither Kafka
//! nor the upstream.

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use isk_model::{KafkaPartition, Offset, OffsetRange, OffsetSet};
use isk_virtual_table::{CoverageStore, Forget, TableCoverage};

use crate::Configuration;
use crate::config::Config;

/// Runs of offsets that are shown for each Kafka partition.
const SHOWN_RUNS: usize = 16;

#[derive(Subcommand)]
pub enum Coverage {
    /// Print which offsets cold tables cover, and so are not shown from Kafka
    Show(Show),
    /// Take coverage back, so that Kafka's rows are shown again; what the cold table still holds when it
    /// is loaded next stays covered
    Forget(Selection),
}

#[derive(Args)]
pub struct Show {
    #[command(flatten)]
    pub configuration: Configuration,
    /// The cold table: its name in the upstream namespace, or its UUID; all where it is not given
    #[arg(short, long)]
    table: Option<String>,
}

#[derive(Args)]
pub struct Selection {
    #[command(flatten)]
    pub configuration: Configuration,
    /// The cold table: its name in the upstream namespace, or its UUID
    #[arg(short, long)]
    table: String,
    /// One Kafka partition alone; without it, all of the table, its boundary too
    #[arg(short, long)]
    partition: Option<i32>,
    /// Offsets of that partition alone: START..END, the end not among them
    #[arg(short, long, requires = "partition", value_parser = offsets)]
    offsets: Option<OffsetRange>,
}

impl Coverage {
    /// Where the configuration file is.
    pub fn configuration(&self) -> &Configuration {
        match self {
            Self::Show(show) => &show.configuration,
            Self::Forget(selection) => &selection.configuration,
        }
    }

    /// Does what is asked, and prints it.
    pub fn run(&self, config: &Config) -> Result<()> {
        let shared_dir = config.shared_dir.as_deref();
        let store = CoverageStore::open(&config.data_dir, shared_dir).context(
            "the coverage of cold tables cannot be opened; it can while no isk runs on this data_dir",
        )?;
        let tables = store.tables()?;
        match self {
            Self::Show(Show { table: Some(name), .. }) => print(find(&tables, name)?),
            Self::Show(_) if tables.is_empty() => println!("no cold table was seen yet"),
            Self::Show(_) => tables.iter().for_each(print),
            Self::Forget(selection) => {
                let table = find(&tables, &selection.table)?;
                let what = selection.what(table)?;
                let left = store.forget(table, what)?;
                println!("{} offsets are covered no longer", table.len() - left.len());
                print(&left);
                println!("what the cold table holds is looked at again when it is loaded next");
                if config.shared_dir.is_some() {
                    println!(
                        "a replica that ran meanwhile may bring it back: stop all of them first"
                    );
                }
            }
        }
        Ok(())
    }
}

impl Selection {
    fn what(&self, table: &TableCoverage) -> Result<Forget> {
        let Some(partition) = self.partition.map(KafkaPartition) else { return Ok(Forget::All) };
        if !table.offsets.contains_key(&partition) {
            bail!(
                "nothing of Kafka partition {partition} is covered; isk coverage show tells what is"
            );
        }
        Ok(match self.offsets {
            Some(range) => Forget::Range(partition, range),
            None => Forget::Partition(partition),
        })
    }
}

fn find<'a>(tables: &'a [TableCoverage], name: &str) -> Result<&'a TableCoverage> {
    let is_it = |t: &&TableCoverage| t.table.as_deref() == Some(name) || t.table_uuid == name;
    let found: Vec<_> = tables.iter().filter(is_it).collect();
    match found[..] {
        [table] => Ok(table),
        [] => bail!("no cold table {name} was seen; isk coverage show tells which were"),
        _ => {
            let uuids: Vec<_> = found.iter().map(|table| table.table_uuid.as_str()).collect();
            bail!("{name} is the name of several tables: give a UUID, {}", uuids.join(" or "))
        }
    }
}

fn print(table: &TableCoverage) {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "of unknown name".into());
    println!(
        "cold table {} ({}), topic {} ({})",
        name(&table.table),
        table.table_uuid,
        name(&table.topic),
        table.topic_id
    );
    if let Some(before) = table.before {
        println!("  all records with a timestamp before {} ms", before.0);
    }
    for (partition, set) in &table.offsets {
        println!("  partition {partition}: {} offsets{}", set.len(), runs(set));
    }
}

/// The first runs of a set.
fn runs(set: &OffsetSet) -> String {
    let all = OffsetRange::new(Offset(0), Offset(i64::MAX));
    let mut runs: Vec<String> = Vec::new();
    for run in all.into_iter().flat_map(|all| set.runs(all)) {
        if runs.len() == SHOWN_RUNS {
            runs.push("...".into());
            break;
        }
        runs.push(format!("{}..{}", run.start(), run.end()));
    }
    if runs.is_empty() { String::new() } else { format!(": {}", runs.join(", ")) }
}

fn offsets(text: &str) -> Result<OffsetRange> {
    let number = |text: &str| text.trim().parse::<i64>().ok().map(Offset);
    text.split_once("..")
        .and_then(|(start, end)| OffsetRange::new(number(start)?, number(end)?))
        .ok_or_else(|| {
            anyhow!("{text:?} is no range of offsets: give START..END, such as 100..200")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, uuid: &str) -> TableCoverage {
        TableCoverage {
            table: Some(name.into()),
            table_uuid: uuid.into(),
            topic: None,
            topic_id: "1".into(),
            before: None,
            offsets: [].into(),
        }
    }

    #[test]
    fn tables_are_found_by_name_or_uuid() {
        let tables = [table("a", "1"), table("b", "2"), table("b", "3")];
        assert_eq!(find(&tables, "a").unwrap().table_uuid, "1");
        assert_eq!(find(&tables, "3").unwrap().table_uuid, "3");
        assert!(find(&tables, "b").unwrap_err().to_string().contains("2 or 3"));
        assert!(find(&tables, "c").is_err());
    }

    #[test]
    fn ranges_are_read_and_shown() {
        assert_eq!(offsets("5..9").unwrap(), OffsetRange::new(Offset(5), Offset(9)).unwrap());
        for bad in ["", "5", "9..5", "-1..5", "a..b", "5..5"] {
            assert!(offsets(bad).is_err(), "{bad}");
        }
        let set: OffsetSet =
            [offsets("0..3").unwrap(), offsets("7..8").unwrap()].into_iter().collect();
        assert_eq!(runs(&set), ": 0..3, 7..8");
        let many: OffsetSet =
            (0..40).filter_map(|n| OffsetRange::new(Offset(n * 2), Offset(n * 2 + 1))).collect();
        assert!(runs(&many).ends_with("30..31, ..."));
    }
}
