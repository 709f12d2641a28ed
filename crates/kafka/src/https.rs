//! What those have in common who are asked over HTTP: the schema registry, and who gives tokens.

use std::time::Duration;

use isk_outbound::{Authorities, NoClient};
use reqwest::{ClientBuilder, Response};

/// A client to be that believes these, and waits so long for a connection and for an answer.
pub(crate) fn builder(
    authorities: &Authorities,
    connect_timeout: Duration,
    request_timeout: Duration,
) -> Result<ClientBuilder, NoClient> {
    Ok(authorities
        .client()?
        .user_agent(concat!("isk/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .timeout(request_timeout))
}

/// An answer's body; `None` where it has more bytes than this.
pub(crate) async fn body(
    mut response: Response,
    most: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > most {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
