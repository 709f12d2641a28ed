//! Virtual-host addressing: `<bucket>.<external host name>` names the bucket.

use s3s::S3Result;
use s3s::host::{S3Host, VirtualHost};

/// Knows the gateway's own host name. A request to any other host is one in path style: clients also
/// reach the gateway by address, by a name inside a container network, or through a tunnel.
pub(crate) struct ExternalHost {
    suffix: String,
}

impl ExternalHost {
    pub(crate) fn new(hostname: &str) -> Self {
        Self { suffix: format!(".{}", hostname.to_ascii_lowercase()) }
    }
}

impl S3Host for ExternalHost {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name).to_ascii_lowercase();
        Ok(match name.strip_suffix(&self.suffix).filter(|bucket| !bucket.is_empty()) {
            Some(bucket) => VirtualHost::new(host).with_bucket(bucket.to_owned()),
            None => VirtualHost::new(host),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_under_the_external_one_are_buckets() {
        let host = ExternalHost::new("ISK.example.com");
        for (header, bucket) in [
            ("hotset.isk.example.com", Some("hotset")),
            ("hotset.isk.example.com:11000", Some("hotset")),
            ("HotSet.ISK.Example.com", Some("hotset")),
            ("isk.example.com", None),
            ("isk.example.com:11000", None),
            (".isk.example.com", None),
            ("localhost:11000", None),
            ("hotset.example.com", None),
            ("evilisk.example.com", None),
        ] {
            assert_eq!(host.parse_host_header(header).unwrap().bucket(), bucket, "{header}");
        }
    }
}
