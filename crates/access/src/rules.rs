//! The rules: which principals have which right on which tables, and which of their columns they see. What no rule
//! allows is denied.

use std::collections::BTreeSet;

use isk_model::{ColumnRule, ColumnRules};

use crate::kafka::KafkaLogin;
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

/// Whom a rule is for, and which tables it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    principals: Vec<Pattern>,
    groups: Vec<Pattern>,
    tables: Vec<Pattern>,
}

impl Reach {
    /// Callers that one of `principals` or one of `groups` names. Tables are `<namespace>.<table>`. In all names `*`
    /// stands for any characters.
    pub fn new(principals: &[String], groups: &[String], tables: &[String]) -> Self {
        let patterns = |texts: &[String]| texts.iter().cloned().map(Pattern).collect();
        Self {
            principals: patterns(principals),
            groups: patterns(groups),
            tables: patterns(tables),
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

    /// Whether some rows of a table, or where `*` stands for them, of any of its namespace's, could be meant.
    fn may_touch(&self, table: &TableName) -> bool {
        if table.table != "*" {
            return self.is_about(table);
        }
        let begin = format!("{}.", table.namespace);
        self.tables.iter().any(|Pattern(text)| {
            let sure = text.split('*').next().unwrap_or_default();
            table.namespace == "*" || sure.starts_with(&begin) || begin.starts_with(sure)
        })
    }
}

/// All rules. Without any, nobody may anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Who has which right on some tables.
    pub rights: Vec<(Reach, Right)>,
    /// Who sees which columns of some tables.
    pub columns: Vec<(Reach, ColumnRule)>,
    /// Who is known to the brokers by which login: the first that fits.
    pub logins: Vec<(Reach, KafkaLogin)>,
}

impl Rules {
    /// The most that a caller may do with a table; `None` where it may not even know of it.
    pub fn right(&self, caller: &Caller, table: &TableName) -> Option<Right> {
        let fitting =
            self.rights.iter().filter(|(reach, _)| reach.is_for(caller) && reach.is_about(table));
        fitting.map(|(_, right)| *right).max()
    }

    /// What a caller sees of the columns of a table that is made of these; `None`: all of them. A topic's table of
    /// errors shows its records, so what holds for the topic holds for that.
    pub fn columns(&self, caller: &Caller, tables: &[TableName]) -> Option<ColumnRules> {
        let topic = |table: &TableName| match table.namespace.as_str() {
            "errors" => TableName::new("hotset", &table.table),
            _ => table.clone(),
        };
        let tables: Vec<TableName> = tables.iter().map(topic).collect();
        let fitting = self.columns.iter().filter(|(reach, _)| {
            reach.is_for(caller) && tables.iter().any(|table| reach.may_touch(table))
        });
        ColumnRules::new(fitting.map(|(_, rule)| rule.clone()))
    }

    fn reaches(&self) -> impl Iterator<Item = &Reach> {
        let rights = self.rights.iter().map(|(reach, _)| reach);
        rights.chain(self.limiting())
    }

    /// What takes something from those whom it is for.
    fn limiting(&self) -> impl Iterator<Item = &Reach> {
        let columns = self.columns.iter().map(|(reach, _)| reach);
        columns.chain(self.logins.iter().map(|(reach, _)| reach))
    }

    /// Whether any rule speaks of a group: the others make no difference.
    pub fn names_group(&self, group: &str) -> bool {
        self.reaches().any(|reach| reach.names_group(group))
    }

    /// How a caller is known to the brokers, where it is.
    pub fn login(&self, caller: &Caller) -> Option<&KafkaLogin> {
        self.logins.iter().find(|(reach, _)| reach.is_for(caller)).map(|(_, login)| login)
    }

    /// A number that stands for the groups named by what takes something from callers, rules about columns and logins:
    /// as long as it is the same, a caller that was stripped of the groups that nothing names is under the same.
    pub fn limiting_groups(&self) -> u64 {
        let names = self.limiting().flat_map(|reach| &reach.groups);
        let names: BTreeSet<&str> = names.map(|Pattern(text)| text.as_str()).collect();
        let names = names.into_iter().collect::<Vec<_>>().join("\0");
        let digest = ring::digest::digest(&ring::digest::SHA256, names.as_bytes());
        digest.as_ref().iter().take(8).fold(0, |sum, &byte| sum << 8 | u64::from(byte))
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
            let pattern = Reach::new(&[], &[], &[pattern.to_owned()]);
            assert_eq!(pattern.is_about(&TableName::all_of("hotset")), in_hotset, "{pattern:?}");
            assert_eq!(pattern.is_about(&TableName::everything()), everything, "{pattern:?}");
        }
    }

    #[test]
    fn the_greatest_right_of_all_fitting_rules_counts() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let rule = |principals: &[&str], groups: &[&str], tables: &[&str], right| {
            (Reach::new(&texts(principals), &texts(groups), &texts(tables)), right)
        };
        let rights = vec![
            rule(&["*"], &[], &["hotset.public"], Right::List),
            rule(&["alice"], &["etl*"], &["hotset.*"], Right::Read),
            rule(&[], &["etl-lead"], &["coldset.a"], Right::Write),
        ];
        let rules = Rules { rights, ..Rules::default() };
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

    #[test]
    fn rules_about_columns_reach_whatever_shows_the_rows() {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let hides = |names: &[&str], groups: &[&str], tables: &[&str], hidden: &str| {
            let reach = Reach::new(&texts(names), &texts(groups), &texts(tables));
            (reach, ColumnRule::new(None, &[hidden.to_owned()], &[]).unwrap())
        };
        let columns = vec![
            hides(&["al*"], &[], &["hotset.orders"], "card"),
            hides(&[], &["interns"], &["hotset.pay*", "coldset.*"], "iban"),
        ];
        let rules = Rules { columns, ..Rules::default() };
        let caller = |name: &str, groups: &[&str]| Caller {
            name: name.into(),
            groups: texts(groups),
            source: Source::Issuer,
        };
        let (alice, intern, bob) =
            (caller("alice", &[]), caller("x", &["interns"]), caller("bob", &[]));
        for (namespace, table, expected) in [
            ("hotset", "orders", [true, false, false]),
            ("errors", "orders", [true, false, false]),
            ("hotset", "orders2", [false, false, false]),
            ("hotset", "pay.eu", [false, true, false]),
            ("coldset", "orders", [false, true, false]),
            // Whoever asks for all of a namespace asks for what is hidden there.
            ("hotset", "*", [true, true, false]),
            ("coldset", "*", [false, true, false]),
            ("*", "*", [true, true, false]),
        ] {
            let table = [TableName::new(namespace, table)];
            let seen = [&alice, &intern, &bob].map(|c| rules.columns(c, &table).is_some());
            assert_eq!(seen, expected, "{table:?}");
        }
        let both = caller("al", &["interns"]);
        let merged = [TableName::new("hotset", "orders"), TableName::new("coldset", "orders")];
        let all = rules.columns(&both, &merged).unwrap();
        assert_eq!(["card", "iban"].map(|c| all.seen(c)), [isk_model::Seen::Hidden; 2]);
        assert!(rules.names_group("interns") && !rules.names_group("etl"));
        assert_ne!(rules.limiting_groups(), Rules::default().limiting_groups());
    }
}
