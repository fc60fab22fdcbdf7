//! Which certificates are trusted, and which lists say what is so no longer. As with OpenSSL, and so with libpq: what rustls
//! takes for a root counts for ever and for anything.

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

use super::tls::pem_items;
use crate::error::Error;

/// Where lists of revoked certificates are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Revoked {
    pub(crate) file: Option<PathBuf>,
    /// A folder of more of them.
    pub(crate) folder: Option<PathBuf>,
}

/// What a server's certificate is held against.
#[derive(Debug)]
pub(super) struct Trust {
    /// Those that may sign others.
    pub(super) roots: Option<Arc<WebPkiServerVerifier>>,
    /// Those between a root and a server that were given along with the roots, and can be revoked like any other.
    pub(super) between: Vec<CertificateDer<'static>>,
    /// Those that are trusted as what they are, and may sign nothing but themselves.
    pub(super) pinned: Vec<(CertificateDer<'static>, Arc<WebPkiServerVerifier>)>,
    /// All roots as they were read.
    pub(super) trusted: Vec<CertificateDer<'static>>,
    /// Whether lists say what was revoked.
    pub(super) revocable: bool,
}

impl Trust {
    pub(super) fn in_these(
        certificates: &[CertificateDer<'static>],
        lists: &[CertificateRevocationListDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let verifier = |roots: &[CertificateDer<'static>]| {
            let mut store = RootCertStore::empty();
            // What is no X.509 certificate of version 3 can sign none, and may stand in a system's store.
            if store.add_parsable_certificates(roots.iter().cloned()).0 == 0 {
                return Ok(None);
            }
            let mut builder =
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
            if !lists.is_empty() {
                builder = builder.with_crls(lists.iter().cloned()).enforce_revocation_expiration();
            }
            let unusable = |error| {
                Error::ConnectionFile(format!("sslcrl: the revocation lists cannot be used: {error}"))
            };
            builder.build().map(Some).map_err(unusable)
        };
        let revocable = !lists.is_empty();
        let (mut trusted, mut between, mut pinned) = (Vec::new(), Vec::new(), Vec::new());
        for der in certificates {
            match Use::of(der, revocable) {
                Use::Root => trusted.push(der.clone()),
                Use::Between => between.push(der.clone()),
                Use::Itself => {
                    if let Some(verifier) = verifier(std::slice::from_ref(der))? {
                        pinned.push((der.clone(), verifier));
                    }
                }
                Use::Nothing => {}
            }
        }
        let roots = verifier(&trusted)?;
        if roots.is_none() && pinned.is_empty() {
            return Err(Error::ConnectionFile(
                "sslrootcert: none of the certificates can be used. Root certificates must be of X.509 version 3 and valid \
                 today, and, with revocation lists, have signed themselves"
                    .into(),
            ));
        }
        Ok(Self { roots, between, pinned, trusted, revocable })
    }
}

/// What a certificate is good for.
enum Use {
    Root,
    Between,
    Itself,
    Nothing,
}

impl Use {
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
            // OpenSSL takes it from an old one, too.
            Ok(None) => {
                matches!(certificate.get::<KeyUsage>(), Ok(Some((_, usage))) if usage.key_cert_sign())
            }
            Err(_) => false,
        };
        let signed_itself = certificate.issuer == certificate.subject;
        match may_sign {
            // Of a root nobody ever asks whether it was revoked.
            true if revocable && !signed_itself => Self::Between,
            true => Self::Root,
            false if signed_itself => Self::Itself,
            // A server's that stands beside the CA which signed it.
            false => Self::Nothing,
        }
    }
}

impl Revoked {
    /// The lists, of each CA's the newest.
    pub(super) fn lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let mut files = Vec::new();
        if let Some(folder) = &self.folder {
            let broken =
                |why: String| Error::ConnectionFile(format!("sslcrldir: {} {why}", folder.display()));
            let unreadable = |error| broken(format!("cannot be read: {error}"));
            for entry in fs::read_dir(folder).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if is_rehashed_list(&path) {
                    files.push(path);
                }
            }
            // Or a folder that nobody has rehashed would mean that nothing is ever revoked.
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

/// Whether a file's name is one that `openssl rehash` gives to revocation lists, as `5a1b2c3d.r0`.
fn is_rehashed_list(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.and_then(|e| e.strip_prefix('r')).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Of several lists of one CA and for the same certificates the newest: rustls takes any of them.
fn newest(lists: Vec<CertificateRevocationListDer<'static>>) -> Vec<CertificateRevocationListDer<'static>> {
    let mut unknown = Vec::new();
    let mut newest = HashMap::new();
    for list in lists {
        let Some((scope, made)) = scope(&list) else {
            // rustls says what is wrong with it.
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

/// Whose certificates a list is of, and which of them.
#[derive(PartialEq, Eq, Hash)]
struct Scope {
    issuer: Vec<u8>,
    part: Option<Vec<u8>>,
}

/// The scope of a list, and when it was made, in seconds since 1970.
fn scope(list: &CertificateRevocationListDer<'_>) -> Option<(Scope, u64)> {
    let list = CertificateList::from_der(list).ok()?.tbs_cert_list;
    let part = list.crl_extensions.iter().flatten().find(|e| e.extn_id == IssuingDistributionPoint::OID);
    let part = part.map(|extension| extension.extn_value.as_bytes().to_vec());
    let scope = Scope { issuer: list.issuer.to_der().ok()?, part };
    Some((scope, list.this_update.to_unix_duration().as_secs()))
}
