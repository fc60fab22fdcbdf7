//! Errors that a library tells apart only by its text, or by details that it doesn't promise.
//!
//! An upgrade can change these in silence. So each one has a test here, in which the library itself makes the error.
//! Texts are compared, and never shown.

use std::error::Error as StdError;
use std::io;
use std::iter::successors;

use hyper_util::client::legacy::Error as HttpClientError;
use tokio_postgres::error::Error as PgError;

/// Whether the server wants a password and there is none. Text of tokio-postgres 0.7.18, `connect_raw.rs`.
pub(crate) fn lacks_password(error: &PgError) -> bool {
    error.source().is_some_and(|source| source.to_string() == "password missing")
}

/// Whether the login was not bound to the TLS certificate, with `channel_binding=require`. Text of tokio-postgres 0.7.18,
/// `connect_raw.rs`.
pub(crate) fn lacks_channel_binding(error: &PgError) -> bool {
    error.source().is_some_and(|source| source.to_string().contains("channel binding"))
}

/// Whether the session is read-only, with `target_session_attrs=read-write`. tokio-postgres 0.7.18, `connect.rs`, makes
/// an I/O error without an operating system's code. A socket that denies access has one.
pub(crate) fn takes_no_writes(error: &PgError) -> bool {
    error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(|source| {
        source.kind() == io::ErrorKind::PermissionDenied && source.raw_os_error().is_none()
    })
}

/// Whether the SDK gave up an answer that made no progress. Text of aws-smithy-runtime 1.16.2,
/// `client/http/body/minimum_throughput.rs`, whose error is a private type.
pub(crate) fn has_stalled(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| cause.to_string().contains("minimum throughput"))
}

/// Whether a request failed before there was a connection. The SDK's client, aws-smithy-http-client 1.5.2, wraps
/// hyper-util's error. A different version of hyper-util would be a different type.
pub(crate) fn is_about_connecting(error: &(dyn StdError + 'static)) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<HttpClientError>()).any(HttpClientError::is_connect)
}

/// Returns an error and its causes.
pub(crate) fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use aws_sdk_sqs::config::retry::RetryConfig;
    use aws_sdk_sqs::config::timeout::TimeoutConfig;
    use aws_sdk_sqs::config::{
        BehaviorVersion, Credentials, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
    };
    use aws_sdk_sqs::{Client, Config};
    use aws_smithy_http_client::Builder;
    use aws_smithy_http_client::tls::Provider;
    use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
    use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;
    use tokio_postgres::NoTls;

    use super::*;

    /// Messages of `PostgreSQL`'s protocol.
    const WANTS_PASSWORD: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const LOGGED_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    const IS_READ_ONLY: &[u8] =
        b"T\0\0\0\x2e\0\x01transaction_read_only\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0\
        D\0\0\0\x0c\0\x01\0\0\0\x02on";

    const SHORT: Duration = Duration::from_millis(300);

    async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    /// Accepts a connection, answers what comes in with these answers, and then says nothing.
    async fn serve(listener: TcpListener, answers: &[&[u8]]) {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in answers {
            _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
        pending::<()>().await;
    }

    /// Returns the error of tokio-postgres for a server with these answers.
    async fn refusal(options: &str, answers: &[&[u8]]) -> PgError {
        let (listener, port) = listen().await;
        let options = format!("host=127.0.0.1 port={port} user=u {options}");
        let config: tokio_postgres::Config = options.parse().unwrap();
        tokio::select! {
            connected = config.connect(NoTls) => connected.err().expect("an error"),
            () = serve(listener, answers) => unreachable!("it goes on"),
        }
    }

    #[tokio::test]
    async fn tokio_postgres_says_why_there_is_no_session() {
        let password = refusal("", &[WANTS_PASSWORD]).await;
        let binding = refusal("channel_binding=require", &[LOGGED_IN]).await;
        let writes = refusal("target_session_attrs=read-write", &[LOGGED_IN, IS_READ_ONLY]).await;
        let socket = {
            // A folder is no socket. Whatever the error is, the operating system makes it.
            let config: tokio_postgres::Config = "host=/ user=u".parse().unwrap();
            config.connect(NoTls).await.err().expect("an error")
        };
        let is =
            |error: &PgError| (lacks_password(error), lacks_channel_binding(error), takes_no_writes(error));
        assert_eq!(is(&password), (true, false, false), "{password:?}");
        assert_eq!(is(&binding), (false, true, false), "{binding:?}");
        assert_eq!(is(&writes), (false, false, true), "{writes:?}");
        assert_eq!(is(&socket), (false, false, false), "{socket:?}");
    }

    /// Finds no address of any name, and doesn't say so either. An address needs no name.
    #[derive(Clone, Debug)]
    struct SilentResolver;

    impl ResolveDns for SilentResolver {
        fn resolve_dns<'a>(&'a self, _name: &'a str) -> DnsFuture<'a> {
            DnsFuture::new(pending())
        }
    }

    /// Returns the error of the SDK for a receive call to this host and port.
    async fn failed_call(host: &'static str, port: u16) -> impl StdError + 'static {
        let timeouts = TimeoutConfig::builder().connect_timeout(SHORT).read_timeout(SHORT).build();
        let tls = Provider::Rustls(CryptoMode::AwsLc);
        let client = Builder::new().tls_provider(tls).build_with_resolver(SilentResolver);
        let settings = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("K", "s", None, None, "t")))
            .endpoint_url(format!("http://{host}:{port}"))
            .http_client(client)
            .timeout_config(timeouts)
            .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(SHORT).build())
            .retry_config(RetryConfig::disabled())
            .build();
        let call = Client::from_conf(settings).receive_message().queue_url("http://127.0.0.1/q").send();
        timeout(Duration::from_secs(30), call).await.expect("an end").expect_err("an error")
    }

    #[tokio::test]
    async fn the_sdk_says_that_an_answer_made_no_progress() {
        let (listener, port) = listen().await;
        let answer: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: 1000\r\n\r\n{",
        ];
        let error = tokio::select! {
            error = failed_call("127.0.0.1", port) => error,
            () = serve(listener, answer) => unreachable!("it goes on"),
        };
        assert!(has_stalled(&error) && !is_about_connecting(&error), "{error:?}");
    }

    #[tokio::test]
    async fn the_sdk_tells_connecting_from_waiting_for_an_answer() {
        let (listener, port) = listen().await;
        let silent = tokio::select! {
            error = failed_call("127.0.0.1", port) => error,
            () = serve(listener, &[]) => unreachable!("it goes on"),
        };
        assert!(!is_about_connecting(&silent) && !has_stalled(&silent), "{silent:?}");
        let late = failed_call("sqs.invalid", 80).await;
        assert!(is_about_connecting(&late) && !has_stalled(&late), "{late:?}");
    }
}
