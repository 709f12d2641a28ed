//! Metadata files: immutable objects under names that hold a digest of their content.
//!
//! They are plain files below `<data_dir>/metadata/<folder of the topic's objects>/`, or below `<shared_dir>`, where several
//! replicas share one. A file that is named again is touched; one that no plan has named for the retention time is swept away.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::api::ServiceError;

/// The folder of metadata files.
pub(crate) struct MetadataStore {
    root: PathBuf,
}

impl MetadataStore {
    /// Opens the store below `data_dir`.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, ServiceError> {
        let root = data_dir.join("metadata");
        std::fs::create_dir_all(&root).map_err(|e| failed(&root, &e))?;
        Ok(Self { root })
    }

    /// Keeps a file. The same name always comes with the same bytes, so one that is there already
    /// is only touched, unless its length is another one: a machine that lost power may have kept its name and not its bytes.
    pub(crate) fn put(&self, folder: &str, name: &str, bytes: &[u8]) -> Result<(), ServiceError> {
        let folder = self.folder(folder);
        let path = folder.join(name);
        if let Ok(file) = std::fs::File::open(&path)
            && file.metadata().is_ok_and(|meta| meta.len() == bytes.len() as u64)
        {
            // A touch that fails only makes the file go sooner.
            let _ = file.set_modified(SystemTime::now());
            return Ok(());
        }
        std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, &e))?;
        // Written under another name and renamed: a reader never sees half a file.
        let part = folder.join(format!(".{name}.{:x}.part", unique()));
        let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, &path));
        written.map_err(|e| {
            // On a full disk, half a file is in the way of whole ones.
            let _ = std::fs::remove_file(&part);
            failed(&path, &e)
        })
    }

    /// Keeps a file that is there from being swept away for the retention time.
    pub(crate) fn touch(&self, folder: &str, name: &str) {
        if let Ok(file) = std::fs::File::open(self.folder(folder).join(name)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// The file's bytes, or `None` when there is no such file.
    pub(crate) fn get(&self, folder: &str, name: &str) -> Result<Option<Bytes>, ServiceError> {
        let path = self.folder(folder).join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&path, &e)),
        }
    }

    /// The name of a topic's file that begins so, or `None` where none does.
    pub(crate) fn named(&self, folder: &str, prefix: &str) -> Result<Option<String>, ServiceError> {
        let folder = self.folder(folder);
        let files = match std::fs::read_dir(&folder) {
            Ok(files) => files,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(&folder, &e)),
        };
        for file in files {
            let name = file.map_err(|e| failed(&folder, &e))?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with(prefix)) {
                return Ok(Some(name.to_owned()));
            }
        }
        Ok(None)
    }

    /// The file's length, or `None` when there is no such file.
    pub(crate) fn size(&self, folder: &str, name: &str) -> Result<Option<u64>, ServiceError> {
        let path = self.folder(folder).join(name);
        match std::fs::metadata(&path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&path, &e)),
        }
    }

    /// Removes what no plan has named for `retention`; returns how many files went.
    pub(crate) fn sweep(&self, retention: Duration) -> std::io::Result<usize> {
        let mut gone = 0;
        for topic in std::fs::read_dir(&self.root)? {
            let topic = topic?;
            if !topic.file_type()?.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(topic.path())? {
                let file = file?;
                let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
                if age > retention && std::fs::remove_file(file.path()).is_ok() {
                    gone += 1;
                }
            }
        }
        Ok(gone)
    }

    fn folder(&self, folder: &str) -> PathBuf {
        // The folder of a key: a topic name, perhaps with a digest behind it, has no slash and is neither "."
        // nor "..".
        self.root.join(folder)
    }
}

/// A number no other call gets, in this process or, but for an accident of one in 2^64, in one that shares the folder.
pub(crate) fn unique() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().build_hasher().finish()));
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn failed(path: &Path, error: &std::io::Error) -> ServiceError {
    ServiceError::Unavailable {
        what: format!("the metadata store ({})", path.display()),
        reason: format!("{error}; is data_dir writable and the disk not full?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_until_nobody_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetadataStore::open(dir.path()).unwrap();
        let topic = "orders";
        store.put(topic, "a.avro", b"one").unwrap();
        store.put(topic, "a.avro", b"one").unwrap();
        assert_eq!(store.get(topic, "a.avro").unwrap().unwrap(), "one");
        assert_eq!(store.size(topic, "a.avro").unwrap(), Some(3));
        assert_eq!(store.get(topic, "b.avro").unwrap(), None);
        assert_eq!(store.named(topic, "a.").unwrap().as_deref(), Some("a.avro"));
        assert_eq!(store.named(topic, "b.").unwrap(), None);
        assert_eq!(store.sweep(Duration::from_secs(60)).unwrap(), 0);
        let old = std::fs::File::open(dir.path().join("metadata/orders/a.avro")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(120)).unwrap();
        assert_eq!(store.sweep(Duration::from_secs(60)).unwrap(), 1);
        assert_eq!(store.get(topic, "a.avro").unwrap(), None);
    }

    #[test]
    fn a_file_that_lost_its_bytes_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = MetadataStore::open(dir.path()).unwrap();
        store.put("orders", "a.avro", b"one").unwrap();
        std::fs::write(dir.path().join("metadata/orders/a.avro"), b"").unwrap();
        store.put("orders", "a.avro", b"one").unwrap();
        assert_eq!(store.get("orders", "a.avro").unwrap().unwrap(), "one");
    }
}
