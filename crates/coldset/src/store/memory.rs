//! A bucket in memory, for tests.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use http::Extensions;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ListResult, ObjectStore, Result};

use super::Bucket;

pub(super) fn open() -> Bucket {
    let store = Arc::new(InMemory::new());
    Bucket { objects: store.clone(), parts: store.clone(), pages: Arc::new(Pages(store)) }
}

/// Pages over a store that lists all at once. A page's token is the last thing the page before
/// listed: a key or a common prefix.
struct Pages(Arc<InMemory>);

#[async_trait]
impl PaginatedListStore for Pages {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default();
        let limit = options.max_keys.unwrap_or(usize::MAX);
        let after = options.page_token.or(options.offset).unwrap_or_default();
        let mut all: Vec<_> = self.0.list(None).try_collect().await?;
        all.sort_by(|a, b| a.location.cmp(&b.location));
        let mut page = ListResult {
            objects: Vec::new(),
            common_prefixes: Vec::new(),
            extensions: Extensions::new(),
        };
        let mut seen = BTreeSet::new();
        let mut last = String::new();
        for meta in all {
            let key = meta.location.to_string();
            let Some(rest) = key.strip_prefix(prefix) else { continue };
            let group = options.delimiter.as_deref().and_then(|delimiter| {
                let at = rest.find(delimiter)?;
                Some(format!("{prefix}{}{delimiter}", &rest[..at]))
            });
            let name = group.clone().unwrap_or(key);
            if name <= after || seen.contains(&name) {
                continue;
            }
            if seen.len() == limit {
                return Ok(PaginatedListResult { result: page, page_token: Some(last) });
            }
            match group {
                Some(group) => page.common_prefixes.push(Path::parse(group)?),
                None => page.objects.push(meta),
            }
            last.clone_from(&name);
            seen.insert(name);
        }
        Ok(PaginatedListResult { result: page, page_token: None })
    }
}
