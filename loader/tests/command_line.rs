//! The effects of the command line and the environment, tested on the binary itself without any server.

use std::process::{Command, Output};

/// Runs the binary without the tests' environment. Queue and inbox are named.
fn loader(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loader"))
        .args(args)
        .env_clear()
        .envs([("LOADER_QUEUE", "q"), ("LOADER_INBOX", "i")])
        .envs(env.iter().copied())
        .output()
        .expect("the loader starts")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A database where nothing listens, so that a valid configuration ends at once with exit code 4.
const NOWHERE: (&str, &str) = ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d");

#[test]
fn help_tells_exit_codes_and_rights_and_shows_no_password() {
    let output = loader(&["--help"], &[NOWHERE, ("LOADER_POLLERS", "17")]);
    let help = text(&output);
    assert!(output.status.success());
    for wanted in
        ["Exit codes:", "sqs:DeleteMessage", "INSERT on the inbox", "LOADER_POLLERS=17", "DATABASE_URL"]
    {
        assert!(help.contains(wanted), "{wanted} is missing in {help}");
    }
    assert!(!help.contains("hunter2"));
}

#[test]
fn a_bad_value_is_a_usage_error_wherever_it_comes_from() {
    for (args, env) in [
        (["--wait", "21"].as_slice(), None),
        (&[], Some(("LOADER_WAIT", "21"))),
        (&[], Some(("LOADER_VISIBILITY", "5"))),
        (&[], Some(("AWS_ENDPOINT_URL", "localhost:9324"))),
        (&[], Some(("PGPORT", "x"))),
        (&["--no-such-option"], None),
    ] {
        let env: Vec<_> = env.into_iter().collect();
        let output = loader(args, &env);
        assert_eq!(output.status.code(), Some(2), "{args:?} {env:?}: {}", text(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_run_without_a_queue_or_an_inbox_is_a_usage_error() {
    for (args, missing) in [
        (["--drain"].as_slice(), "LOADER_QUEUE"),
        (&["check"], "LOADER_QUEUE"),
        (&[], "LOADER_INBOX"),
        (&["check"], "LOADER_INBOX"),
        (&["redrive", "--all"], "LOADER_INBOX"),
    ] {
        let output = loader(args, &[NOWHERE, (missing, "")]);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(missing), "{args:?}: {}", text(&output));
    }
    // Redriving needs no queue.
    let redrive = loader(&["redrive", "--all"], &[NOWHERE, ("LOADER_QUEUE", "")]);
    assert_eq!(redrive.status.code(), Some(4), "{}", text(&redrive));
    // An empty variable is none.
    let by_url = [NOWHERE, ("LOADER_QUEUE", ""), ("LOADER_QUEUE_URL", "http://127.0.0.1:1/1/q")];
    assert_eq!(loader(&[], &by_url).status.code(), Some(4));
    assert_eq!(loader(&[], &[NOWHERE, ("LOADER_QUEUE_URL", "")]).status.code(), Some(4));
}

#[test]
fn a_usage_error_shows_no_password() {
    for args in [
        ["--database-url", "host=h", "password=hunter2"].as_slice(),
        &["check", "--database-url", "host=h", "password=hunter2"],
        &["postgres://u:hunter2@h/d"],
        &["--databaseurl=postgres://u:hunter2@h/d"],
    ] {
        let output = loader(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output));
        assert!(!text(&output).contains("hunter2"), "{args:?}: {}", text(&output));
        assert!(text(&output).contains("--database"), "{args:?}: {}", text(&output));
    }
    // Arguments without a password are shown.
    assert!(text(&loader(&["--no-such-option"], &[])).contains("'--no-such-option'"));
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let bad = ("LOADER_VISIBILITY", "5");
    assert_eq!(loader(&[], &[NOWHERE, bad]).status.code(), Some(2));
    assert_eq!(loader(&["--visibility", "60"], &[NOWHERE, bad]).status.code(), Some(4));
}

#[test]
fn switches_can_be_set_in_the_environment() {
    let both = [NOWHERE, ("LOADER_DRAIN", "true"), ("LOADER_DRY_RUN", "1")];
    assert!(text(&loader(&[], &both)).contains("exclude each other"));
    for off in ["", "0", "false", "no"] {
        let output = loader(&["--drain"], &[NOWHERE, ("LOADER_DRY_RUN", off)]);
        assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    }
}

#[test]
fn an_error_names_the_server_and_never_the_password() {
    let output = loader(&["--log-level", "debug"], &[NOWHERE]);
    let said = text(&output);
    assert!(said.contains("127.0.0.1:1 cannot be reached"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn the_log_is_json_without_a_terminal_and_human_on_request() {
    let json = loader(&[], &[NOWHERE]);
    let line: serde_json::Value = serde_json::from_slice(&json.stderr).expect("one line of JSON");
    assert_eq!((&line["level"], &line["exit_code"]), (&"ERROR".into(), &4.into()));
    let human = loader(&["--log-format", "human"], &[NOWHERE]);
    assert!(text(&human).contains(" ERROR PostgreSQL: 127.0.0.1:1"), "{}", text(&human));
}

#[test]
fn a_file_of_variables_fills_in_what_the_environment_leaves_out() {
    let file = std::env::temp_dir().join(format!("pg_mask-env-{}", std::process::id()));
    let variable = ("LOADER_ENV_FILE", file.to_str().expect("UTF-8"));
    let run = |text: &str, env: &[(&str, &str)]| {
        std::fs::write(&file, text).expect("the folder can be written to");
        let output = loader(&[], &[&[variable], env].concat());
        std::fs::remove_file(&file).expect("it was written");
        output
    };
    let lines = "# where\nPORT=1\nPGHOST=127.0.0.1\nPGPORT=${PORT}\nPGUSER=u\nLOADER_VISIBILITY=5\n";
    // The file is read before the options are parsed.
    assert_eq!(run(lines, &[]).status.code(), Some(2));
    let output = run(lines, &[("LOADER_VISIBILITY", "60")]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("127.0.0.1:1"));

    let broken = run("PGPASSWORD='hunter2\n", &[]);
    assert_eq!(broken.status.code(), Some(2));
    assert!(
        text(&broken).contains("LOADER_ENV_FILE") && !text(&broken).contains("hunter2"),
        "{}",
        text(&broken)
    );
    // The file may be about to be replaced, so a service manager should try again.
    let missing = loader(&[], &[variable]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing).contains("cannot be read"), "{}", text(&missing));
}

#[test]
fn a_port_that_is_taken_does_not_end_a_service_for_good() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = loader(&["--metrics-address", &address], &[NOWHERE]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("--metrics-address {address} cannot be listened at")), "{said}");
    let nowhere = loader(&["--metrics-address", "192.0.2.1:9187"], &[NOWHERE]);
    assert_eq!(nowhere.status.code(), Some(1), "{}", text(&nowhere));
    // A dry run exports no metrics and needs no port.
    assert_eq!(loader(&["--metrics-address", &address, "--dry-run"], &[NOWHERE]).status.code(), Some(4));
}

#[test]
fn a_service_restarts_after_a_temporary_error() {
    // Exit code 2 is in RestartPreventExitStatus of the systemd unit.
    let unit = include_str!("../../deploy/systemd/pg_mask-loader@.service");
    assert!(unit.contains("\nRestartPreventExitStatus=2 5 6\n"), "{unit}");
    let (string, with_password) = ("host=127.0.0.1 port=1 user=u", NOWHERE.1);
    for (database, env, file) in [
        (string, [("PGPASSWORD_FILE", "/nowhere/password"), ("PGSSLMODE", "disable")], "/nowhere/password"),
        (
            with_password,
            [("PGSSLROOTCERT", "/nowhere/ca.crt"), ("PGSSLMODE", "verify-full")],
            "/nowhere/ca.crt",
        ),
        (with_password, [("PGSERVICE", "s"), ("PGSERVICEFILE", "/nowhere/services")], "/nowhere/services"),
    ] {
        let output = loader(&["--database-url", database], &env);
        assert_eq!(output.status.code(), Some(4), "{env:?}: {}", text(&output));
        assert!(text(&output).contains(file), "{env:?}: {}", text(&output));
    }
}

#[test]
fn a_start_is_tried_for_as_long_as_the_options_say() {
    let start = std::time::Instant::now();
    let output = loader(&["--wait-for-start", "2"], &[NOWHERE]);
    let (took, said) = (start.elapsed().as_secs_f32(), text(&output));
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!((2.0..20.0).contains(&took), "{took} s: {said}");
    assert!(said.matches("waiting for the start").count() > 1, "{said}");
    // A permanent error isn't retried.
    let start = std::time::Instant::now();
    let wrong = loader(&["--wait-for-start", "3600"], &[("PGPORT", "x")]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    assert!(start.elapsed().as_secs() < 20);
}
