//! A collector of spans that arrive via OTLP over HTTP.

use std::io::Result;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message as _;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::http::Message;

/// A collector that serves until its test ends.
pub(crate) struct Collector {
    /// URL of the collector, used as the exporter's endpoint.
    pub(crate) url: String,
    exports: Arc<Mutex<Vec<Message>>>,
}

impl Collector {
    /// Starts a collector that accepts every export.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let exports = Arc::default();
        let for_all = Arc::clone(&exports);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(BufReader::new(client), Arc::clone(&for_all)));
            }
        });
        Self { url, exports }
    }

    /// Returns the bodies of all exports, undecoded.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.exports.lock().unwrap().iter().flat_map(|export| export.body.clone()).collect()
    }

    /// Returns a header of the first request.
    pub(crate) fn header(&self, name: &str) -> String {
        self.exports.lock().unwrap()[0].header(name).unwrap().to_owned()
    }

    /// Returns the spans, in any order.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.resources().into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
    }

    /// Returns an attribute of the resource that the spans belong to.
    pub(crate) fn resource(&self, name: &str) -> Option<String> {
        attribute(&self.resources()[0].resource.as_ref().unwrap().attributes, name)
    }

    fn resources(&self) -> Vec<ResourceSpans> {
        let exports = self.exports.lock().unwrap();
        let export = |export: &Message| {
            ExportTraceServiceRequest::decode(export.body.as_slice()).unwrap().resource_spans
        };
        exports.iter().flat_map(export).collect()
    }
}

/// Returns the value of an attribute as text.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

async fn serve(mut client: BufReader<TcpStream>, exports: Arc<Mutex<Vec<Message>>>) -> Result<()> {
    while let Some(request) = Message::read(&mut client).await? {
        assert_eq!(request.start, "POST /v1/traces HTTP/1.1");
        exports.lock().unwrap().push(request);
        client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        client.flush().await?;
    }
    Ok(())
}
