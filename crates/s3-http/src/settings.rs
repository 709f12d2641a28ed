//! What the gateway is told at start.

use std::fmt;

use isk_access::Access;

/// The keys that requests are signed with.
#[derive(Clone)]
pub struct GatewayCredentials {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
    /// The session token that is vended with them. A request need not carry one; one that does must
    /// carry this one.
    pub session_token: String,
}

impl fmt::Debug for GatewayCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// The gateway's settings.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// The host name under which clients reach the gateway, without a port: a request to
    /// `<bucket>.<this>` is one to the bucket.
    pub external_hostname: String,
    /// The region the buckets say they are in. Requests signed for another one are served too.
    pub region: String,
    /// The keys that requests are signed with, where everybody may come in.
    pub credentials: GatewayCredentials,
    /// Who may in, and who may what.
    pub access: Access,
}

/// Settings that no gateway can run with. The text names the setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// The host name is none.
    #[error(
        "the external host name {0:?} is no host name: letters, digits, '-' and '.', without a scheme or port"
    )]
    Hostname(String),
    /// The region has characters that no signature can carry.
    #[error("the region {0:?} is no S3 region: small letters, digits and '-'")]
    Region(String),
    /// A key is empty.
    #[error("the gateway's {0} is empty")]
    EmptyCredential(&'static str),
}

impl GatewaySettings {
    pub(crate) fn check(&self) -> Result<(), InvalidSettings> {
        let label = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !self.external_hostname.split('.').all(label) {
            return Err(InvalidSettings::Hostname(self.external_hostname.clone()));
        }
        let in_region = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.region.is_empty() || !self.region.bytes().all(in_region) {
            return Err(InvalidSettings::Region(self.region.clone()));
        }
        if !self.access.is_open() {
            return Ok(());
        }
        if self.credentials.access_key_id.is_empty() {
            return Err(InvalidSettings::EmptyCredential("access key id"));
        }
        if self.credentials.secret_access_key.is_empty() {
            return Err(InvalidSettings::EmptyCredential("secret access key"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(hostname: &str, region: &str, id: &str) -> GatewaySettings {
        GatewaySettings {
            external_hostname: hostname.into(),
            region: region.into(),
            credentials: GatewayCredentials {
                access_key_id: id.into(),
                secret_access_key: "hush".into(),
                session_token: "whisper".into(),
            },
            access: Access::open(0),
        }
    }

    #[test]
    fn bad_settings_are_named() {
        assert_eq!(settings("isk.example.com", "us-east-1", "id").check(), Ok(()));
        assert_eq!(settings("localhost", "local", "id").check(), Ok(()));
        for (hostname, region, id, expected) in [
            ("", "r", "id", "external host name"),
            ("http://h", "r", "id", "external host name"),
            ("h:1", "r", "id", "external host name"),
            ("h", "US", "id", "region"),
            ("h", "", "id", "region"),
            ("h", "r", "", "access key id"),
        ] {
            let error = settings(hostname, region, id).check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", settings("h", "r", "id"));
        assert!(!shown.contains("hush") && !shown.contains("whisper"), "{shown}");
    }
}
