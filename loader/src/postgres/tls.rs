//! TLS as libpq does it (section 34.19 of the manual), by rustls.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, SupportedProtocolVersion};

use super::trust::{Revoked, Trust};
use super::verify::{Asked, Verifier};
use crate::error::Error;

/// When TLS is used, and what of the server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whose signature a server's certificate must bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Nobody's.
    None,
    /// That of a certificate in this file.
    File(PathBuf),
    /// That of one which the system trusts.
    System,
}

/// How to do TLS. The files are read for each connection, as libpq does: certificates are renewed while the loader runs.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) mode: Mode,
    pub(crate) roots: Roots,
    pub(crate) revoked: Revoked,
    /// Our own certificate and its key, if the server wants one.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    /// Whether the server's name is said in the clear when the connection begins.
    pub(crate) sni: bool,
    /// Whether TLS begins at once, without asking for it: from `PostgreSQL` 17 on.
    pub(crate) direct: bool,
}

impl Tls {
    /// Reads all files and puts together what rustls needs.
    pub(super) fn client_config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .map_err(|error| Error::Internal(format!("TLS cannot be set up: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates("sslcert", certificate)?, private_key(key)?)
                .map_err(|error| {
                    Error::ConnectionFile(format!(
                        "the client certificate {} and the key {} cannot be used: {error}",
                        certificate.display(),
                        key.display()
                    ))
                })?,
        };
        config.enable_sni = self.sni;
        if self.direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(config)
    }

    fn verifier(&self, provider: &Arc<rustls::crypto::CryptoProvider>) -> Result<Verifier, Error> {
        let algorithms = provider.signature_verification_algorithms;
        let trusted = match &self.roots {
            Roots::None => return Ok(Verifier { asked: Asked::Nothing, algorithms }),
            Roots::File(file) => certificates("sslrootcert", file)?,
            Roots::System => system_roots()?,
        };
        let lists = self.revoked.lists()?;
        let asked = Asked::Signature {
            trust: Trust::in_these(&trusted, &lists, provider)?,
            name: self.mode == Mode::VerifyFull,
        };
        Ok(Verifier { asked, algorithms })
    }
}

/// Read only when they are asked for: it takes some milliseconds.
fn system_roots() -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(Error::ConnectionFile(format!(
            "sslrootcert=system: this system's root certificates cannot be read ({why}). Install them (Debian's package \
             ca-certificates), or name a file"
        )));
    }
    Ok(found.certs)
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    pem_items(option, "certificate", file)
}

/// All items of a kind in a PEM file. There must be one. What stands in the file is in no error: it may be the key.
pub(super) fn pem_items<T: PemObject>(option: &str, what: &str, file: &Path) -> Result<Vec<T>, Error> {
    let broken = |why: &str| Error::ConnectionFile(format!("{option}: {} {why}", file.display()));
    let items = T::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<T>, _>>);
    match items {
        Ok(items) if items.is_empty() => Err(broken(&format!("has no {what} in PEM form"))),
        Ok(items) => Ok(items),
        Err(pem::Error::Io(error)) => Err(broken(&format!("cannot be read: {error}"))),
        Err(_) => Err(broken("is no PEM file, or is damaged")),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let broken = |why: &str| Error::ConnectionFile(format!("sslkey: {} {why}", file.display()));
    let attributes = fs::metadata(file).map_err(|error| broken(&format!("cannot be read: {error}")))?;
    if !attributes.is_file() {
        return Err(broken("is no plain file"));
    }
    if is_open_to_others(&attributes) {
        return Err(broken(
            "can be read by others: chmod 600 it, or, where it is root's and shared with a group, 640",
        ));
    }
    let text = fs::read(file).map_err(|error| broken(&format!("cannot be read: {error}")))?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(key),
        Err(_) if String::from_utf8_lossy(&text).contains("ENCRYPTED") => Err(broken(
            "is encrypted, which the loader cannot read: write it without a password (openssl pkey -in … -out …), to a \
             file that only the loader's user can read",
        )),
        Err(_) => Err(broken("has no private key in PEM form")),
    }
}

/// As libpq checks it.
fn is_open_to_others(attributes: &Metadata) -> bool {
    let forbidden = if attributes.uid() == 0 { 0o037 } else { 0o077 };
    attributes.permissions().mode() & forbidden != 0
}
