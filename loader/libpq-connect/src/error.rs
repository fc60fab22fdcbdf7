//! Errors of the options and files, before any connection.

/// Error in the options of a connection. No text quotes a password, or a value that may be one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The connection string can't be read. The text is a literal, so it quotes none of the string.
    #[error(
        "the connection string cannot be read: {0}. It is \
         postgres://user:password@host:port/database?option=value, with @ : / ? # % and spaces in user and password \
         percent-encoded, or key=value pairs"
    )]
    ConnectionString(&'static str),
    /// An option has no value that can be used. Trying again doesn't help.
    #[error("{0}")]
    Options(String),
    /// A file can't be used now. It may be about to be replaced.
    #[error("{0}")]
    File(String),
    /// TLS can't be set up at all.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}
