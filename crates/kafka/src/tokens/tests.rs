//! A provider that does what a test says.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Tokens;
use crate::config::KafkaConfig;
use crate::error::KafkaError;
use isk_outbound::SecretFile;

/// Answers each request with the next of these, the last one over and over, and keeps what was asked.
struct Endpoint {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    fn new(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, served) = (Arc::clone(&asked), AtomicUsize::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut bytes = vec![0; 8192];
                let mut text = String::new();
                while !text.contains("grant_type") {
                    let n = stream.read(&mut bytes).unwrap_or(0);
                    if n == 0 {
                        break;
                    }
                    text.push_str(&String::from_utf8_lossy(&bytes[..n]));
                }
                heard.lock().unwrap().push(text);
                let index = served.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
                if answers[index] == "slow" {
                    // Whoever asked leaves first.
                    std::thread::spawn(move || stream.read(&mut bytes));
                    continue;
                }
                stream.write_all(answers[index].as_bytes()).unwrap_or_default();
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn tokens(&self) -> Tokens {
        tokens(&self.url, None)
    }
}

fn tokens(url: &str, secret_file: Option<SecretFile>) -> Tokens {
    let mut config = KafkaConfig::new("a");
    config.request_timeout = Duration::from_secs(1);
    config.secret_file = secret_file;
    for (key, value) in [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.token.endpoint.url", url),
        ("sasl.oauthbearer.client.id", "isk"),
        ("sasl.oauthbearer.client.secret", "hunter2"),
    ] {
        config.properties.insert(key.into(), value.into());
    }
    Tokens::of(&config).unwrap().unwrap()
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn token(text: &str, seconds: f64) -> String {
    answer("200 OK", &format!(r#"{{"access_token":"{text}","expires_in":{seconds}}}"#))
}

#[test]
fn one_token_serves_all_until_it_is_renewed() {
    let (first, second) = (token("first", 4.0), token("second", 60.0));
    let endpoint = Endpoint::new(&[&first, &second]);
    let tokens = endpoint.tokens();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(tokens.token().unwrap().text, "first"));
        }
    });
    assert_eq!(tokens.renewed().unwrap().text, "first");
    assert_eq!(endpoint.asked(), 1);
    // Behind three quarters of its life it is good, and one who asks for a better one gets that.
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(tokens.token().unwrap().text, "first");
    assert_eq!(tokens.renewed().unwrap().text, "second");
    assert_eq!(tokens.token().unwrap().text, "second");
    assert_eq!(endpoint.asked(), 2);
    let asked = endpoint.asked.lock().unwrap()[0].clone();
    // "isk:hunter2", as librdkafka says it.
    assert!(asked.contains("Basic aXNrOmh1bnRlcjI="), "{asked}");
}

#[test]
fn a_token_is_good_while_no_new_one_is_to_be_had() {
    let (first, down) = (token("first", 4.0), answer("503 Away", ""));
    let third = token("third", 60.0);
    let endpoint = Endpoint::new(&[&first, &down, &third]);
    let tokens = endpoint.tokens();
    tokens.token().unwrap();
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(tokens.renewed().unwrap().text, "first");
    assert_eq!(endpoint.asked(), 2);
    std::thread::sleep(Duration::from_millis(600));
    // It is over, and the provider is left in peace for a second.
    assert!(tokens.token().is_err());
    assert_eq!(endpoint.asked(), 2);
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(tokens.token().unwrap().text, "third");
}

#[test]
fn a_token_that_brokers_refuse_is_replaced_if_another_is_to_be_had() {
    let (first, second) = (token("first", 60.0), token("second", 60.0));
    let (down, fourth) = (answer("503 Away", ""), token("fourth", 60.0));
    let endpoint = Endpoint::new(&[&first, &second, &down, &fourth]);
    let tokens = endpoint.tokens();
    let refused = tokens.token().unwrap();
    // Brokers that take none make nobody ask at each login.
    tokens.refused(&refused);
    assert_eq!(tokens.token().unwrap().text, "first");
    assert_eq!(endpoint.asked(), 1);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(tokens.token().unwrap().text, "first");
    tokens.refused(&refused);
    let better = tokens.token().unwrap();
    assert_eq!((better.text.as_str(), endpoint.asked()), ("second", 2));
    std::thread::sleep(Duration::from_millis(1100));
    // What is said of the first is none of the second's business.
    tokens.refused(&refused);
    assert_eq!(tokens.renewed().unwrap().text, "second");
    assert_eq!(endpoint.asked(), 2);
    // There is no other for now: it is shown again, to brokers that may take it.
    tokens.refused(&better);
    for _ in 0..3 {
        assert_eq!(tokens.token().unwrap().text, "second");
    }
    assert!(tokens.failure().is_none());
    assert_eq!(endpoint.asked(), 3);
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(tokens.token().unwrap().text, "fourth");
    assert_eq!(endpoint.asked(), 4);
}

#[test]
fn who_waits_for_a_slow_provider_waits_once() {
    let endpoint = Endpoint::new(&["slow"]);
    let tokens = endpoint.tokens();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let error = tokens.token().err().unwrap().to_string();
                assert!(
                    error.contains(&endpoint.url) && error.contains("does not answer"),
                    "{error}"
                );
            });
        }
    });
    // Half of the time of a question.
    assert!((400..1500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(endpoint.asked(), 1);
}

#[test]
fn what_goes_wrong_is_said_with_where_and_what_to_do() {
    let unknown = r#"{"error":"invalid_client","error_description":"hunter2 is not it"}"#;
    let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(300_000));
    for (said, expected, refused) in [
        (answer("401 No", unknown), "check sasl.oauthbearer.client.id", true),
        (answer("400 No", "<html>"), "refuses with 400; check", true),
        (answer("404 No", ""), "answered 404", false),
        (answer("302 There\r\nLocation: http://127.0.0.1:1/", ""), "answered 302", false),
        (answer("200 OK", "hello hunter2"), "no JSON", false),
        (answer("200 OK", &long), "too long", false),
        (answer("200 OK", r#"{"access_token":"hunter2"}"#), "how long", false),
        ("nonsense\r\n\r\n".to_owned(), "does not answer", false),
        (String::new(), "does not answer", false),
    ] {
        let endpoint = Endpoint::new(&[&said]);
        let error = endpoint.tokens().token().err().unwrap();
        assert_eq!(error.is_transient(), !refused, "{error}");
        assert!(matches!(error, KafkaError::Token { .. }));
        let text = format!("{error} {error:?}");
        assert!(text.contains(expected) && text.contains(&endpoint.url), "{text}");
        assert!(text.contains("sasl.oauthbearer.token.endpoint.url"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let tokens = tokens("http://127.0.0.1:1/token?key=hunter2", None);
    assert!(!format!("{tokens:?}").contains("hunter2"), "{tokens:?}");
    let error = tokens.token().err().unwrap();
    assert!(error.to_string().contains("https.ca.location"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_secret_in_a_file_is_what_it_says_when_a_token_is_asked_for() {
    let path = std::env::temp_dir().join(format!("isk-secret-{}", std::process::id()));
    std::fs::write(&path, "one\n").unwrap();
    let short = token("t", 0.1);
    let endpoint = Endpoint::new(&[&short]);
    let tokens = tokens(&endpoint.url, Some(SecretFile::open(&path).unwrap()));
    tokens.token().unwrap();
    std::fs::write(&path, "two\n").unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    tokens.token().unwrap();
    std::fs::remove_file(&path).unwrap();
    let asked = endpoint.asked.lock().unwrap().join("\n");
    // "isk:one" and "isk:two".
    assert!(
        asked.contains("Basic aXNrOm9uZQ==") && asked.contains("Basic aXNrOnR3bw=="),
        "{asked}"
    );
    assert!(!format!("{tokens:?}").contains("two"));
}
