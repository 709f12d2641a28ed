//! What can go wrong with the brokers, classed by what the caller should do.

use std::time::Duration;

use isk_model::{LeaderEpoch, Offset, TopicName, TopicPartition};

/// A question to the cluster was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KafkaError {
    /// The configuration is wrong: fix it and start again.
    #[error("Kafka property {key:?}: {reason}")]
    Config {
        /// The property's name.
        key: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// The client could not be created: fix the configuration.
    #[error("the Kafka client cannot be created: {0}")]
    Create(String),
    /// The brokers refused who we are: fix the credentials.
    #[error(
        "the brokers at bootstrap.servers={brokers} refused to authenticate us: {reason}; \
         check security.protocol and the sasl.* and ssl.* properties"
    )]
    Authentication {
        /// `bootstrap.servers`.
        brokers: String,
        /// The client's own words.
        reason: String,
    },
    /// The brokers want a token, and nobody gives us one: fix the credentials, or try again later.
    #[error(
        "no token for the brokers from sasl.oauthbearer.token.endpoint.url={endpoint}: {reason}; check {}",
        what_to_check(.refused)
    )]
    Token {
        /// Who was asked.
        endpoint: String,
        /// What came of it.
        reason: String,
        /// It gives this client none.
        refused: bool,
    },
    /// The principal may not do this: grant it, or hide the topic.
    #[error(
        "{what}: not authorized ({reason}); the principal needs DESCRIBE and READ on the topic"
    )]
    NotAuthorized {
        /// What was asked.
        what: String,
        /// The broker's own words.
        reason: String,
    },
    /// The topic or one of its partitions does not exist.
    #[error("topic {topic}: no such topic or partition")]
    NoSuchTopic {
        /// The topic.
        topic: TopicName,
    },
    /// No answer in time: try again later.
    #[error(
        "{what}: no answer from bootstrap.servers={brokers} within {} ms{}; \
         check that the brokers run and that their advertised addresses can be reached from here",
        .after.as_millis(),
        .last_error.as_ref().map(|e| format!(" (last error: {e})")).unwrap_or_default()
    )]
    Unreachable {
        /// What was asked.
        what: String,
        /// `bootstrap.servers`.
        brokers: String,
        /// How long we waited.
        after: Duration,
        /// What the client last complained of.
        last_error: Option<String>,
    },
    /// A partition has no leader: try again; if it stays, look at the brokers.
    #[error("{what}: a partition has no leader now; its brokers may be down")]
    Leaderless {
        /// What was asked.
        what: String,
    },
    /// The brokers answered with an error: try again; if it stays, look at the brokers.
    #[error("{what}: the brokers answered {reason}")]
    Broker {
        /// What was asked.
        what: String,
        /// The error's name and text.
        reason: String,
    },
}

/// A range of records could not be read completely. What was delivered before must be dropped.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The records are gone (retention, DeleteRecords): plan again.
    #[error(
        "{tp}: offset {offset} has expired, the log starts at {log_start}; load the table again"
    )]
    Expired {
        /// The partition.
        tp: TopicPartition,
        /// The first offset that was not there.
        offset: Offset,
        /// Where the log starts now.
        log_start: Offset,
    },
    /// The log was rewritten since the range was planned (a recreated topic, a truncated log):
    /// plan again.
    #[error("{tp}: the log was rewritten at offset {offset}: {reason}; load the table again")]
    Rewritten {
        /// The partition.
        tp: TopicPartition,
        /// The offset where it was noticed.
        offset: Offset,
        /// How it was noticed.
        reason: String,
    },
    /// A record of a later leader epoch than the range was planned under.
    #[error(
        "{tp}: the record at offset {offset} was written under leader epoch {} but the range was \
         planned under {}; load the table again",
        .found.0,
        .planned.0
    )]
    LeaderEpochChanged {
        /// The partition.
        tp: TopicPartition,
        /// The record's offset.
        offset: Offset,
        /// The record's epoch.
        found: LeaderEpoch,
        /// The greatest epoch expected.
        planned: LeaderEpoch,
    },
    /// No progress: try again later.
    #[error(
        "{tp}: no progress at offset {offset} of {end} for {} ms{} (bootstrap.servers={brokers})",
        .after.as_millis(),
        .last_error.as_ref().map(|e| format!(", last error: {e}")).unwrap_or_default()
    )]
    Timeout {
        /// The partition.
        tp: TopicPartition,
        /// The next offset expected.
        offset: Offset,
        /// The end of the range.
        end: Offset,
        /// How long nothing came.
        after: Duration,
        /// `bootstrap.servers`.
        brokers: String,
        /// What the client last complained of.
        last_error: Option<String>,
    },
    /// The range reaches past the last stable offset and the log did not grow in time: try again, or
    /// plan again.
    #[error(
        "{tp}: the committed log ends at {reached}, before the end {end} of the range; \
         an open transaction, a lagging new leader or a truncated log can be the cause"
    )]
    EndNotReached {
        /// The partition.
        tp: TopicPartition,
        /// The last stable offset seen.
        reached: Offset,
        /// The end of the range.
        end: Offset,
    },
    /// The topic or partition does not exist (any more): plan again.
    #[error("{tp}: no such topic or partition")]
    NoSuchPartition {
        /// The partition.
        tp: TopicPartition,
    },
    /// A batch's checksum is wrong or it cannot be parsed: look at the broker's disk.
    #[error("{tp}: the records at offset {offset} are corrupt: {reason}")]
    Corrupt {
        /// The partition.
        tp: TopicPartition,
        /// The next offset expected.
        offset: Offset,
        /// The client's own words.
        reason: String,
    },
    /// The brokers answered with an error, or could not be asked.
    #[error("{tp}: {source}")]
    Kafka {
        /// The partition.
        tp: TopicPartition,
        /// What went wrong.
        source: KafkaError,
    },
    /// The reading thread ended without a word: a bug, try again.
    #[error("{tp}: the fetch ended without saying whether it is complete")]
    Interrupted {
        /// The partition.
        tp: TopicPartition,
    },
}

fn what_to_check(refused: &bool) -> &'static str {
    if *refused {
        "sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and sasl.oauthbearer.scope"
    } else {
        "that this is the URL, that it can be reached from here, and https.ca.location \
         if a private authority vouches for it"
    }
}

impl FetchError {
    /// Whether the same range may be there on the next attempt. Otherwise the table must be planned
    /// again, or a person must act.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::EndNotReached { .. } | Self::Interrupted { .. } => true,
            Self::Kafka { source, .. } => source.is_transient(),
            Self::Expired { .. }
            | Self::Rewritten { .. }
            | Self::LeaderEpochChanged { .. }
            | Self::NoSuchPartition { .. }
            | Self::Corrupt { .. } => false,
        }
    }
}

impl KafkaError {
    /// Whether asking again later may succeed without anybody acting.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Leaderless { .. } | Self::Broker { .. } => true,
            Self::Token { refused, .. } => !refused,
            Self::Config { .. }
            | Self::Create(_)
            | Self::Authentication { .. }
            | Self::NotAuthorized { .. }
            | Self::NoSuchTopic { .. } => false,
        }
    }
}

/// What is shown of somebody else's words, in characters.
const SHOWN: usize = 200;

/// A broker's or a provider's own words, made fit for an error.
pub(crate) fn shown(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_others_are_cut_and_hold_nothing_that_a_terminal_obeys() {
        assert_eq!(shown("no such user\r\n\u{1b}[31m: ä"), "no such user[31m: ä");
        assert_eq!(shown(&"ä".repeat(5000)).chars().count(), SHOWN);
    }
}
