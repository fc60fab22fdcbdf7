//! Errors that a library tells apart only by its text.
//!
//! An upgrade can change a text in silence. So each one has a test here, in which the library itself writes it.

use std::error::Error as _;

use tokio_postgres::Error as PgError;

/// Whether TLS failed. Text of tokio-postgres 0.7.18, `error/mod.rs`, whose kind of error is private.
pub(crate) fn is_about_tls(error: &PgError) -> bool {
    error.to_string() == "error performing TLS handshake"
}

/// Whether the server doesn't offer TLS. Text of tokio-postgres 0.7.18, `connect_tls.rs`.
pub(crate) fn offers_no_tls(error: &PgError) -> bool {
    error.source().is_some_and(|source| source.to_string().contains("does not support TLS"))
}

/// Returns a name that a certificate presents, without its kind: `DnsName("h")` or `IpAddress(1.2.3.4)`. Text of
/// rustls-webpki 0.103, `subject_name/mod.rs`.
pub(crate) fn name_in(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustls::client::verify_server_name;
    use rustls::server::ParsedCertificate;
    use rustls::{CertificateError, Error};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_postgres::config::SslMode;
    use tokio_postgres::{Config, NoTls};

    use super::*;

    /// Returns the error of tokio-postgres for a server that answers the first message with this byte.
    async fn refusal(mode: SslMode, answer: u8) -> PgError {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut config = Config::new();
        config.host("127.0.0.1").port(listener.local_addr().unwrap().port()).user("u").ssl_mode(mode);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(&[answer]).await.unwrap();
        };
        // `NoTls` asks for TLS if it must, and then has none.
        tokio::join!(config.connect(NoTls), serve).0.err().expect("an error")
    }

    #[tokio::test]
    async fn tokio_postgres_says_that_tls_failed_or_is_not_offered() {
        let is = |error: &PgError| (is_about_tls(error), offers_no_tls(error));
        let none = refusal(SslMode::Require, b'N').await;
        assert_eq!(is(&none), (true, true), "{none:?}");
        let failed = refusal(SslMode::Require, b'S').await;
        assert_eq!(is(&failed), (true, false), "{failed:?}");
        let other = refusal(SslMode::Disable, b'?').await;
        assert_eq!(is(&other), (false, false), "{other:?}");
    }

    #[test]
    fn rustls_lists_the_names_in_a_certificate() {
        let names = ["db.example", "*.db.example", "10.0.0.1"];
        let certificate = rcgen::generate_simple_self_signed(names.map(str::to_owned)).unwrap().cert;
        let parsed = ParsedCertificate::try_from(certificate.der()).unwrap();
        let refused = verify_server_name(&parsed, &"other.example".try_into().unwrap());
        let Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })) =
            refused
        else {
            panic!("{refused:?}")
        };
        assert_ne!(presented, names, "the kinds of names are left out by now");
        assert_eq!(presented.iter().map(|name| name_in(name)).collect::<Vec<_>>(), names);
    }
}
