//! Why there is no connection, and what to do.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::error::{Error as PgError, SqlState};

use super::fault::{CONNECTION, Fault, Kind, SETUP, TIMEOUT, code, describe, kind};
use crate::error::Error;
use crate::postgres::{Mode, NotConnected, Refusal, Servers, Way, Why, handshake};

/// A server took the connection and then said nothing.
pub(super) fn late(servers: &Servers, limit: Duration) -> Fault {
    let text = format!("{servers} did not answer within {} s", limit.as_secs());
    Fault { kind: Kind::Connection, error: Error::Database(text), code: TIMEOUT.into() }
}

/// What every server had to say. If one of them may have us yet, it is worth trying again.
pub(super) fn explain(failed: NotConnected, servers: &Servers) -> Fault {
    let refusals = match failed {
        NotConnected::Refused(refusals) => refusals,
        // At the start it ends the loader; later the file may be on its way.
        NotConnected::Setup(error) => return Fault { kind: Kind::Connection, error, code: SETUP.into() },
    };
    let mut texts: Vec<String> = Vec::new();
    for refusal in &refusals {
        let text = tell(refusal, servers);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let kinds: Vec<Kind> = refusals.iter().map(of_refusal).collect();
    let first = kinds.first().copied().unwrap_or(Kind::Connection);
    let kind = if kinds.contains(&Kind::Connection) { Kind::Connection } else { first };
    // Failures are counted by what the first server said.
    let code = refusals.first().map_or_else(|| CONNECTION.to_owned(), code_of_refusal);
    Fault { kind, error: Error::Database(texts.join("; ")), code }
}

fn code_of_refusal(refusal: &Refusal) -> String {
    match &refusal.why {
        Why::Postgres(error) => code(error),
        Why::NoAddress(_) => CONNECTION.into(),
        Why::Late(_) => TIMEOUT.into(),
    }
}

fn of_refusal(refusal: &Refusal) -> Kind {
    match &refusal.why {
        Why::Postgres(error) if lacks_password(error) => Kind::Final,
        Why::Postgres(error) => kind(error),
        Why::NoAddress(_) | Why::Late(_) => Kind::Connection,
    }
}

fn tell(refusal: &Refusal, servers: &Servers) -> String {
    let (server, user) = (&refusal.server, servers.user());
    let error = match &refusal.why {
        Why::NoAddress(error) => {
            return format!("{server} cannot be reached ({error}): is the name of the host right?");
        }
        Why::Late(limit) => return format!("{server} did not answer within {} s", limit.as_secs()),
        Why::Postgres(error) => error,
    };
    if let Some(text) = handshake::tell(error, refusal, servers.tls()) {
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
            if refusal.way == Way::Plain { " without TLS" } else { "" },
            missing(refusal.way, servers)
        ),
        Some(&SqlState::INVALID_CATALOG_NAME) => {
            format!("{what} on {server}. Create it, or name another one in DATABASE_URL or PGDATABASE")
        }
        Some(_) => format!("{server} refused the connection: {what}"),
        None if what.contains("does not allow writes") => format!(
            "{server} takes no writes: it is a standby, to which the loader must not connect, or transactions of role \
             {user} are read-only there (default_transaction_read_only, by ALTER ROLE, ALTER DATABASE, postgresql.conf \
             or PGOPTIONS)"
        ),
        None if lacks_password(error) => format!(
            "{server} wants a password for role {user}, and {} has none for it: put it there, or into PGPASSWORD or \
             PGPASSWORD_FILE",
            servers.source_of_password()
        ),
        None if what.contains("channel binding") => format!(
            "{server} did not bind the login to its TLS certificate, which channel_binding=require asks for: that takes TLS, \
             a role with a scram-sha-256 password, and a line with scram-sha-256 in pg_hba.conf of the server"
        ),
        None => {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            format!("{server} cannot be reached ({reason}): is the server up, and are host and port right?")
        }
    }
}

/// What a server may want that we did not bring.
fn missing(way: Way, servers: &Servers) -> &'static str {
    match way {
        Way::Plain if servers.tls().mode == Mode::Disable => {
            ". If it lets nobody in without TLS, take sslmode=disable away"
        }
        Way::Offered | Way::Tls if servers.tls().identity.is_none() => {
            ". If it wants a client certificate, name the files in sslcert and sslkey (PGSSLCERT, PGSSLKEY)"
        }
        _ => "",
    }
}

fn lacks_password(error: &PgError) -> bool {
    error.source().is_some_and(|source| source.to_string() == "password missing")
}
