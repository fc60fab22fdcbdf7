//! Trusted certificates, and lists of revoked ones. The rules are OpenSSL's, and so libpq's. rustls alone would trust a
//! root indefinitely and for any purpose.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::crl::dp::IssuingDistributionPoint;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use crate::Error;
use crate::tls::pem_items;

/// Locations of revocation lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// A file with lists.
    pub file: Option<PathBuf>,
    /// A folder with further lists, named by `openssl rehash`.
    pub folder: Option<PathBuf>,
}

/// Certificates and lists that a server's certificate is verified against.
#[derive(Debug)]
pub(crate) struct Trust {
    /// Verifier for the certificates that can sign others. `None` if there are none.
    pub(crate) roots: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates between a root and a server that were given along with the roots. They can be revoked like any
    /// other.
    pub(crate) between: Vec<CertificateDer<'static>>,
    /// Certificates that are trusted only as themselves, and can sign no others. Each has its own verifier.
    pub(crate) pinned: Vec<(CertificateDer<'static>, Arc<WebPkiServerVerifier>)>,
    /// All root certificates, as read.
    pub(crate) trusted: Vec<CertificateDer<'static>>,
    /// Whether there are revocation lists.
    pub(crate) revocable: bool,
}

impl Trust {
    pub(crate) fn in_these(
        certificates: &[CertificateDer<'static>],
        lists: &[CertificateRevocationListDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let verifier = |roots: &[CertificateDer<'static>]| {
            let mut store = RootCertStore::empty();
            // rustls skips certificates before X.509 version 3. They can't sign others, and a system's store may hold
            // some.
            if store.add_parsable_certificates(roots.iter().cloned()).0 == 0 {
                return Ok(None);
            }
            let mut builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
            if !lists.is_empty() {
                builder = builder.with_crls(lists.iter().cloned()).enforce_revocation_expiration();
            }
            let unusable =
                |error| Error::File(format!("sslcrl: the revocation lists cannot be used: {error}"));
            builder.build().map(Some).map_err(unusable)
        };
        let revocable = !lists.is_empty();
        let (mut trusted, mut between, mut pinned) = (Vec::new(), Vec::new(), Vec::new());
        for der in certificates {
            match CertificateRole::of(der, revocable) {
                CertificateRole::Root => trusted.push(der.clone()),
                CertificateRole::Between => between.push(der.clone()),
                CertificateRole::Itself => {
                    if let Some(verifier) = verifier(std::slice::from_ref(der))? {
                        pinned.push((der.clone(), verifier));
                    }
                }
                CertificateRole::Nothing => {}
            }
        }
        let roots = verifier(&trusted)?;
        if roots.is_none() && pinned.is_empty() {
            return Err(Error::File(
                "sslrootcert: none of the certificates can be used. Root certificates must be of X.509 version 3 and valid \
                 today, and, with revocation lists, have signed themselves"
                    .into(),
            ));
        }
        Ok(Self { roots, between, pinned, trusted, revocable })
    }
}

/// Role of a certificate in the list of trusted ones.
enum CertificateRole {
    Root,
    Between,
    Itself,
    Nothing,
}

impl CertificateRole {
    fn of(der: &CertificateDer<'_>, revocable: bool) -> Self {
        let Ok(certificate) = Certificate::from_der(der) else { return Self::Nothing };
        let certificate = certificate.tbs_certificate;
        let (from, until) = (certificate.validity.not_before, certificate.validity.not_after);
        let today = UnixTime::now().as_secs();
        if today < from.to_unix_duration().as_secs() || today > until.to_unix_duration().as_secs() {
            return Self::Nothing;
        }
        let may_sign = match certificate.get::<BasicConstraints>() {
            Ok(Some((_, constraints))) => constraints.ca,
            // OpenSSL also accepts an old certificate whose key usage allows signing.
            Ok(None) => {
                matches!(certificate.get::<KeyUsage>(), Ok(Some((_, usage))) if usage.key_cert_sign())
            }
            Err(_) => false,
        };
        let signed_itself = certificate.issuer == certificate.subject;
        match may_sign {
            // Nothing ever checks whether a root was revoked.
            true if revocable && !signed_itself => Self::Between,
            true => Self::Root,
            false if signed_itself => Self::Itself,
            // A server's certificate in the same file as the CA that signed it.
            false => Self::Nothing,
        }
    }
}

impl Revoked {
    /// Reads the lists. Of each CA's lists for the same certificates, it returns the newest.
    pub(crate) fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let mut files = Vec::new();
        if let Some(folder) = &self.folder {
            let broken = |why: String| Error::File(format!("sslcrldir: {} {why}", folder.display()));
            let unreadable = |error| broken(format!("cannot be read: {error}"));
            for entry in fs::read_dir(folder).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if is_rehashed_list(&path) {
                    files.push(path);
                }
            }
            // Without this error, a folder that nobody has rehashed would mean that nothing is ever revoked.
            if files.is_empty() {
                return Err(broken("has no revocation list: name them by `openssl rehash`".into()));
            }
        }
        files.extend(self.file.clone());
        let mut lists = Vec::new();
        for file in &files {
            lists.extend(pem_items("sslcrl", "certificate revocation list", file)?);
        }
        Ok(newest(lists))
    }
}

/// Whether a file has a name that `openssl rehash` gives to revocation lists, such as `5a1b2c3d.r0`.
fn is_rehashed_list(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.and_then(|e| e.strip_prefix('r')).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Keeps the newest of the lists that one CA made for the same certificates. rustls would use any of them.
fn newest(lists: Vec<CertificateRevocationListDer<'static>>) -> Vec<CertificateRevocationListDer<'static>> {
    let mut unknown = Vec::new();
    let mut newest = HashMap::new();
    for list in lists {
        let Some((scope, made)) = scope(&list) else {
            // rustls reports the problem with it.
            unknown.push(list);
            continue;
        };
        let of_scope = newest.entry(scope).or_insert_with(|| (made, list.clone()));
        if made > of_scope.0 {
            *of_scope = (made, list);
        }
    }
    unknown.extend(newest.into_values().map(|(_, list)| list));
    unknown
}

/// Issuer of a list, and the part of its certificates that the list covers.
#[derive(PartialEq, Eq, Hash)]
struct Scope {
    issuer: Vec<u8>,
    part: Option<Vec<u8>>,
}

/// Returns the scope of a list and the time when it was made (seconds since 1970).
fn scope(list: &CertificateRevocationListDer<'_>) -> Option<(Scope, u64)> {
    let list = CertificateList::from_der(list).ok()?.tbs_cert_list;
    let part = list.crl_extensions.iter().flatten().find(|e| e.extn_id == IssuingDistributionPoint::OID);
    let part = part.map(|extension| extension.extn_value.as_bytes().to_vec());
    let scope = Scope { issuer: list.issuer.to_der().ok()?, part };
    Some((scope, list.this_update.to_unix_duration().as_secs()))
}
