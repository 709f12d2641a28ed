//! Listings, page by page.

use std::borrow::Cow;
use std::time::SystemTime;

use object_store::ObjectMeta;
use object_store::list::{PaginatedListOptions, PaginatedListResult};

use super::fault::Request;
use super::{ColdListed, ColdListing, ColdStore, ListAfter};
use crate::ColdsetError;

/// What S3 gives at most in one page.
const MAX_PAGE: usize = 1000;

impl ColdStore {
    /// One page of at most `limit` (and 1000) objects and prefixes whose keys begin with `prefix`.
    ///
    /// A key that ends with a slash, as some tools leave for a directory, is listed without it,
    /// and one with an empty segment (`//`) makes its page fail: the library cannot tell them.
    ///
    /// # Errors
    /// As every request to the store.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: ListAfter<'_>,
        limit: usize,
    ) -> Result<ColdListing, ColdsetError> {
        let request = Request::new("LIST of", bucket, prefix);
        let store = self.bucket(bucket)?;
        if limit == 0 {
            return Ok(ColdListing::default());
        }
        let delimiter = delimiter.filter(|d| !d.is_empty());
        let options = PaginatedListOptions {
            offset: match after {
                ListAfter::Key(key) if !key.is_empty() => Some(key.to_owned()),
                _ => None,
            },
            page_token: match after {
                ListAfter::Page(token) => Some(token.to_owned()),
                _ => None,
            },
            delimiter: delimiter.map(|d| Cow::Owned(d.to_owned())),
            max_keys: Some(limit.min(MAX_PAGE)),
            ..PaginatedListOptions::default()
        };
        let prefix_option = (!prefix.is_empty()).then_some(prefix);
        let page = store.pages.list_paginated(prefix_option, options);
        let page = request.within(self.0.timeout, page).await?;
        Ok(listing(page, prefix, delimiter))
    }
}

fn listing(page: PaginatedListResult, prefix: &str, delimiter: Option<&str>) -> ColdListing {
    // A marker of the asked "directory" itself comes back without its slash: it is no key of it.
    let begins = |key: &str| key.starts_with(prefix);
    let mut objects: Vec<_> = page
        .result
        .objects
        .into_iter()
        .filter(|m| begins(m.location.as_ref()))
        .map(listed)
        .collect();
    objects.sort_by(|a: &ColdListed, b| a.key.cmp(&b.key));
    let restored = |path: object_store::path::Path| match delimiter {
        // The library drops a slash at the end.
        Some("/") => format!("{path}/"),
        _ => path.to_string(),
    };
    let mut prefixes: Vec<_> = page.result.common_prefixes.into_iter().map(restored).collect();
    prefixes.sort();
    ColdListing { objects, prefixes, next: page.page_token }
}

fn listed(meta: ObjectMeta) -> ColdListed {
    ColdListed {
        key: meta.location.to_string(),
        size: meta.size,
        etag: meta.e_tag,
        last_modified: SystemTime::from(meta.last_modified),
    }
}
