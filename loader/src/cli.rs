//! The command line and the environment.

use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::check::Check;
use crate::commands::man_pages::{Completions, ManPages};
use crate::commands::redrive::Redrive;
use crate::config::{Config, Target};
use crate::error::Error;
use crate::telemetry::log::LogOptions;

const AFTER_HELP: &str = "\
PostgreSQL, for options that --database-url leaves out, read as libpq reads them:
  PGHOST (localhost), PGPORT (5432), PGUSER (the operating system's user),
  PGPASSWORD, PGPASSWORD_FILE (a file that holds it and nothing else) or
  PGPASSFILE (~/.pgpass), PGDATABASE (named like the user), PGSERVICE,
  PGAPPNAME (pg_mask loader), PGCONNECT_TIMEOUT (10 seconds), PGOPTIONS,
  PGTARGETSESSIONATTRS (read-write): of several hosts, the one that takes writes,
  PGSSLMODE (prefer), PGSSLROOTCERT, PGSSLCERT, PGSSLKEY, PGCHANNELBINDING ...
  loader/libpq-connect/README.md lists all. Across a network use verify-full.

AWS, via its standard chain:
  AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION, web
  identity, container and instance roles. With --endpoint-url and no region, the
  region is us-east-1.

A file of variables:
  LOADER_ENV_FILE names a file with lines NAME=value. Variables of the environment
  override it. No other file of variables is read.

Traces:
  OTEL_EXPORTER_OTLP_ENDPOINT and OpenTelemetry's other variables, in builds with
  the feature otlp

Privileges that the loader needs:
  PostgreSQL  CONNECT on the database, USAGE on the schemas of the inbox and of
              pg_mask, INSERT on the inbox
  IAM         sqs:ReceiveMessage, sqs:DeleteMessage,
              sqs:ChangeMessageVisibility, sqs:GetQueueAttributes; with --queue
              sqs:GetQueueUrl; kms:Decrypt for a queue encrypted by your own key

Signals:
  SIGTERM, SIGINT  Stop receiving, commit and delete messages in flight, exit 0.
                   On a second signal, or after --grace, make the rest visible
                   again and exit 0.

Standard output, when the loader ends:
  received N, stored N, duplicate N, rejected N, deleted N
  (with --dry-run a line that begins with 'dry run:'; redrive: taken N, stored N,
  duplicate N, rejected N). Everything else goes to standard error. No event is
  printed.

Exit codes:
  0  done, or stopped by a signal
  1  internal error, or a port or file of this machine that is unavailable now
  2  usage or configuration: a restart does not help
  3  SQS
  4  PostgreSQL
  5  the inbox did not account for every event: nothing of that batch was stored
     or deleted
  6  the inbox was replaced, dropped or given another owner after the start:
     nothing more was sent to it";

/// Moves events from an SQS queue into a `pg_mask` inbox: a message is deleted only after the transaction
/// that stored or rejected it has committed. The loader does not read events; the database parses and masks
/// them.
// No Debug: see `Config`.
#[derive(Parser)]
#[command(name = "loader", version, after_help = AFTER_HELP, max_term_width = 110)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// Without one, events are moved.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) config: Config,
}

/// Commands besides moving events.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Checks everything that a run with these options needs, and says what to do about each problem. Moves nothing. Exits
    /// with 0 if a run can begin, even with warnings
    Check(Box<Check>),
    /// Puts rejects back into the inbox after their cause is fixed. This happens inside the database: no event passes through
    /// the loader. A stored event leaves the rejects table in the same transaction
    Redrive(Redrive),
    /// Prints shell completions
    Completions(Completions),
    /// Prints the man page, or writes all man pages into a folder
    Man(ManPages),
}

/// Commands that ignore the environment.
const COMMANDS_WITHOUT_ENVIRONMENT: [&str; 2] = ["completions", "man"];

impl Cli {
    /// Returns the options of the log.
    pub(crate) fn log(&self) -> &LogOptions {
        match &self.command {
            None | Some(Command::Completions(_) | Command::Man(_)) => &self.config.log,
            Some(Command::Check(check)) => &check.config.log,
            Some(Command::Redrive(redrive)) => &redrive.log,
        }
    }

    fn target(&mut self) -> &mut Target {
        match &mut self.command {
            None | Some(Command::Completions(_) | Command::Man(_)) => &mut self.config.target,
            Some(Command::Check(check)) => &mut check.config.target,
            Some(Command::Redrive(redrive)) => &mut redrive.target,
        }
    }

    /// Reads the command line and the environment. Prints help, the version or a usage error, and exits then.
    pub(crate) fn load() -> Result<Self, Error> {
        // A subcommand must be the first argument.
        if std::env::args_os()
            .nth(1)
            .is_some_and(|first| COMMANDS_WITHOUT_ENVIRONMENT.iter().any(|name| first == *name))
        {
            let matches = Self::command().mut_args(|option| option.env(Resettable::Reset)).get_matches();
            return Self::from_arg_matches(&matches).map_err(|e| Error::Config(e.to_string()));
        }
        if let Some(file) = std::env::var_os("LOADER_ENV_FILE").filter(|file| !file.is_empty()) {
            read_env_file(&PathBuf::from(file))?;
        }
        let matches = Self::command().try_get_matches().unwrap_or_else(|error| usage(&error));
        let mut cli = Self::from_arg_matches(&matches).map_err(|e| Error::Config(e.to_string()))?;
        let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
        let url_on_command_line = matches.value_source("database_url") == Some(ValueSource::CommandLine);
        cli.target().url_on_command_line = url_on_command_line;
        let config = match &mut cli.command {
            None => &mut cli.config,
            Some(Command::Check(check)) => &mut check.config,
            Some(_) => return Ok(cli),
        };
        config.queue.prefer_service_endpoint(matches, std::env::var("AWS_ENDPOINT_URL_SQS").ok());
        config.validate()?;
        Ok(cli)
    }
}

/// Prints help, version, or what is wrong with the command line, and exits.
fn usage(error: &clap::Error) -> ! {
    use clap::error::{ContextKind, ContextValue};
    // Without quotes, the shell splits a connection string into several arguments. One of them can be the password.
    let holds_a_string = |value: &ContextValue| {
        let ContextValue::String(text) = value else { return false };
        text.contains('=') || text.contains("://")
    };
    let unexpected = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand];
    if error.use_stderr() && unexpected.iter().any(|kind| error.get(*kind).is_some_and(holds_a_string)) {
        let kind = clap::error::ErrorKind::UnknownArgument;
        let text = "unexpected argument with = or :// in it, not shown because it can hold a password. Put quotes around the \
                    value of --database-url";
        Cli::command().error(kind, text).exit();
    }
    error.exit()
}

/// Sets the variables of `file` that are not set yet. It must run while the process has only one thread.
fn read_env_file(file: &Path) -> Result<(), Error> {
    dotenvy::from_path(file).map_err(|error| {
        let text = |why: &str| format!("LOADER_ENV_FILE: {} cannot be read: {why}", file.display());
        match error {
            // The file may be in the middle of a replacement.
            dotenvy::Error::Io(error) => Error::Machine(text(&error.to_string())),
            // dotenvy's message quotes the line, which can hold a password.
            _ => Error::Config(text("it has a line that is not NAME=value")),
        }
    })
}
