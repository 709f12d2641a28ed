//! Secrets of librdkafka's properties, from files: `sasl.password.file` in place of `sasl.password`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use isk_outbound::SecretFile;

use super::Config;

/// Properties that may come from a file.
const SECRETS: &[&str] = &["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret"];

/// The files that are read again while the service runs: their names stay beside what they say.
pub const PASSWORD_FILE: &str = "sasl.password.file";
/// As above.
pub const CLIENT_SECRET_FILE: &str = "sasl.oauthbearer.client.secret.file";

/// Puts what the files say in their places.
pub fn read(config: &mut Config) -> Result<()> {
    let properties = &mut config.kafka.0;
    for secret in SECRETS {
        let key = format!("{secret}.file");
        let Some(path) = properties.get(&key).cloned() else { continue };
        if properties.contains_key(*secret) {
            bail!("configuration keys kafka.{secret} and kafka.{key}: give one");
        }
        let file = SecretFile::open(Path::new(&path))
            .with_context(|| format!("configuration key \"kafka.{key}\""))?;
        properties.insert((*secret).to_owned(), file.text());
        if ![PASSWORD_FILE, CLIENT_SECRET_FILE].contains(&key.as_str()) {
            properties.remove(&key);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_are_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "hush\n").unwrap();
        let path = file.display().to_string();
        let mut config = Config::default();
        config.kafka.0.insert("sasl.password.file".into(), path.clone());
        config.kafka.0.insert(CLIENT_SECRET_FILE.into(), path.clone());
        config.kafka.0.insert("ssl.ca.file".into(), "untouched".into());
        read(&mut config).unwrap();
        let kafka = &config.kafka.0;
        assert_eq!(kafka.get("sasl.password").map(String::as_str), Some("hush"));
        assert_eq!(kafka.get(PASSWORD_FILE), Some(&path));
        assert_eq!(kafka.get("sasl.oauthbearer.client.secret").map(String::as_str), Some("hush"));
        assert_eq!(kafka.get(CLIENT_SECRET_FILE), Some(&path));
        assert_eq!(kafka.len(), 5);
        assert!(!format!("{config:?}").contains("hush"));

        config.kafka.0.remove(CLIENT_SECRET_FILE);
        config.kafka.0.insert("sasl.password.file".into(), path);
        assert!(read(&mut config).unwrap_err().to_string().contains("give one"));
        config.kafka.0.remove("sasl.password");
        config.kafka.0.insert("sasl.password.file".into(), "/none".into());
        assert!(format!("{:#}", read(&mut config).unwrap_err()).contains("/none"));
    }
}
