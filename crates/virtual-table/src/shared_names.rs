//! Names of files and the bytes behind them, as several replicas agree on them.
//!
//! A recipe gives the same bytes whoever follows it, as long as Kafka holds the same records. The log cleaner and retention change
//! that, and a query may read a footer from one replica and pages from another. So the first replica that serves a name, or
//! plans by it, notes the digest of its bytes where all look, and no other serves the name with other bytes.
//!
//! A note is a file below `<shared_dir>/names/<topic>/`, called by a digest of the name.

use std::io::{ErrorKind, Read, Write};
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
        if let Some(bound) = read(&path)? {
            return Ok(bound == digest);
        }
        std::fs::create_dir_all(&folder).map_err(|e| failed(&folder, &e))?;
        let part = folder.join(format!(".{name}.{:x}.part", unique()));
        let written = write(&part, &digest).map_err(|e| failed(&part, &e));
        // Unlike a renamed file, a link takes no other's place: the first replica wins.
        let linked = written.and_then(|()| match std::fs::hard_link(&part, &path) {
            Ok(()) => Ok(Some(digest)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => read(&path),
            Err(e) => Err(failed(&path, &e)),
        });
        let _ = std::fs::remove_file(&part);
        Ok(linked? == Some(digest))
    }
}

fn read(path: &Path) -> Result<Option<[u8; 32]>, ServiceError> {
    let mut digest = [0; 32];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut digest));
    match read {
        Ok(()) => Ok(Some(digest)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, &e)),
    }
}

fn write(path: &Path, digest: &[u8; 32]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(digest)?;
    file.sync_data()
}

fn failed(path: &Path, error: &std::io::Error) -> ServiceError {
    ServiceError::Unavailable {
        what: format!("the folder that replicas share ({})", path.display()),
        reason: format!("{error}; is shared_dir there, writable and not full?"),
    }
}
