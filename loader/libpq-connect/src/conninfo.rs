//! A connection string: a URI or `key=value` pairs, read as libpq reads them (`PQconnectdb`, section 34.1.1 of the manual).

use crate::options::Values;

/// Error in a connection string. As a literal it can't quote the string, any part of which may be a piece of an
/// unquoted password.
pub(crate) type ParseError = &'static str;

const UNKNOWN: ParseError = "it has an option that PostgreSQL does not have";

/// Parses a URI or `key=value` pairs.
pub(crate) fn parse(text: &str) -> Result<Values, ParseError> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => parse_uri(rest),
        None => parse_pairs(text),
    }
}

/// Parses the part after `postgresql://`: `[user[:password]@][host[:port],…][/database][?option=value&…]`.
fn parse_uri(rest: &str) -> Result<Values, ParseError> {
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
    // libpq would look up a host or a database with that name, and print it in a message.
    if rest.contains('@') {
        return Err(
            "it has a second @, or an @ after a /. In a user or a password, write @ as %40 and / as %2F",
        );
    }
    let (servers, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (hosts, ports) = hosts_and_ports(servers)?;
    set("host", &hosts)?;
    set("port", &ports)?;
    set("dbname", database)?;
    for parameter in parameters.split_terminator('&') {
        let (name, value) = parameter.split_once('=').ok_or("a parameter after the ? has no =")?;
        if value.contains('=') {
            return Err("an option after the ? has two =");
        }
        let (name, value) = (decode(name)?, decode(value)?);
        // JDBC's spelling.
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

/// Returns the hosts and the ports, each separated by commas and still encoded. A host without a port has an empty one.
fn hosts_and_ports(servers: &str) -> Result<(String, String), ParseError> {
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
fn decode(text: &str) -> Result<String, ParseError> {
    const WRONG: ParseError = "a % is not followed by two hexadecimal digits. Write a % itself as %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (digit().ok_or(WRONG)?, digit().ok_or(WRONG)?) {
            (0, 0) => return Err("it has a %00, which is not allowed"),
            (high, low) => bytes.push(high << 4 | low),
        }
    }
    String::from_utf8(bytes).map_err(|_| "a value is not UTF-8 after percent-decoding")
}

/// Parses `name = value` pairs, separated by spaces. A value may be in single quotes. A backslash takes the next
/// character literally.
fn parse_pairs(text: &str) -> Result<Values, ParseError> {
    let mut values = Values::default();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=').ok_or("it is not a URL, and a part of it has no =")?;
        let name = name.trim_end_matches(is_space);
        if name.contains(is_space) {
            return Err("a part of it has no =. Put a value with spaces into ' quotes");
        }
        let (value, behind) = value(behind.trim_start_matches(is_space))?;
        if !values.set(name, value) {
            return Err(UNKNOWN);
        }
        rest = behind.trim_start_matches(is_space);
    }
    Ok(values)
}

/// Returns the value at the start of `text`, and the rest.
fn value(text: &str) -> Result<(String, &str), ParseError> {
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

/// Whether C's `isspace` accepts the character.
fn is_space(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\u{b}'
}

#[cfg(test)]
#[path = "conninfo_tests.rs"]
mod tests;
