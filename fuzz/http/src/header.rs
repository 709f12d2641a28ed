//! Headers that clients send, and what is like them.

use crate::random::Random;

pub(crate) fn bend_header(random: &mut Random, headers: &mut [(String, String)]) {
    let at = random.below(headers.len());
    if let Some((_, value)) = headers.get_mut(at) {
        let mut text = std::mem::take(value).into_bytes();
        random.mutate(&mut text);
        *value = line(&text);
    }
}

/// What can stand in a header's line.
pub(crate) fn line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(['\r', '\n', '\0'], " ")
}

pub(crate) fn header(random: &mut Random) -> (String, String) {
    let name = random.pick(&[
        "range",
        "range",
        "range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "if-range",
        "accept",
        "accept-encoding",
        "content-type",
        "content-md5",
        "x-amz-checksum-crc32",
        "x-amz-copy-source",
        "x-amz-acl",
        "expect",
        "x-amz-security-token",
        "authorization",
        "x-iceberg-access-delegation",
        "cookie",
        "origin",
        "x-forwarded-for",
        "x-request-id",
        "x-amz-decoded-content-length",
        "idempotency-key",
        "x-client-version",
    ]);
    let value = match name {
        "range" => range(random),
        "if-match" | "if-none-match" => {
            random.pick(&["*", "\"x\"", "W/\"x\"", "\"", "", "\"a\",\"b\""]).to_owned()
        }
        "if-modified-since" | "if-unmodified-since" => random
            .pick(&[
                "Wed, 21 Oct 2015 07:28:00 GMT",
                "0",
                "Thu, 99 Foo 9999 99:99:99 GMT",
                "2024-01-01T00:00:00Z",
            ])
            .to_owned(),
        "expect" => random.pick(&["100-continue", "200-ok", ""]).to_owned(),
        "authorization" => random
            .pick(&[
                "Bearer x",
                "Bearer ",
                "Basic Zm9vOmJhcg==",
                "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=, Signature=",
                "AWS4-HMAC-SHA256",
                "Bearer eyJhbGciOiJub25lIn0.e30.",
                "AWS a:b",
                "Bearer \u{e9}",
            ])
            .to_owned(),
        _ => line(&random.bytes(40)),
    };
    (name.to_owned(), value)
}

pub(crate) fn range(random: &mut Random) -> String {
    let unit = if random.once_in(10) {
        random.pick(&["bytes ", "Bytes", "records", "", "bytes:"])
    } else {
        "bytes="
    };
    let mut parts = vec![part(random)];
    while random.once_in(6) {
        parts.push(part(random));
    }
    format!("{unit}{}", parts.join(random.pick(&[",", ", ", ";"])))
}

fn part(random: &mut Random) -> String {
    match random.below(5) {
        0 => format!("-{}", random.number()),
        1 => format!("{}-", random.number()),
        2 => random.number(),
        _ => format!("{}-{}", random.number(), random.number()),
    }
}
