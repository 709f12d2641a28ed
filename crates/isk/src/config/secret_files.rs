//! Secrets of the sections that are free-form properties, from files: `sasl.password.file` in place of `sasl.password`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::Config;

/// Properties of librdkafka's that may come from a file.
const KAFKA: &[&str] = &["sasl.password", "ssl.key.password", "sasl.oauthbearer.client.secret"];

/// Properties of the coldset's; dots, dashes and underscores are the same there.
const COLDSET: &[&str] = &[
    "token",
    "credential",
    "s3.secret.access.key",
    "s3.session.token",
    "rest.secret.access.key",
    "rest.session.token",
];

/// The files that are read again while the service runs: their names stay beside what they say.
pub const PASSWORD_FILE: &str = "sasl.password.file";
/// As above.
pub const CLIENT_SECRET_FILE: &str = "sasl.oauthbearer.client.secret.file";

/// Puts what the files say in their places.
pub fn read(config: &mut Config) -> Result<()> {
    let named = |key: &str| Some((key.to_owned(), config.kafka.0.get(key)?.clone()));
    let renewed: Vec<_> =
        [PASSWORD_FILE, CLIENT_SECRET_FILE].into_iter().filter_map(named).collect();
    put("kafka", &mut config.kafka.0, KAFKA, str::to_owned)?;
    config.kafka.0.extend(renewed);
    put("coldset", &mut config.coldset.0, COLDSET, |key| {
        key.to_ascii_lowercase().replace(['-', '_'], ".")
    })
}

fn put(
    section: &str,
    properties: &mut BTreeMap<String, String>,
    secrets: &[&str],
    plain: fn(&str) -> String,
) -> Result<()> {
    let named: Vec<String> = properties.keys().cloned().collect();
    for key in named {
        let of = plain(&key);
        let Some(secret) = of.strip_suffix(".file").filter(|of| secrets.contains(of)) else {
            continue;
        };
        if named_twice(properties, secret, plain) {
            bail!("configuration keys {section}.{secret} and {section}.{key}: give one");
        }
        let path = properties.remove(&key).unwrap_or_default();
        let failed = || format!("configuration key \"{section}.{key}\": cannot read {path}");
        let text = std::fs::read_to_string(&path).with_context(failed)?;
        if text.trim().is_empty() {
            bail!("configuration key \"{section}.{key}\": {path} is empty");
        }
        properties.insert(secret.to_owned(), text.trim().to_owned());
    }
    Ok(())
}

fn named_twice(
    properties: &BTreeMap<String, String>,
    secret: &str,
    plain: fn(&str) -> String,
) -> bool {
    properties.keys().any(|other| plain(other) == secret)
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
        config.coldset.0.insert("s3.secret-access-key-file".into(), path.clone());
        config.coldset.0.insert("ca-file".into(), "untouched".into());
        read(&mut config).unwrap();
        let kafka = &config.kafka.0;
        assert_eq!(kafka.get("sasl.password").map(String::as_str), Some("hush"));
        assert_eq!(kafka.get(PASSWORD_FILE), Some(&path));
        assert_eq!(kafka.get("sasl.oauthbearer.client.secret").map(String::as_str), Some("hush"));
        assert_eq!(kafka.get(CLIENT_SECRET_FILE), Some(&path));
        assert_eq!(kafka.len(), 5);
        let coldset = &config.coldset.0;
        assert_eq!(coldset.get("s3.secret.access.key").map(String::as_str), Some("hush"));
        assert_eq!(coldset.get("ca-file").map(String::as_str), Some("untouched"));
        assert!(!format!("{config:?}").contains("hush"));

        config.kafka.0.remove(CLIENT_SECRET_FILE);
        config.kafka.0.insert("sasl.password.file".into(), path);
        assert!(read(&mut config).unwrap_err().to_string().contains("give one"));
        config.kafka.0.remove("sasl.password");
        config.kafka.0.insert("sasl.password.file".into(), "/none".into());
        assert!(format!("{:#}", read(&mut config).unwrap_err()).contains("/none"));
    }
}
