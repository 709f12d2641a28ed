//! The names of the hotset's tables: a topic's own, and those of other views of it.
//!
//! `"<topic>$<suffix>"` is a view of the topic, and so is `"<topic>~<suffix>"`, since some engines keep the first
//! sign for themselves. No topic has either of them in its name. A suffix that is none of ISK's own is the name of one of
//! the topic's types of record, if it has several.

use isk_model::TopicName;

use crate::api::ERRORS;
use crate::plan::View;
use crate::service::Service;
use crate::table_rules::{RowLayout, TableRules};

impl Service {
    /// The topic that a table of the hotset's shows, and how it is seen there.
    pub(crate) fn hot_table<'t>(&self, table: &'t str) -> (View, &'t str) {
        hot_table(&self.rules, table)
    }

    /// The topic that a table of the hotset's, or of errors, is of.
    pub(crate) fn topic_of_table<'t>(&self, namespace: &str, table: &'t str) -> &'t str {
        match namespace {
            ERRORS => table,
            _ => self.hot_table(table).1,
        }
    }
}

/// The topic that a table of the hotset's shows.
pub fn topic_of(table: &str) -> &str {
    hot_table(&TableRules::default(), table).1
}

/// Whether a name of a hotset's table is that of a table of one type of record.
pub(crate) fn names_a_type(table: &str) -> bool {
    matches!(hot_table(&TableRules::default(), table), (View::Type(_), _))
}

fn hot_table<'t>(rules: &TableRules, table: &'t str) -> (View, &'t str) {
    let Some((topic, suffix)) = table.split_once(['$', '~']) else { return (View::Hot, table) };
    if suffix == "unmoved" {
        return (View::Unmoved, topic);
    }
    let Some(layout) = RowLayout::of_name(suffix) else {
        return (View::Type(suffix.to_lowercase().into()), topic);
    };
    let own = TopicName::new(topic).map(|topic| rules.layout(&topic)).unwrap_or_default();
    // The layout that is set for it is the topic's own table.
    (if layout == own { View::Hot } else { View::As(layout) }, topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_suffix_behind_either_sign_is_a_view() {
        let rules = TableRules::default();
        for (table, view, topic) in [
            ("orders", View::Hot, "orders"),
            ("orders$raw", View::As(RowLayout::Raw), "orders"),
            ("a.b~json", View::As(RowLayout::Json), "a.b"),
            ("orders~flat", View::Hot, "orders"),
            ("orders$unmoved", View::Unmoved, "orders"),
            ("orders~unmoved", View::Unmoved, "orders"),
            ("orders$Payment", View::Type("payment".into()), "orders"),
            ("a.b~payment", View::Type("payment".into()), "a.b"),
            // Names of types may have the sign.
            ("orders$Outer$Inner", View::Type("outer$inner".into()), "orders"),
        ] {
            assert_eq!(hot_table(&rules, table), (view, topic), "{table}");
        }
    }
}
