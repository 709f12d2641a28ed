//! Which cold table a topic is one with.

use isk_model::TopicName;
use regex::Regex;

/// Topic patterns and the names of their cold tables.
#[derive(Debug, Clone, Default)]
pub struct TableMapping {
    rules: Vec<(Regex, String)>,
}

impl TableMapping {
    /// Rules of a regular expression that matches a topic's whole name, and its cold table's name, in
    /// which `$1` and `${name}` stand for groups. The first that matches counts; a topic that none
    /// matches has a cold table of its own name.
    ///
    /// # Errors
    /// The text of the pattern that is no regular expression, and why.
    pub fn new<S: AsRef<str>>(rules: &[(S, S)]) -> Result<Self, regex::Error> {
        let rule = |(topic, table): &(S, S)| {
            let whole = format!("^(?:{})$", topic.as_ref());
            Ok((Regex::new(&whole)?, table.as_ref().to_owned()))
        };
        Ok(Self { rules: rules.iter().map(rule).collect::<Result<_, _>>()? })
    }

    /// The cold table, and the merged table, of a topic.
    pub(crate) fn table_of(&self, topic: &TopicName) -> String {
        let topic = topic.as_str();
        match self.rules.iter().find(|(pattern, _)| pattern.is_match(topic)) {
            Some((pattern, table)) => pattern.replace(topic, table).into_owned(),
            None => topic.to_owned(),
        }
    }

    /// Where all topics have cold tables of their own names: the topic of a table, or `None` inside
    /// where none can have that name. `None` where it takes a look at all topics.
    pub(crate) fn own_name(&self, table: &str) -> Option<Option<TopicName>> {
        self.rules.is_empty().then(|| TopicName::new(table).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_names_the_table() {
        let rules = [("prod\\.(.+)\\.v1", "$1"), ("prod\\.(.+)", "${1}_new")];
        let mapping = TableMapping::new(&rules).unwrap();
        let table = |topic| mapping.table_of(&TopicName::new(topic).unwrap());
        assert_eq!(table("prod.orders.v1"), "orders");
        assert_eq!(table("prod.orders"), "orders_new");
        assert_eq!(table("orders"), "orders");
        assert!(TableMapping::new(&[("(", "x")]).is_err());
    }
}
