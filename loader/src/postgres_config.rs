//! Where the database is: `DATABASE_URL`, and for what that does not say the PG* variables as libpq reads
//! them.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use tokio_postgres::config::{Config, Host, SslMode, TargetSessionAttrs};

use crate::error::Error;

/// How long to wait for one host to answer, unless `PGCONNECT_TIMEOUT` or the URL says.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sent data may go unacknowledged before the connection counts as dead: a host that has vanished
/// would otherwise hold a batch for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);

/// How long a connection may be silent before it is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Options that libpq has in its URLs and tokio-postgres does not. Only these are ever named in an error:
/// what stands in the place of an option's name may be a piece of a password that was not quoted.
const NOT_YET: [&str; 12] = [
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "ssl_min_protocol_version",
    "passfile",
    "service",
    "require_auth",
    "requirepeer",
    "gssencmode",
    "krbsrvname",
];

/// Puts the connection's settings together. `env` looks a variable up.
///
/// The errors never quote the URL: it may hold a password.
pub(crate) fn resolve(url: Option<&str>, env: impl Fn(&str) -> Option<String>) -> Result<Config, Error> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let mut config = match url {
        Some(url) => parse(url, env("PGPORT").as_deref())?,
        None => Config::new(),
    };
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let hosts = env("PGHOST").unwrap_or_else(|| "localhost".to_owned());
        hosts.split(',').for_each(|host| _ = config.host(host));
    }
    if config.get_ports().is_empty()
        && let Some(ports) = env("PGPORT")
    {
        for port in ports.split(',') {
            let port = port.parse().map_err(|_| Error::Config("PGPORT is no port number".into()))?;
            config.port(port);
        }
    }
    if config.get_user().is_none()
        && let Some(user) = env("PGUSER")
    {
        config.user(user);
    }
    if config.get_password().is_none() {
        if let Some(password) = env("PGPASSWORD") {
            config.password(password);
        } else if let Some(file) = env("PGPASSWORD_FILE") {
            config.password(password_in(&file)?);
        }
    }
    if config.get_dbname().is_none()
        && let Some(database) = env("PGDATABASE")
    {
        config.dbname(database);
    }
    if config.get_application_name().is_none() {
        config.application_name(env("PGAPPNAME").unwrap_or_else(|| "pg_mask loader".to_owned()));
    }
    if config.get_options().is_none()
        && let Some(options) = env("PGOPTIONS")
    {
        config.options(options);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(connect_timeout(env("PGCONNECT_TIMEOUT"))?);
    }
    if !url.is_some_and(|url| url.contains("target_session_attrs=")) {
        config.target_session_attrs(session_attrs(env("PGTARGETSESSIONATTRS").as_deref())?);
    }
    if !url.is_some_and(|url| url.contains("keepalives")) {
        // A connection that says nothing for so long is asked whether it is there: libpq leaves that to the system's two
        // hours.
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 3).keepalives_retries(3);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED);
    }
    if !url.is_some_and(|url| url.contains("sslmode=")) {
        config.ssl_mode(ssl_mode(env("PGSSLMODE").as_deref().unwrap_or("prefer"))?);
    }
    check(&config)?;
    Ok(config)
}

/// The servers as `host:port`, for messages.
pub(crate) fn servers(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(5432);
    let mut text = String::new();
    let addresses = config.get_hostaddrs();
    for i in 0..config.get_hosts().len().max(addresses.len()) {
        let separator = if i == 0 { "" } else { ", " };
        let host = match (config.get_hosts().get(i), addresses.get(i)) {
            (Some(Host::Tcp(host)), _) => host.clone(),
            (Some(Host::Unix(path)), _) => path.display().to_string(),
            (None, Some(address)) => address.to_string(),
            (None, None) => String::new(),
        };
        // Writing into a String does not fail.
        _ = write!(text, "{separator}{host}:{}", port(i));
    }
    text
}

/// The password that `file` holds, as container secrets do: the whole of it, but for a line feed at its end.
fn password_in(file: &str) -> Result<String, Error> {
    let mut password = fs::read_to_string(file)
        .map_err(|e| Error::Config(format!("PGPASSWORD_FILE: {file} cannot be read: {e}")))?;
    password.truncate(password.trim_end_matches(['\r', '\n']).len());
    if password.is_empty() {
        return Err(Error::Config(format!("PGPASSWORD_FILE: {file} is empty")));
    }
    Ok(password)
}

fn parse(url: &str, default_port: Option<&str>) -> Result<Config, Error> {
    // libpq knows it by this name, too.
    if url.contains("target_session_attrs=primary") {
        return parse(
            &url.replace("target_session_attrs=primary", "target_session_attrs=read-write"),
            default_port,
        );
    }
    for (mode, known) in [("verify-ca", false), ("verify-full", false), ("allow", true)] {
        let option = format!("sslmode={mode}");
        if url.contains(&option) && url.parse::<Config>().is_err() {
            // libpq's "allow" is: plain, unless the server insists on TLS.
            return if known {
                parse(&url.replace(&option, "sslmode=disable"), default_port)
            } else {
                Err(no_tls(mode))
            };
        }
    }
    with_port(url, default_port).parse().map_err(|_| {
        let unknown: Vec<_> = NOT_YET.into_iter().filter(|name| url.contains(&format!("{name}="))).collect();
        if unknown.is_empty() {
            Error::Config(
                "--database-url (DATABASE_URL) cannot be read. It is \
                 postgres://user:password@host:port/database, with @ : / ? # % and spaces in user and \
                 password percent-encoded, or key=value pairs"
                    .into(),
            )
        } else {
            Error::Config(format!(
                "--database-url (DATABASE_URL) has options that the loader does not know: {}. Leave them out",
                unknown.join(", ")
            ))
        }
    })
}

/// Writes `port` into a URL that names hosts without a port: tokio-postgres would take 5432 for said.
fn with_port(url: &str, port: Option<&str>) -> String {
    let Some(port) = port.filter(|port| port.parse::<u16>().is_ok()) else { return url.to_owned() };
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (credentials, rest) = match rest.split_once('@') {
        Some((credentials, rest)) => (format!("{credentials}@"), rest),
        None => (String::new(), rest),
    };
    let (hosts, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if hosts.is_empty() {
        return url.to_owned();
    }
    let hosts: Vec<String> = hosts
        .split(',')
        .map(|host| {
            let has_port = host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':');
            if has_port { host.to_owned() } else { format!("{host}:{port}") }
        })
        .collect();
    format!("{scheme}://{credentials}{}{tail}", hosts.join(","))
}

fn connect_timeout(seconds: Option<String>) -> Result<Duration, Error> {
    let Some(seconds) = seconds else { return Ok(CONNECT_TIMEOUT) };
    match seconds.parse::<u64>() {
        Ok(0) => Ok(CONNECT_TIMEOUT),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => Err(Error::Config("PGCONNECT_TIMEOUT is no number of seconds".into())),
    }
}

/// Of several hosts the one that takes writes, unless told otherwise: there is nothing to do on another.
fn session_attrs(name: Option<&str>) -> Result<TargetSessionAttrs, Error> {
    match name {
        None | Some("read-write" | "primary") => Ok(TargetSessionAttrs::ReadWrite),
        Some("any") => Ok(TargetSessionAttrs::Any),
        Some(_) => Err(Error::Config(
            "PGTARGETSESSIONATTRS is none of read-write, primary, any: the loader writes".into(),
        )),
    }
}

fn ssl_mode(name: &str) -> Result<SslMode, Error> {
    match name {
        "disable" | "allow" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        "require" | "verify-ca" | "verify-full" => Err(no_tls(name)),
        _ => Err(Error::Config("PGSSLMODE is none of disable, allow, prefer".into())),
    }
}

fn no_tls(mode: &str) -> Error {
    Error::Config(format!(
        "sslmode {mode} asks for TLS, which the loader does not have yet: connect over a private network or \
         a tunnel with sslmode=disable or prefer"
    ))
}

fn check(config: &Config) -> Result<(), Error> {
    if config.get_ssl_mode() == SslMode::Require {
        return Err(no_tls("require"));
    }
    // `postgres://user:p@ss@host/` makes the host "ss@host", which messages would then print.
    if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
        return Err(Error::Config(
            "--database-url (DATABASE_URL): a host name has an @ in it. In the password, @ is written %40"
                .into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "postgres_config_tests.rs"]
mod tests;
