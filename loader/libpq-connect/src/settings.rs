//! Precedence and meaning of the options. As in libpq, the connection string comes first, then the service file, the
//! environment and the defaults.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio_postgres::Config;
use tokio_postgres::config::{ChannelBinding, TargetSessionAttrs};

use crate::Error;
use crate::options::{OPTIONS, Support, Values, label};
use crate::tls::{Mode, Roots, Tls};
use crate::trust::Revoked;
use crate::{Host, Password, Servers, conninfo, service};

/// Maximum time to wait for a host to answer, unless an option sets it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time that sent data may stay unacknowledged before the connection counts as dead. Without it, a host that
/// has vanished would hold a batch for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);
/// Time without traffic before TCP probes the peer. libpq leaves that to the system, whose default is two hours.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Options that refuse an empty value, as in libpq. A template makes an empty value from an unset variable, and that
/// must not silently weaken the option.
const MODES: [&str; 7] = [
    "sslmode",
    "channel_binding",
    "sslcertmode",
    "sslnegotiation",
    "gssencmode",
    "target_session_attrs",
    "load_balance_hosts",
];

/// Returns an environment variable. For an unset or empty `HOME`, it returns the system's own record.
#[must_use]
pub fn environment(name: &str) -> Option<String> {
    // A value that isn't UTF-8 becomes one that matches nothing, and so causes an error. It must not count as unset.
    let value = std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    if name == "HOME" {
        value
            .filter(|value| !value.is_empty())
            .or_else(|| std::env::home_dir()?.into_os_string().into_string().ok())
    } else {
        value
    }
}

/// Whether a connection string contains a password.
#[must_use]
pub fn has_password(url: &str) -> bool {
    conninfo::parse(url).is_ok_and(|values| values.get("password").is_some())
}

impl Servers {
    /// Reads all options. `env` looks up a variable: [`environment`], except in tests. `application` is the program's
    /// name for the server, unless an option sets one.
    ///
    /// Errors quote only names of files, services and modes. Any other value may be a misplaced password.
    pub fn resolve(
        url: Option<&str>,
        application: &str,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let values = gather(url, &env)?;
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        refuse_what_is_not_supported(&values)?;
        let home = env("HOME").map(PathBuf::from);
        let user = match values.get("user") {
            Some(user) => user.to_owned(),
            None => whoami::username().map_err(|_| {
                Error::Options("the operating system has no name for this user: set PGUSER".into())
            })?,
        };
        let database = values.get("dbname").unwrap_or(&user).to_owned();
        let password = match (values.get("password"), env("PGPASSWORD_FILE")) {
            (Some(password), _) => Password::Given(password.to_owned()),
            (None, Some(file)) => Password::File(file.into()),
            (None, None) => {
                let own = || Some(home.as_ref()?.join(".pgpass"));
                Password::Passfile(values.get("passfile").map(PathBuf::from).or_else(own))
            }
        };
        let hosts = hosts(&values)?;
        let tls = tls(&values, home.as_deref(), &hosts)?;
        let mut config = common(&values, application)?;
        config.user(&user).dbname(&database);
        let shuffled = one_of(&values, "load_balance_hosts", &[("disable", false), ("random", true)], false)?;
        Ok(Self { hosts, shuffled, config, user, database, password, tls })
    }
}

fn gather(url: Option<&str>, env: &impl Fn(&str) -> Option<String>) -> Result<Values, Error> {
    let mut values = conninfo::parse(url.unwrap_or_default()).map_err(Error::ConnectionString)?;
    let not_empty = |name: &str| env(name).filter(|value| !value.is_empty());
    values.fill_in_all(service::read(&values, &not_empty)?);
    for option in &OPTIONS {
        let env: &dyn Fn(&str) -> Option<String> =
            if MODES.contains(&option.name) { env } else { &not_empty };
        if let Some(value) = option.variable.and_then(env) {
            values.fill_in(option.name, value);
        }
    }
    // libpq still reads this variable, which asks for more than the default does.
    if env("PGREQUIRESSL").is_some_and(|value| value.starts_with('1')) {
        values.fill_in("sslmode", "require".into());
    }
    Ok(values)
}

fn refuse_what_is_not_supported(values: &Values) -> Result<(), Error> {
    if let Some(name) = MODES.iter().find(|name| values.is_empty(name)) {
        return Err(Error::Options(format!("{} is empty: give it a value, or leave it out", label(name))));
    }
    for option in &OPTIONS {
        let Some(value) = values.get(option.name) else { continue };
        match option.support {
            Support::Read | Support::Ignored => {}
            Support::Only(taken) if taken.contains(&value) => {}
            Support::Only(taken) => {
                return Err(Error::Options(format!(
                    "this value of {} is not supported: it takes {}",
                    label(option.name),
                    taken.join(", ")
                )));
            }
            Support::Refused(instead) => {
                return Err(Error::Options(format!(
                    "the option {} is not supported: {instead}",
                    label(option.name)
                )));
            }
        }
    }
    Ok(())
}

fn hosts(values: &Values) -> Result<Vec<Host>, Error> {
    let list =
        |name: &str| values.get(name).map(|list| list.split(',').collect::<Vec<_>>()).unwrap_or_default();
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    let count = names.len().max(addresses.len()).max(1);
    for (option, entries) in [("host", names.len()), ("hostaddr", addresses.len())] {
        if entries != 0 && entries != count {
            return Err(Error::Options(format!(
                "{} and {} are lists of different lengths",
                option,
                label("hostaddr")
            )));
        }
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::Options(format!(
            "{} is a list of another length than that of hosts",
            label("port")
        )));
    }
    let entry =
        |list: &[&str], i: usize| list.get(i).copied().filter(|entry| !entry.is_empty()).map(str::to_owned);
    (0..count)
        .map(|i| {
            let address = entry(&addresses, i);
            let name = entry(&names, i).or_else(|| address.clone()).unwrap_or_else(|| "localhost".into());
            // A misplaced `password=p@ss` makes the host "ss@host", which messages would print.
            if name.contains('@') {
                return Err(Error::Options(format!("{}: a host name has an @ in it", label("host"))));
            }
            let port = entry(if ports.len() == 1 { &ports } else { ports.get(i..).unwrap_or_default() }, 0);
            Ok(Host {
                name,
                address: address.map(|address| parsed("hostaddr", &address, "IP address")).transpose()?,
                port: port.map(|port| parsed("port", &port, "port number")).transpose()?.unwrap_or(5432),
            })
        })
        .collect()
}

/// Returns the settings that all hosts share.
fn common(values: &Values, application: &str) -> Result<Config, Error> {
    let mut config = Config::new();
    let name = values.get("application_name").or_else(|| values.get("fallback_application_name"));
    config.application_name(name.unwrap_or(application));
    if let Some(options) = values.get("options") {
        config.options(options);
    }
    let above_zero = |name| number(values, name).map(|number| number.filter(|n| *n > 0));
    let seconds = |name| above_zero(name).map(|seconds| seconds.map(Duration::from_secs));
    config
        .connect_timeout(seconds("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT))
        .keepalives(number(values, "keepalives")? != Some(0))
        .keepalives_idle(seconds("keepalives_idle")?.unwrap_or(KEEPALIVE))
        .keepalives_interval(seconds("keepalives_interval")?.unwrap_or(KEEPALIVE / 3))
        .keepalives_retries(above_zero("keepalives_count")?.and_then(|n| n.try_into().ok()).unwrap_or(3));
    match number(values, "tcp_user_timeout")? {
        None => _ = config.tcp_user_timeout(UNACKNOWLEDGED),
        // Zero means the system's own limit.
        Some(0) => {}
        Some(milliseconds) => _ = config.tcp_user_timeout(Duration::from_millis(milliseconds)),
    }
    // With several hosts, the default is the one that accepts writes: there is nothing to do on another.
    config.target_session_attrs(one_of(
        values,
        "target_session_attrs",
        &[
            ("read-write", TargetSessionAttrs::ReadWrite),
            ("primary", TargetSessionAttrs::ReadWrite),
            ("any", TargetSessionAttrs::Any),
        ],
        TargetSessionAttrs::ReadWrite,
    )?);
    config.channel_binding(one_of(
        values,
        "channel_binding",
        &[
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ],
        ChannelBinding::Prefer,
    )?);
    Ok(config)
}

fn tls(values: &Values, home: Option<&Path>, hosts: &[Host]) -> Result<Tls, Error> {
    let system = values.get("sslrootcert") == Some("system");
    let mode = one_of(
        values,
        "sslmode",
        &[
            ("disable", Mode::Disable),
            ("allow", Mode::Allow),
            ("prefer", Mode::Prefer),
            ("require", Mode::Require),
            ("verify-ca", Mode::VerifyCa),
            ("verify-full", Mode::VerifyFull),
        ],
        if system { Mode::VerifyFull } else { Mode::Prefer },
    )?;
    // A named file must exist, where libpq sometimes does without. Files in the home directory are optional.
    let file = |name: &str, own: &str| -> Option<PathBuf> {
        let default = || Some(home?.join(".postgresql").join(own)).filter(|file| file.exists());
        values.get(name).map(PathBuf::from).or_else(default)
    };
    let roots = match file("sslrootcert", "root.crt") {
        Some(_) if system => Roots::System,
        Some(file) => Roots::File(file),
        None => Roots::None,
    };
    let direct = one_of(values, "sslnegotiation", &[("postgres", false), ("direct", true)], false)?;
    let sni = one_of(values, "sslsni", &[("1", true), ("0", false)], true)?;
    let with_certificate = one_of(values, "sslcertmode", &[("allow", true), ("disable", false)], true)?;
    let versions = versions(values)?;
    let refused = |why: &str| Err(Error::Options(why.into()));
    let verifies = matches!(mode, Mode::VerifyCa | Mode::VerifyFull);
    if verifies && roots == Roots::None && !hosts.iter().all(Host::is_socket) {
        return refused(
            "sslmode verify-ca and verify-full need the certificate of the CA that signed the server's: name its file in \
             sslrootcert (PGSSLROOTCERT), put it into ~/.postgresql/root.crt, or take the system's by sslrootcert=system",
        );
    }
    if system && mode != Mode::VerifyFull {
        return refused(
            "sslrootcert=system needs sslmode=verify-full: anyone can have a certificate of a public CA",
        );
    }
    let unnamed = || values.get("host").is_none_or(|hosts| hosts.split(',').any(str::is_empty));
    if mode == Mode::VerifyFull && values.get("hostaddr").is_some() && unnamed() {
        return refused(
            "sslmode=verify-full needs the host's name besides hostaddr: the certificate is for the name",
        );
    }
    if direct && matches!(mode, Mode::Disable | Mode::Allow | Mode::Prefer) {
        return refused("sslnegotiation=direct needs sslmode require, verify-ca or verify-full");
    }
    let identity = match file("sslcert", "postgresql.crt").filter(|_| with_certificate) {
        None => None,
        Some(certificate) => match file("sslkey", "postgresql.key") {
            Some(key) => Some((certificate, key)),
            None => {
                return Err(Error::Options(format!(
                    "there is a client certificate, {}, and no key to it: name its file in sslkey (PGSSLKEY)",
                    certificate.display()
                )));
            }
        },
    };
    // The revocation list in the home directory covers the CA in the home directory. It doesn't cover the system's CAs,
    // and it is ignored if `sslcrldir` names other lists.
    let elsewhere = system || values.get("sslcrldir").is_some();
    let own_crl = file("sslcrl", "root.crl").filter(|_| !elsewhere || values.get("sslcrl").is_some());
    let revoked = Revoked { file: own_crl, folder: values.get("sslcrldir").map(PathBuf::from) };
    if roots == Roots::None && (values.get("sslcrl").is_some() || values.get("sslcrldir").is_some()) {
        return refused("sslcrl and sslcrldir need sslrootcert: no certificate is verified without it");
    }
    Ok(Tls { mode, roots, revoked, identity, versions, sni, direct })
}

/// Returns the TLS versions between the two bounds. Versions before 1.2 are never used.
fn versions(values: &Values) -> Result<Vec<&'static SupportedProtocolVersion>, Error> {
    let lowest = [("TLSv1", 2), ("TLSv1.1", 2), ("TLSv1.2", 2), ("TLSv1.3", 3)];
    let least = one_of(values, "ssl_min_protocol_version", &lowest, 2)?;
    let most = one_of(values, "ssl_max_protocol_version", &[("TLSv1.2", 2), ("TLSv1.3", 3)], 3)?;
    let both = [(2, &TLS12), (3, &TLS13)];
    let chosen: Vec<_> =
        both.into_iter().filter(|(n, _)| (least..=most).contains(n)).map(|(_, version)| version).collect();
    if chosen.is_empty() {
        return Err(Error::Options("ssl_min_protocol_version is above ssl_max_protocol_version".into()));
    }
    Ok(chosen)
}

/// Returns the meaning of an option that takes one of a few words.
fn one_of<T: Copy>(values: &Values, name: &str, words: &[(&str, T)], default: T) -> Result<T, Error> {
    let Some(value) = values.get(name) else { return Ok(default) };
    let meaning = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
    meaning.ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let words = words.join(", ");
        Error::Options(format!("{} is none of those that are known: {words}", label(name)))
    })
}

/// Reads a number. A negative one becomes 0.
fn number(values: &Values, name: &str) -> Result<Option<u64>, Error> {
    let number =
        values.get(name).map(|value| parsed::<i64>(name, value.trim(), "whole number")).transpose()?;
    Ok(number.map(|number| u64::try_from(number).unwrap_or(0)))
}

fn parsed<T: FromStr>(name: &str, value: &str, what: &str) -> Result<T, Error> {
    value.parse().map_err(|_| Error::Options(format!("{} is no {what}", label(name))))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
