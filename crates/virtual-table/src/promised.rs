//! Whether the log has what a file's name promises.
//!
//! A fetch that comes to the log's end waits there, since after a failover brokers may know less for a while than they did. A
//! name that no plan of this log made would wait all that time and hold an encoding's place; the brokers say at once that it
//! promises too much.

use std::time::Duration;

use isk_kafka::{KafkaError, TopicDescription};
use isk_model::DataFileKey;

use crate::api::ServiceError;
use crate::facts::recipe;
use crate::service::Service;

/// How long the brokers are asked. Where they do not answer, the fetch says why.
const ANSWER: Duration = Duration::from_secs(2);

impl Service {
    /// Refuses a file of a partition that the topic does not have, or of offsets behind the log's end. The brokers are asked
    /// only where no plan since the start has seen as many, nor anybody read the file before.
    pub(crate) async fn check_promise(
        &self,
        topic: &TopicDescription,
        key: &DataFileKey,
    ) -> Result<(), ServiceError> {
        let end = key.range.end();
        let seen = self.epochs.seen_end(topic, key.partition);
        if seen.is_some_and(|seen| end <= seen) || self.facts.get(&recipe(key)).is_some() {
            return Ok(());
        }
        let partition = [key.partition];
        let asked = self.kafka.offsets(&topic.name, &partition);
        let offsets = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(offsets)) => offsets,
            // The topic itself was there a moment ago.
            Ok(Err(KafkaError::NoSuchTopic { .. })) => return Err(no_such_partition(topic, key)),
            Ok(Err(_)) | Err(_) => return Ok(()),
        };
        match offsets.get(&key.partition) {
            Some(now) if now.last_stable < end => Err(ServiceError::Gone {
                key: key.to_string(),
                reason: format!(
                    "partition {} of topic {} ends at offset {}, before the file does; was its log cut back, \
                     or the name made by hand? Load the table again",
                    key.partition.0, topic.name, now.last_stable.0
                ),
            }),
            _ => Ok(()),
        }
    }
}

fn no_such_partition(topic: &TopicDescription, key: &DataFileKey) -> ServiceError {
    ServiceError::NoSuchKey {
        key: key.to_string(),
        reason: format!("topic {} has no partition {}", topic.name, key.partition.0),
    }
}
