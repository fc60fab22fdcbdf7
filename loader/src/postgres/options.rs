//! The options of a connection, under the names that libpq gives them.

use std::collections::BTreeMap;

/// What the loader makes of an option that libpq has.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// Reads it.
    Read,
    /// Takes it and does the same with it as without.
    Ignored,
    /// Takes these values, with which it does the same as without.
    Only(&'static [&'static str]),
    /// Refuses it: ignoring it would be less than was asked for. What to do instead.
    Refused(&'static str),
}
use Use::{Ignored, Only, Read, Refused};

/// An option that libpq has.
pub(super) struct Known {
    pub(super) name: &'static str,
    /// The variable that stands in for it.
    pub(super) variable: Option<&'static str>,
    pub(super) used: Use,
}

const LEAVE_OUT: &str = "leave it out";

/// All options of libpq's, up to `PostgreSQL` 18. The README has them, too.
#[rustfmt::skip]
pub(super) const KNOWN: [Known; 51] = [
    known("service", Some("PGSERVICE"), Read),
    known("servicefile", Some("PGSERVICEFILE"), Read),
    known("host", Some("PGHOST"), Read),
    known("hostaddr", Some("PGHOSTADDR"), Read),
    known("port", Some("PGPORT"), Read),
    known("dbname", Some("PGDATABASE"), Read),
    known("user", Some("PGUSER"), Read),
    known("password", Some("PGPASSWORD"), Read),
    known("passfile", Some("PGPASSFILE"), Read),
    known("options", Some("PGOPTIONS"), Read),
    known("application_name", Some("PGAPPNAME"), Read),
    known("fallback_application_name", None, Read),
    known("connect_timeout", Some("PGCONNECT_TIMEOUT"), Read),
    known("target_session_attrs", Some("PGTARGETSESSIONATTRS"), Read),
    known("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Read),
    known("keepalives", None, Read),
    known("keepalives_idle", None, Read),
    known("keepalives_interval", None, Read),
    known("keepalives_count", None, Read),
    known("tcp_user_timeout", None, Read),
    known("sslmode", Some("PGSSLMODE"), Read),
    known("sslrootcert", Some("PGSSLROOTCERT"), Read),
    known("sslcrl", Some("PGSSLCRL"), Read),
    known("sslcrldir", Some("PGSSLCRLDIR"), Read),
    known("sslcert", Some("PGSSLCERT"), Read),
    known("sslkey", Some("PGSSLKEY"), Read),
    known("sslcertmode", Some("PGSSLCERTMODE"), Read),
    known("sslsni", Some("PGSSLSNI"), Read),
    known("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION"), Read),
    known("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"), Read),
    known("sslnegotiation", Some("PGSSLNEGOTIATION"), Read),
    known("channel_binding", Some("PGCHANNELBINDING"), Read),
    known("client_encoding", Some("PGCLIENTENCODING"), Ignored),
    known("sslcompression", Some("PGSSLCOMPRESSION"), Ignored),
    known("krbsrvname", Some("PGKRBSRVNAME"), Ignored),
    known("gsslib", Some("PGGSSLIB"), Ignored),
    known("gssdelegation", Some("PGGSSDELEGATION"), Ignored),
    known("max_protocol_version", Some("PGMAXPROTOCOLVERSION"), Ignored),
    known("min_protocol_version", Some("PGMINPROTOCOLVERSION"), Only(&["3.0"])),
    known("gssencmode", Some("PGGSSENCMODE"), Only(&["disable", "prefer"])),
    known("sslpassword", None, Refused("give the key without a password, in a file that only the loader's user can read")),
    known("sslkeylogfile", None, Refused(LEAVE_OUT)),
    known("requirepeer", Some("PGREQUIREPEER"), Refused("connect by TCP with sslmode=verify-full, which proves who the server is")),
    known("require_auth", Some("PGREQUIREAUTH"), Refused("channel_binding=require asks for SCRAM with the server's own certificate")),
    known("scram_client_key", None, Refused("give the password")),
    known("scram_server_key", None, Refused("give the password")),
    known("oauth_issuer", None, Refused("give a password or a client certificate")),
    known("oauth_client_id", None, Refused("give a password or a client certificate")),
    known("oauth_client_secret", None, Refused("give a password or a client certificate")),
    known("oauth_scope", None, Refused("give a password or a client certificate")),
    known("replication", None, Refused(LEAVE_OUT)),
];

const fn known(name: &'static str, variable: Option<&'static str>, used: Use) -> Known {
    Known { name, variable, used }
}

/// An option's name together with its variable's, for messages.
pub(super) fn label(name: &str) -> String {
    match KNOWN.iter().find(|option| option.name == name).and_then(|option| option.variable) {
        Some(variable) => format!("{name} ({variable})"),
        None => name.to_owned(),
    }
}

/// What was said of a connection. The first to say something of an option is heard.
// No Debug: it may hold a password.
#[derive(Default)]
pub(super) struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// Sets an option, unless libpq has none of this name.
    #[must_use]
    pub(super) fn set(&mut self, name: &str, value: String) -> bool {
        let known = KNOWN.iter().find(|option| option.name == name);
        if let Some(option) = known {
            self.0.insert(option.name, value);
        }
        known.is_some()
    }

    /// Fills in what was not said, not even as an empty value.
    pub(super) fn fill_in(&mut self, name: &'static str, value: String) {
        self.0.entry(name).or_insert(value);
    }

    /// The same for all of `others`.
    pub(super) fn fill_in_all(&mut self, others: Self) {
        for (name, value) in others.0 {
            self.fill_in(name, value);
        }
    }

    /// Whether an option is set, and to nothing.
    pub(super) fn is_empty(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(String::is_empty)
    }

    /// The value of an option. An empty one is none: it only keeps others from saying something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_of_every_option_what_becomes_of_it() {
        let readme = include_str!("../../../README.md");
        for option in &KNOWN {
            for name in [Some(option.name), option.variable].into_iter().flatten() {
                assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
            }
        }
    }

    #[test]
    fn each_option_is_known_once() {
        for (i, option) in KNOWN.iter().enumerate() {
            assert!(KNOWN[..i].iter().all(|other| other.name != option.name), "{}", option.name);
        }
    }
}
