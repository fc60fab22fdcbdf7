//! The connection service file, as libpq reads it (section 34.17 of the manual): options under the name of a service.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::options::Values;

/// Folder where libpq looks last, unless `PGSYSCONFDIR` names another. It is set when libpq is built. This is Debian's.
const SYSTEM_FOLDER: &str = "/etc/postgresql-common";

/// Returns the options of the service that `values` or `PGSERVICE` names. If neither names one, there are none.
pub(crate) fn read(values: &Values, env: &impl Fn(&str) -> Option<String>) -> Result<Values, Error> {
    let Some(service) = values.get("service").map(str::to_owned).or_else(|| env("PGSERVICE")) else {
        return Ok(Values::default());
    };
    let named = values.get("servicefile").map(str::to_owned).or_else(|| env("PGSERVICEFILE"));
    let own = env("HOME").map(|home| Path::new(&home).join(".pg_service.conf"));
    let system = env("PGSYSCONFDIR").unwrap_or_else(|| SYSTEM_FOLDER.to_owned());
    let files = [
        named.as_ref().map(PathBuf::from).or(own.filter(|file| file.exists())),
        Some(Path::new(&system).join("pg_service.conf")).filter(|file| file.exists()),
    ];
    let files: Vec<PathBuf> = files.into_iter().flatten().collect();
    for file in &files {
        let text = fs::read_to_string(file).map_err(|error| {
            Error::File(format!("the service file {} cannot be read: {error}", file.display()))
        })?;
        let found = find(&text, &service)
            .map_err(|(line, what)| Error::File(format!("{}, line {line}: {what}", file.display())))?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    Err(Error::File(format!(
        "there is no service {service} (PGSERVICE) in {}: it is a line [{service}] with lines option=value below it",
        if files.is_empty() { "~/.pg_service.conf".into() } else { files.join(" or ") }
    )))
}

/// Returns the options of a service, if `text` has it. An error holds a line's number, but never quotes the line, which
/// may hold a password.
fn find(text: &str, service: &str) -> Result<Option<Values>, (usize, &'static str)> {
    let mut found: Option<Values> = None;
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(heading) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            // As in libpq, text may follow the bracket.
            let is_it = heading.strip_prefix(service).is_some_and(|rest| rest.starts_with(']'));
            found = is_it.then(Values::default);
            continue;
        }
        let Some(values) = &mut found else { continue };
        let wrong = |what| Err((i + 1, what));
        if line.starts_with("ldap") {
            return wrong("services are not looked up by LDAP: write its options down");
        }
        let Some((name, value)) = line.split_once('=') else { return wrong("it is not option=value") };
        if name == "service" || name == "servicefile" {
            return wrong("a service cannot be another one");
        }
        // The first line that sets an option counts.
        let mut this = Values::default();
        if !this.set(name, value.to_owned()) {
            return wrong("it sets an option that PostgreSQL does not have (there is no space before the =)");
        }
        values.fill_in_all(this);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
# services
[a]
host=h1
port=1
port=2

[b]
  host=h2
password= with = and spaces
[c]
nosuch=hunter2
[d]
hunter2
[e]
service=a
[f]
ldap://hunter2
";

    fn get(service: &str, name: &str) -> Option<String> {
        find(FILE, service).unwrap().unwrap().get(name).map(str::to_owned)
    }

    #[test]
    fn a_service_has_the_options_below_its_name() {
        assert_eq!(get("a", "host").as_deref(), Some("h1"));
        assert_eq!(get("a", "port").as_deref(), Some("1"), "the first one counts");
        assert_eq!(get("b", "host").as_deref(), Some("h2"));
        assert_eq!(get("b", "password").as_deref(), Some(" with = and spaces"));
        assert_eq!(get("b", "port"), None);
        assert!(find(FILE, "g").unwrap().is_none());
    }

    #[test]
    fn a_wrong_line_is_told_by_its_number_alone() {
        for (service, line) in [("c", 12), ("d", 14), ("e", 16), ("f", 18)] {
            let (number, what) = find(FILE, service).err().unwrap();
            assert_eq!(number, line, "{what}");
        }
    }

    #[test]
    fn files_are_looked_into_in_libpqs_order() {
        let folder = std::env::temp_dir().join(format!("pg_mask-service-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let file = folder.join(name);
            fs::write(&file, text).unwrap();
            file.to_str().unwrap().to_owned()
        };
        let home = folder.to_str().unwrap().to_owned();
        file(".pg_service.conf", "[a]\nhost=own");
        file("pg_service.conf", "[a]\nhost=system\n[b]\nhost=system");
        let named = file("named", "[a]\nhost=named");
        let host = |service: &str, further: &[(&str, &str)]| {
            let env = |name: &str| {
                let given = [("PGSERVICE", service), ("HOME", &*home), ("PGSYSCONFDIR", &*home)];
                given
                    .iter()
                    .chain(further)
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            };
            read(&Values::default(), &env)
                .map(|values| values.get("host").unwrap().to_owned())
                .map_err(|error| error.to_string())
        };
        assert_eq!(host("a", &[]).unwrap(), "own");
        assert_eq!(host("b", &[]).unwrap(), "system");
        assert_eq!(host("a", &[("PGSERVICEFILE", &named)]).unwrap(), "named");
        assert_eq!(host("b", &[("PGSERVICEFILE", &named)]).unwrap(), "system");
        let nowhere = host("c", &[]).unwrap_err();
        assert!(nowhere.contains("no service c") && nowhere.contains(".pg_service.conf"), "{nowhere}");
        let missing = host("a", &[("PGSERVICEFILE", "/nowhere")]).unwrap_err();
        assert!(missing.contains("/nowhere cannot be read"), "{missing}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
