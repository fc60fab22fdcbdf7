use super::*;

fn with(url: Option<&str>, env: &[(&str, &str)]) -> Result<Config, Error> {
    resolve(url, |name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

#[test]
fn without_anything_it_is_localhost() {
    let config = with(None, &[]).unwrap();
    assert_eq!(servers(&config), "localhost:5432");
    assert_eq!(config.get_user(), None);
    assert_eq!(config.get_dbname(), None);
    assert_eq!(config.get_application_name(), Some("pg_mask loader"));
    assert_eq!(config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
    assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
}

#[test]
fn of_several_hosts_the_one_that_takes_writes_is_chosen() {
    for (url, env) in [
        (None, None),
        (Some("postgres://h1,h2/d"), None),
        (Some("postgres://h1,h2/d?target_session_attrs=primary"), Some("any")),
        (None, Some("primary")),
    ] {
        let env: Vec<_> = env.map(|value| ("PGTARGETSESSIONATTRS", value)).into_iter().collect();
        assert_eq!(with(url, &env).unwrap().get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }
    let any = with(None, &[("PGTARGETSESSIONATTRS", "any")]).unwrap();
    assert_eq!(any.get_target_session_attrs(), TargetSessionAttrs::Any);
    assert!(with(None, &[("PGTARGETSESSIONATTRS", "standby")]).is_err());
}

#[test]
fn variables_say_what_the_url_does_not() {
    let env = [
        ("PGHOST", "h1,/run/pg"),
        ("PGPORT", "6000"),
        ("PGUSER", "u"),
        ("PGPASSWORD", "p"),
        ("PGDATABASE", "d"),
        ("PGAPPNAME", "a"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("PGOPTIONS", "-c work_mem=1MB"),
        ("PGSSLMODE", "disable"),
    ];
    let config = with(None, &env).unwrap();
    assert_eq!(servers(&config), "h1:6000, /run/pg:6000");
    assert_eq!(config.get_user(), Some("u"));
    assert_eq!(config.get_password(), Some(b"p".as_slice()));
    assert_eq!(config.get_dbname(), Some("d"));
    assert_eq!(config.get_application_name(), Some("a"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_options(), Some("-c work_mem=1MB"));
    assert_eq!(config.get_ssl_mode(), SslMode::Disable);

    let url = "postgres://v:q@h9/e?application_name=b&connect_timeout=4&sslmode=prefer";
    let config = with(Some(url), &env).unwrap();
    assert_eq!(servers(&config), "h9:6000");
    assert_eq!(config.get_user(), Some("v"));
    assert_eq!(config.get_password(), Some(b"q".as_slice()));
    assert_eq!(config.get_dbname(), Some("e"));
    assert_eq!(config.get_application_name(), Some("b"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(4)));
    assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
}

#[test]
fn a_port_in_the_url_wins() {
    for (url, expected) in [
        ("postgres://h:1/d", "h:1"),
        ("postgres://h/d", "h:7"),
        ("postgres://u:p@h", "h:7"),
        ("postgresql://h1,h2:2/d", "h1:7, h2:2"),
        ("postgres://[::1]/d", "::1:7"),
        ("postgres://[::1]:3/d", "::1:3"),
        ("postgres:///d?host=h", "h:7"),
        ("host=h user=u", "h:7"),
        ("host=h port=4", "h:4"),
    ] {
        assert_eq!(servers(&with(Some(url), &[("PGPORT", "7")]).unwrap()), expected, "{url}");
    }
}

#[test]
fn tls_is_refused_and_what_works_without_it_is_not() {
    for mode in ["require", "verify-ca", "verify-full"] {
        for (url, env) in [
            (Some(format!("postgres://h/d?sslmode={mode}")), None),
            (Some(format!("host=h sslmode={mode}")), None),
            (None, Some(mode)),
        ] {
            let env: Vec<_> = env.map(|mode| ("PGSSLMODE", mode)).into_iter().collect();
            let error = with(url.as_deref(), &env).err().unwrap();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(&format!("sslmode {mode} asks for TLS")), "{error}");
        }
    }
    for mode in ["disable", "allow", "prefer"] {
        with(Some(&format!("postgres://h/d?sslmode={mode}")), &[("PGSSLMODE", "require")]).unwrap();
        with(None, &[("PGSSLMODE", mode)]).unwrap();
    }
}

#[test]
fn bad_values_are_refused_without_a_secret_in_the_message() {
    for url in [
        "postgres://u:hunter2@h:hunter2/d",
        "postgres://u:hunter2@h/d?hunter2=x",
        "postgres://u:x@hunter2@h/d",
        "postgres://u:hunter2@h/d?sslrootcert=/hunter2",
        "host=h password=a hunter2=b",
        "host=h password='hunter2",
        "hunter2",
    ] {
        let error = with(Some(url), &[]).err().unwrap_or_else(|| panic!("{url} was taken"));
        assert_eq!(error.exit_code(), 2);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    for name in ["PGPORT", "PGCONNECT_TIMEOUT", "PGSSLMODE"] {
        assert!(with(None, &[(name, "hunter2")]).err().unwrap().to_string().contains(name));
    }
}

#[test]
fn a_password_can_be_in_a_file_and_a_given_one_goes_before_it() {
    let file = std::env::temp_dir().join(format!("pg_mask-password-{}", std::process::id()));
    let variable = ("PGPASSWORD_FILE", file.to_str().unwrap());
    let password = |config: Config| config.get_password().map(<[u8]>::to_vec);

    std::fs::write(&file, " of file\n").unwrap();
    assert_eq!(password(with(None, &[variable]).unwrap()).unwrap(), b" of file");
    assert_eq!(password(with(None, &[variable, ("PGPASSWORD", "p")]).unwrap()).unwrap(), b"p");
    assert_eq!(password(with(Some("postgres://u:url@h/d"), &[variable]).unwrap()).unwrap(), b"url");

    std::fs::write(&file, "\n").unwrap();
    let empty = with(None, &[variable]).unwrap_err().to_string();
    std::fs::remove_file(&file).unwrap();
    let missing = with(None, &[variable]).unwrap_err().to_string();
    for (error, why) in [(empty, "is empty"), (missing, "cannot be read")] {
        assert!(error.contains("PGPASSWORD_FILE") && error.contains(why), "{error}");
    }
}
