//! Connection options, under libpq's names.

use std::collections::BTreeMap;

/// How this crate treats a libpq option.
#[derive(Clone, Copy)]
pub(crate) enum Support {
    /// Reads it.
    Read,
    /// Accepts any value and ignores it.
    Ignored,
    /// Accepts only these values, which change nothing.
    Only(&'static [&'static str]),
    /// Refuses it, because ignoring it would give less than the user asked for. Holds what to do instead.
    Refused(&'static str),
}
use Support::{Ignored, Only, Read, Refused};

/// An option of libpq.
pub(crate) struct OptionSpec {
    pub(crate) name: &'static str,
    /// Environment variable that sets it.
    pub(crate) variable: Option<&'static str>,
    pub(crate) support: Support,
}

const LEAVE_OUT: &str = "leave it out";

/// All options of libpq, up to `PostgreSQL` 18. The README lists them.
#[rustfmt::skip]
pub(crate) const OPTIONS: [OptionSpec; 51] = [
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
    known("sslpassword", None, Refused("give the key without a password, in a file that only this user can read")),
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

const fn known(name: &'static str, variable: Option<&'static str>, support: Support) -> OptionSpec {
    OptionSpec { name, variable, support }
}

/// Returns an option's name together with its variable, for messages.
pub(crate) fn label(name: &str) -> String {
    match OPTIONS.iter().find(|option| option.name == name).and_then(|option| option.variable) {
        Some(variable) => format!("{name} ({variable})"),
        None => name.to_owned(),
    }
}

/// Values of the options. [`Values::set`] replaces a value; [`Values::fill_in`] keeps an earlier one.
// No Debug: it may hold a password.
#[derive(Default)]
pub(crate) struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// Sets an option. Returns false if libpq has no option of this name.
    #[must_use]
    pub(crate) fn set(&mut self, name: &str, value: String) -> bool {
        let known = OPTIONS.iter().find(|option| option.name == name);
        if let Some(option) = known {
            self.0.insert(option.name, value);
        }
        known.is_some()
    }

    /// Sets an option that isn't set. An empty value counts as set.
    pub(crate) fn fill_in(&mut self, name: &'static str, value: String) {
        self.0.entry(name).or_insert(value);
    }

    /// Fills in all of `others`.
    pub(crate) fn fill_in_all(&mut self, others: Self) {
        for (name, value) in others.0 {
            self.fill_in(name, value);
        }
    }

    /// Whether an option is set to an empty value.
    pub(crate) fn is_empty(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(String::is_empty)
    }

    /// Returns the value of an option. An empty value counts as none: it only keeps later sources from setting the
    /// option.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_documents_every_option() {
        let readme = include_str!("../README.md");
        for option in &OPTIONS {
            for name in [Some(option.name), option.variable].into_iter().flatten() {
                assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
            }
        }
    }

    #[test]
    fn each_option_is_known_once() {
        for (i, option) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS[..i].iter().all(|other| other.name != option.name), "{}", option.name);
        }
    }
}
