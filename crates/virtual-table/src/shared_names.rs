//! Names of files and the bytes behind them, as several replicas agree on them.
//!
//! A recipe gives the same bytes whoever follows it, as long as Kafka holds the same records. The log cleaner and retention change
//! that, and a query may read a footer from one replica and pages from another. So the first replica that serves a name, or
//! plans by it, notes the digest of its bytes where all look, and no other serves the name with other bytes.
//!
//! A note is a file below `<shared_dir>/names/<topic>/`, called by a digest of the name.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use isk_model::{DataFileKey, ObjectKey};

use crate::api::ServiceError;
use crate::metadata_store::unique;

/// The folder of the notes.
pub(crate) struct SharedNames {
    root: PathBuf,
}

impl SharedNames {
    /// Opens the notes below a folder that all replicas have.
    pub(crate) fn open(shared_dir: &Path) -> Result<Self, ServiceError> {
        let root = shared_dir.join("names");
        std::fs::create_dir_all(&root).map_err(|e| failed(&root, &e))?;
        Ok(Self { root })
    }

    /// Binds a name to its bytes. `false` where it was bound to others.
    pub(crate) fn bind(&self, key: &DataFileKey, digest: [u8; 32]) -> Result<bool, ServiceError> {
        let folder = self.root.join(key.topic.as_str());
        let name = blake3::hash(ObjectKey::Data(key.clone()).to_string().as_bytes()).to_hex();
        let path = folder.join(name.as_str());
        Ok(first(&path, &digest)? == digest)
    }
}

/// What is in a file: what it had, or what it is given now. Whoever comes first is heard.
pub(crate) fn first(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, ServiceError> {
    if let Some(there) = read(path)? {
        return Ok(there);
    }
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(|e| failed(folder, &e))?;
    let part = folder.join(format!(".{:016x}.part", unique()));
    let written = write(&part, bytes).map_err(|e| failed(&part, &e));
    // Unlike a renamed file, a link takes no other's place.
    let linked = written.and_then(|()| match std::fs::hard_link(&part, path) {
        Ok(()) => Ok(Some(bytes.to_vec())),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => read(path),
        Err(e) => Err(failed(path, &e)),
    });
    let _ = std::fs::remove_file(&part);
    let gone = || failed(path, &std::io::Error::from(ErrorKind::NotFound));
    linked?.ok_or_else(gone)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ServiceError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, &e)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

pub(crate) fn failed(path: &Path, error: &std::io::Error) -> ServiceError {
    ServiceError::Unavailable {
        what: format!("the folder that replicas share ({})", path.display()),
        reason: format!("{error}; is shared_dir there, writable and not full?"),
    }
}
