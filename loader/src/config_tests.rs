use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};

use super::*;
use crate::cli::Cli;
use crate::telemetry::log::{LogFormat, LogLevel};

/// Parses without the environment of the person who runs the tests. `tests/command_line.rs` tests on the binary that
/// variables are read, and that the command line overrides them.
fn parse(args: &[&str]) -> Result<Config, String> {
    let queue: &[&str] =
        if args.iter().any(|arg| arg.starts_with("--queue")) { &[] } else { &["--queue", "q"] };
    parse_alone(&[&["--inbox", "i"], queue, args].concat())
}

fn parse_alone(args: &[&str]) -> Result<Config, String> {
    let command = Cli::command().mut_args(|arg| arg.env(Resettable::Reset));
    let matches = command.try_get_matches_from([&["loader"], args].concat()).map_err(|e| e.to_string())?;
    let mut config = Config::from_arg_matches(&matches).map_err(|e| e.to_string())?;
    config.validate().map_err(|e| e.to_string())?;
    Ok(config)
}

fn refusal(args: &[&str]) -> String {
    parse(args).err().unwrap_or_else(|| panic!("{args:?} were taken"))
}

#[test]
fn the_command_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_as_documented() {
    let config = parse(&[]).unwrap();
    assert!(config.queue.endpoint_url.is_none() && config.target.database_url().is_none());
    assert_eq!(
        (config.queue.min_pollers, config.queue.pollers, config.wait(), config.queue.visibility),
        (1, 32, 5, 120)
    );
    assert_eq!(
        (config.batch.batch_size, config.batch.batch_bytes, config.batch.linger),
        (2000, 8 << 20, 500)
    );
    assert_eq!((config.writers, config.store_timeout, config.queue.max_in_flight), (1, 60, 10_000));
    assert_eq!((config.drain, config.dry_run, config.grace), (false, false, 15));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Auto, LogLevel::Info));
    assert!(config.metrics_address.is_none());
    assert_eq!(config.wait_for_start, 0);
}

#[test]
fn every_option_has_an_environment_variable() {
    for arg in Cli::command().get_arguments() {
        let automatic = ["help", "version"].contains(&arg.get_id().as_str());
        assert!(automatic || arg.get_env().is_some(), "{} has none", arg.get_id());
    }
}

#[test]
fn the_status_page_shows_every_option_that_has_no_reason_against_it() {
    const NOT_SHOWN: [(&str, &str); 14] = [
        ("--queue-url", "the run shows the URL of each queue"),
        ("--queue", "the run shows the URL of each queue"),
        ("--endpoint-url", "most often a part of the queues' URLs"),
        ("--assume-role-arn", "not for everyone who can read a page without a password"),
        ("--external-id", "only the role's owner should know it"),
        ("--min-pollers", "shown with --pollers"),
        ("--database-url", "can hold a password; the run shows the servers, the user and the database"),
        ("--rds-iam", "a way to log in, as passwords are"),
        ("--inbox", "the run shows it"),
        ("--dry-run", "a dry run shows no options"),
        #[cfg(feature = "null-consumer")]
        ("--null-consumer", "for benchmarks only"),
        #[cfg(not(feature = "null-consumer"))]
        ("", ""),
        ("--log-format", "concerns only the log"),
        ("--log-level", "concerns only the log"),
        ("--help", "not an option of the run"),
    ];
    let shown: Vec<_> = parse(&[]).unwrap().in_force().into_iter().map(|(option, _)| option).collect();
    let not_shown: Vec<_> = NOT_SHOWN.iter().map(|(option, _)| *option).filter(|o| !o.is_empty()).collect();
    let mut listed = [shown, not_shown].concat();
    listed.sort_unstable();
    let mut command = Cli::command();
    command.build();
    let mut options: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    options.retain(|option| *option != "version");
    let mut options: Vec<_> = options.into_iter().map(|option| format!("--{option}")).collect();
    options.sort_unstable();
    assert_eq!(listed, options);
}

#[test]
fn values_out_of_range_are_refused() {
    for args in [
        ["--wait", "21"],
        ["--visibility", "0"],
        ["--visibility", "43201"],
        ["--pollers", "0"],
        ["--batch-size", "0"],
        ["--batch-bytes", "1MB"],
        ["--linger", "soon"],
        ["--log-format", "xml"],
        ["--log-level", "trace"],
        ["--endpoint-url", "localhost:9324"],
        ["--queue-url", "login-queue"],
    ] {
        assert!(refusal(&args).contains(args[0]), "{args:?}");
    }
}

#[test]
fn visibility_must_exceed_the_time_of_a_receive_call() {
    assert!(refusal(&["--visibility", "10"]).contains("--visibility 10 is too short"));
    assert!(refusal(&["--visibility", "30", "--linger", "25000"]).contains("plus --linger"));
    parse(&["--visibility", "11"]).unwrap();
    // While draining, a long poll takes 1 s.
    parse(&["--visibility", "7", "--drain"]).unwrap();
}

#[test]
fn an_address_names_host_and_port() {
    for address in ["127.0.0.1:9187", "0.0.0.0:0", "[::1]:9187", "localhost:9187"] {
        assert_eq!(parse(&["--metrics-address", address]).unwrap().metrics_address.as_deref(), Some(address));
    }
    for address in ["9187", ":9187", "localhost", "127.0.0.1:", "::1:9187", "127.0.0.1:99999", "http://h:1/"]
    {
        assert!(refusal(&["--metrics-address", address]).contains("is not HOST:PORT"), "{address}");
    }
    assert!(parse(&["--metrics-address", ""]).unwrap().metrics_address.is_none());
}

#[test]
fn queue_and_inbox_are_required() {
    let refusal = |args: &[&str]| parse_alone(args).err().unwrap_or_else(|| panic!("{args:?} were taken"));
    for inbox in [&[] as &[&str], &["--inbox", ""]] {
        let refusal = refusal(&[&["--queue", "q"], inbox].concat());
        assert!(refusal.contains("--inbox") && refusal.contains("LOADER_INBOX"), "{refusal}");
    }
    for queue in [&[] as &[&str], &["--queue", ""], &["--queue-url", ""], &["--queue", "", "--queue-url", ""]]
    {
        let refusal = refusal(&[&["--inbox", "i"], queue].concat());
        let named = ["--queue ", "LOADER_QUEUE,", "--queue-url ", "LOADER_QUEUE_URL"];
        assert!(named.iter().all(|name| refusal.contains(name)), "{refusal}");
    }
    let both = ["--inbox", "i", "--queue", "q", "--queue-url", "https://sqs/1/q"];
    assert!(refusal(&both).contains("exclude each other"));
    // An empty one is none.
    assert_eq!(parse(&["--queue", "q", "--queue-url", ""]).unwrap().queue.queue, ["q"]);
    let by_url = parse(&["--queue", "", "--queue-url", "https://sqs/1/q"]).unwrap();
    assert_eq!((by_url.queue.queue.len(), by_url.queue.queue_url.len()), (0, 1));
}

#[test]
fn several_queues_are_separated_by_commas() {
    assert_eq!(parse(&["--queue", "a,b"]).unwrap().queue.queue, ["a", "b"]);
    let urls = ["https://sqs/1/a", "https://sqs/1/b"];
    assert_eq!(parse(&["--queue-url", &urls.join(",")]).unwrap().queue.queue_url, urls);
    assert!(refusal(&["--queue", "a,b,a"]).contains("named twice"));
}

#[test]
fn a_queue_may_be_an_arn() {
    let arn = "arn:aws:sqs:eu-west-1:123456789012:logins";
    assert_eq!(parse(&["--queue", arn]).unwrap().queue.queue, [arn]);
    assert!(
        refusal(&["--queue", "arn:aws:sns:eu-west-1:123456789012:logins"]).contains("not the ARN of a queue")
    );
}

#[test]
fn an_external_id_needs_a_role() {
    let role = ["--assume-role-arn", "arn:aws:iam::123456789012:role/loader", "--external-id", "partner-7"];
    assert_eq!(parse(&role).unwrap().queue.external_id.as_deref(), Some("partner-7"));
    assert!(refusal(&role[2..]).contains("needs --assume-role-arn"));
}

#[test]
fn drain_and_dry_run_exclude_each_other() {
    assert!(refusal(&["--drain", "--dry-run"]).contains("exclude each other"));
}

#[test]
fn empty_values_count_as_not_set() {
    let config = parse(&["--endpoint-url", "", "--database-url", ""]).unwrap();
    assert!(config.queue.endpoint_url.is_none() && config.target.database_url().is_none());
}

#[test]
fn the_endpoint_of_the_service_wins_over_the_general_one_and_loses_to_the_command_line() {
    let endpoint = |args: &[&str], of_service: &str| {
        let matches = Cli::command()
            .mut_args(|arg| arg.env(Resettable::Reset))
            .try_get_matches_from([&["loader"], args].concat())
            .unwrap();
        let mut config = Config::from_arg_matches(&matches).unwrap();
        config.queue.prefer_service_endpoint(&matches, Some(of_service.to_owned()));
        config.queue.endpoint_url
    };
    assert_eq!(endpoint(&[], "http://sqs").as_deref(), Some("http://sqs"));
    assert_eq!(endpoint(&["--endpoint-url", "http://cli"], "http://sqs").as_deref(), Some("http://cli"));
    assert_eq!(endpoint(&[], ""), None);
}
