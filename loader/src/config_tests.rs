use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches};

use super::*;
use crate::cli::Cli;

/// Parses without the environment of whoever runs the tests. That variables are read, and lose against the
/// command line, is tested on the binary, in `tests/command_line.rs`.
fn parse(args: &[&str]) -> Result<Config, String> {
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
    assert!(config.queue_url.is_empty());
    assert_eq!(config.queue, ["login-queue"]);
    assert!(config.endpoint_url.is_none() && config.target.database_url().is_none());
    assert_eq!(config.target.inbox, "login_inbox");
    assert_eq!((config.min_pollers, config.pollers, config.wait(), config.visibility), (1, 32, 5, 120));
    assert_eq!((config.batch_size, config.batch_bytes, config.linger), (2000, 8 << 20, 500));
    assert_eq!((config.writers, config.store_timeout, config.max_in_flight), (1, 60, 10_000));
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
    // Draining polls shortly.
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
fn several_queues_are_separated_by_commas() {
    assert_eq!(parse(&["--queue", "a,b"]).unwrap().queue, ["a", "b"]);
    let urls = ["https://sqs/1/a", "https://sqs/1/b"];
    assert_eq!(parse(&["--queue-url", &urls.join(",")]).unwrap().queue_url, urls);
    assert!(refusal(&["--queue", "a,b,a"]).contains("named twice"));
}

#[test]
fn a_queue_may_be_an_arn() {
    let arn = "arn:aws:sqs:eu-west-1:123456789012:logins";
    assert_eq!(parse(&["--queue", arn]).unwrap().queue, [arn]);
    assert!(
        refusal(&["--queue", "arn:aws:sns:eu-west-1:123456789012:logins"]).contains("not the ARN of a queue")
    );
}

#[test]
fn an_external_id_needs_a_role() {
    let role = ["--assume-role-arn", "arn:aws:iam::123456789012:role/loader", "--external-id", "partner-7"];
    assert_eq!(parse(&role).unwrap().external_id.as_deref(), Some("partner-7"));
    assert!(refusal(&role[2..]).contains("needs --assume-role-arn"));
}

#[test]
fn drain_and_dry_run_exclude_each_other() {
    assert!(refusal(&["--drain", "--dry-run"]).contains("exclude each other"));
}

#[test]
fn empty_values_count_as_not_set() {
    let config = parse(&["--queue-url", "", "--endpoint-url", "", "--database-url", ""]).unwrap();
    assert!(
        config.queue_url.is_empty()
            && config.endpoint_url.is_none()
            && config.target.database_url().is_none()
    );
}

#[test]
fn the_endpoint_of_the_service_wins_over_the_general_one_and_loses_to_the_command_line() {
    let endpoint = |args: &[&str], of_service: &str| {
        let matches = Cli::command()
            .mut_args(|arg| arg.env(Resettable::Reset))
            .try_get_matches_from([&["loader"], args].concat())
            .unwrap();
        let mut config = Config::from_arg_matches(&matches).unwrap();
        config.prefer_service_endpoint(&matches, Some(of_service.to_owned()));
        config.endpoint_url
    };
    assert_eq!(endpoint(&[], "http://sqs").as_deref(), Some("http://sqs"));
    assert_eq!(endpoint(&["--endpoint-url", "http://cli"], "http://sqs").as_deref(), Some("http://cli"));
    assert_eq!(endpoint(&[], ""), None);
}
