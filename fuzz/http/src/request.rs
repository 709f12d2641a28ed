//! What is asked: requests as clients make them, then bent in one of many ways.

use isk_fuzz_http::sign;

use crate::header::{bend_header, header, line, range};
use crate::random::Random;

/// Where to.
pub(crate) struct Target {
    pub catalog: String,
    pub gateway: String,
    /// A topic that is there.
    pub topic: String,
    pub access_key: String,
    pub secret_key: String,
    /// Keys of objects that are there, with their buckets.
    pub keys: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    Catalog,
    Gateway,
}

pub(crate) struct Request {
    pub port: Port,
    pub bytes: Vec<u8>,
    /// Whether it is an answer's turn once it was sent; else the server may wait for more.
    pub whole: bool,
    /// Whether its answer has no body.
    pub head_only: bool,
}

/// A request before it is written.
struct Parts {
    method: String,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn make(random: &mut Random, target: &Target) -> Self {
        let port = if random.once_in(2) { Port::Catalog } else { Port::Gateway };
        let host = match port {
            Port::Catalog => &target.catalog,
            Port::Gateway => &target.gateway,
        };
        let mut parts = match port {
            Port::Catalog => catalog(random, target),
            Port::Gateway => gateway(random, target),
        };
        if port == Port::Gateway && !random.once_in(8) {
            let key = (target.access_key.as_str(), target.secret_key.as_str());
            let mut signed = sign::headers(&parts.method, &parts.path, &parts.query, host, key);
            if random.once_in(10) {
                bend_header(random, &mut signed);
            }
            parts.headers.extend(signed);
        }
        while random.once_in(4) {
            parts.headers.push(header(random));
        }
        if random.once_in(12) {
            bend_header(random, &mut parts.headers);
        }
        let head_only = parts.method == "HEAD";
        let (mut bytes, mut whole) = written(random, &parts, host);
        // Once in a while the bytes of the request themselves are changed.
        whole &= !random.once_in(300);
        if !whole {
            random.mutate(&mut bytes);
        }
        Self { port, bytes, whole, head_only }
    }
}

/// Fields of a query, encoded: some of these names, each with a number, one of these words, or anything.
fn fields(random: &mut Random, names: &[&str], words: &[&str]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while random.once_in(2) {
        let name = random.pick(names).to_owned();
        let value = match random.below(3) {
            0 => random.number(),
            1 => random.pick(words).to_owned(),
            _ => String::from_utf8_lossy(&random.bytes(30)).into_owned(),
        };
        fields.push((name, sign::encode(value.as_bytes(), false)));
    }
    fields
}

/// A name: one that is there, one like it, or any.
fn name(random: &mut Random, target: &Target) -> Vec<u8> {
    let mut name = match random.below(8) {
        0..=3 => target.topic.clone().into_bytes(),
        4 => format!(
            "{}{}",
            target.topic,
            random.pick(&["$raw", "~json", "$unmoved", "$Nobody", "$", "~", "$files"])
        )
        .into_bytes(),
        5 => random
            .pick(&["hotset", "errors", "merged", "coldset", "__consumer_offsets", ".", "..", ""])
            .as_bytes()
            .to_vec(),
        _ => random.bytes(30),
    };
    if random.once_in(5) {
        random.mutate(&mut name);
    }
    name
}

fn namespace(random: &mut Random, target: &Target) -> String {
    match random.below(5) {
        0 => sign::encode(&name(random, target), false),
        1 => format!("hotset%1F{}", sign::encode(&random.bytes(5), false)),
        _ => random.pick(&["hotset", "errors", "merged", "coldset"]).to_owned(),
    }
}

fn catalog(random: &mut Random, target: &Target) -> Parts {
    let (namespace, table) =
        (namespace(random, target), sign::encode(&name(random, target), false));
    let mut path = match random.below(16) {
        0 => "/v1/config".to_owned(),
        1 => "/v1/namespaces".to_owned(),
        2 => format!("/v1/namespaces/{namespace}"),
        3 => format!("/v1/namespaces/{namespace}/tables"),
        4..=7 => format!("/v1/namespaces/{namespace}/tables/{table}"),
        8 => format!(
            "/v1/namespaces/{namespace}/tables/{table}/{}",
            random.pick(&["plan", "tasks", "metrics", "credentials", "plan/x"])
        ),
        9 => format!(
            "/v1/namespaces/{namespace}/{}",
            random.pick(&["views", "register", "properties", "functions"])
        ),
        10 => random
            .pick(&["/v1/oauth/tokens", "/v1/tables/rename", "/v1/transactions/commit"])
            .to_owned(),
        11 => format!("/api/v1/topics/{table}/schema"),
        12 => random
            .pick(&["/metrics", "/healthz", "/readyz", "/", "/v1", "/v2/config", "*"])
            .to_owned(),
        13 => format!("/v1/{}/namespaces", sign::encode(&random.bytes(10), false)),
        _ => format!("/{}", sign::encode(&random.bytes(60), true)),
    };
    let method =
        match path.ends_with("/plan") || path.ends_with("/tasks") || path.ends_with("tokens") {
            true if !random.once_in(4) => "POST",
            _ if path.ends_with("/schema") => random.pick(&["GET", "PUT", "DELETE"]),
            _ if random.once_in(4) => random.pick(&[
                "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "get", "FOO",
            ]),
            _ => "GET",
        };
    let query = fields(
        random,
        &[
            "pageToken",
            "pageSize",
            "parent",
            "warehouse",
            "snapshots",
            "samples",
            "purgeRequested",
            "x",
        ],
        &["all", "refs", "hotset", "true", ""],
    );
    let has_body = matches!(method, "POST" | "PUT" | "PATCH") || random.once_in(20);
    let body = if has_body { body(random, target, &path) } else { Vec::new() };
    let content_type = match path.ends_with("tokens") {
        true => "application/x-www-form-urlencoded",
        false => random.pick(&[
            "application/json",
            "application/json",
            "application/json",
            "text/plain",
            "application/xml",
            "",
        ]),
    };
    let headers = if has_body {
        vec![("content-type".to_owned(), content_type.to_owned())]
    } else {
        Vec::new()
    };
    if random.once_in(30) {
        let mut bytes = path.into_bytes();
        random.mutate(&mut bytes);
        path = line(&bytes).replace([' ', '\t'], "%20");
    }
    Parts { method: method.to_owned(), path, query, headers, body }
}

/// JSON that a catalog is sent, or something like it.
fn body(random: &mut Random, target: &Target, path: &str) -> Vec<u8> {
    if path.ends_with("tokens") {
        let mut form =
            b"grant_type=client_credentials&client_id=a&client_secret=b&scope=catalog".to_vec();
        random.mutate(&mut form);
        return form;
    }
    let number = random.number();
    let column =
        random.pick(&["kafka_partition", "kafka_offset", "kafka_timestamp", "id", "nobody", ""]);
    let kind = random.pick(&[
        "eq",
        "lt",
        "gt-eq",
        "in",
        "not-in",
        "is-null",
        "starts-with",
        "and",
        "or",
        "not",
        "foo",
    ]);
    let mut text = match random.below(6) {
        0 => format!(r#"{{"snapshot-id":{number},"select":["{column}"],"case-sensitive":true}}"#),
        1 => format!(r#"{{"filter":{{"type":"{kind}","term":"{column}","value":{number}}}}}"#),
        2 => format!(
            r#"{{"filter":{{"type":"{kind}","left":{{"type":"in","term":"{column}","values":[{number},"x",null,1.5]}},"right":true,"child":false}},"stats-fields":["{column}"]}}"#
        ),
        3 => format!(r#"{{"plan-task":"{number}"}}"#),
        4 => format!(
            r#"{{"schemaType":"{}","schema":{{"type":"object","properties":{{"{column}":{{"type":"integer"}}}}}}}}"#,
            random.pick(&["JSON", "AVRO", "PROTOBUF", "X"])
        ),
        _ => format!(
            r#"{{"identifier":{{"namespace":["hotset"],"name":"{}"}},"requirements":[],"updates":[{{"action":"{}"}}]}}"#,
            target.topic,
            random.pick(&["set-properties", "add-schema", "foo"])
        ),
    };
    if random.once_in(20) {
        let depth = 1 << random.below(14);
        text = format!(
            "{}{}",
            random
                .pick(&["[", "{\"a\":", "{\"filter\":{\"type\":\"not\",\"child\":"])
                .repeat(depth),
            number
        );
    }
    let mut text = text.into_bytes();
    if random.once_in(2) {
        random.mutate(&mut text);
    }
    text
}

fn gateway(random: &mut Random, target: &Target) -> Parts {
    let known = target.keys.get(random.below(target.keys.len())).map_or("", String::as_str);
    let mut key = known.as_bytes().to_vec();
    match random.below(8) {
        // As it is.
        0..=2 => {}
        3 => key = [&b"hotset/"[..], &name(random, target), b"/", &random.bytes(40)].concat(),
        4 => key = random.bytes(80),
        _ => random.mutate(&mut key),
    }
    let mut path = format!("/{}", sign::encode(&key, true));
    let mut query = Vec::new();
    let mut body = Vec::new();
    let method = match random.below(12) {
        // A list of a bucket, or of all.
        0 | 1 => {
            let bucket = random
                .pick(&["/hotset", "/hotset/", "/", "/errors", "/merged", "/coldset", "/nobody"]);
            path = bucket.to_owned();
            if !random.once_in(4) {
                query.push(("list-type".to_owned(), "2".to_owned()));
            }
            query.extend(fields(
                random,
                &[
                    "prefix",
                    "delimiter",
                    "max-keys",
                    "continuation-token",
                    "start-after",
                    "encoding-type",
                    "marker",
                    "versions",
                    "location",
                    "uploads",
                ],
                &["/", "url", "hotset", "\u{0}", "a/b"],
            ));
            "GET"
        }
        2 => "HEAD",
        3 => random.pick(&["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO"]),
        // What S3 is sent as XML.
        4 => {
            let of =
                random.pick(&["delete", "uploads", "uploadId", "restore", "select", "tagging"]);
            let value = if of == "uploadId" { random.number() } else { String::new() };
            query.push((of.to_owned(), sign::encode(value.as_bytes(), false)));
            let number = random.number();
            body = format!(
                "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a \"{number}\">]><Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet><Object><Key>&a;{}</Key><VersionId>{number}</VersionId></Object></Delete>",
                sign::encode(&key, true)
            )
            .into_bytes();
            if random.once_in(2) {
                random.mutate(&mut body);
            }
            if random.once_in(3) {
                body.retain(|byte| *byte != b'!');
            }
            "POST"
        }
        _ => "GET",
    };
    let mut headers = Vec::new();
    if method == "GET" && !random.once_in(4) {
        headers.push(("range".to_owned(), range(random)));
    }
    if method == "PUT" {
        body = random.bytes(300);
    }
    Parts { method: method.to_owned(), path, query, headers, body }
}

/// The request as bytes, and whether all of it is there.
fn written(random: &mut Random, parts: &Parts, host: &str) -> (Vec<u8>, bool) {
    let query: Vec<String> =
        parts.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let mut out = format!(
        "{} {}{mark}{} HTTP/1.1\r\nhost: {host}\r\n",
        parts.method,
        parts.path,
        query.join("&")
    )
    .into_bytes();
    for (name, value) in &parts.headers {
        out.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if parts.body.is_empty() {
        out.extend_from_slice(b"\r\n");
        return (out, true);
    }
    let count = parts.body.len();
    match random.below(10) {
        // In chunks, some of them no chunks.
        0..=2 => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            let cut = 1 + random.below(count);
            for chunk in parts.body.chunks(cut) {
                let length = match random.once_in(30) {
                    true => random
                        .pick(&["zz", "-1", "ffffffffffffffffff", "", "0x5", "5;a=b"])
                        .to_owned(),
                    false => format!("{:x}", chunk.len()),
                };
                out.extend(format!("{length}\r\n").into_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
            // Where a length is no chunk's, the server may wait for what it says.
            (out, false)
        }
        3 => {
            let length = random.number();
            out.extend(format!("content-length: {length}\r\n\r\n").into_bytes());
            out.extend_from_slice(&parts.body);
            (out, false)
        }
        _ => {
            out.extend(format!("content-length: {count}\r\n\r\n").into_bytes());
            out.extend_from_slice(&parts.body);
            (out, true)
        }
    }
}
