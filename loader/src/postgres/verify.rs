//! What is asked of a server's certificate.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::trust::Trust;

/// What a certificate must have.
#[derive(Debug)]
pub(super) enum Asked {
    /// Any will do: the connection is encrypted, and with whom is not known.
    Nothing,
    /// A signature of one that is trusted.
    Signature {
        trust: Trust,
        /// Whether it must be for the host, too.
        name: bool,
    },
}

/// Verifies certificates. Whatever is asked of them, the server must have their key.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) asked: Asked,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Asked::Signature { trust, name } = &self.asked else {
            return Ok(ServerCertVerified::assertion());
        };
        let pinned = trust.pinned.iter().find(|(pin, _)| pin == end_entity).map(|(_, chain)| chain);
        let Some(chain) = pinned.or(trust.roots.as_ref()) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let intermediates: Vec<_> = intermediates.iter().chain(&trust.between).cloned().collect();
        match chain.verify_server_cert(end_entity, &intermediates, server_name, ocsp_response, now) {
            // The name comes last: all else is in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !name => Ok(ServerCertVerified::assertion()),
            // One that signed itself, as many a server's does, and is trusted as what it is. Its dates were looked at before,
            // and whether it was revoked was not.
            Err(error) if is_of_a_ca(&error) && trust.trusted.contains(end_entity) => {
                if trust.revocable {
                    return Err(CertificateError::UnknownRevocationStatus.into());
                }
                if *name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether all that was found wrong is that a server's certificate says it is a CA's.
fn is_of_a_ca(error: &Error) -> bool {
    reason(error) == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// What webpki has to say, where rustls has no words of its own for it.
pub(super) fn reason(error: &Error) -> Option<&webpki::Error> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}
