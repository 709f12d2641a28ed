//! Clients that are slow, many, or that say what can be read in two ways, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use isk_listen::{BoxError, ConnectionLimits, Counters, Port, Served, WatchedBody, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// What `/endless` sends: as much as anybody takes.
const ENDLESS: &[u8] = &[b'x'; 64 << 10];

/// Answers under way.
static HELD: AtomicUsize = AtomicUsize::new(0);

enum Answer {
    Text(Full<Bytes>),
    Endless(Held),
}

struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Text(text) => Pin::new(text).poll_frame(cx),
            Self::Endless(_) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(ENDLESS))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::Endless(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Endless(_) => SizeHint::default(),
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Answer> {
    let mut answer = Response::new(Answer::Text(Full::new(Bytes::from(text))));
    *answer.status_mut() = status;
    answer
}

/// Says the path, and how long the body was.
async fn answer(request: Request<WatchedBody>) -> Result<Response<Answer>, BoxError> {
    let path = request.uri().path().to_owned();
    if path == "/endless" {
        HELD.fetch_add(1, Ordering::SeqCst);
        return Ok(Response::new(Answer::Endless(Held)));
    }
    if path == "/slow" {
        sleep(Duration::from_millis(300)).await;
    }
    Ok(match request.into_body().collect().await {
        Ok(body) => text(StatusCode::OK, format!("{path} {}", body.to_bytes().len())),
        Err(error) => text(StatusCode::REQUEST_TIMEOUT, error.to_string()),
    })
}

#[derive(Clone)]
struct Service;

impl hyper::service::Service<Request<WatchedBody>> for Service {
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, BoxError>> + Send>>;

    fn call(&self, request: Request<WatchedBody>) -> Self::Future {
        Box::pin(answer(request))
    }
}

fn busy() -> Response<Answer> {
    text(StatusCode::SERVICE_UNAVAILABLE, "come again".to_owned())
}

/// Short times, so that tests are.
fn limits() -> ConnectionLimits {
    ConnectionLimits {
        connections: 20,
        head_bytes: 20 << 10,
        head: Duration::from_millis(400),
        idle: Duration::from_millis(900),
        body_stall: Duration::from_millis(400),
        reader_stall: Duration::from_millis(600),
    }
}

struct Running {
    address: SocketAddr,
    counters: Arc<Counters>,
}

async fn start(limits: ConnectionLimits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let port = Port { limits, ..Port::default() };
    let counters = Arc::clone(&port.counters);
    let served = Served { name: "test", service: Service, busy };
    tokio::spawn(serve(listener, port, served, std::future::pending()));
    Running { address, counters }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The value of a counter.
    fn counted(&self, name: &str) -> u64 {
        let text = Counters::text(&[("test", &self.counters)]);
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

/// All that the server sends until it closes, and how long that took.
async fn to_end(stream: &mut TcpStream) -> (String, Duration) {
    let start = Instant::now();
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
    // A connection that is reset has ended, too.
    let _ = read.expect("the server closes in time");
    (String::from_utf8_lossy(&bytes).into_owned(), start.elapsed())
}

/// What the server sends to this, until it closes.
async fn says(running: &Running, request: &[u8]) -> String {
    let mut stream = running.connect().await;
    stream.write_all(request).await.unwrap();
    to_end(&mut stream).await.0
}

/// The next answer of a connection that stays open.
async fn next(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut piece = [0; 4096];
    loop {
        let read = timeout(Duration::from_secs(5), stream.read(&mut piece)).await.unwrap().unwrap();
        text += &String::from_utf8_lossy(&piece[..read]);
        if read == 0 || text.split_once("\r\n\r\n").is_some_and(|(_, body)| !body.is_empty()) {
            return text;
        }
    }
}

#[tokio::test]
async fn a_slow_head_ends() {
    let running = start(limits()).await;
    // Nothing at all.
    let (text, took) = to_end(&mut running.connect().await).await;
    assert_eq!(text, "");
    assert!(took >= Duration::from_millis(350), "{took:?}");
    // A byte from time to time: the first counts.
    let mut stream = running.connect().await;
    let (mut reading, mut writing) = stream.split();
    let mut text = String::new();
    let start = Instant::now();
    let drip = async {
        for byte in
            b"GET / HTTP/1.1\r\nHost: a\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".chunks(1)
        {
            if writing.write_all(byte).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = drip => panic!("nobody ended it"),
        read = reading.read_to_string(&mut text) => drop(read),
    }
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    assert_eq!(running.counted("isk_connections_timed_out_total"), 2);
    drop(stream);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(running.counted("isk_connections"), 0);
}

#[tokio::test]
async fn an_idle_connection_ends_later_than_a_head_must_come() {
    let running = start(limits()).await;
    let mut stream = running.connect().await;
    for path in ["/one", "/two"] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        assert!(next(&mut stream).await.contains(path));
        // Longer than a head may take, shorter than it may be idle.
        sleep(Duration::from_millis(600)).await;
    }
    let (text, took) = to_end(&mut stream).await;
    assert_eq!(text, "");
    assert!(took < Duration::from_millis(800), "{took:?}");
    assert_eq!(running.counted("isk_connections_timed_out_total"), 0);
}

#[tokio::test]
async fn a_request_that_takes_longer_than_all_that_is_answered() {
    let limits = ConnectionLimits {
        head: Duration::from_millis(100),
        idle: Duration::from_millis(100),
        ..limits()
    };
    let running = start(limits).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(next(&mut stream).await.contains("/slow 0"));
}

#[tokio::test]
async fn a_body_that_stalls_is_told_so() {
    let running = start(limits()).await;
    let text = says(&running, b"POST /a HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc").await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("stalled"), "{text}");
    // A byte from time to time is next to nothing.
    let mut stream = running.connect().await;
    let (mut reading, mut writing) = stream.split();
    writing.write_all(b"POST /a HTTP/1.1\r\nContent-Length: 900\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let drip = async {
        while writing.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = drip => {}
        read = timeout(Duration::from_secs(5), reading.read_to_string(&mut text)) => drop(read.unwrap()),
    }
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nothing_for_long() {
    let running = start(limits()).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\n\r\n").await.unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).await.unwrap();
    assert_eq!(HELD.load(Ordering::SeqCst), 1);
    let start = Instant::now();
    while HELD.load(Ordering::SeqCst) > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "the answer is still held");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(running.counted("isk_connections_timed_out_total"), 1);
    // One that reads on may take as long as it likes.
    let mut stream = running.connect().await;
    stream.write_all(b"GET /endless HTTP/1.1\r\n\r\n").await.unwrap();
    let mut piece = vec![0; 128 << 10];
    for _ in 0..40 {
        stream.read_exact(&mut piece).await.unwrap();
        sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(HELD.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn connections_beyond_the_bound_are_told_to_come_again() {
    let running = start(ConnectionLimits { connections: 2, ..limits() }).await;
    let request = b"GET /a HTTP/1.1\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = running.connect().await;
        stream.write_all(request).await.unwrap();
        assert!(next(&mut stream).await.starts_with("HTTP/1.1 200 "));
        open.push(stream);
    }
    let text = says(&running, request).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.ends_with("come again"), "{text}");
    assert_eq!(running.counted("isk_connections_refused_total"), 1);
    assert_eq!(running.counted("isk_connections"), 2);
    drop(open);
    sleep(Duration::from_millis(100)).await;
    let mut stream = running.connect().await;
    stream.write_all(request).await.unwrap();
    assert!(next(&mut stream).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn long_heads_are_refused() {
    let running = start(limits()).await;
    let long = format!("GET /a HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(21 << 10));
    let text = says(&running, long.as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let endless = format!("GET /a HTTP/1.1\r\nX: {}", "x".repeat(900 << 10));
    let text = says(&running, endless.as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let many = format!("GET /a HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101));
    let text = says(&running, many.as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    let fits =
        format!("GET /a HTTP/1.1\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(19 << 10));
    assert!(says(&running, fits.as_bytes()).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_what_follows_is_not_read() {
    let running = start(limits()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\n\r\n";
    for shape in [
        "POST /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST /a HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc",
        "POST /a HTTP/1.1\r\nX: y\r\n Content-Length: 3\r\n\r\nabc",
        "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /a HTTP/1.1\nHost: a\n\n",
        "GET /a HTTP/1.1\r\nX: y\nContent-Length: 3\r\n\r\nabc",
        "GET /a HTTP/1.1\r\nX: y\rZ: z\r\n\r\n",
    ] {
        // Alone, behind another request, and behind one with a body.
        for before in
            ["", "GET /b HTTP/1.1\r\n\r\n", "POST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\n\r\n"]
        {
            let text = says(&running, format!("{before}{shape}{smuggled}").as_bytes()).await;
            let answers = text.matches("HTTP/1.1 ").count();
            assert_eq!(
                answers,
                1 + usize::from(!before.is_empty()),
                "{before:?} {shape:?}: {text}"
            );
            assert!(text.contains("HTTP/1.1 400 "), "{before:?} {shape:?}: {text}");
            assert!(!text.contains("/smuggled"), "{before:?} {shape:?}: {text}");
        }
    }
}

#[tokio::test]
async fn requests_may_follow_each_other_without_waiting() {
    let running = start(limits()).await;
    let several = "GET /slow HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\n\n\n\n\n\n\
                   HEAD /c HTTP/1.1\r\n\r\nGET /d HTTP/1.1\r\nConnection: close\r\n\r\n";
    for size in [1, 7, 1000] {
        let mut stream = running.connect().await;
        let (mut reading, mut writing) = stream.split();
        let send = async {
            for piece in several.as_bytes().chunks(size) {
                writing.write_all(piece).await.unwrap();
                sleep(Duration::from_millis(1)).await;
            }
        };
        let mut text = String::new();
        let (_, read) =
            tokio::join!(send, timeout(Duration::from_secs(5), reading.read_to_string(&mut text)));
        read.unwrap().unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 ").count(), 4, "{size}: {text}");
        assert!(
            text.contains("/slow 0") && text.contains("/b 5") && text.ends_with("/d 0"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_body_in_chunks_is_the_last_of_its_connection() {
    let running = start(limits()).await;
    let chunks =
        "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let text = says(&running, format!("{chunks}GET /smuggled HTTP/1.1\r\n\r\n").as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("/a 5"), "{text}");
    assert!(text.contains("connection: close") && !text.contains("smuggled"), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_request() {
    let running = start(limits()).await;
    let mut stream = running.connect().await;
    stream.write_all(b"GET /slow HTTP/1.1\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(running.counted("isk_connections"), 1);
    drop(stream);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(running.counted("isk_connections"), 0);
}
