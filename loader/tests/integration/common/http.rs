//! The subset of HTTP/1.1 between the AWS SDK and an SQS server: messages whose header states their length.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A request or an answer.
pub(super) struct Message {
    /// Request line or status line.
    pub(super) start: String,
    /// Names and values, without the headers that describe the transfer.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Makes up a JSON answer, as SQS sends it.
    pub(super) fn answer(status: u16, body: &serde_json::Value) -> Self {
        Self::made_up(status, "application/x-amz-json-1.0", body.to_string())
    }

    /// Makes up an XML answer, as STS sends it.
    pub(super) fn xml(status: u16, body: String) -> Self {
        Self::made_up(status, "text/xml", body)
    }

    fn made_up(status: u16, content_type: &str, body: String) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { start: format!("HTTP/1.1 {status} Made-Up"), headers, body: body.into_bytes() }
    }

    /// Returns the first header with this name. The name must be in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Replaces a header. The name must be in lower case.
    pub(super) fn set_header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Returns the body as JSON, or null if it isn't JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Reads a message. Returns `None` if the other side has closed the connection instead.
    pub(super) async fn read(stream: &mut BufReader<TcpStream>) -> Result<Option<Self>> {
        let start = line(stream).await?;
        if start.is_empty() {
            return Ok(None);
        }
        let (mut headers, mut length) = (Vec::new(), 0);
        loop {
            let header = line(stream).await?;
            let Some((name, value)) = header.split_once(':') else { break };
            let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
            match name.as_str() {
                "content-length" => length = value.parse().map_err(|_| malformed())?,
                "transfer-encoding" => return Err(malformed()),
                "connection" => {}
                _ => headers.push((name, value)),
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok(Some(Self { start, headers, body }))
    }

    /// Sends the message. Its `connection` header says whether the connection stays open.
    pub(super) async fn write(&self, stream: &mut BufReader<TcpStream>, keep: bool) -> Result<()> {
        let mut bytes = format!("{}\r\n", self.start).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let connection = if keep { "keep-alive" } else { "close" };
        let rest = format!("content-length: {}\r\nconnection: {connection}\r\n\r\n", self.body.len());
        bytes.extend_from_slice(rest.as_bytes());
        bytes.extend_from_slice(&self.body);
        stream.write_all(&bytes).await?;
        stream.flush().await
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

fn malformed() -> Error {
    Error::new(ErrorKind::InvalidData, "not the HTTP that the proxy knows")
}
