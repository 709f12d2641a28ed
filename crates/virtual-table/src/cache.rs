//! Encoded files on disk: so many bytes and no more, kept across restarts, and believed only when they
//! are what their facts say.
//!
//! A file lies under its recipe below the cache's folder. It is opened by name once for each reader, who
//! keeps the handle: a file that is dropped to make room, or whose folder is removed, stays readable for
//! those who have it open. Whatever is found on disk is compared with the facts by its length, and by
//! its digest before it is used for the first time. What was written to since then is made again.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tempfile::{NamedTempFile, TempPath};

use crate::api::ServiceError;
use crate::facts::{ChunkFacts, Encoding};

/// The most files kept, however small: what is known of each is in memory.
const MOST_FILES: usize = 50_000;

/// The folder, below the cache's, of files that are being written.
const UNFINISHED: &str = ".unfinished";

/// How long a file's trailer is: the footer's length and `PAR1`.
const TRAILER: u64 = 8;

/// What tells whether a file was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self { len: meta.len(), modified: meta.modified().ok() })
    }
}

/// An encoded file, open for reading.
#[derive(Debug)]
pub(crate) struct EncodedFile {
    file: File,
    stamp: Stamp,
    /// Bytes before the footer.
    pub(crate) body_len: u64,
    /// Bytes of the footer.
    pub(crate) footer_len: u64,
    /// What was learnt when it was encoded.
    pub(crate) encoding: Encoding,
    /// Whether it was encoded ahead of its reader, who has not come yet.
    pub(crate) ahead: AtomicBool,
}

impl EncodedFile {
    /// Reads bytes of the file, as they were believed. Blocks.
    pub(crate) fn read(&self, range: Range<u64>) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, range.start)?;
        if !self.is_untouched() {
            return Err(std::io::Error::other("it is not what was put there"));
        }
        Ok(bytes)
    }

    /// Whether nobody has written to the file since it was believed.
    pub(crate) fn is_untouched(&self) -> bool {
        Stamp::of(&self.file).is_ok_and(|now| now == self.stamp)
    }
}

/// What a file that is new to the cache may push out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// What was used longest ago.
    Oldest,
    /// Nothing: it is kept where there is room, and it is the first to go.
    FreeRoom,
}

/// The folder of encoded files.
pub(crate) struct FileCache {
    root: PathBuf,
    capacity: u64,
    index: Mutex<Index>,
}

/// What is on disk, by recipe and by when it was used.
#[derive(Default)]
struct Index {
    files: HashMap<Arc<str>, Kept>,
    by_use: BTreeMap<i64, Arc<str>>,
    bytes: u64,
    newest: i64,
    oldest: i64,
}

struct Kept {
    size: u64,
    used: i64,
    /// As it was when it was last compared with its digest.
    believed: Option<Stamp>,
}

impl FileCache {
    /// Opens the folder and keeps of what is there what there are facts of. All else was left behind by
    /// somebody who did not finish, and goes.
    pub(crate) fn open(
        root: &Path,
        capacity: u64,
        facts: impl Fn(&str) -> Option<Arc<ChunkFacts>>,
    ) -> Result<Self, ServiceError> {
        let cache = Self { root: root.to_owned(), capacity, index: Mutex::default() };
        std::fs::create_dir_all(root).map_err(|e| cache.failed(&e))?;
        let _ = std::fs::remove_dir_all(root.join(UNFINISHED));
        let mut found = Vec::new();
        cache.walk(root, &mut found).map_err(|e| cache.failed(&e))?;
        // Those written last were used last, as far as anybody knows.
        found.sort_by_key(|(_, stamp)| stamp.modified);
        let mut orphans = 0;
        for (recipe, stamp) in found {
            if facts(&recipe).is_some_and(|facts| facts.file_size() == stamp.len) {
                cache.index().insert(&recipe, stamp.len, None, Claim::Oldest);
            } else {
                orphans += 1;
                let _ = std::fs::remove_file(cache.path(&recipe));
            }
        }
        cache.evict();
        let bytes = cache.bytes();
        tracing::debug!(bytes, orphans, "encoded files of an earlier run");
        Ok(cache)
    }

    /// The files below a folder, by recipe. Folders that are empty go.
    fn walk(&self, folder: &Path, found: &mut Vec<(String, Stamp)>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.walk(&path, found)?;
                let _ = std::fs::remove_dir(&path);
                continue;
            }
            let meta = entry.metadata()?;
            let stamp = Stamp { len: meta.len(), modified: meta.modified().ok() };
            match path.strip_prefix(&self.root).ok().and_then(Path::to_str) {
                Some(recipe) => found.push((recipe.to_owned(), stamp)),
                None => std::fs::remove_file(&path)?,
            }
        }
        Ok(())
    }

    /// A new file to write to. It goes when it is dropped before it is kept.
    pub(crate) fn begin(&self) -> std::io::Result<NamedTempFile> {
        let folder = self.root.join(UNFINISHED);
        let begin = || tempfile::Builder::new().prefix("chunk-").tempfile_in(&folder);
        begin().or_else(|error| match error.kind() {
            // Not made yet, or removed under our hands.
            std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(&folder)?;
                begin()
            }
            _ => Err(error),
        })
    }

    /// Takes a finished file in. It can be read even where it cannot be kept.
    pub(crate) fn keep(
        &self,
        recipe: &str,
        file: File,
        path: TempPath,
        made: (u64, u64, Encoding),
        claim: Claim,
    ) -> std::io::Result<EncodedFile> {
        let (body_len, footer_len, encoding) = made;
        let stamp = Stamp::of(&file)?;
        let fits =
            claim == Claim::Oldest || self.bytes().saturating_add(stamp.len) <= self.capacity;
        if fits && stamp.len <= self.capacity {
            match self.move_in(recipe, path) {
                Ok(()) => self.index().insert(recipe, stamp.len, Some(stamp), claim),
                Err(error) => tracing::debug!(recipe, %error, "an encoded file could not be kept"),
            }
            self.evict();
        }
        Ok(EncodedFile { file, stamp, body_len, footer_len, encoding, ahead: false.into() })
    }

    fn move_in(&self, recipe: &str, path: TempPath) -> std::io::Result<()> {
        let to = self.path(recipe);
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder)?;
        }
        path.persist(to).map_err(|e| e.error)
    }

    /// Opens the file of a recipe, if it is there and is what the facts say. One that is not is removed.
    /// Blocks, the first time for as long as it takes to digest the file.
    pub(crate) fn find(&self, recipe: &str, facts: &ChunkFacts) -> Option<EncodedFile> {
        let believed = self.index().touch(recipe)?;
        match self.examine(recipe, facts, believed) {
            Ok(Some(file)) => {
                if believed != Some(file.stamp) {
                    self.index().believe(recipe, file.stamp);
                }
                Some(file)
            }
            outcome => {
                match outcome {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(recipe, %error, "an encoded file cannot be read"),
                    Ok(_) => tracing::warn!(recipe, "an encoded file is damaged; it is made again"),
                }
                self.forget(recipe);
                None
            }
        }
    }

    fn examine(
        &self,
        recipe: &str,
        facts: &ChunkFacts,
        believed: Option<Stamp>,
    ) -> std::io::Result<Option<EncodedFile>> {
        let mut file = File::open(self.path(recipe))?;
        let stamp = Stamp::of(&file)?;
        if stamp.len != facts.file_size() || stamp.len < TRAILER {
            return Ok(None);
        }
        let is_ours = match believed {
            // Who writes to a file sets its time first and its bytes later: bytes that are right now say nothing then.
            Some(believed) => believed == stamp,
            None => digest(&mut file)? == facts.digest(),
        };
        if !is_ours {
            return Ok(None);
        }
        let mut trailer = [0; TRAILER as usize];
        file.read_exact_at(&mut trailer, stamp.len - TRAILER)?;
        let [a, b, c, d, ..] = trailer;
        let footer_len = u64::from(u32::from_le_bytes([a, b, c, d])) + TRAILER;
        let Some(body_len) = stamp.len.checked_sub(footer_len) else { return Ok(None) };
        let (encoding, ahead) = (facts.encoding(), false.into());
        Ok(Some(EncodedFile { file, stamp, body_len, footer_len, encoding, ahead }))
    }

    /// Removes a file.
    pub(crate) fn forget(&self, recipe: &str) {
        if self.index().remove(recipe) {
            let _ = std::fs::remove_file(self.path(recipe));
        }
    }

    /// Whether a file is kept, as far as is known.
    pub(crate) fn has(&self, recipe: &str) -> bool {
        self.index().files.contains_key(recipe)
    }

    /// Notes that a file is in use.
    pub(crate) fn touch(&self, recipe: &str) {
        self.index().touch(recipe);
    }

    /// Drops at least so many bytes of files, those used longest ago first. Returns how many went.
    pub(crate) fn make_room(&self, bytes: u64) -> u64 {
        let mut freed = 0;
        while freed < bytes
            && let Some((recipe, size)) = self.index().pop_oldest()
        {
            let _ = std::fs::remove_file(self.path(&recipe));
            freed += size;
        }
        freed
    }

    /// Bytes of the files kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.index().bytes
    }

    fn evict(&self) {
        loop {
            let mut index = self.index();
            if index.bytes <= self.capacity && index.files.len() <= MOST_FILES {
                return;
            }
            let Some((recipe, _)) = index.pop_oldest() else { return };
            drop(index);
            let _ = std::fs::remove_file(self.path(&recipe));
        }
    }

    fn path(&self, recipe: &str) -> PathBuf {
        // A recipe is an object key: no part of it is empty, "." or "..".
        self.root.join(recipe)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went wrong with the folder, as the service's error.
    pub(crate) fn failed(&self, error: &std::io::Error) -> ServiceError {
        ServiceError::Unavailable {
            what: format!("the cache folder {}", self.root.display()),
            reason: format!("{error}; is it writable and the disk not full?"),
        }
    }
}

impl Index {
    fn insert(&mut self, recipe: &str, size: u64, believed: Option<Stamp>, claim: Claim) {
        self.remove(recipe);
        let used = match claim {
            Claim::Oldest => {
                self.newest += 1;
                self.newest
            }
            Claim::FreeRoom => {
                self.oldest -= 1;
                self.oldest
            }
        };
        let recipe: Arc<str> = recipe.into();
        self.by_use.insert(used, Arc::clone(&recipe));
        self.files.insert(recipe, Kept { size, used, believed });
        self.bytes += size;
    }

    /// Whether and as what a file is believed, if it is here. It is the one used last now.
    fn touch(&mut self, recipe: &str) -> Option<Option<Stamp>> {
        let kept = self.files.get_mut(recipe)?;
        self.newest += 1;
        if let Some(name) = self.by_use.remove(&kept.used) {
            self.by_use.insert(self.newest, name);
        }
        kept.used = self.newest;
        Some(kept.believed)
    }

    fn believe(&mut self, recipe: &str, stamp: Stamp) {
        if let Some(kept) = self.files.get_mut(recipe) {
            kept.believed = Some(stamp);
        }
    }

    fn remove(&mut self, recipe: &str) -> bool {
        let Some(kept) = self.files.remove(recipe) else { return false };
        self.by_use.remove(&kept.used);
        self.bytes -= kept.size;
        true
    }

    fn pop_oldest(&mut self) -> Option<(Arc<str>, u64)> {
        let recipe = Arc::clone(self.by_use.first_key_value()?.1);
        let size = self.files.get(&recipe).map_or(0, |kept| kept.size);
        self.remove(&recipe);
        Some((recipe, size))
    }
}

fn digest(file: &mut File) -> std::io::Result<[u8; 32]> {
    let mut hash = blake3::Hasher::new();
    file.seek(SeekFrom::Start(0))?;
    let mut piece = vec![0; 1 << 18];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            n => hash.update(&piece[..n]),
        };
    }
}

#[cfg(test)]
mod tests;
