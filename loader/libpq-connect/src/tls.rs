//! TLS with rustls, under libpq's rules (section 34.19 of the manual).

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, SupportedProtocolVersion};

use crate::Error;
use crate::trust::{Revoked, Trust};
use crate::verify::{VerificationPolicy, Verifier};

/// Values of `sslmode`: when TLS is used, and how the server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    Disable,
    /// Only if the server refuses a connection without TLS.
    Allow,
    /// If the server supports it.
    Prefer,
    /// Always.
    Require,
    /// Always. A trusted CA must have signed the certificate.
    VerifyCa,
    /// Always. A trusted CA must have signed the certificate for this host.
    VerifyFull,
}

/// Trusted root certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// None. Any server certificate is accepted.
    None,
    /// The certificates in this file.
    File(PathBuf),
    /// The certificates that the system trusts.
    System,
}

/// TLS settings. The files are read again for each connection, as libpq does, because certificates are renewed while
/// the loader runs.
#[derive(Clone, Debug)]
pub struct Tls {
    /// When TLS is used.
    pub mode: Mode,
    /// Trusted root certificates.
    pub roots: Roots,
    /// Lists of revoked certificates.
    pub revoked: Revoked,
    /// Files of our client certificate and its key, for a server that asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// TLS versions that may be used.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Whether to send the server's name in clear text when the connection begins (SNI).
    pub sni: bool,
    /// Whether TLS begins at once, without a request for it. Needs `PostgreSQL` 17 or later.
    pub direct: bool,
}

impl Tls {
    /// Reads all files and builds the configuration for rustls.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = self.verifier(&provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates("sslcert", certificate)?, private_key(key)?)
                .map_err(|error| {
                    Error::File(format!(
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
            Roots::None => return Ok(Verifier { asked: VerificationPolicy::Nothing, algorithms }),
            Roots::File(file) => certificates("sslrootcert", file)?,
            Roots::System => system_roots()?,
        };
        let lists = self.revoked.lists()?;
        let asked = VerificationPolicy::Signature {
            trust: Trust::in_these(&trusted, &lists, provider)?,
            name: self.mode == Mode::VerifyFull,
        };
        Ok(Verifier { asked, algorithms })
    }
}

/// Reads the system's root certificates. Called only when they are needed, because it takes some milliseconds.
fn system_roots() -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(Error::File(format!(
            "sslrootcert=system: this system's root certificates cannot be read ({why}). Install them (Debian's package \
             ca-certificates), or name a file"
        )));
    }
    Ok(found.certs)
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    pem_items(option, "certificate", file)
}

/// Reads all items of one kind from a PEM file. There must be at least one. Errors never quote the file's content,
/// which may be a key.
pub(crate) fn pem_items<T: PemObject>(option: &str, what: &str, file: &Path) -> Result<Vec<T>, Error> {
    let broken = |why: &str| Error::File(format!("{option}: {} {why}", file.display()));
    let items = T::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<T>, _>>);
    match items {
        Ok(items) if items.is_empty() => Err(broken(&format!("has no {what} in PEM form"))),
        Ok(items) => Ok(items),
        Err(pem::Error::Io(error)) => Err(broken(&format!("cannot be read: {error}"))),
        Err(_) => Err(broken("is no PEM file, or is damaged")),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let broken = |why: &str| Error::File(format!("sslkey: {} {why}", file.display()));
    let attributes = fs::metadata(file).map_err(|error| broken(&format!("cannot be read: {error}")))?;
    if !attributes.is_file() {
        return Err(broken("is not a plain file"));
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
            "is encrypted, which cannot be read: write it without a password (openssl pkey -in … -out …), to a \
             file that only this user can read",
        )),
        Err(_) => Err(broken("has no private key in PEM form")),
    }
}

/// Whether the permissions are too open, under libpq's rule: only a file that root owns may be readable by its group.
fn is_open_to_others(attributes: &Metadata) -> bool {
    let forbidden = if attributes.uid() == 0 { 0o037 } else { 0o077 };
    attributes.permissions().mode() & forbidden != 0
}
