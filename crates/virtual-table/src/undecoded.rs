//! What becomes of records that do not decode: the policy of each topic, and what a file shows of them.

use std::fmt;
use std::str::FromStr;

use isk_model::TopicName;
use regex::RegexSet;

use crate::writers::WriterState;

/// What a table shows of a record that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorPolicy {
    /// A row whose columns of the failed part are null.
    #[default]
    Keep,
    /// Nothing: it has no row.
    Skip,
    /// The read of its file fails.
    Fail,
}

impl ErrorPolicy {
    /// Its name in the configuration, and in the property `isk.errors`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Skip => "skip",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for ErrorPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorPolicy {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let all = [Self::Keep, Self::Skip, Self::Fail];
        let found = all.into_iter().find(|policy| policy.as_str() == s);
        found.ok_or_else(|| format!("{s:?} is no policy: it is one of keep, skip and fail"))
    }
}

/// The policies of topics.
#[derive(Debug, Clone)]
pub struct ErrorPolicies {
    default: ErrorPolicy,
    /// Of whole topic names, the strictest first.
    named: [(ErrorPolicy, RegexSet); 3],
}

/// All topics keep.
impl Default for ErrorPolicies {
    fn default() -> Self {
        let named = [ErrorPolicy::Fail, ErrorPolicy::Skip, ErrorPolicy::Keep];
        Self { default: ErrorPolicy::Keep, named: named.map(|policy| (policy, RegexSet::empty())) }
    }
}

impl ErrorPolicies {
    /// The default, and the topics that have another by patterns of their whole names. Where several
    /// match, fail goes before skip, and skip before keep.
    ///
    /// # Errors
    /// The text of the pattern that is no regular expression, and why.
    pub fn new<S: AsRef<str>>(
        default: ErrorPolicy,
        keep: &[S],
        skip: &[S],
        fail: &[S],
    ) -> Result<Self, regex::Error> {
        let whole = |patterns: &[S]| {
            RegexSet::new(patterns.iter().map(|p| format!("^(?:{})$", p.as_ref())))
        };
        let named = [
            (ErrorPolicy::Fail, whole(fail)?),
            (ErrorPolicy::Skip, whole(skip)?),
            (ErrorPolicy::Keep, whole(keep)?),
        ];
        Ok(Self { default, named })
    }

    /// The policy of a topic.
    pub fn of(&self, topic: &TopicName) -> ErrorPolicy {
        let found = self.named.iter().find(|(_, topics)| topics.is_match(topic.as_str()));
        found.map_or(self.default, |(policy, _)| *policy)
    }
}

/// What a file has of the records that do not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undecoded {
    /// What the policy says, beside all others.
    By(ErrorPolicy),
    /// It has these alone, in the columns of the table of errors.
    Only,
}

/// How records become the rows of a file, beside its columns: a part of the recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoding {
    pub undecoded: Undecoded,
    /// Which schemas are taken to be missing.
    pub writers: WriterState,
}

impl Decoding {
    /// What the digest of the render configuration has of it.
    pub(crate) fn digest_input(&self) -> String {
        let undecoded = match self.undecoded {
            Undecoded::By(policy) => policy.as_str(),
            Undecoded::Only => "only",
        };
        match self.writers.found() {
            "" => format!("{undecoded}; "),
            found => format!("{undecoded}; found {found}; "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_policy_of_a_topic_goes_first() {
        let policies =
            ErrorPolicies::new(ErrorPolicy::Skip, &["a.*"], &["ab.*", "b"], &["abc", "x"]).unwrap();
        for (topic, policy) in [
            ("a", ErrorPolicy::Keep),
            ("ab", ErrorPolicy::Skip),
            ("abc", ErrorPolicy::Fail),
            ("abcd", ErrorPolicy::Skip),
            ("xx", ErrorPolicy::Skip),
        ] {
            assert_eq!(policies.of(&TopicName::new(topic).unwrap()), policy, "{topic}");
        }
        assert!(ErrorPolicies::new(ErrorPolicy::Keep, &["("], &[], &[]).is_err());
        assert_eq!("fail".parse(), Ok(ErrorPolicy::Fail));
        assert!("Fail".parse::<ErrorPolicy>().unwrap_err().contains("keep, skip and fail"));
    }
}
