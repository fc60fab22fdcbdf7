//! Options of the database and the inbox.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use tracing::warn;

use crate::error::Error;
use crate::inbox::{Database, RdsTokens};
use libpq_connect::{Mode, Servers};

/// The database and the inbox.
// No Debug: see `Config`.
#[derive(Args)]
pub(crate) struct Target {
    /// Database as a URL postgres://user:password@host:port/database or as key=value pairs. Set it in the environment:
    /// every user of the machine can read a command line
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true, help_heading = "Database")]
    database_url: Option<String>,

    /// Whether `database_url` was given on the command line.
    #[arg(skip)]
    pub(crate) url_on_command_line: bool,

    /// Log in to Amazon RDS or Aurora with an IAM token instead of a password. Each connection makes a token from the AWS
    /// credentials, which need rds-db:connect. Requires sslmode=verify-full
    #[arg(long, env = "LOADER_RDS_IAM", value_parser = FalseyValueParser::new(), help_heading = "Database")]
    rds_iam: bool,

    /// Inbox view, required. Add its schema if that isn't on the search path
    #[arg(long, env = "LOADER_INBOX", value_name = "NAME", help_heading = "Database")]
    inbox: Option<String>,
}

impl Target {
    /// Returns the database as it was given. An empty variable counts as not set.
    pub(crate) fn database_url(&self) -> Option<&str> {
        self.database_url.as_deref().filter(|url| !url.is_empty())
    }

    /// Returns the inbox. An empty variable counts as not set.
    pub(crate) fn inbox(&self) -> Result<&str, Error> {
        let named = self.inbox.as_deref().filter(|inbox| !inbox.is_empty());
        named.ok_or_else(|| Error::Config("no inbox is named: set --inbox or LOADER_INBOX".into()))
    }

    /// Returns the servers that the options and the environment name. Warns of a password on the command line.
    pub(crate) fn servers(&self) -> Result<Servers, Error> {
        if self.url_on_command_line && self.database_url().is_some_and(libpq_connect::has_password) {
            warn!(
                "--database-url has a password on the command line, which every user of this machine can read in the list of \
                 processes: set DATABASE_URL, PGPASSWORD, PGPASSWORD_FILE or PGPASSFILE instead"
            );
        }
        let mut servers =
            Servers::resolve(self.database_url(), "pg_mask loader", libpq_connect::environment)?;
        if self.rds_iam {
            // Without verification, anyone between here and the server can get the token, which is valid for 15 minutes.
            if servers.tls().mode != Mode::VerifyFull {
                return Err(Error::Config(
                    "--rds-iam sends a token in place of a password. Set sslmode=verify-full and sslrootcert to the \
                     certificates of RDS, so that no other server gets it"
                        .into(),
                ));
            }
            servers.log_in_by_token(Arc::new(RdsTokens));
        }
        Ok(servers)
    }

    /// Returns the database and its inbox, without connecting. Storing a batch can take at most `limit`.
    pub(crate) fn database(&self, limit: Duration) -> Result<Database, Error> {
        Ok(Database::new(self.servers()?, self.inbox()?.to_owned(), limit))
    }
}
