//! The password file, as libpq reads it (section 34.16 of the manual): lines of `host:port:database:user:password`.

use std::fs::{self, Metadata};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tracing::warn;

/// Folders that count as "localhost", as libpq calls the folder of the server's Unix socket. libpq gets its folder at
/// build time. These are the folders of Debian and of `PostgreSQL` itself.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Login that a password is looked up for.
pub(crate) struct Login<'l> {
    pub(crate) host: &'l str,
    pub(crate) port: u16,
    pub(crate) database: &'l str,
    pub(crate) user: &'l str,
}

/// Returns the password for a login, from the first line that matches. A missing file has none. A file that others can
/// read is ignored with a warning.
pub(crate) fn look_up(file: &Path, login: &Login) -> Option<String> {
    // As in libpq, a file that can't be examined counts as missing: a service may have no access to its home directory.
    let attributes = fs::metadata(file).ok()?;
    if !attributes.is_file() {
        warn!("the password file {} is ignored: it is not a plain file", file.display());
        return None;
    }
    if gives_others_access(&attributes) {
        warn!(
            "the password file {0} is ignored because group or others have access to it: chmod 600 {0}",
            file.display()
        );
        return None;
    }
    match fs::read(file) {
        // A line in another encoding is no reason to ignore the lines that match.
        Ok(text) => find(&String::from_utf8_lossy(&text), login),
        Err(error) => {
            warn!("the password file {} is ignored because it cannot be read: {error}", file.display());
            None
        }
    }
}

/// Whether [`look_up`] ignores the file because others have access to it.
pub(crate) fn is_open_to_others(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|attributes| attributes.is_file() && gives_others_access(&attributes))
}

fn gives_others_access(attributes: &Metadata) -> bool {
    attributes.permissions().mode() & 0o077 != 0
}

fn find(text: &str, login: &Login) -> Option<String> {
    let port = login.port.to_string();
    let host = if SOCKET_FOLDERS.contains(&login.host) { "localhost" } else { login.host };
    text.lines()
        .map(|line| line.trim_end_matches(['\r', '\n']))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .find_map(|line| {
            let rest = [host, &*port, login.database, login.user]
                .iter()
                .try_fold(line, |rest, value| after_field(rest, value))?;
            Some(password(rest))
        })
}

/// Returns the rest of `line` after its first field, if that field is `*` or `value`. As in libpq, the field ends where
/// the value ends, so an IPv6 address needs no backslashes.
fn after_field<'l>(line: &'l str, value: &str) -> Option<&'l str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let (mut value, mut line) = (value.chars(), line.chars());
    loop {
        let character = match line.next()? {
            ':' if value.as_str().is_empty() => return Some(line.as_str()),
            '\\' => line.next()?,
            other => other,
        };
        if value.next()? != character {
            return None;
        }
    }
}

/// Returns the password at the start of `line`. It ends at a colon without a backslash before it.
fn password(line: &str) -> String {
    let mut password = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => break,
            '\\' => password.push(characters.next().unwrap_or('\\')),
            other => password.push(other),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<String> {
        find(text, &Login { host: "h:1", port: 5432, database: "d", user: r"u\v" })
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        for (text, expected) in [
            ("", None),
            (r"h\:1:5432:d:u\\v:secret", Some("secret")),
            ("*:*:*:*:secret", Some("secret")),
            ("*:5433:*:*:a\n*:5432:*:*:b\n*:*:*:*:c", Some("b")),
            ("# *:*:*:*:a\n\n*:*:*:*:b\r\n", Some("b")),
            ("*:*:other:*:a", None),
            ("*:*:*:*", None),
            ("h:1:5432:d:u:a", None),
            (r"h:1:5432:d:u\\v:a", Some("a")),
            (r"h:1", None),
            // A star matches anything only if it is the whole field.
            ("h*:*:*:*:a", None),
            // The password also ends at a colon, unless the colon is escaped.
            (r"*:*:*:*:a\:b\\c:d", Some(r"a:b\c")),
            (r"*:*:*:*:a\", Some(r"a\")),
            ("*:*:*:*: a #b ", Some(" a #b ")),
        ] {
            assert_eq!(found(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_folder_of_the_socket_is_localhost() {
        let login = Login { host: "/var/run/postgresql", port: 1, database: "d", user: "u" };
        assert_eq!(find("localhost:1:d:u:secret", &login).as_deref(), Some("secret"));
        assert_eq!(find("localhost:1:d:u:secret", &Login { host: "/run/other", ..login }), None);
    }

    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        let file = std::env::temp_dir().join(format!("pg_mask-passfile-{}", std::process::id()));
        let login = Login { host: "h", port: 1, database: "d", user: "u" };
        fs::write(&file, b"# \xe9\n*:*:*:*:secret").unwrap();
        for (mode, expected) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(look_up(&file, &login).is_some(), expected, "{mode:o}");
            assert_eq!(is_open_to_others(&file), !expected, "{mode:o}");
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(look_up(&file, &login), None);
        assert_eq!(look_up(&std::env::temp_dir(), &login), None);
    }
}
