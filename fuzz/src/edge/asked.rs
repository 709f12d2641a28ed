//! A request as a fuzzer writes it: a line of its method, one of its path, one of its query, headers, an empty line, and
//! the body.

use http::{HeaderName, HeaderValue, Method};

/// Headers that a connection or a signature has a use of its own for.
const OWN: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-amz-content-sha256",
    "x-amz-date",
];

pub(crate) struct Asked<'a> {
    pub method: Method,
    pub path: &'a str,
    /// Names and values as they are meant, not as they are written.
    pub query: Vec<(&'a str, &'a str)>,
    /// Each once, in small letters, none of [`OWN`].
    pub headers: Vec<(String, String)>,
    pub body: &'a [u8],
}

impl<'a> Asked<'a> {
    pub(crate) fn read(data: &'a [u8]) -> Option<Self> {
        let end = data.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = match end {
            Some(at) => (data.get(..at)?, data.get(at + 2..)?),
            None => (data, &[][..]),
        };
        let mut lines = std::str::from_utf8(head).ok()?.split('\n');
        let method = Method::from_bytes(lines.next()?.as_bytes()).ok()?;
        // What asks for another protocol is none of a request's.
        if method == Method::CONNECT {
            return None;
        }
        let path = lines.next().filter(|path| path.starts_with('/'))?;
        let fields = lines.next().unwrap_or_default().split('&').filter(|field| !field.is_empty());
        let query = fields.map(|field| field.split_once('=').unwrap_or((field, ""))).collect();
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let (name, value) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
            let sound = HeaderName::from_bytes(name.as_bytes()).is_ok()
                && HeaderValue::from_str(value).is_ok_and(|value| value.to_str().is_ok());
            let taken = headers.iter().any(|(other, _)| *other == name);
            if sound && !value.is_empty() && !taken && !OWN.contains(&name.as_str()) {
                headers.push((name, value.to_owned()));
            }
        }
        Some(Self { method, path, query, headers, body })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A query as it is written.
pub(crate) fn written(query: &[(String, String)]) -> String {
    let fields: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if fields.is_empty() { String::new() } else { format!("?{}", fields.join("&")) }
}
