//! Encoded files that stay open for the next request: clients ask for a footer, then for pages.
//!
//! No cache that drops its values some time later would do: a file that was removed to make room takes its
//! room as long as it is open.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cache::EncodedFile;

/// How many files stay open, and for how long.
const MOST: usize = 256;
const IDLE: Duration = Duration::from_secs(10);

/// Files by recipe, with when they were last asked for.
#[derive(Default)]
pub(crate) struct OpenFiles(Mutex<HashMap<String, (Arc<EncodedFile>, Instant)>>);

impl OpenFiles {
    /// The file, if it is open.
    pub(crate) fn get(&self, recipe: &str) -> Option<Arc<EncodedFile>> {
        let mut files = self.used();
        let (file, asked) = files.get_mut(recipe)?;
        *asked = Instant::now();
        Some(Arc::clone(file))
    }

    /// Keeps a file open.
    pub(crate) fn insert(&self, recipe: &str, file: Arc<EncodedFile>) {
        let mut files = self.used();
        if files.len() >= MOST
            && let Some(oldest) = files.iter().min_by_key(|(_, (_, asked))| *asked)
        {
            let oldest = oldest.0.clone();
            files.remove(&oldest);
        }
        files.insert(recipe.to_owned(), (file, Instant::now()));
    }

    /// Closes a file, unless somebody reads it.
    pub(crate) fn close(&self, recipe: &str) {
        self.used().remove(recipe);
    }

    /// Closes all files that nobody reads.
    pub(crate) fn close_all(&self) {
        self.used().clear();
    }

    /// Those that were asked for a short while ago.
    fn used(&self) -> MutexGuard<'_, HashMap<String, (Arc<EncodedFile>, Instant)>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|_, (_, asked)| asked.elapsed() < IDLE);
        files
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cache::{Claim, FileCache};
    use crate::facts::Encoding;

    #[test]
    fn a_closed_file_takes_no_room_and_not_too_many_are_open() {
        let dir = tempfile::tempdir().unwrap();
        let cache = FileCache::open(dir.path(), 0, |_| None).unwrap();
        let file = || {
            let (file, path) = cache.begin().unwrap().into_parts();
            let encoding = Encoding {
                rows: 0,
                errors: 0,
                file_size: 0,
                digest: [0; 32],
                columns: BTreeMap::new(),
            };
            Arc::new(cache.keep("a", file, path, (0, 0, encoding), Claim::Oldest).unwrap())
        };
        let files = OpenFiles::default();
        for n in 0..=MOST {
            files.insert(&n.to_string(), file());
        }
        assert!(files.get("0").is_none() && files.get("1").is_some());
        let last = Arc::downgrade(&files.get(&MOST.to_string()).unwrap());
        files.close_all();
        assert!(last.upgrade().is_none(), "it is closed at once, not some time later");
    }
}
