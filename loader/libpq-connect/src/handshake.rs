//! Explains why TLS failed, and what to do.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};
use tokio_postgres::error::Error as PgError;
use x509_cert::der::DateTime;

use crate::connect::FailedAttempt;
use crate::library_texts;
use crate::tls::{Roots, Tls};
use crate::verify;

/// Whether TLS itself failed, on our side or by an alert from the server. The alert may come later.
pub(crate) fn has_failed(error: &PgError) -> bool {
    reason(error).is_some() || library_texts::is_about_tls(error)
}

/// Returns the error from rustls, if there is one.
fn reason(error: &PgError) -> Option<&Error> {
    error.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

/// Explains a failure of TLS and says what to do. Returns `None` for other failures. Names in a certificate are no
/// secret: anyone who connects to the server gets it.
pub fn explain(error: &PgError, refusal: &FailedAttempt, tls: &Tls) -> Option<String> {
    if !has_failed(error) {
        return None;
    }
    let server = &refusal.server;
    let source = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    Some(match reason(error) {
        None if library_texts::offers_no_tls(error) => format!(
            "{server} does not offer TLS, which sslmode asks for. Check that it is the right server, then set ssl = on in its \
             postgresql.conf"
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

const OLD_VERSION: &str = "has a certificate of an X.509 version before 3, which cannot be verified. Replace it by one \
     with a subjectAltName";

fn of_certificate(problem: &CertificateError, refusal: &FailedAttempt, tls: &Tls) -> String {
    let host = &refusal.host;
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => match &tls.roots {
            Roots::File(file) => format!(
                "has a certificate that is not signed by one in {0}. Check that it is the right server, and that {0} \
                 (sslrootcert) has the certificate of its CA",
                file.display()
            ),
            _ => "has a certificate that is not signed by a CA that this system trusts. Check that it is the right server. If its CA is \
                 your own, name the file of that CA's certificate in sslrootcert (PGSSLROOTCERT)"
                .into(),
        },
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "has a certificate without a subjectAltName; its common name (CN) does not count. Give it one with {host} in \
             its subjectAltName, or set sslmode=verify-ca, which checks no name"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "has a certificate for {}, and not for {host}. Check that it is the right server, then connect by the name in the \
             certificate, or give it one with this name in its subjectAltName",
            presented.iter().map(|name| library_texts::name_in(name)).collect::<Vec<_>>().join(", ")
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
            "has a certificate that no revocation list covers: put the list of each CA that has signed into sslcrl"
                .into()
        }
        CertificateError::ExpiredRevocationListContext { next_update, .. } => {
            format!("cannot be verified: a revocation list (sslcrl) was due to be renewed at {}", date(*next_update))
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
                "does not accept the client certificate {} ({alert:?}). Check that it has not expired, and that a CA in \
                 the server's ssl_ca_file signed it",
                certificate.display()
            ),
            None => format!("broke off TLS ({alert:?}); its log says why"),
        },
        Alert::ProtocolVersion => {
            "supports none of the allowed versions of TLS (ssl_min_protocol_version, ssl_max_protocol_version; \
             never older than TLSv1.2)"
                .into()
        }
        _ => format!("broke off TLS ({alert:?}); its log says why"),
    }
}

fn date(time: UnixTime) -> String {
    let date = DateTime::from_unix_duration(Duration::from_secs(time.as_secs()));
    date.map_or_else(|_| "an invalid date".into(), |date| date.to_string())
}
