//! A small HTTP server: the status page at `/`, `/metrics`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::Monitor;

/// Maximum time for a whole connection: one request, and an answer of some kilobytes.
const CONNECTION: Duration = Duration::from_secs(10);
/// Maximum time for the head of a request. A slower client holds a place that a probe may need.
const HEAD: Duration = Duration::from_secs(1);
/// Maximum bytes of a request that are read.
const REQUEST_BYTES: usize = 16 * 1024;
/// Maximum connections at a time. Others wait to be accepted.
const CONNECTIONS: usize = 256;

/// Prometheus's text format.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// A page that allows only its own style can't load or run anything.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Answers anyone who connects, indefinitely.
pub(super) async fn listen(listener: TcpListener, monitor: Arc<Monitor>) -> Infallible {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await;
        if let Ok((stream, _)) = listener.accept().await {
            let monitor = Arc::clone(&monitor);
            tokio::spawn(async move {
                let _permit = permit;
                _ = timeout(CONNECTION, serve(stream, &monitor)).await;
            });
        } else {
            // Most likely out of file descriptors.
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn serve(stream: TcpStream, monitor: &Monitor) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(monitor, &request)));
    let mut server = http1::Builder::new();
    // A connection that stays open would hold a place for a scraper that comes twice a minute.
    server.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(REQUEST_BYTES);
    // Errors come from clients that go away or don't speak HTTP.
    _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// Answers a request without reading its body. hyper leaves the body out of an answer to HEAD.
fn answer(monitor: &Monitor, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/" => {
            let mut response = text(StatusCode::OK, monitor.page());
            response.headers_mut().insert(CONTENT_TYPE, HTML);
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
            response
        }
        "/metrics" => {
            let mut response = text(StatusCode::OK, monitor.metrics());
            response.headers_mut().insert(CONTENT_TYPE, METRICS);
            response
        }
        // An answer is enough: the probe only checks that the process responds.
        "/healthz" => text(StatusCode::OK, "alive\n"),
        "/readyz" => {
            let state = monitor.readiness.state();
            let status = if state.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            text(status, state.to_string())
        }
        _ => text(StatusCode::NOT_FOUND, "there are /, /metrics, /healthz and /readyz\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
