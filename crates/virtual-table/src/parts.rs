//! What tables are made of: who may read the parts may read the whole.

use std::collections::BTreeMap;

use isk_model::TopicName;

use crate::api::{COLDSET, HOTSET, MERGED, ServiceError};
use crate::service::Service;
use crate::table_names::topic_of;

impl Service {
    /// For each of these tables, the tables whose rows it shows, as namespace and name: of a merged one its topic in
    /// the hotset and its table in the coldset, whether or not they are there.
    pub async fn parts(
        &self,
        namespace: &str,
        tables: &[String],
    ) -> Result<Vec<Vec<(String, String)>>, ServiceError> {
        let own = |namespace: &str, table: &str| (namespace.to_owned(), table.to_owned());
        if namespace != MERGED {
            let base = |table| if namespace == HOTSET { topic_of(table) } else { table };
            return Ok(tables.iter().map(|table| vec![own(namespace, base(table))]).collect());
        }
        // Names of tables by their topics' are to be looked up only where they differ.
        let named = match tables.first().is_none_or(|table| self.tables.own_name(table).is_some()) {
            true => Vec::new(),
            false => self.topics.names().await?,
        };
        let topic: BTreeMap<String, &TopicName> =
            named.iter().rev().map(|name| (self.tables.table_of(name), name)).collect();
        let parts = tables.iter().map(|table| {
            let topic = topic.get(table).map_or(table.as_str(), |topic| topic.as_str());
            vec![own(HOTSET, topic), own(COLDSET, table)]
        });
        Ok(parts.collect())
    }

    /// The tables whose rows the objects of a topic in a bucket hold, as namespace and name.
    pub fn parts_of_objects(&self, bucket: &str, topic: &str) -> Vec<(String, String)> {
        let own = |namespace: &str, table: String| (namespace.to_owned(), table);
        match TopicName::new(topic) {
            Ok(name) if bucket == MERGED => {
                vec![own(HOTSET, topic.to_owned()), own(COLDSET, self.tables.table_of(&name))]
            }
            _ => vec![own(bucket, topic.to_owned())],
        }
    }
}
