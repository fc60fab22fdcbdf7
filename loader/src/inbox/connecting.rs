//! Explains why there is no connection, and what to do.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::error::{CONNECTION, DbError, Retry, SETUP, TIMEOUT, code, describe, retry};
use crate::error::Error;
use crate::library_texts::{lacks_channel_binding, lacks_password, takes_no_writes};
use libpq_connect::{Cause, ConnectError, FailedAttempt, Mode, Servers, Transport};

/// Returns the error for a server that accepted the connection and then said nothing.
pub(super) fn timed_out(servers: &Servers, limit: Duration) -> DbError {
    let text = format!("{servers} did not answer within {} s", limit.as_secs());
    DbError { retry: Retry::Reconnect, error: Error::Database(text), code: TIMEOUT.into() }
}

/// Describes the failures of all servers. If one of them may accept us later, a retry is worthwhile.
pub(super) fn explain(failed: ConnectError, servers: &Servers) -> DbError {
    let refusals = match failed {
        ConnectError::Refused(refusals) => refusals,
        // At the start this ends the loader, unless it waits for the start. Later the file may be about to be replaced.
        ConnectError::Setup(error) => {
            return DbError { retry: Retry::Reconnect, error: error.into(), code: SETUP.into() };
        }
    };
    let mut texts: Vec<String> = Vec::new();
    for refusal in &refusals {
        let text = describe_refusal(refusal, servers);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let retries: Vec<Retry> = refusals.iter().map(of_refusal).collect();
    let first = retries.first().copied().unwrap_or(Retry::Reconnect);
    let retry = if retries.contains(&Retry::Reconnect) { Retry::Reconnect } else { first };
    // Failures are counted under the first server's code.
    let code = refusals.first().map_or_else(|| CONNECTION.to_owned(), code_of_refusal);
    DbError { retry, error: Error::Database(texts.join("; ")), code }
}

fn code_of_refusal(refusal: &FailedAttempt) -> String {
    match &refusal.cause {
        Cause::Postgres(error) => code(error),
        Cause::NoAddress(_) => CONNECTION.into(),
        Cause::TimedOut(_) => TIMEOUT.into(),
    }
}

fn of_refusal(refusal: &FailedAttempt) -> Retry {
    match &refusal.cause {
        Cause::Postgres(error) if lacks_password(error) => Retry::Never,
        Cause::Postgres(error) => retry(error),
        Cause::NoAddress(_) | Cause::TimedOut(_) => Retry::Reconnect,
    }
}

fn describe_refusal(refusal: &FailedAttempt, servers: &Servers) -> String {
    let (server, user) = (&refusal.server, servers.user());
    let error = match &refusal.cause {
        Cause::NoAddress(error) => {
            return format!("{server} cannot be reached ({error}). Check the name of the host");
        }
        Cause::TimedOut(limit) => return format!("{server} did not answer within {} s", limit.as_secs()),
        Cause::Postgres(error) => error,
    };
    if let Some(text) = libpq_connect::explain(error, refusal, servers.tls()) {
        return text;
    }
    let what = describe(error);
    match error.code() {
        Some(&SqlState::INVALID_PASSWORD) => {
            format!(
                "{server} refused the password of role {user}: {what}. Check {}",
                servers.source_of_password()
            )
        }
        Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => format!(
            "{server} does not let role {user} in{}: {what}. Check the role, and pg_hba.conf of the server{}",
            if refusal.transport == Transport::Plain { " without TLS" } else { "" },
            missing(refusal.transport, servers)
        ),
        Some(&SqlState::INVALID_CATALOG_NAME) => {
            format!("{what} on {server}. Create it, or name another one in DATABASE_URL or PGDATABASE")
        }
        Some(_) => format!("{server} refused the connection: {what}"),
        None if takes_no_writes(error) => format!(
            "{server} takes no writes: it is a standby, to which the loader must not connect, or transactions of role \
             {user} are read-only there (default_transaction_read_only, by ALTER ROLE, ALTER DATABASE, postgresql.conf \
             or PGOPTIONS)"
        ),
        None if lacks_password(error) => format!(
            "{server} wants a password for role {user}, and {} has none for it: put it there, or into PGPASSWORD or \
             PGPASSWORD_FILE",
            servers.source_of_password()
        ),
        None if lacks_channel_binding(error) => format!(
            "{server} did not bind the login to its TLS certificate, which channel_binding=require asks for: that takes TLS, \
             a role with a scram-sha-256 password, and a line with scram-sha-256 in pg_hba.conf of the server"
        ),
        None => {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            format!("{server} cannot be reached ({reason}). Check host and port, and that the server is up")
        }
    }
}

/// Returns what a server may require and we did not send.
fn missing(transport: Transport, servers: &Servers) -> &'static str {
    match transport {
        Transport::Plain if servers.tls().mode == Mode::Disable => {
            ". If it lets nobody in without TLS, take sslmode=disable away"
        }
        Transport::Offered | Transport::Tls if servers.tls().identity.is_none() => {
            ". If it wants a client certificate, name the files in sslcert and sslkey (PGSSLCERT, PGSSLKEY)"
        }
        _ => "",
    }
}
