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

/// Files that are still changing after so many looks are left for the next request.
const MOST_LOOKS: usize = 5;

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
    seen: Mutex<Seen>,
}

/// What was read last.
struct Seen {
    /// These sign.
    good: Arc<AwsCredential>,
    /// These cannot, and that was said.
    refused: Option<AwsCredential>,
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
        let seen = Seen { good: Arc::new(read), refused: None };
        Ok(Self { keys, seen: Mutex::new(seen) })
    }

    pub(crate) async fn get(&self) -> Arc<AwsCredential> {
        let mut seen = self.seen.lock().await;
        let read = self.keys.read();
        if read == *seen.good || seen.refused.as_ref() == Some(&read) {
            return Arc::clone(&seen.good);
        }
        match self.settled(read).await {
            None => tracing::warn!(
                "the files of the coldset's access keys keep changing; what the keys were before holds"
            ),
            Some(read) if can_sign(&read) => {
                tracing::info!("the coldset's access keys have changed");
                *seen = Seen { good: Arc::new(read), refused: None };
            }
            Some(read) => {
                tracing::warn!(
                    "the coldset's access keys hold a character that no header may have; what they were before holds"
                );
                seen.refused = Some(read);
            }
        }
        Arc::clone(&seen.good)
    }

    /// The keys once all their files have stayed the same for a while; `None` where they do not.
    async fn settled(&self, mut read: AwsCredential) -> Option<AwsCredential> {
        if self.keys.files() <= 1 {
            return Some(read);
        }
        for _ in 0..MOST_LOOKS {
            tokio::time::sleep(SETTLED).await;
            let again = self.keys.read();
            if again == read {
                return Some(read);
            }
            read = again;
        }
        None
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
    use std::time::Instant;

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
        // What was refused is known, and costs no time.
        let begun = Instant::now();
        keys.get().await;
        assert!(begun.elapsed() < SETTLED, "{:?}", begun.elapsed());
        assert!(!format!("{keys:?} {:?}", keys.keys).contains("new"));

        write("id", "newer");
        assert_eq!(keys.get().await.key_id, "newer");
    }

    #[tokio::test]
    async fn files_that_keep_changing_are_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let open = |name: &str| Secret::File(SecretFile::open(&at(name)).unwrap());
        std::fs::write(at("id"), "old").unwrap();
        std::fs::write(at("secret"), "old-secret").unwrap();
        let keys = AccessKeys { id: open("id"), secret: open("secret"), session_token: None };
        let keys = CurrentKeys::new(keys, "s3.access-key-id").unwrap();
        let (id, next) = (at("id"), at("next"));
        let change = |n: u32| {
            // At once: nobody reads a file that is half written.
            std::fs::write(&next, format!("new-{n}")).unwrap();
            std::fs::rename(&next, &id).unwrap();
        };
        change(0);
        let changing = async {
            for n in 1.. {
                tokio::time::sleep(SETTLED / 4).await;
                change(n);
            }
        };
        tokio::select! {
            now = keys.get() => assert_eq!(now.key_id, "old"),
            () = changing => {}
            () = tokio::time::sleep(SETTLED * 25) => panic!("it waits still"),
        }
        assert!(keys.get().await.key_id.starts_with("new-"));
    }
}
