//! Connections to `PostgreSQL`: TLS, and the sources of passwords. Where a comparison with libpq is possible, psql gets the
//! same variables.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{Outcome, PASSWORD, Turn, event, eventually, setting};

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Asserts that the loader refuses the server's certificate, with these words.
async fn is_refused(turn: &Turn, variables: &[(&str, &str)], words: &[&str]) {
    let (ended, outcome) = turn.try_loader("either", variables).await;
    assert_eq!(outcome, Outcome::Refused);
    ended.expect(4).says(words);
}

/// Asserts that the loader is let in with TLS.
async fn is_let_in(turn: &Turn, variables: &[(&str, &str)]) {
    let (ended, outcome) = turn.try_loader("either", variables).await;
    assert_eq!(outcome, Outcome::Tls, "{}", ended.output());
}

#[tokio::test]
async fn each_mode_takes_and_refuses_what_libpq_does() {
    let turn = Turn::wait().await;
    let (ca, itself) = (turn.server.path("ca.crt"), turn.server.path("self_signed.crt"));
    for (certificate, roots) in [
        ("good", &*ca),
        ("elsewhere", &ca),
        ("expired", &ca),
        ("other_ca", ""),
        ("other_ca", &ca),
        ("self_signed", &itself),
    ] {
        turn.server.take_certificate(certificate).await;
        let runs = MODES[1..].iter().map(async |mode| {
            let variables = [("PGSSLMODE", *mode), ("PGSSLROOTCERT", roots)];
            let (ended, outcome) = turn.try_loader("either", &variables).await;
            let (said, libpq) = turn.try_psql("either", &variables).await;
            assert_eq!(outcome, libpq, "{certificate} {mode} {roots}: {} {said}", ended.output());
        });
        futures_util::future::join_all(runs).await;
    }
}

#[tokio::test]
async fn tls_is_used_or_not_as_the_server_will_have_it_and_libpq_does() {
    let turn = Turn::wait().await;
    let runs = ["tls_only", "plain_only", "either"]
        .iter()
        .flat_map(|role| MODES[..4].iter().map(move |mode| (role, mode)));
    let runs = runs.map(async |(role, mode)| {
        let variables = [("PGSSLMODE", *mode)];
        let (ended, outcome) = turn.try_loader(role, &variables).await;
        let (said, libpq) = turn.try_psql(role, &variables).await;
        assert_eq!(outcome, libpq, "{role} {mode}: {} {said}", ended.output());
        ended
    });
    futures_util::future::join_all(runs).await;
    let (ended, _) = turn.try_loader("tls_only", &[("PGSSLMODE", "disable")]).await;
    ended.expect(4).says(&[
        "does not let role tls_only in without TLS",
        "28000",
        "take sslmode=disable away",
    ]);
}

#[tokio::test]
async fn a_wrong_ca_is_refused_and_said() {
    let turn = Turn::wait().await;
    let (ca, other) = (turn.server.path("ca.crt"), turn.server.path("other_ca.crt"));
    for mode in ["require", "verify-ca", "verify-full"] {
        let words = ["localhost:", "not signed by one in", &other, "sslrootcert"];
        is_refused(&turn, &[("PGSSLMODE", mode), ("PGSSLROOTCERT", &other)], &words).await;
        is_let_in(&turn, &[("PGSSLMODE", mode), ("PGSSLROOTCERT", &ca)]).await;
    }
    // One file may hold several CAs.
    let both = fs::read_to_string(&other).unwrap() + &fs::read_to_string(&ca).unwrap();
    let both = turn.server.file("both.crt", &both);
    is_let_in(&turn, &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &both)]).await;
    let words = ["not signed by a CA that this system trusts", "sslrootcert"];
    let system = [("PGSSLROOTCERT", "system"), ("SSL_CERT_FILE", &*other)];
    is_refused(&turn, &system, &words).await;
    is_let_in(&turn, &[("PGSSLROOTCERT", "system"), ("SSL_CERT_FILE", &ca)]).await;
    let nowhere = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/nowhere/ca.crt")];
    turn.try_loader("either", &nowhere)
        .await
        .0
        .expect(4)
        .says(&["sslrootcert: /nowhere/ca.crt cannot be read"]);
}

#[tokio::test]
async fn a_wrong_host_name_is_refused_and_said() {
    let turn = Turn::wait().await;
    let ca = turn.server.path("ca.crt");
    let variables = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &*ca)];
    turn.server.take_certificate("elsewhere").await;
    let words = ["a certificate for elsewhere.example, 192.0.2.1, and not for localhost", "subjectAltName"];
    is_refused(&turn, &variables, &words).await;
    is_let_in(&turn, &[("PGHOST", "elsewhere.example"), variables[0], variables[1]]).await;

    turn.server.take_certificate("address").await;
    is_refused(&turn, &variables, &["a certificate for 127.0.0.1, and not for localhost"]).await;
    is_let_in(&turn, &[("PGHOST", "127.0.0.1"), variables[0], variables[1]]).await;

    turn.server.take_certificate("common_name").await;
    is_refused(&turn, &variables, &["without a subjectAltName", "localhost in its subjectAltName"]).await;
}

#[tokio::test]
async fn verify_ca_takes_any_name() {
    let turn = Turn::wait().await;
    let ca = turn.server.path("ca.crt");
    for certificate in ["elsewhere", "common_name"] {
        turn.server.take_certificate(certificate).await;
        is_let_in(&turn, &[("PGSSLMODE", "verify-ca"), ("PGSSLROOTCERT", &ca)]).await;
    }
}

#[tokio::test]
async fn a_check_says_whether_the_server_is_verified() {
    let turn = Turn::wait().await;
    let ca = turn.server.path("ca.crt");
    turn.server.take_certificate("good").await;
    for (mode, roots, words) in [
        ("verify-full", &*ca, "encrypted by TLSv1.3, and the server's certificate verified"),
        ("require", "", "encrypted by TLSv1.3, and nobody verifies"),
        ("disable", "", "is not encrypted, and does not leave this machine"),
    ] {
        let variables = [("PGSSLMODE", mode), ("PGSSLROOTCERT", roots)];
        let ended = turn.loader("either", &variables).options("check").end().await;
        assert!(ended.stdout.contains(words), "{mode}: {}", ended.output());
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_said() {
    let turn = Turn::wait().await;
    let ca = turn.server.path("ca.crt");
    let variables = [("PGSSLMODE", "verify-ca"), ("PGSSLROOTCERT", &*ca)];
    turn.server.take_certificate("expired").await;
    is_refused(&turn, &variables, &["expired at 2021-01-01T00:00:00Z", "the clock of this machine says 20"])
        .await;
    turn.server.take_certificate("future").await;
    is_refused(
        &turn,
        &variables,
        &["not valid before 3000-01-01T00:00:00Z", "the clock of this machine says 20"],
    )
    .await;
}

#[tokio::test]
async fn roots_and_revocation_lists_count_as_with_libpq() {
    let turn = Turn::wait().await;
    for (certificate, roots, lists, outcome) in [
        ("good", "expired_ca.crt", "", Outcome::Refused),
        // A pinned certificate signs no others.
        ("by_none", "no_ca.crt", "", Outcome::Refused),
        // A certificate that a CA has signed isn't a root itself. In one file with its CA it does no harm.
        ("good", "server.crt", "", Outcome::Refused),
        ("good", "ca_and_server.crt", "", Outcome::Tls),
        ("by_another", "both_cas.crt", "", Outcome::Tls),
        ("by_another", "both_cas.crt", "of_both.crl", Outcome::Tls),
        ("by_another", "both_cas.crt", "of_both_revoked.crl", Outcome::Refused),
        // If there are two lists of one CA, the newer one counts, whatever their order.
        ("good", "ca.crt", "newer_last.crl", Outcome::Refused),
        ("good", "ca.crt", "newer_first.crl", Outcome::Refused),
        ("good", "ca.crt", "older.crl", Outcome::Tls),
        // Even a certificate that is a trusted root itself is refused if no list from its issuer says that it isn't revoked.
        ("self_signed", "self_signed.crt", "revoked.crl", Outcome::Refused),
    ] {
        turn.server.take_certificate(certificate).await;
        let (roots, list) = (turn.server.path(roots), turn.server.path(lists));
        let mut variables = vec![("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &*roots)];
        if !lists.is_empty() {
            variables.push(("PGSSLCRL", &list));
        }
        let (ended, found) = turn.try_loader("either", &variables).await;
        let (said, libpq) = turn.try_psql("either", &variables).await;
        let case = format!("{certificate} {roots} {lists}: {} {said}", ended.output());
        assert_eq!((found, libpq), (outcome, outcome), "{case}");
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_said() {
    let turn = Turn::wait().await;
    let (ca, revoked) = (turn.server.path("ca.crt"), turn.server.path("revoked.crl"));
    let variables = [("PGSSLMODE", "verify-ca"), ("PGSSLROOTCERT", &*ca)];
    is_refused(&turn, &[variables[0], variables[1], ("PGSSLCRL", &revoked)], &["has been revoked", "sslcrl"])
        .await;
    let others = turn.server.path("not_revoked.crl");
    is_let_in(&turn, &[variables[0], variables[1], ("PGSSLCRL", &others)]).await;

    // A folder of lists, named as OpenSSL looks them up.
    let folder = turn.server.path("revocations");
    let variables = [variables[0], variables[1], ("PGSSLCRLDIR", &folder)];
    fs::create_dir(&folder).unwrap();
    let rehash = || assert!(Command::new("openssl").args(["rehash", &folder]).status().unwrap().success());
    let replace = |list: &str| {
        fs::copy(list, format!("{folder}/list.pem")).unwrap();
    };
    replace(&revoked);
    // Lists under other names would never be found, so nothing would ever be revoked. The loader refuses such a folder.
    let (ended, _) = turn.try_loader("either", &variables).await;
    ended.expect(4).says(&["sslcrldir: ", &folder, "openssl rehash"]);
    rehash();
    is_refused(&turn, &variables, &["has been revoked"]).await;
    assert_eq!(turn.try_psql("either", &variables).await.1, Outcome::Refused);
    replace(&others);
    is_let_in(&turn, &variables).await;
    assert_eq!(turn.try_psql("either", &variables).await.1, Outcome::Tls);
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let turn = Turn::wait().await;
    // The shared test server has no TLS.
    let (host, port) = (setting("PGHOST"), setting("PGPORT"));
    let variables = [("PGHOST", &*host), ("PGHOSTADDR", ""), ("PGPORT", &port), ("PGSSLMODE", "require")];
    is_refused(&turn, &variables, &["does not offer TLS", "ssl = on"]).await;
}

#[tokio::test]
async fn channel_binding_is_used_where_the_server_offers_it() {
    let turn = Turn::wait().await;
    let required = ("PGCHANNELBINDING", "require");
    is_let_in(&turn, &[required]).await;
    is_let_in(&turn, &[("PGCHANNELBINDING", "disable")]).await;
    is_refused(&turn, &[required, ("PGSSLMODE", "disable")], &["channel_binding=require", "scram-sha-256"])
        .await;
    let (ended, outcome) = turn.try_loader("md5", &[required]).await;
    assert_eq!(outcome, Outcome::Refused);
    ended.expect(4).says(&["channel_binding=require"]);
}

#[tokio::test]
async fn a_client_certificate_lets_in() {
    let turn = Turn::wait().await;
    let path = |name| turn.server.path(name);
    let (certificate, key) = (path("client.crt"), path("client.key"));
    let given = [("PGSSLCERT", &*certificate), ("PGSSLKEY", &*key)];
    for role in ["by_certificate", "with_certificate"] {
        let password = if role == "by_certificate" { "" } else { PASSWORD };
        let (ended, outcome) = turn.try_loader(role, &[given[0], given[1], ("PGPASSWORD", password)]).await;
        assert_eq!(outcome, Outcome::Tls, "{}", ended.output());
        let (ended, outcome) = turn.try_loader(role, &[("PGSSLMODE", "require")]).await;
        assert_eq!(outcome, Outcome::Refused);
        ended.expect(4).says(&["client certificate", "PGSSLCERT", "PGSSLKEY"]);
    }
    // A stranger's certificate. The server may close the connection before the loader reads the reason, which its log then
    // holds.
    let (stranger, its_key) = (path("stranger.crt"), path("stranger.key"));
    let strangers = [("PGSSLCERT", &*stranger), ("PGSSLKEY", &*its_key), ("PGSSLMODE", "require")];
    let (ended, outcome) = turn.try_loader("by_certificate", &strangers).await;
    assert_eq!(outcome, Outcome::Refused);
    ended.expect(4).says(&["does not accept the client certificate", &stranger, "ssl_ca_file"]);

    // Keys that can't be used.
    let encrypted = turn.server.file(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0a2V5\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let broken = turn.server.file("broken.key", "-----BEGIN PRIVATE KEY-----\nsecretkey!\n");
    let open = turn.server.file("open.key", &fs::read_to_string(&key).unwrap());
    // A group may read a key that root owns, so this one is readable by everyone.
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    for (key, words) in [
        (&encrypted, ["is encrypted", "openssl pkey"]),
        (&broken, ["has no private key", "sslkey"]),
        (&open, ["can be read by others", "chmod 600"]),
        (&its_key, ["cannot be used", "client.crt"]),
        (&"/nowhere".to_owned(), ["sslkey: /nowhere", "cannot be read"]),
    ] {
        let (ended, _) = turn.try_loader("by_certificate", &[given[0], ("PGSSLKEY", key)]).await;
        let ended = ended.expect(4).says(&words).says(&[key]);
        for secret in ["c2VjcmV0", "secretkey"] {
            assert!(!ended.output().contains(secret), "{}", ended.output());
        }
    }
}

#[tokio::test]
async fn passwords_come_from_a_passfile_as_with_libpq() {
    let turn = Turn::wait().await;
    let escaped = PASSWORD.replace('\\', r"\\").replace(':', r"\:");
    let port = turn.server.port();
    for (text, mode, let_in) in [
        (format!("localhost:{port}:postgres:either:{escaped}"), 0o600, true),
        (format!("# a comment\n*:*:*:other:no\n*:{port}:*:*:{escaped}\n*:*:*:*:no\n"), 0o600, true),
        (format!("*:*:*:*:no\nlocalhost:{port}:postgres:either:{escaped}"), 0o600, false),
        // The line must match the host name, not the address.
        (format!("127.0.0.1:*:*:*:{escaped}"), 0o600, false),
        (format!("*:*:*:*:{PASSWORD}"), 0o600, false),
        (format!("*:*:*:*:{escaped}"), 0o644, false),
    ] {
        let file = turn.server.file("passfile", &text);
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let variables = [("PGPASSWORD", ""), ("PGPASSFILE", &*file)];
        let (ended, outcome) = turn.try_loader("either", &variables).await;
        let (said, libpq) = turn.try_psql("either", &variables).await;
        assert_eq!(outcome, libpq, "{text}: {} {said}", ended.output());
        assert_eq!(outcome != Outcome::Refused, let_in, "{text}: {} {said}", ended.output());
        let output = ended.output();
        if !let_in {
            let ended = ended.expect(4).says(&[&file, "password"]);
            if mode != 0o600 {
                ended.says(&["wants a password", "which is ignored", &format!("(chmod 600 {file})")]);
            }
            assert!(!output.contains(&escaped) && !output.contains(PASSWORD), "{output}");
        }
        assert_eq!(output.contains("group or others have access"), mode == 0o644, "{output}");
    }
    // The default file in the home directory.
    turn.server.file("home/.pgpass", &format!("*:*:*:either:{escaped}"));
    is_let_in(&turn, &[("PGPASSWORD", "")]).await;
    fs::remove_file(turn.server.path("home/.pgpass")).unwrap();
}

#[tokio::test]
async fn a_service_names_the_server_as_with_libpq() {
    let turn = Turn::wait().await;
    let port = turn.server.port();
    let here = format!("host=localhost\nhostaddr=127.0.0.1\nport={port}\ndbname=postgres");
    let text = format!(
        "[full]\n{here}\nuser=either\npassword={PASSWORD}\nsslmode=require\n[part]\nport=1\n[bad]\nnosuch=1\n"
    );
    let file = turn.server.file("services", &text);
    // Nothing else says where the server is.
    let none =
        ["PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"].map(|name| (name, ""));
    for (service, variables, expected) in [
        ("full", &none[..], Outcome::Tls),
        // The service overrides the environment.
        ("full", &[("PGPORT", "1"), ("PGSSLMODE", "disable")], Outcome::Tls),
        ("part", &[], Outcome::Refused),
        ("bad", &[], Outcome::Refused),
        ("nosuch", &[], Outcome::Refused),
    ] {
        let variables = [variables, &[("PGSERVICE", service), ("PGSERVICEFILE", &file)]].concat();
        let (ended, outcome) = turn.try_loader("either", &variables).await;
        let (said, libpq) = turn.try_psql("either", &variables).await;
        assert_eq!((outcome, libpq), (expected, expected), "{service}: {} {said}", ended.output());
        match service {
            "nosuch" => _ = ended.expect(4).says(&["no service nosuch", &file]),
            "bad" => _ = ended.expect(4).says(&[&file, "line 12"]),
            _ => {}
        }
    }
}

#[tokio::test]
async fn no_password_in_log_error_or_process_list() {
    let turn = Turn::wait().await;
    let key = fs::read_to_string(turn.server.path("client.key")).unwrap();
    let (certificate, key_file) = (turn.server.path("client.crt"), turn.server.path("client.key"));
    let variables = [("PGSSLCERT", &*certificate), ("PGSSLKEY", &*key_file), ("LOADER_LOG_LEVEL", "debug")];
    turn.sqs.fill("q", 3, event);
    let running = turn.loader("either", &variables).start();
    eventually("an empty queue", async || turn.sqs.depth("q").unwrap().total() == 0).await;
    let mut seen = fs::read_to_string(format!("/proc/{}/cmdline", running.pid)).unwrap();
    assert!(seen.contains("loader"));
    seen += &running.stop().await.expect(0).output();
    let encoded = "p%3Aa%5Css'w%25rd";
    let url =
        |password: &str| format!("postgres://either:{password}@localhost:{}/postgres", turn.server.port());
    for (options, code) in
        [("", 0), ("&sslmode=verify-full", 2), ("&nosuch=1", 2), ("&sslrootcert=/nowhere", 4)]
    {
        let ended = turn
            .loader("either", &variables)
            .env("DATABASE_URL", &format!("{}?user=either{options}", url(encoded)));
        seen += &ended.options("--dry-run").end().await.expect(code).output();
    }
    let wrong = turn.loader("either", &variables).env("DATABASE_URL", &url("hunter2"));
    seen += &wrong.options("--dry-run").end().await.expect(4).says(&["refused the password"]).output();
    // A password on the command line causes a warning.
    let open =
        turn.loader("either", &variables).options(&format!("--dry-run --database-url {}", url(encoded)));
    seen += &open.end().await.expect(0).says(&["WARN", "every user of this machine", "PGPASSFILE"]).output();
    let none = turn.loader("either", &variables).options(&format!("--dry-run --database-url {}", url("")));
    assert!(!none.end().await.expect(0).output().contains("every user"));

    let secrets = [PASSWORD, encoded, "hunter2", "ss'w"];
    for secret in secrets.into_iter().chain(key.lines().filter(|line| !line.starts_with('-'))) {
        assert!(!seen.contains(secret), "{secret} is in:\n{seen}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_wrong_for_a_moment_stops_no_running_loader() {
    let turn = Turn::wait().await;
    let ca = turn.server.path("ca.crt");
    let loader = turn.loader("either", &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &ca)]).start();
    let session = turn.server.session().await;
    let stored =
        async || session.query_one("SELECT count(*) FROM user_logins", &[]).await.unwrap().get::<_, i64>(0);
    let before = stored().await;
    turn.sqs.fill("q", 10, event);
    eventually("ten rows", async || stored().await == before + 10).await;
    turn.server.take_certificate("other_ca").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'either'";
    session.batch_execute(end).await.unwrap();
    turn.sqs.fill("q", 10, event);
    let alerts = || turn.server.log().matches("could not accept SSL connection").count();
    let earlier = alerts();
    eventually("a refusal", async || alerts() > earlier).await;
    turn.server.take_certificate("good").await;
    eventually("ten more rows", async || stored().await == before + 20).await;
    loader.stop().await.expect(0).says(&["not signed by one in", "trying again"]);
}

#[tokio::test]
async fn a_batch_is_cancelled_by_tls_as_well() {
    /// First eight bytes of a connection that asks for TLS, and of one that asks for a cancel.
    const TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    const CANCEL: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];
    let turn = Turn::wait().await;
    let server = format!("127.0.0.1:{}", turn.server.port());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let beginnings = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&beginnings);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (seen, server) = (Arc::clone(&seen), server.clone());
            tokio::spawn(async move {
                let mut beginning = [0; 8];
                client.read_exact(&mut beginning).await.unwrap();
                seen.lock().unwrap().push(beginning);
                let mut server = TcpStream::connect(server).await.unwrap();
                server.write_all(&beginning).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    let session = turn.server.session().await;
    let cancelled = || turn.server.log().matches("canceling statement due to user request").count();
    let before = cancelled();
    let loader = turn
        .loader("either", &[("PGPORT", &port), ("PGSSLMODE", "require"), ("LOADER_STORE_TIMEOUT", "1")])
        .start();
    eventually("a loader that is ready", async || loader.said().contains("ready")).await;
    session.batch_execute("BEGIN; LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE").await.unwrap();
    turn.sqs.fill("q", 1, event);
    eventually("a cancelled statement", async || cancelled() > before).await;
    session.batch_execute("COMMIT").await.unwrap();
    eventually("an empty queue", async || turn.sqs.depth("q").unwrap().total() == 0).await;
    loader.stop().await.expect(0);
    let beginnings = beginnings.lock().unwrap();
    assert!(beginnings.len() >= 2 && !beginnings.contains(&CANCEL), "{beginnings:?}");
    assert!(beginnings.iter().all(|beginning| *beginning == TLS), "{beginnings:?}");
}

#[tokio::test]
async fn tls_without_asking_for_it_begins_with_tls() {
    let turn = Turn::wait().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let direct = [("PGPORT", &*port), ("PGSSLMODE", "require"), ("PGSSLNEGOTIATION", "direct")];
    let loader = turn.loader("either", &direct).start();
    let (mut client, _) = listener.accept().await.unwrap();
    let mut head = [0; 5];
    client.read_exact(&mut head).await.unwrap();
    // A handshake record. In it is the protocol name that `PostgreSQL` 17 requires.
    assert_eq!(head[..2], [22, 3]);
    let mut hello = vec![0; u16::from_be_bytes([head[3], head[4]]).into()];
    client.read_exact(&mut hello).await.unwrap();
    assert!(hello.windows(10).any(|bytes| bytes == b"postgresql"));
    drop(client);
    loader.end().await.expect(4).says(&["TLS with localhost:", "failed"]);
}

#[tokio::test]
async fn an_rds_token_takes_the_place_of_the_password_and_needs_tls() {
    let turn = Turn::wait().await;
    let token = ("LOADER_RDS_IAM", "true");
    // This server expects the password.
    let ca = turn.server.path("ca.crt");
    let verified = [token, ("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &*ca)];
    let (ended, _) = turn.try_loader("either", &verified).await;
    ended.expect(4).says(&["refused the password of role either", "28P01", "rds-db:connect"]);
    for mode in ["prefer", "require", "verify-ca"] {
        let less = [token, ("PGSSLMODE", mode), ("PGSSLROOTCERT", &*ca)];
        let (ended, _) = turn.try_loader("either", &less).await;
        ended.expect(2).says(&["--rds-iam", "sslmode=verify-full"]);
    }
}
