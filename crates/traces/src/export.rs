//! Sending spans to a collector, in batches, from a task of its own. A collector that is away costs spans and a log
//! line now and then; nobody waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use isk_outbound::{Authorities, NoClient, chain};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData};
use prost::Message;
use reqwest::{Client, Url};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::queue::{Queue, SpanCounters};

/// Spans sent at once, and how long the first of them waits for the others.
const BATCH: usize = 512;
const GATHER: Duration = Duration::from_secs(1);

/// How often a batch is sent before it is dropped, and how long a collector's Retry-After is obeyed.
const ATTEMPTS: u32 = 3;
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How long what waits may take to be sent at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// How often it is told that spans are lost.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Of an answer, so much is read.
const MAX_ANSWER: usize = 64 << 10;

/// The headers of each request to the collector, as they are now.
pub type Headers = Arc<dyn Fn() -> Result<HeaderMap, String> + Send + Sync>;

/// Where traces go, and which.
pub struct TraceSettings {
    /// The whole URL that batches are posted to.
    pub endpoint: String,
    /// What the collector wants besides.
    pub headers: Headers,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// How long one attempt to send may take.
    pub timeout: Duration,
    /// Attributes of this service, `service.name` among them.
    pub resource: Vec<(String, String)>,
    /// Which traces are kept.
    pub sampler: Sampler,
}

impl fmt::Debug for TraceSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceSettings").field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// Settings that no traces can be sent with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSettings(String);

/// Traces that are taken down, and not sent anywhere yet.
pub struct Traces {
    tracer: SdkTracer,
    exporter: Exporter,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl Traces {
    /// Prepares everything; asks nobody anything.
    ///
    /// # Errors
    /// An endpoint that is no URL, certificates that are none.
    pub fn new(
        settings: TraceSettings,
        counters: &Arc<SpanCounters>,
    ) -> Result<Self, InvalidSettings> {
        let attributes = settings.resource.iter().cloned();
        let resource = Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value)))
            .build();
        let (queue, ended) = Queue::new(counters);
        let exporter = Exporter {
            client: client(&settings)?,
            endpoint: endpoint(&settings.endpoint)?,
            headers: settings.headers,
            resource: (&resource).into(),
            ended,
            batch: Vec::new(),
            encoded: None,
            counters: Arc::clone(counters),
            told: Told::default(),
        };
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_sampler(settings.sampler)
            .with_resource(resource)
            .build();
        let scope =
            InstrumentationScope::builder("isk").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { tracer: provider.tracer_with_scope(scope), exporter })
    }

    /// What takes spans down.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        crate::layer::layer(self.tracer.clone())
    }

    /// Begins to send. Must be called within a tokio runtime.
    pub fn start(self) -> Exporting {
        let stop = CancellationToken::new();
        let task = tokio::spawn(self.exporter.run(stop.clone()));
        Exporting { stop, task }
    }
}

/// Traces that are being sent.
#[derive(Debug)]
pub struct Exporting {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Sends what waits, within some seconds.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

fn client(settings: &TraceSettings) -> Result<Client, InvalidSettings> {
    let authorities = Authorities::new(settings.ca_pem.as_deref())
        .map_err(|e| InvalidSettings(format!("certificates: {}", chain(&e))))?;
    let unmade =
        |e: NoClient| InvalidSettings(format!("no HTTP client can be made: {}", chain(&e)));
    let builder = authorities
        .client()
        .map_err(unmade)?
        .user_agent(concat!("isk/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(settings.timeout.min(Duration::from_secs(5)))
        .timeout(settings.timeout)
        // A redirect may lead keys astray, and turns a POST into a GET.
        .redirect(reqwest::redirect::Policy::none());
    builder.build().map_err(|e| unmade(e.into()))
}

/// It may hold a password: an error does not repeat it.
fn endpoint(text: &str) -> Result<Url, InvalidSettings> {
    let bad = |why: &str| InvalidSettings(format!("the endpoint {why}"));
    let url = Url::parse(text.trim()).map_err(|e| bad(&format!("is no URL: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("must begin with http:// or https:// and name a host"));
    }
    Ok(url)
}

struct Exporter {
    client: Client,
    endpoint: Url,
    headers: Headers,
    resource: ResourceAttributesWithSchema,
    ended: mpsc::Receiver<SpanData>,
    /// Spans that are being gathered.
    batch: Vec<SpanData>,
    /// A batch that is being sent, and its number of spans.
    encoded: Option<(Bytes, u64)>,
    counters: Arc<SpanCounters>,
    told: Told,
}

/// What was said of losses, and when.
#[derive(Default)]
struct Told {
    at: Option<Instant>,
    dropped: u64,
    is_failing: bool,
    /// Why spans were lost that nothing was said of.
    unsaid: Option<String>,
}

/// Why a batch was not taken.
struct Refused {
    reason: String,
    /// Whether it may be taken another time.
    transient: bool,
    pause: Option<Duration>,
}

impl Exporter {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.gather_and_send() => {}
            }
        }
        // Whatever was under way is still there.
        let flushed = tokio::time::timeout(FLUSH, async {
            loop {
                self.send().await;
                self.take_waiting();
                if self.batch.is_empty() {
                    break;
                }
            }
        });
        if flushed.await.is_err() {
            tracing::warn!("the last spans could not be sent in time");
        }
    }

    /// May be given up at any moment, without losing a span.
    async fn gather_and_send(&mut self) {
        self.send().await;
        if self.ended.recv_many(&mut self.batch, BATCH).await == 0 {
            // Nobody takes spans down any more.
            return std::future::pending().await;
        }
        let until = tokio::time::Instant::now() + GATHER;
        while self.batch.len() < BATCH {
            let room = BATCH - self.batch.len();
            let more = timeout_at(until, self.ended.recv_many(&mut self.batch, room)).await;
            if !matches!(more, Ok(1..)) {
                break;
            }
        }
        self.send().await;
    }

    fn take_waiting(&mut self) {
        while self.batch.len() < BATCH
            && let Ok(span) = self.ended.try_recv()
        {
            self.batch.push(span);
        }
    }

    /// Sends the batch, a few times if need be; one that is not taken is dropped.
    async fn send(&mut self) {
        if self.encoded.is_none() && !self.batch.is_empty() {
            let spans = std::mem::take(&mut self.batch);
            let count = spans.len() as u64;
            let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
            let request = ExportTraceServiceRequest { resource_spans };
            self.encoded = Some((request.encode_to_vec().into(), count));
        }
        let Some((body, count)) = self.encoded.clone() else { return };
        let mut attempt = 1;
        let outcome = loop {
            match self.post(body.clone()).await {
                Err(refused) if refused.transient && attempt < ATTEMPTS => {
                    let pause = refused.pause.unwrap_or(Duration::from_secs(1) * attempt);
                    tokio::time::sleep(pause.min(MAX_PAUSE)).await;
                    attempt += 1;
                }
                outcome => break outcome,
            }
        };
        self.encoded = None;
        let (lost, reason) = match outcome {
            Ok((rejected, words)) => (rejected.min(count), (rejected > 0).then_some(words)),
            Err(refused) => (count, Some(refused.reason)),
        };
        self.counters.sent.fetch_add(count - lost, Ordering::Relaxed);
        self.counters.dropped.fetch_add(lost, Ordering::Relaxed);
        self.tell(reason);
    }

    /// How many spans of a batch were refused, and in what words.
    async fn post(&self, body: Bytes) -> Result<(u64, String), Refused> {
        let for_good = |reason: String| Refused { reason, transient: false, pause: None };
        let mut headers = (self.headers)().map_err(for_good)?;
        let kind = HeaderValue::from_static("application/x-protobuf");
        headers.insert(header::CONTENT_TYPE, kind);
        let request = self.client.post(self.endpoint.clone()).headers(headers).body(body);
        let lost = |e: reqwest::Error| Refused {
            reason: chain(&e.without_url()),
            transient: true,
            pause: None,
        };
        let mut answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        if status != StatusCode::OK {
            let pause = answer.headers().get(header::RETRY_AFTER);
            let pause = pause.and_then(|after| after.to_str().ok()?.trim().parse().ok());
            return Err(Refused {
                reason: format!("status {}", status.as_u16()),
                transient: matches!(status.as_u16(), 429 | 502 | 503 | 504),
                pause: pause.map(Duration::from_secs),
            });
        }
        let mut read = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await
            && read.len() + chunk.len() <= MAX_ANSWER
        {
            read.extend_from_slice(&chunk);
        }
        // An answer that says nothing has nothing to complain of.
        let answer = ExportTraceServiceResponse::decode(read.as_slice()).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        let words: String = partial.error_message.chars().filter(|c| !c.is_control()).collect();
        Ok((rejected, words.chars().take(200).collect()))
    }

    /// Tells of lost spans, and that no more are lost, now and then.
    fn tell(&mut self, reason: Option<String>) {
        let dropped = self.counters.dropped.load(Ordering::Relaxed);
        let lost = dropped - self.told.dropped;
        if reason.is_none() && std::mem::take(&mut self.told.is_failing) {
            self.told.dropped = dropped;
            self.told.unsaid = None;
            tracing::info!(dropped = lost, "the collector takes traces again");
            return;
        }
        self.told.unsaid = reason.or(self.told.unsaid.take());
        if lost == 0 || self.told.at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        let reason = self.told.unsaid.take();
        let reason = reason.unwrap_or_else(|| "more came than it took".to_owned());
        tracing::warn!(
            dropped = lost,
            reason,
            "spans were not taken by the collector; is telemetry.endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) where one \
             listens for OTLP over HTTP, mostly on port 4318?"
        );
        self.told = Told { at: Some(Instant::now()), dropped, is_failing: true, unsaid: None };
    }
}
