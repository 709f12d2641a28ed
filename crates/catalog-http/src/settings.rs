//! What the catalog is told at start: how clients reach the gateway, and the limits of a request.

use std::fmt;
use std::sync::Arc;

/// How a client reaches the S3 gateway: given to it with every table it loads.
#[derive(Clone)]
pub struct VendedS3 {
    /// The gateway's address as clients see it, with scheme: `http://localhost:11000`.
    pub endpoint: String,
    /// The region to sign for; some clients refuse to work without one.
    pub region: String,
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
    /// The session token; Trino takes vended credentials only with one.
    pub session_token: String,
    /// Whether the bucket stands in the path instead of the host name.
    pub path_style: bool,
    /// When the keys end, in milliseconds since 1970; empty where they do not.
    pub expires_at_ms: String,
    /// Where Iceberg for Java gets new ones, below the catalog's address; empty where there are none to get.
    pub refresh_endpoint: String,
}

impl fmt::Debug for VendedS3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VendedS3")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("path_style", &self.path_style)
            .finish_non_exhaustive()
    }
}

impl VendedS3 {
    /// The settings under the property names that clients' file readers know.
    pub(crate) fn properties(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("client.refresh-credentials-endpoint", self.refresh_endpoint.as_str()),
            ("client.region", self.region.as_str()),
            ("s3.access-key-id", &self.access_key_id),
            ("s3.endpoint", &self.endpoint),
            ("s3.path-style-access", if self.path_style { "true" } else { "false" }),
            ("s3.region", &self.region),
            ("s3.secret-access-key", &self.secret_access_key),
            ("s3.session-token", &self.session_token),
            ("s3.session-token-expires-at-ms", &self.expires_at_ms),
        ];
        // What keys without an end have nothing to say about.
        let optional = ["client.refresh-credentials-endpoint", "s3.session-token-expires-at-ms"];
        all.into_iter().filter(move |(name, value)| !(value.is_empty() && optional.contains(name)))
    }
}

/// Metrics of parts that the catalog does not know, in the Prometheus text format.
#[derive(Clone)]
pub struct MoreMetrics(pub Arc<dyn Fn() -> String + Send + Sync>);

impl fmt::Debug for MoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MoreMetrics")
    }
}

/// The catalog's settings.
#[derive(Debug, Clone)]
pub struct CatalogSettings {
    /// What loaded tables say about the gateway.
    pub vended: VendedS3,
    /// The entries of a listing's page when the client names no number.
    pub default_page_size: usize,
    /// The most entries of a listing's page, whatever the client asks for.
    pub max_page_size: usize,
    /// The most bytes of a request's body that are read; longer ones are refused.
    pub max_body_bytes: usize,
    /// Whether clients are told to have scans of tables of the hotset planned here.
    pub server_planning: bool,
    /// Whether metrics are for everybody who asks.
    pub open_metrics: bool,
    /// What `/metrics` shows besides the service's own.
    pub more_metrics: MoreMetrics,
}

impl CatalogSettings {
    /// Settings with the default limits.
    pub fn new(vended: VendedS3) -> Self {
        Self {
            vended,
            default_page_size: 1000,
            max_page_size: 10_000,
            max_body_bytes: 1 << 20,
            server_planning: false,
            open_metrics: false,
            more_metrics: MoreMetrics(Arc::new(String::new)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let settings = CatalogSettings::new(VendedS3 {
            endpoint: "http://localhost:11000".into(),
            region: "us-east-1".into(),
            access_key_id: "id".into(),
            secret_access_key: "hush".into(),
            session_token: "whisper".into(),
            path_style: true,
            expires_at_ms: String::new(),
            refresh_endpoint: String::new(),
        });
        let shown = format!("{settings:?}");
        assert!(shown.contains("localhost:11000"), "{shown}");
        assert!(!shown.contains("hush") && !shown.contains("whisper"), "{shown}");
    }
}
