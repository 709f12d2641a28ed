//! Access keys that sign requests, to the store and to a catalog that wants it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use isk_outbound::Secret;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use crate::ColdsetError;

/// Whoever renews a key, its secret and its token writes one file after the other: new ones are taken once all have
/// been the same for so long.
const SETTLED: Duration = Duration::from_millis(200);

/// An access key, its secret, and the session token of temporary ones. `Debug` hides them.
#[derive(Debug, Clone)]
pub struct AccessKeys {
    /// The access key.
    pub id: Secret,
    /// Its secret.
    pub secret: Secret,
    /// The session token.
    pub session_token: Option<Secret>,
}

impl AccessKeys {
    fn read(&self) -> AwsCredential {
        AwsCredential {
            key_id: self.id.text(),
            secret_key: self.secret.text(),
            token: self.session_token.as_ref().map(Secret::text),
        }
    }

    fn files(&self) -> usize {
        let parts = [Some(&self.id), Some(&self.secret), self.session_token.as_ref()];
        parts.iter().filter(|part| matches!(part, Some(Secret::File(_)))).count()
    }
}

/// Keys as they are now.
pub(crate) struct CurrentKeys {
    keys: AccessKeys,
    last: Mutex<Arc<AwsCredential>>,
}

impl fmt::Debug for CurrentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentKeys")
    }
}

impl CurrentKeys {
    /// `named` is the configuration key of the first of them.
    pub(crate) fn new(keys: AccessKeys, named: &str) -> Result<Self, ColdsetError> {
        let read = keys.read();
        if !can_sign(&read) {
            return Err(ColdsetError::config(
                named,
                "it or its session token holds a character that no header may have",
            ));
        }
        Ok(Self { keys, last: Mutex::new(Arc::new(read)) })
    }

    pub(crate) async fn get(&self) -> Arc<AwsCredential> {
        let mut last = self.last.lock().await;
        let mut read = self.keys.read();
        if read == **last {
            return Arc::clone(&last);
        }
        while self.keys.files() > 1 {
            tokio::time::sleep(SETTLED).await;
            let again = self.keys.read();
            if again == read {
                break;
            }
            read = again;
        }
        if can_sign(&read) {
            tracing::info!("the coldset's access keys have changed");
            *last = Arc::new(read);
        } else {
            tracing::warn!(
                "the coldset's access keys hold a character that no header may have; what they were before holds"
            );
        }
        Arc::clone(&last)
    }
}

#[async_trait]
impl CredentialProvider for CurrentKeys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Ok(self.get().await)
    }
}

/// The library panics at what fits in no header.
fn can_sign(keys: &AwsCredential) -> bool {
    let fits = |text: &str| HeaderValue::from_str(text).is_ok();
    fits(&keys.key_id) && keys.token.as_deref().is_none_or(fits)
}

#[cfg(test)]
mod tests {
    use isk_outbound::SecretFile;

    use super::*;

    #[tokio::test]
    async fn keys_of_two_files_change_together() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
        let open = |name: &str| Secret::File(SecretFile::open(&at(name)).unwrap());
        write("id", "old");
        write("secret", "old-secret");
        let keys = AccessKeys { id: open("id"), secret: open("secret"), session_token: None };
        let keys = Arc::new(CurrentKeys::new(keys, "s3.access-key-id").unwrap());
        assert_eq!(keys.get().await.key_id, "old");

        write("id", "new");
        let asked = tokio::spawn({
            let keys = Arc::clone(&keys);
            async move { keys.get().await }
        });
        tokio::time::sleep(SETTLED / 4).await;
        write("secret", "new-secret");
        let now = asked.await.unwrap();
        assert_eq!((&*now.key_id, &*now.secret_key), ("new", "new-secret"));

        write("id", "no\nheader");
        let now = keys.get().await;
        assert_eq!((&*now.key_id, &*now.secret_key), ("new", "new-secret"));
        assert!(!format!("{keys:?} {:?}", keys.keys).contains("new"));
    }
}
