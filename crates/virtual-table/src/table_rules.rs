//! What is set for some topics only: rules of a pattern of topic names and what holds for them.

use isk_model::TopicName;
use regex::Regex;

/// How the records of a topic become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RowLayout {
    /// The value's fields as columns.
    #[default]
    Flat,
    /// Key and value as the bytes they are. Needs no schema.
    Raw,
    /// Key and value as JSON text, each under the schema it was written with.
    Json,
}

impl RowLayout {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Flat, Self::Raw, Self::Json];

    /// Its name in the configuration, and in the names of tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Raw => "raw",
            Self::Json => "json",
        }
    }

    /// The layout of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }
}

/// What holds for the topics that a pattern matches. What a rule leaves open, a later one may say.
#[derive(Debug, Clone)]
pub struct TableRule {
    /// Matches whole names of topics.
    pub topic: Regex,
    /// The layout of the topic's table.
    pub layout: Option<RowLayout>,
}

impl TableRule {
    /// A rule that says nothing yet.
    ///
    /// # Errors
    /// The pattern is no regular expression, and why.
    pub fn new(topic: &str) -> Result<Self, regex::Error> {
        Ok(Self { topic: Regex::new(&format!("^(?:{topic})$"))?, layout: None })
    }
}

/// The rules, in order. Of those that match a topic and say something, the first one counts.
#[derive(Debug, Clone, Default)]
pub struct TableRules(pub Vec<TableRule>);

impl TableRules {
    /// The layout of a topic's table.
    pub fn layout(&self, topic: &TopicName) -> RowLayout {
        self.first(topic, |rule| rule.layout).unwrap_or_default()
    }

    fn first<'r, T>(
        &'r self,
        topic: &TopicName,
        says: impl Fn(&'r TableRule) -> Option<T>,
    ) -> Option<T> {
        let matching = self.0.iter().filter(|rule| rule.topic.is_match(topic.as_str()));
        matching.filter_map(says).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_says_something_counts() {
        let rule = |topic, layout| TableRule { layout, ..TableRule::new(topic).unwrap() };
        let rules = TableRules(vec![
            rule("logs\\..*", None),
            rule("logs\\.web", Some(RowLayout::Json)),
            rule("logs.*", Some(RowLayout::Raw)),
        ]);
        let layout = |topic| rules.layout(&TopicName::new(topic).unwrap());
        assert_eq!(layout("logs.web"), RowLayout::Json);
        assert_eq!(layout("logs.web2"), RowLayout::Raw);
        assert_eq!(layout("orders"), RowLayout::Flat);
        assert_eq!(layout("my-logs"), RowLayout::Flat);
    }
}
