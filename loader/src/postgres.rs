//! Where the database is and how to log in there: a connection string, a service file and the PG* variables, read as libpq
//! reads them.
//!
//! | file | holds |
//! |---|---|
//! | `options` | libpq's options, and what becomes of each |
//! | `conninfo`, `service`, `passfile` | what they are read from |
//! | `rds` | IAM tokens of RDS in place of a password |
//! | `settings` | what goes before what, and what the values mean |
//! | `tls`, `verify` | certificates and keys |
//! | `connect` | one server after the other, with TLS or without |
//! | `handshake` | what is said when TLS comes to nothing |
//! | `warnings` | warnings from the server, which can take back the answer to a COMMIT |

mod connect;
mod conninfo;
pub(crate) mod handshake;
mod options;
mod passfile;
mod rds;
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
use std::time::Duration;

use tokio_postgres::Config;

use crate::error::Error;
pub(crate) use connect::{Canceller, LOGIN_TIMEOUT, NotConnected, Refusal, Session, Way, Why};
pub(crate) use settings::{environment, has_password};
pub(crate) use tls::{Mode, Roots, Tls};
pub(crate) use warnings::Warnings;

/// The servers that may be connected to, and how to log in to each.
// No Debug: it may hold a password.
pub(crate) struct Servers {
    hosts: Vec<Host>,
    /// Whether to try them in any order.
    shuffled: bool,
    /// All that is the same for all of them.
    config: Config,
    user: String,
    database: String,
    password: Password,
    /// Whether to log in with a token of RDS, made for each connection, in place of the password.
    by_rds_token: bool,
    tls: Tls,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    /// Its name, or the folder of its Unix socket; or the address again.
    name: String,
    /// Its address, where the name is not to be looked up.
    address: Option<IpAddr>,
    port: u16,
}

/// Where the password is.
// No Debug: it may be the password.
enum Password {
    Given(String),
    /// A file that holds it and nothing else, as container secrets do.
    File(PathBuf),
    /// A password file of libpq's, if there is one.
    Passfile(Option<PathBuf>),
}

impl Servers {
    /// The role to log in as.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    /// Logs in with tokens of RDS from now on, whatever password is given.
    pub(crate) fn log_in_by_rds_token(&mut self) -> Result<(), Error> {
        // Without it, anyone between here and the server gets a token that is good for 15 minutes.
        if self.tls.mode != Mode::VerifyFull {
            return Err(Error::Config(
                "--rds-iam sends a token in place of a password. Set sslmode=verify-full and sslrootcert to the certificates \
                 of RDS, so that no other server gets it"
                    .into(),
            ));
        }
        self.by_rds_token = true;
        Ok(())
    }

    /// How TLS is done.
    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Where the password comes from, to be looked at when it is wrong.
    pub(crate) fn source_of_password(&self) -> String {
        match &self.password {
            _ if self.by_rds_token => {
                "that the AWS credentials are allowed rds-db:connect for it, that it has the role rds_iam, \
                 and that IAM authentication is on (--rds-iam)"
                    .into()
            }
            Password::Given(_) | Password::Passfile(None) => "DATABASE_URL or PGPASSWORD".into(),
            Password::File(file) => format!("{} (PGPASSWORD_FILE)", file.display()),
            Password::Passfile(Some(file)) if passfile::is_open_to_others(file) => format!(
                "{0} (PGPASSFILE), which is ignored, as group or others have access to it (chmod 600 {0}),",
                file.display()
            ),
            Password::Passfile(Some(file)) => format!("{} (PGPASSFILE)", file.display()),
        }
    }

    fn connect_timeout(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or_default()
    }
}

/// The servers as `host:port`.
impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Host {
    /// Whether it is reached by a Unix socket, which never has TLS.
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
    /// The password for one of the servers. It is looked for each time: passwords are changed while the loader runs.
    fn of(&self, servers: &Servers, host: &Host) -> Result<Option<String>, Error> {
        match self {
            Self::Given(password) => Ok(Some(password.clone())),
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

/// The password that `file` holds: the whole of it, but for a line feed at its end.
fn password_in(file: &PathBuf) -> Result<String, Error> {
    let broken = |why: String| Error::ConnectionFile(format!("PGPASSWORD_FILE: {} {why}", file.display()));
    let mut password = fs::read_to_string(file).map_err(|e| broken(format!("cannot be read: {e}")))?;
    password.truncate(password.trim_end_matches(['\r', '\n']).len());
    if password.is_empty() { Err(broken("is empty".into())) } else { Ok(password) }
}
