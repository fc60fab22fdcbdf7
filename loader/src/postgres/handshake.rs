//! Why TLS came to nothing, and what to do.

use std::error::Error as _;
use std::io;

use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};
use tokio_postgres::error::Error as PgError;

use super::connect::Refusal;
use super::tls::{Roots, Tls};
use super::verify;

/// Whether TLS itself failed, be it on our side or by an alert of the server's, which may come later.
pub(super) fn has_failed(error: &PgError) -> bool {
    // tokio-postgres has nothing but these words for it.
    reason(error).is_some() || error.to_string() == "error performing TLS handshake"
}

/// What rustls had to say.
fn reason(error: &PgError) -> Option<&Error> {
    error.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

/// What is to be said of a failure of TLS; nothing where it was another failure. Names in a certificate are no secret:
/// whoever connects to the server gets it.
pub(crate) fn tell(error: &PgError, refusal: &Refusal, tls: &Tls) -> Option<String> {
    if !has_failed(error) {
        return None;
    }
    let server = &refusal.server;
    let source = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    Some(match reason(error) {
        None if source.contains("does not support TLS") => format!(
            "{server} does not offer TLS, without which the loader must not connect (sslmode): set ssl = on in its \
             postgresql.conf, or is it another server that has answered?"
        ),
        None => format!("TLS with {server} failed: {source}"),
        Some(Error::InvalidCertificate(problem)) => {
            format!("{server} {}", of_certificate(problem, refusal, tls))
        }
        Some(Error::AlertReceived(alert)) => format!("{server} {}", of_alert(*alert, tls)),
        Some(other) => match verify::reason(other) {
            Some(webpki::Error::UnsupportedCertVersion) => OLD_VERSION.into(),
            _ => format!("TLS with {server} failed: {other}"),
        },
    })
}

const OLD_VERSION: &str = "has a certificate of an X.509 version before 3, which the loader cannot verify: make it a new one \
     with a subjectAltName";

fn of_certificate(problem: &CertificateError, refusal: &Refusal, tls: &Tls) -> String {
    let host = &refusal.host;
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match &tls.roots {
            Roots::File(file) => format!(
                "has a certificate that is not signed by one in {0}: is it the right server, and has {0} (sslrootcert) the \
                 certificate of its CA?",
                file.display()
            ),
            _ => "has a certificate that is not signed by a CA which this system trusts: is it the right server? If its CA is \
                 your own, name the file of that CA's certificate in sslrootcert (PGSSLROOTCERT)"
                .into(),
        },
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "has a certificate without a subjectAltName, which is for no host: its common name (CN) does not count. It needs \
             one with {host} in its subjectAltName, or sslmode=verify-ca, which asks for no name"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "has a certificate for {}, and not for {host}: connect by the name that is in it, give it one that has this name \
             in its subjectAltName, or is it another server that has answered?",
            presented.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ")
        ),
        CertificateError::ExpiredContext { time, not_after } => format!(
            "has a certificate that expired at {}, or one that signed it did; the clock of this machine says {}: renew it, or \
             set the clock",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "has a certificate that is not valid before {}, or one that signed it is; the clock of this machine says {}: set \
             the clock, or replace the certificate",
            date(*not_before),
            date(*time)
        ),
        CertificateError::Revoked => "has a certificate that has been revoked (sslcrl)".into(),
        CertificateError::UnknownRevocationStatus => {
            "has a certificate of which no revocation list says whether it was revoked: sslcrl needs the list of each CA that \
             has signed"
                .into()
        }
        CertificateError::ExpiredRevocationListContext { next_update, .. } => {
            format!("cannot be verified, as a revocation list (sslcrl) was due to be renewed at {}", date(*next_update))
        }
        CertificateError::Other(_) => {
            let error = Error::InvalidCertificate(problem.clone());
            match verify::reason(&error) {
                Some(webpki::Error::UnsupportedCertVersion) => OLD_VERSION.into(),
                Some(webpki::Error::CaUsedAsEndEntity) => {
                    "has a CA's certificate as its own: give it one that the CA has signed, or put this very one into \
                     sslrootcert"
                        .into()
                }
                _ => format!("has a certificate that cannot be verified: {problem}"),
            }
        }
        _ => format!("has a certificate that cannot be verified: {problem}"),
    }
}

/// A name as rustls has it, `DnsName("h")` or `IpAddress(1.2.3.4)`, without what it wraps it in.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn of_alert(alert: AlertDescription, tls: &Tls) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => {
            "wants a client certificate: name its file in sslcert and that of its key in sslkey (PGSSLCERT, PGSSLKEY)".into()
        }
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        | Alert::DecryptError => match &tls.identity {
            Some((certificate, _)) => format!(
                "does not accept the client certificate {} ({alert:?}): has it expired, and is it signed by a CA in the \
                 server's ssl_ca_file?",
                certificate.display()
            ),
            None => format!("broke off TLS ({alert:?}); its log says why"),
        },
        Alert::ProtocolVersion => {
            "speaks none of the versions of TLS that the loader may speak (ssl_min_protocol_version, \
             ssl_max_protocol_version; older ones than TLSv1.2 it never does)"
                .into()
        }
        _ => format!("broke off TLS ({alert:?}); its log says why"),
    }
}

fn date(time: UnixTime) -> String {
    let time = DateTime::from_secs(time.as_secs().try_into().unwrap_or(i64::MAX));
    time.fmt(DateTimeFormat::DateTime).unwrap_or_else(|_| "a time that is no date".into())
}
