use std::fs;

use proptest::prelude::*;

use super::*;

fn with(url: Option<&str>, env: &[(&str, &str)]) -> Result<Servers, Error> {
    Servers::resolve(url, "a program", |name| {
        env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

fn refusal(url: Option<&str>, env: &[(&str, &str)]) -> String {
    let error = with(url, env).err().unwrap_or_else(|| panic!("{url:?} and {env:?} were taken"));
    assert!(matches!(error, Error::Options(_) | Error::ConnectionString(_)), "{error}");
    error.to_string()
}

fn password_for(servers: &Servers, host: usize) -> Result<Option<String>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(servers.password.of(servers, &servers.hosts[host]))
}

fn password(servers: &Servers) -> Option<String> {
    password_for(servers, 0).unwrap()
}

#[test]
fn without_anything_it_is_localhost() {
    let servers = with(None, &[]).unwrap();
    assert_eq!(servers.to_string(), "localhost:5432");
    assert_eq!(servers.user, whoami::username().unwrap());
    assert_eq!(servers.database, servers.user);
    assert_eq!(servers.config.get_application_name(), Some("a program"));
    assert_eq!(servers.config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
    assert_eq!(servers.config.get_tcp_user_timeout(), Some(&UNACKNOWLEDGED));
    assert_eq!(servers.config.get_keepalives_idle(), KEEPALIVE);
    assert_eq!((servers.tls.mode, &servers.tls.roots), (Mode::Prefer, &Roots::None));
    assert_eq!(password(&servers), None);
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
        let servers = with(url, &env).unwrap();
        assert_eq!(servers.config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }
    let any = with(None, &[("PGTARGETSESSIONATTRS", "any")]).unwrap();
    assert_eq!(any.config.get_target_session_attrs(), TargetSessionAttrs::Any);
    assert!(refusal(None, &[("PGTARGETSESSIONATTRS", "standby")]).contains("read-write, primary, any"));
}

#[test]
fn the_string_goes_before_the_service_and_that_before_the_environment() {
    let file = std::env::temp_dir().join(format!("pg_mask-services-{}", std::process::id()));
    fs::write(&file, "[s]\nport=2\nuser=service\npassword=service\noptions=-c service").unwrap();
    let env = [
        ("PGSERVICEFILE", file.to_str().unwrap()),
        ("PGSERVICE", "s"),
        ("PGHOST", "h1,/run/pg"),
        ("PGPORT", "3"),
        ("PGUSER", "environment"),
        ("PGPASSWORD", "environment"),
        ("PGDATABASE", "environment"),
        ("PGAPPNAME", "environment"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("PGOPTIONS", "-c environment"),
        ("PGSSLMODE", "disable"),
    ];
    let servers = with(None, &env).unwrap();
    assert_eq!(servers.to_string(), "h1:2, /run/pg:2");
    assert_eq!((&*servers.user, &*servers.database), ("service", "environment"));
    assert_eq!(password(&servers).as_deref(), Some("service"));
    assert_eq!(servers.config.get_options(), Some("-c service"));
    assert_eq!(servers.config.get_application_name(), Some("environment"));
    assert_eq!(servers.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(servers.tls.mode, Mode::Disable);

    let servers = with(Some("postgres://string:string@h9/?sslmode=prefer&connect_timeout=4"), &env).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(servers.to_string(), "h9:2");
    assert_eq!((&*servers.user, &*servers.database), ("string", "environment"));
    assert_eq!(password(&servers).as_deref(), Some("string"));
    assert_eq!(servers.config.get_connect_timeout(), Some(&Duration::from_secs(4)));
    assert_eq!(servers.tls.mode, Mode::Prefer);
}

#[test]
fn hosts_addresses_and_ports_go_together_as_libpq_has_it() {
    for (url, expected) in [
        ("postgres://h:1/d", "h:1"),
        ("postgres://h/d", "h:7"),
        ("postgres://u:p@h", "h:7"),
        // If one host has a port, the others use the default port, not PGPORT.
        ("postgresql://h1,h2:2/d", "h1:5432, h2:2"),
        ("postgres://[::1]/d", "::1:7"),
        ("postgres://[::1]:3/d", "::1:3"),
        ("postgres:///d?host=h", "h:7"),
        ("host=h user=u", "h:7"),
        ("host=h port=4", "h:4"),
        ("host=a,b port=4", "a:4, b:4"),
        ("host=a,b port=4,", "a:4, b:5432"),
        ("host=a,,b", "a:7, localhost:7, b:7"),
        ("hostaddr=127.0.0.1", "127.0.0.1:7"),
        ("host=a hostaddr=127.0.0.1", "a:7"),
        ("host=a,b hostaddr=,::1", "a:7, b:7"),
        ("host='' port=''", "localhost:5432"),
    ] {
        assert_eq!(with(Some(url), &[("PGPORT", "7")]).unwrap().to_string(), expected, "{url}");
    }
    for url in
        ["host=a,b port=1,2,3", "host=a,b hostaddr=::1", "port=1,2", "hostaddr=h", "port=0x1", "port=65536"]
    {
        refusal(Some(url), &[]);
    }
}

#[test]
fn numbers_are_those_of_libpq() {
    let config = with(
        Some(
            "keepalives_idle=5 keepalives_interval=6 keepalives_count=7 tcp_user_timeout=8 connect_timeout=' 9 '",
        ),
        &[],
    );
    let config = config.unwrap().config;
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(5));
    assert_eq!(config.get_keepalives_interval(), Some(Duration::from_secs(6)));
    assert_eq!(config.get_keepalives_retries(), Some(7));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_millis(8)));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(9)));
    let config = with(Some("keepalives=0 tcp_user_timeout=0 connect_timeout=-1"), &[]).unwrap().config;
    assert!(!config.get_keepalives());
    assert_eq!(config.get_tcp_user_timeout(), None);
    assert_eq!(config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
}

#[test]
fn less_security_than_requested_is_refused() {
    for (url, word) in [
        ("sslmode=verify-ca", "sslrootcert"),
        ("sslmode=verify-full", "sslrootcert"),
        ("sslmode=require sslrootcert=system", "verify-full"),
        ("sslmode=verify-full sslrootcert=f hostaddr=::1", "host's name"),
        ("sslmode=prefer sslnegotiation=direct", "sslnegotiation"),
        ("sslmode=yes", "sslmode (PGSSLMODE)"),
        ("sslcert=c", "sslkey"),
        ("sslcrl=c", "sslrootcert"),
        ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "ssl_max_protocol_version"),
        ("ssl_max_protocol_version=TLSv1.1", "ssl_max_protocol_version (PGSSLMAXPROTOCOLVERSION)"),
        ("require_auth=scram-sha-256", "require_auth (PGREQUIREAUTH)"),
        ("requirepeer=postgres", "requirepeer"),
        ("sslpassword=p", "sslpassword"),
        ("gssencmode=require", "gssencmode (PGGSSENCMODE) is not supported: it takes disable, prefer"),
        ("sslcertmode=require", "sslcertmode"),
        ("channel_binding=yes", "channel_binding"),
    ] {
        let refusal = refusal(Some(url), &[]);
        assert!(refusal.contains(word), "{url}: {refusal}");
    }
    assert!(refusal(None, &[("PGREQUIREAUTH", "none")]).contains("PGREQUIREAUTH"));
    for name in MODES {
        let stricter = [("PGSSLMODE", "verify-full"), ("PGCHANNELBINDING", "require")];
        assert!(refusal(Some(&format!("{name}=''")), &stricter).contains(&format!("{name} (")), "{name}");
        let variable = OPTIONS.iter().find(|option| option.name == name).unwrap().variable.unwrap();
        assert!(refusal(None, &[(variable, "")]).contains("is empty"), "{variable}");
    }
    // These accept an empty value.
    with(Some("sslrootcert='' host=''"), &[("PGPASSWORD", ""), ("PGPORT", "")]).unwrap();
    for url in
        ["gssencmode=prefer", "sslcompression=1 client_encoding=LATIN1", "ssl_min_protocol_version=TLSv1"]
    {
        with(Some(url), &[]).unwrap();
    }
}

#[test]
fn modes_and_files_of_tls_are_libpqs() {
    let home = std::env::temp_dir().join(format!("pg_mask-home-{}", std::process::id()));
    fs::create_dir_all(home.join(".postgresql")).unwrap();
    let own = |name: &str| home.join(".postgresql").join(name);
    let env = [("HOME", home.to_str().unwrap())];
    let tls = |url: &str| with(Some(url), &env).unwrap().tls;
    assert_eq!(tls("sslmode=require").roots, Roots::None);
    assert_eq!(tls("").identity, None);
    for name in ["root.crt", "root.crl", "postgresql.crt", "postgresql.key"] {
        fs::write(own(name), "").unwrap();
    }
    let found = tls("sslmode=require");
    assert_eq!(found.roots, Roots::File(own("root.crt")));
    assert_eq!(found.revoked, Revoked { file: Some(own("root.crl")), folder: None });
    assert_eq!(found.identity, Some((own("postgresql.crt"), own("postgresql.key"))));
    assert_eq!(tls("sslcertmode=disable").identity, None);
    assert_eq!(tls("sslrootcert=f").roots, Roots::File("f".into()));
    assert_eq!(tls("sslcert=c sslkey=k").identity, Some(("c".into(), "k".into())));
    assert_eq!(tls("sslrootcert=system").revoked, Revoked::default());
    let revoked = |file: Option<&str>| Revoked { file: file.map(Into::into), folder: Some("d".into()) };
    assert_eq!(tls("sslrootcert=f sslcrldir=d").revoked, revoked(None));
    assert_eq!(tls("sslrootcert=f sslcrldir=d sslcrl=c").revoked, revoked(Some("c")));
    fs::remove_dir_all(&home).unwrap();

    let system = with(Some("sslrootcert=system"), &[]).unwrap().tls;
    assert_eq!((system.mode, system.roots), (Mode::VerifyFull, Roots::System));
    assert_eq!(with(Some("postgres://h?ssl=true"), &[]).unwrap().tls.mode, Mode::Require);
    assert_eq!(with(None, &[("PGREQUIRESSL", "1")]).unwrap().tls.mode, Mode::Require);
    assert_eq!(tls("ssl_min_protocol_version=TLSv1.3").versions, [&TLS13]);
    assert_eq!(tls("ssl_max_protocol_version=TLSv1.2").versions, [&TLS12]);
    assert_eq!(tls("").versions, [&TLS12, &TLS13]);
}

#[test]
fn bad_values_are_refused_without_a_secret_in_the_message() {
    for url in [
        "postgres://u:hunter2@h:hunter2/d",
        "postgres://u:hunter2@h/d?hunter2=x",
        "postgres://u:x@hunter2@h/d",
        "postgres://u:1/hunter2@h/d",
        "host=h password=a hunter2=b",
        "host=h password=a b@hunter2 user=u",
        "host=h password='hunter2",
        "host=h@hunter2",
        "hostaddr=hunter2",
        "port=hunter2",
        "sslmode=hunter2",
        "keepalives_idle=hunter2",
        "require_auth=hunter2",
        "hunter2",
    ] {
        let refusal = refusal(Some(url), &[]);
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
    for name in ["PGPORT", "PGCONNECT_TIMEOUT", "PGSSLMODE"] {
        let refusal = refusal(None, &[(name, "hunter2")]);
        assert!(refusal.contains(name) && !refusal.contains("hunter2"), "{refusal}");
    }
}

proptest! {
    #[test]
    fn no_error_quotes_a_connection_string(
        before in "(postgres://)?([a-c=@:/?&%,'\\\\ \\[\\]0-9]{0,12}|host=h |password=p )",
        after in "[a-c=@:/?&%,'\\\\ \\[\\]0-9]{0,12}",
    ) {
        if let Err(error) = with(Some(&format!("{before}hunter2{after}")), &[]) {
            prop_assert!(!format!("{error} {error:?}").contains("hunter2"), "{}", error);
        }
    }
}

#[test]
fn a_password_can_be_in_a_file_and_a_given_one_goes_before_it() {
    let file = std::env::temp_dir().join(format!("pg_mask-password-{}", std::process::id()));
    let variable = ("PGPASSWORD_FILE", file.to_str().unwrap());
    let of = |url: Option<&str>, env: &[(&str, &str)]| password(&with(url, env).unwrap());

    fs::write(&file, " of file\n").unwrap();
    assert_eq!(of(None, &[variable]).unwrap(), " of file");
    assert_eq!(of(None, &[variable, ("PGPASSWORD", "p")]).unwrap(), "p");
    assert_eq!(of(Some("postgres://u:url@h/d"), &[variable]).unwrap(), "url");

    let servers = with(None, &[variable]).unwrap();
    let wrong = || password_for(&servers, 0).unwrap_err().to_string();
    fs::write(&file, "\n").unwrap();
    let empty = wrong();
    fs::remove_file(&file).unwrap();
    let missing = wrong();
    for (error, why) in [(empty, "is empty"), (missing, "cannot be read")] {
        assert!(error.contains("PGPASSWORD_FILE") && error.contains(why), "{error}");
    }
}

#[test]
fn each_host_has_its_own_password_in_a_passfile() {
    use std::os::unix::fs::PermissionsExt;
    let home = std::env::temp_dir().join(format!("pg_mask-passwords-{}", std::process::id()));
    fs::create_dir_all(&home).unwrap();
    let file = home.join(".pgpass");
    fs::write(&file, "h1:*:*:*:one\nh2:2:d:u:two\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let url = Some("postgres://u@h1,h2:2,h3/d");
    for env in [("HOME", home.to_str().unwrap()), ("PGPASSFILE", file.to_str().unwrap())] {
        let servers = with(url, &[env]).unwrap();
        let found: Vec<_> = (0..3).map(|host| password_for(&servers, host).unwrap()).collect();
        assert_eq!(found, [Some("one".into()), Some("two".into()), None]);
    }
    let given = with(url, &[("PGPASSFILE", file.to_str().unwrap()), ("PGPASSWORD", "p")]).unwrap();
    fs::remove_dir_all(&home).unwrap();
    assert_eq!(password(&given).as_deref(), Some("p"));
}
