//! One page of an S3 listing over objects that are already sorted.

use crate::api::{ListedObject, Listing};

/// Sorts behind every key that begins with what stands before it: keys are ASCII.
const BEHIND: char = '\u{10FFFF}';

/// Collects one page: entries that begin with `prefix`, sort behind `after`, grouped at `delimiter`.
pub(crate) struct Page<'a> {
    prefix: &'a str,
    delimiter: Option<&'a str>,
    after: &'a str,
    limit: usize,
    listing: Listing,
    last: String,
}

/// Whether a page can take more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Go on.
    More,
    /// The page is full and there is at least one entry behind it.
    Full,
}

impl<'a> Page<'a> {
    /// An empty page of at most `limit` entries.
    pub(crate) fn new(
        prefix: &'a str,
        delimiter: Option<&'a str>,
        after: Option<&'a str>,
        limit: usize,
    ) -> Self {
        Self {
            prefix,
            delimiter: delimiter.filter(|d| !d.is_empty()),
            after: after.unwrap_or_default(),
            limit,
            listing: Listing::default(),
            last: String::new(),
        }
    }

    /// Whether a key that begins with `folder` can be in the listing at all.
    pub(crate) fn may_hold(&self, folder: &str) -> bool {
        let in_prefix = folder.starts_with(self.prefix) || self.prefix.starts_with(folder);
        in_prefix && self.after < format!("{folder}{BEHIND}").as_str()
    }

    /// The one group that all keys in `folder` fall into, if they do.
    pub(crate) fn group_of(&self, folder: &str) -> Option<String> {
        let rest = folder.strip_prefix(self.prefix)?;
        let delimiter = self.delimiter?;
        let at = rest.find(delimiter)?;
        Some(folder[..self.prefix.len() + at + delimiter.len()].to_owned())
    }

    /// Takes a group of keys, in order.
    pub(crate) fn push_group(&mut self, group: String) -> Room {
        // A page that ends in a group goes on behind all of it.
        let behind = format!("{group}{BEHIND}");
        if self.after >= behind.as_str() || self.listing.common_prefixes.last() == Some(&group) {
            return Room::More;
        }
        if self.is_full() {
            return Room::Full;
        }
        self.last = behind;
        self.listing.common_prefixes.push(group);
        Room::More
    }

    /// Takes one object, in order.
    pub(crate) fn push(&mut self, object: &ListedObject) -> Room {
        if !object.key.starts_with(self.prefix) || object.key.as_str() <= self.after {
            return Room::More;
        }
        if let Some(group) = self.group_of(&object.key) {
            return self.push_group(group);
        }
        if self.is_full() {
            return Room::Full;
        }
        self.last.clone_from(&object.key);
        self.listing.objects.push(object.clone());
        Room::More
    }

    /// The page; `room` is what the last push said.
    pub(crate) fn finish(mut self, room: Room) -> Listing {
        if room == Room::Full && self.limit > 0 {
            self.listing.next = Some(self.last);
        }
        self.listing
    }

    fn is_full(&self) -> bool {
        self.listing.objects.len() + self.listing.common_prefixes.len() >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ObjectInfo;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::time::SystemTime;

    fn object(key: &str) -> ListedObject {
        let info = ObjectInfo {
            size: 1,
            etag: "e".into(),
            last_modified: SystemTime::UNIX_EPOCH,
            content_type: "application/octet-stream",
        };
        ListedObject { key: key.into(), info }
    }

    fn page(
        keys: &BTreeSet<String>,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Listing {
        let mut page = Page::new(prefix, delimiter, after, limit);
        let mut room = Room::More;
        for key in keys {
            room = page.push(&object(key));
            if room == Room::Full {
                break;
            }
        }
        page.finish(room)
    }

    proptest! {
        #[test]
        fn pages_add_up_to_the_whole_listing(
            keys in prop::collection::btree_set("[ab./-]{1,6}", 0..30),
            prefix in "[ab/]{0,2}",
            delimiter in prop::option::of(Just("/")),
            limit in 1usize..5,
        ) {
            let whole = page(&keys, &prefix, delimiter, None, 1000);
            prop_assert_eq!(&whole.next, &None);
            let (mut objects, mut groups, mut after) = (Vec::new(), Vec::new(), None::<String>);
            loop {
                let part = page(&keys, &prefix, delimiter, after.as_deref(), limit);
                prop_assert!(part.objects.len() + part.common_prefixes.len() <= limit);
                objects.extend(part.objects);
                groups.extend(part.common_prefixes);
                match part.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            prop_assert_eq!(&objects, &whole.objects);
            prop_assert_eq!(&groups, &whole.common_prefixes);
            // Every key is listed or grouped, once.
            let matching = keys.iter().filter(|k| k.starts_with(&prefix));
            for key in matching {
                let listed = objects.iter().filter(|o| &o.key == key).count();
                let grouped = groups.iter().filter(|g| key.starts_with(g.as_str())).count();
                prop_assert_eq!(listed + grouped, 1, "{}", key);
            }
        }
    }

    #[test]
    fn an_empty_page_has_no_next() {
        let keys = BTreeSet::from(["a".to_owned()]);
        assert_eq!(page(&keys, "", None, None, 0), Listing::default());
    }
}
