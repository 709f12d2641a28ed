//! The rules: which principals have which right on which tables. What no rule allows is denied.

use crate::principal::{Caller, Right, TableName};

/// A name with `*` for any run of characters, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern(String);

impl Pattern {
    /// Whether the whole of `text` is such a name. Takes at most as many steps as both lengths multiplied.
    fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut at, mut seen) = (0, 0);
        // Where the last star stands, and how much of the text it has taken.
        let mut star: Option<(usize, usize)> = None;
        while seen < text.len() {
            if pattern.get(at) == Some(&b'*') {
                star = Some((at, seen));
                at += 1;
            } else if pattern.get(at) == text.get(seen) {
                at += 1;
                seen += 1;
            } else if let Some((place, taken)) = star {
                star = Some((place, taken + 1));
                (at, seen) = (place + 1, taken + 1);
            } else {
                return false;
            }
        }
        pattern.get(at..).unwrap_or_default().iter().all(|&byte| byte == b'*')
    }
}

/// Who has a right on some tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    principals: Vec<Pattern>,
    groups: Vec<Pattern>,
    tables: Vec<Pattern>,
    right: Right,
}

impl Rule {
    /// A rule for callers that one of `principals` or one of `groups` names. Tables are `<namespace>.<table>`.
    /// In all names `*` stands for any characters.
    pub fn new(principals: &[String], groups: &[String], tables: &[String], right: Right) -> Self {
        let patterns = |texts: &[String]| texts.iter().cloned().map(Pattern).collect();
        Self {
            principals: patterns(principals),
            groups: patterns(groups),
            tables: patterns(tables),
            right,
        }
    }

    fn is_for(&self, caller: &Caller) -> bool {
        let named = self.principals.iter().any(|pattern| pattern.matches(&caller.name));
        named || caller.groups.iter().any(|group| self.names_group(group))
    }

    fn names_group(&self, group: &str) -> bool {
        self.groups.iter().any(|pattern| pattern.matches(group))
    }

    fn is_about(&self, table: &TableName) -> bool {
        let name = format!("{}.{}", table.namespace, table.table);
        self.tables.iter().any(|pattern| pattern.matches(&name))
    }
}

/// All rules. Without any, nobody may anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// These rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// The most that a caller may do with a table; `None` where it may not even know of it.
    pub fn right(&self, caller: &Caller, table: &TableName) -> Option<Right> {
        let fitting = self.0.iter().filter(|rule| rule.is_for(caller) && rule.is_about(table));
        fitting.map(|rule| rule.right).max()
    }

    /// Whether any rule speaks of a group: the others make no difference.
    pub fn names_group(&self, group: &str) -> bool {
        self.0.iter().any(|rule| rule.names_group(group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Source;

    #[test]
    fn stars_stand_for_anything_and_dots_for_themselves() {
        for (pattern, text, expected) in [
            ("hotset.orders", "hotset.orders", true),
            ("hotset.orders", "hotset.orders2", false),
            ("hotset.orders", "hotsetxorders", false),
            ("hotset.*", "hotset.", true),
            ("hotset.pay*_v*", "hotset.pay.eu_x_v2", true),
            ("hotset.pay*_v*", "hotset.pay.eu", false),
            ("*.orders", "coldset.orders", true),
            ("*.orders", "coldset.orders.old", false),
            ("*", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
        ] {
            assert_eq!(Pattern(pattern.into()).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn all_of_a_namespace_is_matched_by_what_matches_each_of_its_tables() {
        for (pattern, in_hotset, everything) in [
            ("*", true, true),
            ("*.*", true, true),
            ("hotset.*", true, false),
            ("hot*", true, false),
            ("hotset.a*", false, false),
            ("hotset.*a", false, false),
            ("*.orders", false, false),
        ] {
            let pattern = Rule::new(&[], &[], &[pattern.to_owned()], Right::List);
            assert_eq!(pattern.is_about(&TableName::all_of("hotset")), in_hotset, "{pattern:?}");
            assert_eq!(pattern.is_about(&TableName::everything()), everything, "{pattern:?}");
        }
    }

    #[test]
    fn the_greatest_right_of_all_fitting_rules_counts() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let rule = |principals: &[&str], groups: &[&str], tables: &[&str], right| {
            Rule::new(&texts(principals), &texts(groups), &texts(tables), right)
        };
        let rules = Rules::new(vec![
            rule(&["*"], &[], &["hotset.public"], Right::List),
            rule(&["alice"], &["etl*"], &["hotset.*"], Right::Read),
            rule(&[], &["etl-lead"], &["coldset.a"], Right::Write),
        ]);
        let caller = |name: &str, groups: &[&str]| Caller {
            name: name.into(),
            groups: texts(groups),
            source: Source::Issuer,
        };
        for (name, groups, table, expected) in [
            ("alice", &[][..], "hotset.public", Some(Right::Read)),
            ("alice", &[], "hotset.x", Some(Right::Read)),
            ("alice", &[], "coldset.a", None),
            ("bob", &[], "hotset.public", Some(Right::List)),
            ("bob", &[], "hotset.x", None),
            ("bob", &["etl-eu"], "hotset.x", Some(Right::Read)),
            ("bob", &["etl-lead"], "coldset.a", Some(Right::Write)),
            ("etl", &["alice"], "hotset.x", None),
        ] {
            let (namespace, table) = table.split_once('.').unwrap();
            let seen = rules.right(&caller(name, groups), &TableName::new(namespace, table));
            assert_eq!(seen, expected, "{name} {groups:?} {namespace}.{table}");
        }
        assert_eq!(Rules::default().right(&caller("alice", &[]), &TableName::everything()), None);
    }
}
