//! HTTP: connections, the common part of all calls, and the faults of whole calls.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::broker::Broker;
use crate::faults::Fault;
use crate::protocol::Action;
use crate::refusal::Refusal;
use crate::{calls, control};

/// Time for which a connection stays open if a fault withholds its answer.
const HANG: Duration = Duration::from_mins(2);

/// The result of a call. An error closes the connection without an answer.
pub(crate) type Answer = Result<Response<Full<Bytes>>, io::Error>;

/// Serves all connections, indefinitely.
pub(crate) async fn listen(listener: TcpListener, broker: Arc<Broker>) -> Infallible {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // Without this, it would wait for the client's delayed acknowledgements.
            _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream, Arc::clone(&broker)));
        } else {
            // Most likely there are no file descriptors left.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn serve(stream: TcpStream, broker: Arc<Broker>) {
    let service = service_fn(|request| answer(&broker, request));
    // Its errors are connections that the client closed, or that a fault closes.
    _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(broker: &Broker, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    if let Some(command) = head.uri.path().strip_prefix("/_stub/") {
        return Ok(control::answer(broker, &head.method, command, &body));
    }
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let action = Action::of_target(header("x-amz-target")).filter(|_| head.method == Method::POST);
    let Some(action) = action else { return Ok(refuse(&Refusal::unknown_action())) };
    let result = call(broker, action, header(AUTHORIZATION.as_str()), &body).await?;
    // The delay comes after the change, so delivered messages are hidden while the answer is delayed.
    let delay = broker.delay();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    Ok(match result {
        Ok(json) => respond(StatusCode::OK, json),
        Err(refusal) => refuse(&refusal),
    })
}

/// Performs a call, unless a fault prevents it.
async fn call(
    broker: &Broker,
    action: Action,
    authorization: &str,
    body: &[u8],
) -> io::Result<Result<String, Refusal>> {
    broker.tally.call(action);
    let faults = broker.faults();
    if faults.is_expired(authorization) {
        broker.tally.fault(Fault::ExpiredKey);
        return Ok(Err(Refusal::of_key(faults.key_error)));
    }
    if !faults.may_hit(action.name()) {
        return Ok(calls::perform(broker, action, body).await);
    }
    if broker.strikes(Fault::Throttle, faults.throttle) {
        return Ok(Err(Refusal::throttled()));
    }
    if broker.strikes(Fault::ServerError, faults.server_error) {
        return Ok(Err(Refusal::server_error(broker.coin())));
    }
    if broker.strikes(Fault::Hang, faults.hang) {
        if broker.coin() {
            _ = calls::perform(broker, action, body).await;
        }
        tokio::time::sleep(HANG).await;
        return Err(io::ErrorKind::TimedOut.into());
    }
    let result = calls::perform(broker, action, body).await;
    if broker.strikes(Fault::LostAnswer, faults.lost_answer) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(result)
}

/// Returns an answer in JSON.
pub(crate) fn respond(status: StatusCode, json: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() = status;
    let json_type = HeaderValue::from_static("application/x-amz-json-1.0");
    response.headers_mut().insert(CONTENT_TYPE, json_type);
    response
}

/// Returns an error in JSON.
pub(crate) fn refuse(refusal: &Refusal) -> Response<Full<Bytes>> {
    let kind = format!("com.amazonaws.sqs#{}", refusal.kind);
    let json = serde_json::json!({ "__type": kind, "message": refusal.message }).to_string();
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, json);
    let at_fault = if refusal.is_senders_fault() { "Sender" } else { "Receiver" };
    if let Ok(code) = HeaderValue::try_from(format!("{};{at_fault}", refusal.code)) {
        response.headers_mut().insert("x-amzn-query-error", code);
    }
    response
}
