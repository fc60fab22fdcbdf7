//! Verification of a server's certificate.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::trust::Trust;

/// Requirements for a server's certificate.
#[derive(Debug)]
pub(crate) enum VerificationPolicy {
    /// None: the connection is encrypted, but the peer is unknown.
    Nothing,
    /// A trusted certificate must have signed it.
    Signature {
        trust: Trust,
        /// Whether it must also be for the host.
        name: bool,
    },
}

/// Verifies certificates. Under every policy, the server must prove that it has the certificate's key.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub(crate) asked: VerificationPolicy,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
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
        let VerificationPolicy::Signature { trust, name } = &self.asked else {
            return Ok(ServerCertVerified::assertion());
        };
        let pinned = trust.pinned.iter().find(|(pin, _)| pin == end_entity).map(|(_, chain)| chain);
        let Some(chain) = pinned.or(trust.roots.as_ref()) else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let intermediates: Vec<_> = intermediates.iter().chain(&trust.between).cloned().collect();
        match chain.verify_server_cert(end_entity, &intermediates, server_name, ocsp_response, now) {
            // The name is checked last, so everything else is in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !name => Ok(ServerCertVerified::assertion()),
            // A self-signed certificate, which many servers have, that is trusted as itself. Its dates were checked
            // before. Its revocation wasn't checked.
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

/// Whether the only problem is that the server's certificate says it is a CA's.
fn is_of_a_ca(error: &Error) -> bool {
    reason(error) == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// Returns webpki's error, if rustls has none of its own for the problem.
pub(crate) fn reason(error: &Error) -> Option<&webpki::Error> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}
