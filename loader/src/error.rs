//! Errors that can end a run, and the exit code of each.

use tokio::task::JoinError;

/// Error that ends a run.
///
/// The texts say what to do. They are built from codes, names and counts. No variant may carry an event, a message
/// body, a password or a whole connection string, because the texts end up in a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum Error {
    /// The command line or the environment asks for something impossible.
    #[error("{0}")]
    Config(String),
    /// Something on this machine can't be used at the moment: a port, a file of variables.
    #[error("{0}")]
    Machine(String),
    /// SQS refused.
    #[error("SQS: {0}")]
    Queue(String),
    /// SQS, or the source of the AWS credentials or region, did not answer. A retry may succeed.
    #[error("SQS: {0}")]
    QueueAway(String),
    /// A file for the connection to `PostgreSQL` can't be used. It may be about to be replaced.
    #[error("{0}")]
    ConnectionFile(String),
    /// `PostgreSQL` refused, could not be reached, or is not set up.
    #[error("PostgreSQL: {0}")]
    Database(String),
    /// The inbox did not account for every event in a batch.
    #[error(
        "the inbox did not account for every event: {sent} were sent, {}. The transaction was rolled back \
         and nothing of it was deleted from SQS. Look at session_replication_role of the loader's role and \
         database (it must be 'origin') and at the triggers of the inbox (psql: \\d+ on it shows three of \
         pg_mask)",
        accounted_text(*.accounted)
    )]
    Count {
        /// Events in the batch.
        sent: u64,
        /// stored + duplicate + rejected. `None` if the inbox saw no statement at all.
        accounted: Option<i128>,
    },
    /// The inbox's name refers to another view than when the loader started.
    #[error(
        "PostgreSQL: the inbox {inbox} {change} after this loader started. Nothing more is sent to it. Check who owns the \
         schema and the view (psql: \\dn, \\dv), because the owner of a schema can put another view in the inbox's \
         place. Restart the loader if the change was meant. Restoring a dump changes OIDs; promoting a standby keeps them"
    )]
    Replaced {
        /// Its name with the schema, in the form that SQL needs.
        inbox: String,
        /// The difference.
        change: String,
    },
    /// A fault in the loader itself.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl From<libpq_connect::Error> for Error {
    fn from(error: libpq_connect::Error) -> Self {
        let text = error.to_string();
        match error {
            libpq_connect::Error::ConnectionString(_) => {
                Self::Config(format!("--database-url (DATABASE_URL): {text}"))
            }
            libpq_connect::Error::Options(_) => Self::Config(text),
            libpq_connect::Error::File(_) => Self::ConnectionFile(text),
            libpq_connect::Error::Tls(_) => Self::Internal(text),
        }
    }
}

impl Error {
    /// Whether a retry soon may succeed, judged by the error alone.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::QueueAway(_) | Self::ConnectionFile(_))
    }

    /// The exit code of the process, as `--help` documents it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Internal(_) | Self::Machine(_) => 1,
            Self::Config(_) => 2,
            Self::Queue(_) | Self::QueueAway(_) => 3,
            Self::Database(_) | Self::ConnectionFile(_) => 4,
            Self::Count { .. } => 5,
            Self::Replaced { .. } => 6,
        }
    }
}

/// Returns how a task ended. A panic is already in the log.
pub(crate) fn ended(joined: Result<Result<(), Error>, JoinError>) -> Result<(), Error> {
    joined.unwrap_or_else(|error| {
        let what = if error.is_panic() { "a task panicked" } else { "a task was cancelled" };
        Err(Error::Internal(what.into()))
    })
}

fn accounted_text(accounted: Option<i128>) -> String {
    match accounted {
        Some(n) => format!("stored, duplicate and rejected add up to {n}"),
        None => "and its triggers did not run".to_owned(),
    }
}

/// Returns the text of an error's last cause, which comes from the operating system or the TLS library: "Connection
/// refused (os error 111)".
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_error_has_its_own_exit_code() {
        let text = String::new;
        let all = [
            Error::Internal(text()),
            Error::Config(text()),
            Error::Queue(text()),
            Error::Database(text()),
            Error::Count { sent: 2, accounted: None },
            Error::Replaced { inbox: text(), change: text() },
            Error::Machine(text()),
            Error::QueueAway(text()),
            Error::ConnectionFile(text()),
        ];
        // A service manager never restarts a loader that ends with 2. So an error that may pass has another code.
        assert_eq!(all.map(|e| e.exit_code()), [1, 2, 3, 4, 5, 6, 1, 3, 4]);
    }

    #[test]
    fn a_wrong_count_says_what_to_look_at() {
        let none = Error::Count { sent: 7, accounted: None }.to_string();
        assert!(none.contains("7 were sent, and its triggers did not run"), "{none}");
        assert!(none.contains("session_replication_role"), "{none}");
        let some = Error::Count { sent: 7, accounted: Some(6) }.to_string();
        assert!(some.contains("add up to 6"), "{some}");
    }
}
