//! Pages of listings: a token names the last entry of the page before.
//!
//! So a token stays good while entries come and go, and needs no memory in the server.

use std::fmt::Write as _;

use crate::error::ApiError;
use crate::settings::CatalogSettings;

/// Marks a token as one of ours, of this form.
const TOKEN_MARK: &str = "1-";

/// What a client asked of a listing: `pageToken` and `pageSize` as they came.
#[derive(Debug, Default)]
pub(crate) struct PageRequest<'a> {
    pub token: Option<&'a str>,
    pub size: Option<&'a str>,
}

/// Cuts the page that was asked for out of all (sorted) names.
///
/// Without a `pageToken` in the request the answer is everything, as the specification demands;
/// with an empty one it is the first page.
///
/// # Errors
/// A token that is not ours, or a size that is no positive number.
pub(crate) fn page(
    mut names: Vec<String>,
    request: &PageRequest<'_>,
    settings: &CatalogSettings,
) -> Result<(Vec<String>, Option<String>), ApiError> {
    let size = match request.size {
        None => settings.default_page_size,
        Some(text) => text.parse::<usize>().ok().filter(|n| *n > 0).ok_or_else(|| {
            ApiError::bad_request(format!("pageSize {text:?} is no positive number"))
        })?,
    };
    let Some(token) = request.token else { return Ok((names, None)) };
    if !token.is_empty() {
        let last = parse_token(token).ok_or_else(|| {
            ApiError::bad_request("pageToken is none of this catalog's; list from the start")
        })?;
        let seen = names.partition_point(|name| *name <= last);
        names.drain(..seen);
    }
    let size = size.min(settings.max_page_size).max(1);
    let more = names.len() > size;
    names.truncate(size);
    let next = names.last().filter(|_| more).map(|last| format_token(last));
    Ok((names, next))
}

fn format_token(last: &str) -> String {
    let mut token = TOKEN_MARK.to_owned();
    for byte in last.bytes() {
        // Writing to a String cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    token
}

fn parse_token(token: &str) -> Option<String> {
    let digits = token.strip_prefix(TOKEN_MARK)?.as_bytes();
    let bytes = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()?;
    String::from_utf8(bytes).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::VendedS3;

    fn settings(default_page_size: usize, max_page_size: usize) -> CatalogSettings {
        let vended = VendedS3 {
            endpoint: String::new(),
            region: String::new(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            session_token: String::new(),
            path_style: true,
            expires_at_ms: String::new(),
            refresh_endpoint: String::new(),
        };
        CatalogSettings { default_page_size, max_page_size, ..CatalogSettings::new(vended) }
    }

    proptest! {
        #[test]
        fn tokens_round_trip(name in ".{0,40}") {
            prop_assert_eq!(parse_token(&format_token(&name)), Some(name));
        }

        #[test]
        fn any_text_is_a_token_or_refused(text in ".{0,40}") {
            if let Some(name) = parse_token(&text) {
                prop_assert_eq!(format_token(&name), text);
            }
        }

        #[test]
        fn pages_together_are_the_whole(
            names in prop::collection::btree_set("[a-c._-]{1,4}", 0..40), size in 1usize..8,
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let size = size.to_string();
            let mut seen = Vec::new();
            let mut token = Some(String::new());
            while let Some(at) = token {
                let request = PageRequest { token: Some(&at), size: Some(&size) };
                let (part, next) = page(names.clone(), &request, &settings(5, 6)).unwrap();
                prop_assert!(part.len() <= 6);
                seen.extend(part);
                token = next;
            }
            prop_assert_eq!(seen, names);
        }
    }

    #[test]
    fn without_a_token_everything_comes_at_once() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let request = PageRequest { token: None, size: Some("1") };
        assert_eq!(page(names.clone(), &request, &settings(1, 1)).unwrap(), (names, None));
    }

    #[test]
    fn bad_requests_are_refused() {
        for (token, size) in [("x", None), ("1-0", None), ("1-ff", None), ("", Some("0"))] {
            let request = PageRequest { token: Some(token), size };
            assert!(page(Vec::new(), &request, &settings(1, 1)).is_err(), "{token:?} {size:?}");
        }
    }
}
