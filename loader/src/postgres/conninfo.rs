//! A connection string: a URI or `key=value` pairs, read as libpq reads them (`PQconnectdb`, section 34.1.1 of the manual).

use super::options::Values;

/// What is wrong with a connection string. Being a literal it cannot quote any of it: whatever stands in the string may be
/// a piece of a password that was not quoted.
pub(super) type Wrong = &'static str;

const UNKNOWN: Wrong = "it has an option that is none of PostgreSQL's";

/// Reads either form.
pub(super) fn parse(text: &str) -> Result<Values, Wrong> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => parse_uri(rest),
        None => parse_pairs(text),
    }
}

/// What comes after `postgresql://`: `[user[:password]@][host[:port],…][/database][?option=value&…]`.
fn parse_uri(rest: &str) -> Result<Values, Wrong> {
    let mut values = Values::default();
    let mut set = |name: &str, encoded: &str| {
        let known = encoded.is_empty() || values.set(name, decode(encoded)?);
        if known { Ok(()) } else { Err(UNKNOWN) }
    };
    let rest = match rest.find(['@', '/']) {
        Some(at) if rest[at..].starts_with('@') => {
            let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
            set("user", user)?;
            set("password", password)?;
            &rest[at + 1..]
        }
        _ => rest,
    };
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // libpq would look for a host or a database of that name, and say it in a message.
    if rest.contains('@') {
        return Err(
            "there is an @ behind the first one or behind a /. In a user or a password, @ is written %40 and / %2F",
        );
    }
    let (servers, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (hosts, ports) = hosts_and_ports(servers)?;
    set("host", &hosts)?;
    set("port", &ports)?;
    set("dbname", database)?;
    for parameter in parameters.split_terminator('&') {
        let (name, value) = parameter.split_once('=').ok_or("behind the ? there is something without a =")?;
        if value.contains('=') {
            return Err("behind the ? there is an option with two =");
        }
        let (name, value) = (decode(name)?, decode(value)?);
        // As JDBC says it.
        let (name, value) = if name == "ssl" && value == "true" {
            ("sslmode", "require".to_owned())
        } else {
            (&*name, value)
        };
        if !values.set(name, value) {
            return Err(UNKNOWN);
        }
    }
    Ok(values)
}

/// Lists of all hosts and all ports, still encoded. Where no port is said there is no list of them.
fn hosts_and_ports(servers: &str) -> Result<(String, String), Wrong> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for server in servers.split(',') {
        let (host, port) = match server.strip_prefix('[') {
            Some(address) => {
                let (address, rest) = address.split_once(']').ok_or("an IPv6 address lacks its ]")?;
                let port = rest.strip_prefix(':').or(rest.is_empty().then_some(""));
                if address.is_empty() {
                    return Err("an IPv6 address is empty");
                }
                (address, port.ok_or("something other than a port follows an IPv6 address")?)
            }
            None => server.split_once(':').unwrap_or((server, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    Ok((hosts.join(","), ports.join(",")))
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, Wrong> {
    const WRONG: Wrong = "a % is not followed by two hexadecimal digits. A % itself is written %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (digit().ok_or(WRONG)?, digit().ok_or(WRONG)?) {
            (0, 0) => return Err("%00 cannot stand in it"),
            (high, low) => bytes.push(high << 4 | low),
        }
    }
    String::from_utf8(bytes).map_err(|_| "what it encodes is not UTF-8")
}

/// `name = value` pairs with spaces between them; a value may stand in quotes, and a backslash takes what follows literally.
fn parse_pairs(text: &str) -> Result<Values, Wrong> {
    let mut values = Values::default();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let (name, behind) =
            rest.split_once('=').ok_or("it is no URL, and there is something without a =")?;
        let name = name.trim_end_matches(is_space);
        if name.contains(is_space) {
            return Err("there is something without a =. A value with spaces stands in ' quotes");
        }
        let (value, behind) = value(behind.trim_start_matches(is_space))?;
        if !values.set(name, value) {
            return Err(UNKNOWN);
        }
        rest = behind.trim_start_matches(is_space);
    }
    Ok(values)
}

/// The value that `text` begins with, and what comes after it.
fn value(text: &str) -> Result<(String, &str), Wrong> {
    let inner = text.strip_prefix('\'');
    let mut value = String::new();
    let mut characters = inner.unwrap_or(text).chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' if inner.is_some() => return Ok((value, characters.as_str())),
            '\\' => value.extend(characters.next()),
            space if inner.is_none() && is_space(space) => return Ok((value, characters.as_str())),
            other => value.push(other),
        }
    }
    if inner.is_some() { Err("a ' quote is not closed") } else { Ok((value, "")) }
}

/// As C's `isspace`.
fn is_space(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\u{b}'
}

#[cfg(test)]
#[path = "conninfo_tests.rs"]
mod tests;
