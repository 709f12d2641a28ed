//! Which of a table's columns somebody may see: rules about whole columns, by their names.
//!
//! What a caller may see of a table is a table of its own, in a folder of its own, whose name holds the digest of
//! the rules ([`ColumnRules::digest`]): nothing that is made for one caller is ever found by another.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::object_key::ContentDigest;

/// The columns that every table needs for its partitions and times: where a record stands, and since when.
const ALWAYS: [&str; 3] = ["kafka_partition", "kafka_offset", "kafka_timestamp"];

/// The columns that hold whatever has no column of its own: a hidden field's value can get into them.
const CATCH_ALL: [&str; 2] = ["kafka_value", "_rest"];

/// What is seen of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// All of it.
    Shown,
    /// That it is there: its values are null.
    Masked,
    /// Nothing.
    Hidden,
}

/// A rule is no rule. The text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidColumns(String);

/// One rule about columns. Names are compared ignoring case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnRule {
    /// The columns that are shown; the others are hidden. `None`: all but those below.
    show: Option<BTreeSet<String>>,
    hide: BTreeSet<String>,
    mask: BTreeSet<String>,
}

impl ColumnRule {
    /// A rule that hides and masks these columns, and, where `show` is given, hides all that none of the three names.
    ///
    /// # Errors
    /// It says nothing, names a part of a column, or hides what no table can be without.
    pub fn new(
        show: Option<&[String]>,
        hide: &[String],
        mask: &[String],
    ) -> Result<Self, InvalidColumns> {
        let invalid = |why: String| Err(InvalidColumns(why));
        if show.is_none() && hide.is_empty() && mask.is_empty() {
            return invalid("it names no columns: show, hide or mask some".to_owned());
        }
        for name in show.unwrap_or_default().iter().chain(hide).chain(mask) {
            if name.is_empty() || name.contains(['.', '*']) {
                return invalid(format!(
                    "{name:?} is no column's name: a rule is about whole columns, by their full names (to hide all \
                     but some, name those in show)"
                ));
            }
        }
        let needed = |name: &&String| ALWAYS.contains(&name.to_lowercase().as_str());
        if let Some(name) = hide.iter().chain(mask).find(needed) {
            return invalid(format!("{name} is in every table: it cannot be hidden or masked"));
        }
        let lower = |names: &[String]| names.iter().map(|name| name.to_lowercase()).collect();
        Ok(Self { show: show.map(lower), hide: lower(hide), mask: lower(mask) })
    }

    fn seen(&self, name: &str) -> Seen {
        let shown = self.show.as_ref().map(|show| show.contains(name));
        if self.hide.contains(name) {
            Seen::Hidden
        } else if self.mask.contains(name) {
            Seen::Masked
        } else if shown.unwrap_or(!CATCH_ALL.contains(&name)) {
            Seen::Shown
        } else {
            Seen::Hidden
        }
    }
}

/// All rules about the columns of one table that somebody is under: a column is seen as the strictest has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnRules(BTreeSet<ColumnRule>);

impl ColumnRules {
    /// These rules; `None` where there is none.
    pub fn new(rules: impl IntoIterator<Item = ColumnRule>) -> Option<Self> {
        let rules: BTreeSet<_> = rules.into_iter().collect();
        (!rules.is_empty()).then_some(Self(rules))
    }

    /// What is seen of a column.
    pub fn seen(&self, name: &str) -> Seen {
        let name = name.to_lowercase();
        if ALWAYS.contains(&name.as_str()) {
            return Seen::Shown;
        }
        let mut least = Seen::Shown;
        for rule in &self.0 {
            match rule.seen(&name) {
                Seen::Hidden => return Seen::Hidden,
                Seen::Masked => least = Seen::Masked,
                Seen::Shown => {}
            }
        }
        least
    }

    /// What the rules are known by: others have another one.
    pub fn digest(&self) -> ContentDigest {
        let mut hash = Sha256::new();
        let mut add = |mark: u8, names: &BTreeSet<String>| {
            hash.update([mark]);
            hash.update((names.len() as u64).to_be_bytes());
            for name in names {
                hash.update((name.len() as u64).to_be_bytes());
                hash.update(name);
            }
        };
        for rule in &self.0 {
            if let Some(show) = &rule.show {
                add(b's', show);
            }
            add(b'h', &rule.hide);
            add(b'm', &rule.mask);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = digest;
        ContentDigest(u128::from_be_bytes(half))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn rule(show: Option<&[&str]>, hide: &[&str], mask: &[&str]) -> ColumnRule {
        let show = show.map(texts);
        ColumnRule::new(show.as_deref(), &texts(hide), &texts(mask)).unwrap()
    }

    #[test]
    fn the_strictest_rule_counts() {
        let hides = rule(None, &["Card"], &["email"]);
        let shows = rule(Some(&["id", "email", "_rest"]), &[], &["name"]);
        let both = ColumnRules::new([hides.clone(), shows.clone()]).unwrap();
        let (hides, shows) =
            (ColumnRules::new([hides]).unwrap(), ColumnRules::new([shows]).unwrap());
        use Seen::{Hidden, Masked, Shown};
        for (name, expected) in [
            ("id", [Shown, Shown, Shown]),
            ("CARD", [Hidden, Hidden, Hidden]),
            ("email", [Masked, Shown, Masked]),
            ("name", [Shown, Masked, Masked]),
            ("new", [Shown, Hidden, Hidden]),
            ("kafka_key", [Shown, Hidden, Hidden]),
            ("kafka_offset", [Shown, Shown, Shown]),
            // What a hidden field's value could get into must be asked for.
            ("_rest", [Hidden, Shown, Hidden]),
            ("kafka_value", [Hidden, Hidden, Hidden]),
        ] {
            let seen = [&hides, &shows, &both].map(|rules| rules.seen(name));
            assert_eq!(seen, expected, "{name}");
        }
    }

    #[test]
    fn rules_have_the_same_digest_where_they_are_the_same() {
        let one = rule(None, &["a", "b"], &[]);
        let digest = |rules: &[&ColumnRule]| {
            ColumnRules::new(rules.iter().copied().cloned()).unwrap().digest()
        };
        assert_eq!(digest(&[&one]), digest(&[&one, &rule(None, &["B", "a"], &[])]));
        let others = [
            rule(None, &["a"], &["b"]),
            rule(None, &["ab"], &[]),
            rule(Some(&["a", "b"]), &[], &[]),
            rule(Some(&[]), &["a", "b"], &[]),
        ];
        for other in &others {
            assert_ne!(digest(&[&one]), digest(&[other]), "{other:?}");
            assert_ne!(digest(&[&one]), digest(&[&one, other]), "{other:?}");
        }
        assert_eq!(ColumnRules::new([]), None);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (show, hide, mask, why) in [
            (None, &[][..], &[][..], "names no columns"),
            (None, &["a.b"], &[], "whole columns"),
            (None, &[], &["a*"], "whole columns"),
            (Some(&[""][..]), &[], &[], "no column's name"),
            (None, &["Kafka_Offset"], &[], "in every table"),
        ] {
            let show = show.map(texts);
            let error = ColumnRule::new(show.as_deref(), &texts(hide), &texts(mask)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
