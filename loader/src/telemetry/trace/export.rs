//! Exports spans via OTLP over HTTP.
//!
//! Finished spans wait in a bounded queue, which drops further spans when it is full (`OTEL_BSP_MAX_QUEUE_SIZE`). A
//! separate thread sends them. So nothing waits for the collector, whatever happens to it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{are_wanted, variable};
use crate::shutdown::TRACES_TIME;

/// Maximum time that the end of a run waits for the last spans to be sent.
const FLUSH_TIME: Duration = TRACES_TIME;
/// Maximum time for a request, unless `OTEL_EXPORTER_OTLP_TIMEOUT` sets it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Minimum time between two log lines about an unreachable collector.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);
/// The only supported protocol.
const PROTOCOL: &str = "http/protobuf";

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Returns the tracer that makes spans. `None` unless they are exported.
pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// Exports the spans of a run.
pub(crate) struct Traces(Option<SdkTracerProvider>);

/// Starts exporting, if the environment asks for it. Must be called in the runtime. A fault is logged, and the run goes
/// on without traces.
pub(crate) fn start() -> Traces {
    if !are_wanted(variable) {
        return Traces(None);
    }
    let provider = match provider() {
        Ok(provider) => provider,
        Err(reason) => {
            warn!("no traces are exported: {reason}");
            return Traces(None);
        }
    };
    let scope = InstrumentationScope::builder("pg_mask-loader").with_version(env!("CARGO_PKG_VERSION"));
    // A process has only one run.
    _ = TRACER.set(provider.tracer_with_scope(scope.build()));
    info!("traces are exported");
    Traces(Some(provider))
}

impl Traces {
    /// Sends the spans that are left, within `FLUSH_TIME`.
    pub(crate) async fn finish(self) {
        let Some(provider) = self.0 else { return };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIME)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            warn!("the last spans were not exported within {} s", FLUSH_TIME.as_secs());
        }
    }
}

/// Makes the provider of tracers. Its errors quote no variable, because an endpoint may hold a password.
fn provider() -> Result<SdkTracerProvider, String> {
    let set = |of_traces: &str, of_all: &str| variable(of_traces).or_else(|| variable(of_all));
    let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
    if protocol.is_some_and(|protocol| protocol != PROTOCOL) {
        return Err(format!(
            "only {PROTOCOL} is supported: set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to it, and \
             OTEL_EXPORTER_OTLP_TRACES_ENDPOINT to http://HOST:4318/v1/traces, or wherever the collector takes it"
        ));
    }
    let timeout = set("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
        .and_then(|milliseconds| milliseconds.parse().ok())
        .map_or(TIMEOUT, Duration::from_millis);
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::aws_lc_rs::default_provider())
        .map_err(|error| format!("the certificates of this machine cannot be read: {error}"))?
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client {
        runtime: Handle::current(),
        http: Arc::new(HyperClient::new(connector, timeout, None)),
        complained: Mutex::new(None),
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .build()
        .map_err(|_| "OTEL_EXPORTER_OTLP_ENDPOINT or another of these variables is not valid")?;
    // The SDK reads the sampler and the limits from the environment.
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())
}

/// Returns the attributes that describe the loader. Later ones override earlier ones.
fn resource() -> Resource {
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "pg_mask-loader"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match variable("OTEL_SERVICE_NAME") {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// Sends the exporter's requests in the runtime, because the exporter's thread isn't part of it.
#[derive(Debug)]
struct Client {
    runtime: Handle,
    http: Arc<dyn HttpClient>,
    /// Time of the last log line about a failure.
    complained: Mutex<Option<Instant>>,
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = Arc::clone(&self.http);
        let sent = self.runtime.spawn(async move { http.send_bytes(request).await });
        let answer = sent.await.map_err(HttpError::from).flatten();
        match &answer {
            Ok(answer) if answer.status().is_success() => {}
            // Only the status is logged, because a collector's answer may quote a header.
            Ok(answer) => self.complain(&format!("the collector answers {}", answer.status())),
            Err(error) => self.complain(&chain(error.as_ref())),
        }
        answer
    }
}

impl Client {
    fn complain(&self, reason: &str) {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY) {
            *last = Some(Instant::now());
            warn!("spans cannot be exported, and are dropped: {reason}");
        }
    }
}

/// Returns the texts of an error and of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let texts = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(": ")
}
