//! Conditional requests (RFC 9110, section 13.2.2, in the order S3 has them).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use s3s::dto::{ETag, ETagCondition, Timestamp};

/// The conditions of a request, as they came.
#[derive(Debug, Default)]
pub(crate) struct Conditions<'a> {
    pub if_match: Option<&'a ETagCondition>,
    pub if_none_match: Option<&'a ETagCondition>,
    pub if_modified_since: Option<&'a Timestamp>,
    pub if_unmodified_since: Option<&'a Timestamp>,
}

/// What the conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request is done.
    Proceed,
    /// 304: the client's copy is good.
    NotModified,
    /// 412.
    Failed,
}

/// Holds the conditions against an object's entity tag (without quotes) and time.
pub(crate) fn evaluate(conditions: &Conditions<'_>, etag: &str, modified: SystemTime) -> Verdict {
    let modified = Timestamp::from(whole_seconds(modified));
    let names = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(ETag::Strong(value) | ETag::Weak(value)) => value == etag,
    };
    let strongly = |condition: &ETagCondition| {
        names(condition) && !matches!(condition, ETagCondition::ETag(ETag::Weak(_)))
    };
    let refused = match (conditions.if_match, conditions.if_unmodified_since) {
        (Some(condition), _) => !strongly(condition),
        (None, Some(since)) => modified > *since,
        (None, None) => false,
    };
    if refused {
        return Verdict::Failed;
    }
    let known = match (conditions.if_none_match, conditions.if_modified_since) {
        (Some(condition), _) => names(condition),
        (None, Some(since)) => modified <= *since,
        (None, None) => false,
    };
    if known { Verdict::NotModified } else { Verdict::Proceed }
}

/// An HTTP date has whole seconds; what it says of an object is what it must be compared with.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_evaluated_in_their_order() {
        use Verdict::{Failed, NotModified, Proceed};
        let tag = |text: &str| Some(text.parse::<ETagCondition>().unwrap());
        let at = |seconds| Some(Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds)));
        // The object: tag "a", made at 100.5 s.
        let modified = UNIX_EPOCH + Duration::from_millis(100_500);
        for (if_match, if_none_match, modified_since, unmodified_since, expected) in [
            (None, None, None, None, Proceed),
            (tag("\"a\""), None, None, None, Proceed),
            (tag("*"), None, None, None, Proceed),
            (tag("\"b\""), None, None, None, Failed),
            (tag("W/\"a\""), None, None, None, Failed),
            (None, tag("\"a\""), None, None, NotModified),
            (None, tag("W/\"a\""), None, None, NotModified),
            (None, tag("*"), None, None, NotModified),
            (None, tag("\"b\""), None, None, Proceed),
            (None, None, at(99), None, Proceed),
            (None, None, at(100), None, NotModified),
            (None, None, None, at(99), Failed),
            (None, None, None, at(100), Proceed),
            // A tag counts more than a date.
            (tag("\"a\""), None, None, at(99), Proceed),
            (None, tag("\"b\""), at(100), None, Proceed),
            (tag("\"b\""), tag("\"a\""), None, None, Failed),
        ] {
            let conditions = Conditions {
                if_match: if_match.as_ref(),
                if_none_match: if_none_match.as_ref(),
                if_modified_since: modified_since.as_ref(),
                if_unmodified_since: unmodified_since.as_ref(),
            };
            assert_eq!(evaluate(&conditions, "a", modified), expected, "{conditions:?}");
        }
    }
}
