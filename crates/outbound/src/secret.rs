//! Secrets, those too that stand in a file which somebody else renews.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is told that a file cannot be read.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A secret, as configured or in a file. `Debug` hides it.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Given(String),
    /// Its file.
    File(SecretFile),
}

impl Secret {
    /// The secret as it is now.
    pub fn text(&self) -> String {
        match self {
            Self::Given(text) => text.clone(),
            Self::File(file) => file.text(),
        }
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::Given(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// A file with one secret, blanks around it left out. It is read again whenever it is asked for.
#[derive(Clone)]
pub struct SecretFile {
    path: PathBuf,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    text: String,
    told: Option<Instant>,
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
        let kept = Kept { text, told: None };
        Ok(Self { path: path.to_owned(), kept: Arc::new(Mutex::new(kept)) })
    }

    /// The secret as it is now. While the file cannot be read, it is what it was.
    pub fn text(&self) -> String {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match read(&self.path) {
            Ok(text) => *kept = Kept { text, told: None },
            Err(error) if kept.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) => {
                kept.told = Some(Instant::now());
                tracing::warn!(
                    path = %self.path.display(), %error,
                    "a secret's file cannot be read; what it said before holds"
                );
            }
            Err(_) => {}
        }
        kept.text.clone()
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    match text.trim() {
        "" => Err(std::io::Error::other("it is empty")),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_and_what_it_said_holds_while_it_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(SecretFile::open(&path).err().unwrap().to_string().contains("secret: "));
        std::fs::write(&path, "one\n").unwrap();
        let secret = Secret::File(SecretFile::open(&path).unwrap());
        assert_eq!(secret.text(), "one");
        std::fs::write(&path, " two ").unwrap();
        assert_eq!(secret.text(), "two");
        std::fs::write(&path, " \n").unwrap();
        assert_eq!(secret.text(), "two");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.text(), "two");
        std::fs::write(&path, "three").unwrap();
        assert_eq!(secret.text(), "three");
        assert!(!format!("{secret:?}").contains("three"));
    }
}
