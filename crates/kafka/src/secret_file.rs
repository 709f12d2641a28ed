//! A secret in a file that somebody else renews.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old the text may be.
const FRESH: Duration = Duration::from_secs(2);

/// A file with one secret, blanks around it left out. It is read again when it is asked for, every two seconds at the most.
#[derive(Clone)]
pub struct SecretFile {
    path: PathBuf,
    kept: Arc<Mutex<(Instant, String)>>,
}

impl SecretFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read, or is empty.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let text = read(path).map_err(|e| {
            let what = format!("the secret's file {}: {e}", path.display());
            std::io::Error::new(e.kind(), what)
        })?;
        Ok(Self { path: path.to_owned(), kept: Arc::new(Mutex::new((Instant::now(), text))) })
    }

    /// The secret as it is now. While the file cannot be read, it is what it was.
    pub fn text(&self) -> String {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0.elapsed() >= FRESH {
            kept.0 = Instant::now();
            match read(&self.path) {
                Ok(text) => kept.1 = text,
                Err(error) => tracing::warn!(
                    path = %self.path.display(), %error,
                    "a secret's file cannot be read; what it said before holds"
                ),
            }
        }
        kept.1.clone()
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    match text.trim() {
        "" => Err(std::io::Error::other("it is empty")),
        secret => Ok(secret.to_owned()),
    }
}
