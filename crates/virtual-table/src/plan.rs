//! What a table is at one moment: all that it depends on, and its head. `files.rs` has its files.

use std::collections::BTreeMap;
use std::sync::Arc;

use isk_iceberg_table::{Group, Placement, TableHead, groups};
use isk_kafka::TopicDescription;
use isk_model::{
    ColumnRules, ContentDigest, KafkaPartition, ObjectKey, OffsetRange, PartitionOffsets,
    RenderDigest, TopicName, folder,
};
use isk_parquet_file::{RenderProfile, empty_delete_file};
use isk_schema::{KeyKind, MAPPING_VERSION, TableSchema, ValueKind};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::{ERRORS, HOTSET, MERGED, ServiceError};
use crate::beside::{Beside, Merged};
use crate::cleaning::Cleaning;
use crate::covered::Covered;
use crate::epochs::EpochHistory;
use crate::facts::FactBook;
use crate::lineage::{Ends, TickCuts, split};
use crate::table_rules::{RowLayout, TableRules};
use crate::tail::Cuts;
use crate::time_index_ask::TopicTimes;
use crate::topic_pin::TopicPin;
use crate::undecoded::Decoding;

/// Counts changes to rows that neither the schema mapping nor the render profile know of: the
/// metadata columns' content, the policy for records that do not decode.
const ROWS_VERSION: u32 = 2;

/// Namespace of the UUIDs of tables: a table's UUID comes from its cluster and topic id.
const TABLE_UUIDS: Uuid = Uuid::from_u128(0x3f0c_7a52_6c1e_4b0e_9a57_2d1f_7d2b_6b11);

/// What of a topic is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum View {
    /// All of it, in the layout that is set for the topic.
    Hot,
    /// All of it, in another layout.
    As(RowLayout),
    /// The records of one of its several types, by the name of that type's column in small letters.
    Type(Arc<str>),
    /// All of it, but for what a caller under rules about columns does not see.
    Restricted(Arc<ColumnRules>),
    /// What a cold table does not cover.
    Unmoved,
    /// What a cold table does not cover, together with that table.
    Merged,
    /// The records that do not decode.
    Errors,
}

impl View {
    /// The bucket of the view's objects.
    pub(crate) fn bucket(&self) -> &'static str {
        match self {
            Self::Hot | Self::As(_) | Self::Type(_) | Self::Restricted(_) | Self::Unmoved => HOTSET,
            Self::Merged => MERGED,
            Self::Errors => ERRORS,
        }
    }

    /// What it is called in traces.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::As(_) => "layout",
            Self::Type(_) => "type",
            Self::Restricted(_) => "restricted",
            Self::Unmoved => "unmoved",
            Self::Merged => "merged",
            Self::Errors => "errors",
        }
    }

    /// The rules about columns that its objects' folder is of.
    pub(crate) fn columns(&self) -> Option<ContentDigest> {
        match self {
            Self::Restricted(rules) => Some(rules.digest()),
            _ => None,
        }
    }

    /// How a topic's records are rows of it.
    pub(crate) fn layout(&self, rules: &TableRules, topic: &TopicName) -> RowLayout {
        match self {
            Self::As(layout) => *layout,
            Self::Type(_) | Self::Restricted(_) => RowLayout::Flat,
            Self::Hot | Self::Unmoved | Self::Merged | Self::Errors => rules.layout(topic),
        }
    }
}

/// All that a plan depends on: equal inputs are one snapshot.
pub(crate) struct Inputs {
    pub view: View,
    /// How records are rows.
    pub layout: RowLayout,
    pub cluster_id: String,
    pub topic: Arc<TopicDescription>,
    /// The columns of the files.
    pub table: Arc<TableSchema>,
    pub decoding: Decoding,
    pub render: RenderDigest,
    /// The recipes of the same chunks as the topic has them, where other files are planned.
    pub hot_render: Option<RenderDigest>,
    pub offsets: BTreeMap<KafkaPartition, PartitionOffsets>,
    pub epochs: BTreeMap<KafkaPartition, EpochHistory>,
    pub pin: TopicPin,
    pub max_message_bytes: u64,
    /// Where the log's cleaner may remove records from the middle of the log.
    pub cleaning: Cleaning,
    /// How late records can be.
    pub times: TopicTimes,
    /// Properties of the table beside those that follow from all else.
    pub notes: BTreeMap<String, String>,
    pub facts: Arc<FactBook>,
    /// Where the ends of partitions are cut into pieces, if they are.
    pub cuts: BTreeMap<KafkaPartition, Cuts>,
    /// The cold table that the topic is seen beside.
    pub beside: Option<Beside>,
    /// Where files are cut so that what a tick added stays files of its own.
    pub tick_cuts: TickCuts,
    /// Round times with how far partitions reached then, to be offered as snapshots before all ticks.
    pub rounds: BTreeMap<i64, Ends>,
}

impl Inputs {
    /// How the topic and a cold table are one table, where they are.
    pub(crate) fn merged(&self) -> Option<&Merged> {
        self.beside.as_ref().and_then(|beside| beside.merged.as_ref())
    }

    /// The folder of the view's objects.
    pub(crate) fn folder(&self) -> String {
        folder(&self.topic.name, self.view.columns())
    }

    /// The offsets of a partition that a cold table covers, if it covers any.
    pub(crate) fn covered(&self) -> Option<&Covered> {
        self.beside.as_ref().map(|beside| beside.covered.as_ref())
    }

    /// The groups that all that is readable of the topic falls into.
    pub(crate) fn groups(&self) -> Vec<Group> {
        self.groups_between(None, None)
    }

    /// The groups of what is readable from `from` on and before `to`. A partition that these do not know
    /// is all behind them.
    pub(crate) fn groups_between(&self, from: Option<&Ends>, to: Option<&Ends>) -> Vec<Group> {
        let readable = self.offsets.iter().filter_map(|(&partition, log)| {
            let all = log.readable()?;
            let known = |ends: &Ends| ends.get(&partition).copied().unwrap_or(all.start());
            let start = from.map_or(all.start(), known).max(all.start());
            let end = to.map_or(all.end(), known).min(all.end());
            Some((partition, OffsetRange::new(start, end)?))
        });
        let pieces = readable.flat_map(|(partition, range)| {
            let cuts = self.tick_cuts.get(&partition).map_or(&[][..], Vec::as_slice);
            split(range, cuts).into_iter().map(move |piece| (partition, piece))
        });
        groups(pieces, self.pin.chunk_exponent())
    }
}

/// The digest of everything but offsets that decides a file's bytes.
pub(crate) fn render_digest(
    table: &TableSchema,
    profile: &RenderProfile,
    decoding: &Decoding,
) -> Result<RenderDigest, ServiceError> {
    let columns = serde_json::to_vec(table.iceberg.as_ref())
        .map_err(|e| ServiceError::Internal(format!("a table schema has no JSON: {e}")))?;
    let mut hash = Sha256::new();
    hash.update(format!("mapping {MAPPING_VERSION}; rows {ROWS_VERSION}; "));
    hash.update(decoding.digest_input());
    hash.update(profile.digest_input());
    if table.value == ValueKind::JsonText {
        // The same columns could be found by other means beside a cold table.
        hash.update("; json text");
    }
    if let ValueKind::OneOf(kind) = &table.value {
        // The rows are those of its records alone.
        hash.update(format!("; of type {}", kind.name));
    }
    hash.update([0]);
    hash.update(columns);
    // Bytes that name their schema are told apart by it; these are not.
    let bare = [
        if let ValueKind::Bare(text, _) = &table.value { Some(("value", text)) } else { None },
        if let KeyKind::Bare(text, _) = &table.key { Some(("key", text)) } else { None },
    ];
    for (part, text) in bare.into_iter().flatten() {
        hash.update(format!("\0bare {part} {} {}", text.format, text.text));
    }
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    Ok(RenderDigest(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
}

/// The table's location: what the URIs of all its virtual objects begin with.
pub(crate) fn location(view: &View, topic: &TopicName) -> String {
    format!("s3://{}/{}", view.bucket(), folder(topic, view.columns()))
}

/// The id under which table metadata names the schema of JSON text, which follows no version.
const JSON_TEXT_SCHEMA: i32 = i32::MAX - 1;

/// The id under which table metadata names a topic's schema.
fn schema_id(table: &TableSchema) -> i32 {
    if table.value == ValueKind::JsonText {
        return JSON_TEXT_SCHEMA;
    }
    let version = table.version;
    let id = u64::from(version.value) + u64::from(version.key) * 100_000;
    i32::try_from(id).unwrap_or(i32::MAX)
}

/// The table, but for its files.
pub(crate) fn head(inputs: &Inputs, timestamp_ms: i64) -> TableHead {
    let merged = inputs.merged();
    let topic = &inputs.topic.name;
    let mut properties = BTreeMap::from([
        ("isk.view".to_owned(), view_name(&inputs.view).to_owned()),
        ("isk.layout".to_owned(), inputs.layout.name().to_owned()),
        ("isk.topic".to_owned(), topic.to_string()),
        ("isk.topic-id".to_owned(), inputs.topic.id.to_string()),
        ("isk.cluster-id".to_owned(), inputs.cluster_id.clone()),
        ("isk.value-schema-version".to_owned(), inputs.table.version.value.to_string()),
        ("isk.key-schema-version".to_owned(), inputs.table.version.key.to_string()),
    ]);
    if let ValueKind::OneOf(kind) = &inputs.table.value {
        properties.insert("isk.record-type".to_owned(), kind.name.clone());
    }
    properties.extend(inputs.notes.clone());
    properties.extend(inputs.beside.iter().flat_map(|beside| beside.properties.clone()));
    TableHead {
        table_uuid: table_uuid(inputs),
        location: location(&inputs.view, topic),
        schema: merged.map_or(&inputs.table.iceberg, |merged| &merged.schema).clone(),
        schema_id: merged.map_or_else(|| schema_id(&inputs.table), |merged| merged.schema_id),
        placement: merged.map_or(Placement::HOT, |merged| merged.placement.clone()),
        // A table of hot files alone has no changes to put into an order.
        sequence_number: merged.map_or(1, |merged| merged.sequence_number),
        cold: merged.map(|merged| merged.cold.clone()),
        chunk_exponent: inputs.pin.chunk_exponent(),
        properties,
        timestamp_ms,
        delete_file_size: empty_delete_file().len() as u64,
        summary: BTreeMap::from([
            ("isk.log-start-offsets".to_owned(), vector(&inputs.offsets, |o| o.log_start.0)),
            ("isk.end-offsets".to_owned(), vector(&inputs.offsets, |o| o.last_stable.0)),
        ]),
    }
}

/// The value of the property `isk.view`.
fn view_name(view: &View) -> &'static str {
    match view {
        View::Type(_) => "type",
        View::Restricted(_) => "restricted",
        View::Hot => HOTSET,
        View::As(layout) => layout.name(),
        View::Unmoved => "unmoved",
        View::Merged => MERGED,
        View::Errors => ERRORS,
    }
}

/// The URI of an object.
pub(crate) fn uri(bucket: &str, key: &ObjectKey) -> String {
    format!("s3://{bucket}/{key}")
}

fn table_uuid(inputs: &Inputs) -> Uuid {
    let topic = &inputs.topic;
    let hot = format!("{}/{}/{}", inputs.cluster_id, topic.name, topic.id);
    let name = match (&inputs.view, &inputs.beside) {
        (View::Merged, Some(beside)) => format!("{hot}/merged/{}", beside.table_uuid),
        (View::Unmoved, _) => format!("{hot}/unmoved"),
        (View::Errors, _) => format!("{hot}/errors"),
        (View::As(layout), _) => format!("{hot}/{}", layout.name()),
        (View::Restricted(rules), _) => format!("{hot}/columns/{}", rules.digest()),
        (View::Type(column), _) => format!("{hot}/type/{column}"),
        _ => hot,
    };
    Uuid::new_v5(&TABLE_UUIDS, name.as_bytes())
}

/// `partition:offset` for every partition, in order, comma-separated.
fn vector(
    offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    of: impl Fn(&PartitionOffsets) -> i64,
) -> String {
    let mut out = String::new();
    for (partition, offsets) in offsets {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&format!("{partition}:{}", of(offsets)));
    }
    out
}
