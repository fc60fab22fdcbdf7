//! Connects `tokio-postgres` as libpq connects.
//!
//! [`Servers::resolve`] reads a connection string, a service file and the `PG*` variables. [`Servers::connect`] tries
//! one server after the other, with or without TLS (rustls). The README lists each option of libpq.
//!
//! | file | holds |
//! |---|---|
//! | `options` | libpq's options, and how each is treated |
//! | `conninfo`, `service`, `passfile` | the sources of options and passwords |
//! | `settings` | their precedence and meaning |
//! | `tls`, `trust`, `verify` | certificates and keys |
//! | `connect` | one server after the other |
//! | `handshake` | explanations of a failed TLS handshake |
//! | `warnings` | warnings from the server, which can revoke the answer to a COMMIT |
//! | `error` | errors of options and files |

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may panic"))]

mod connect;
mod conninfo;
mod error;
mod handshake;
mod library_texts;
mod options;
mod passfile;
mod service;
mod settings;
mod tls;
mod trust;
mod verify;
mod warnings;

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Config;

pub use connect::{Canceller, Cause, ConnectError, FailedAttempt, LOGIN_TIMEOUT, Session, Transport};
pub use error::Error;
pub use handshake::explain;
pub use settings::{environment, has_password};
pub use tls::{Mode, Roots, Tls};
pub use trust::Revoked;
pub use warnings::Warnings;

/// Servers to try, and how to log in to each.
// No Debug: it may hold a password.
pub struct Servers {
    hosts: Vec<Host>,
    /// Whether to try them in random order.
    shuffled: bool,
    /// Settings that all servers share.
    config: Config,
    user: String,
    database: String,
    password: Password,
    tls: Tls,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// Its name or the folder of its Unix socket. The address, if no name is given.
    name: String,
    /// Its address (`hostaddr`). If set, the name isn't looked up.
    address: Option<IpAddr>,
    port: u16,
}

/// Source of the password.
// No Debug: it may be the password.
enum Password {
    Given(String),
    /// A source of tokens. It makes one for each host that is tried.
    Token(Arc<dyn TokenSource>),
    /// A file that holds only the password, as container secrets do.
    File(PathBuf),
    /// A libpq password file, if there is one.
    Passfile(Option<PathBuf>),
}

/// Makes tokens that a server accepts as passwords.
pub trait TokenSource: Send + Sync {
    /// Makes a token for one login.
    fn token<'t>(&'t self, host: &'t str, port: u16, user: &'t str) -> TokenFuture<'t>;

    /// Returns what to check when the server refuses a token, as in "Check …".
    fn advice(&self) -> String;
}

/// Future that yields a token.
pub type TokenFuture<'t> = Pin<Box<dyn Future<Output = Result<String, Error>> + Send + 't>>;

impl Servers {
    /// Returns the role to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Makes all later logins use tokens from `source`. They override any configured password.
    pub fn log_in_by_token(&mut self, source: Arc<dyn TokenSource>) {
        self.password = Password::Token(source);
    }

    /// Returns the TLS settings.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Returns the source of the password, for messages about a wrong password.
    #[must_use]
    pub fn source_of_password(&self) -> String {
        match &self.password {
            Password::Token(source) => source.advice(),
            Password::Given(_) | Password::Passfile(None) => "the connection string or PGPASSWORD".into(),
            Password::File(file) => format!("{} (PGPASSWORD_FILE)", file.display()),
            Password::Passfile(Some(file)) if passfile::is_open_to_others(file) => format!(
                "{0} (PGPASSFILE), which is ignored because group or others have access to it (chmod 600 {0}),",
                file.display()
            ),
            Password::Passfile(Some(file)) => format!("{} (PGPASSFILE)", file.display()),
        }
    }

    fn connect_timeout(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or_default()
    }
}

/// Prints the servers as `host:port`, separated by commas.
impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Host {
    /// Whether the connection uses a Unix socket. A socket never has TLS.
    fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.starts_with('/')
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl Password {
    /// Returns the password for one server. Each call reads it again, because passwords change while a program runs.
    async fn of(&self, servers: &Servers, host: &Host) -> Result<Option<String>, Error> {
        match self {
            Self::Given(password) => Ok(Some(password.clone())),
            Self::Token(source) => source.token(&host.name, host.port, &servers.user).await.map(Some),
            Self::File(file) => password_in(file).map(Some),
            Self::Passfile(None) => Ok(None),
            Self::Passfile(Some(file)) => {
                let login = passfile::Login {
                    host: &host.name,
                    port: host.port,
                    database: &servers.database,
                    user: &servers.user,
                };
                Ok(passfile::look_up(file, &login))
            }
        }
    }
}

/// Reads the password from `file`: its whole content without the line breaks at the end.
fn password_in(file: &PathBuf) -> Result<String, Error> {
    let broken = |why: String| Error::File(format!("PGPASSWORD_FILE: {} {why}", file.display()));
    let mut password = fs::read_to_string(file).map_err(|e| broken(format!("cannot be read: {e}")))?;
    password.truncate(password.trim_end_matches(['\r', '\n']).len());
    if password.is_empty() { Err(broken("is empty".into())) } else { Ok(password) }
}
