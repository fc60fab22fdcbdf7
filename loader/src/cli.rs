//! The command line and the environment.

use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use uuid::Uuid;

use crate::config::{Config, LogOptions, Target};
use crate::documents::{Completions, ManPages};
use crate::error::Error;

const AFTER_HELP: &str = "\
PostgreSQL, for what --database-url does not say, as libpq reads them:
  PGHOST (localhost), PGPORT (5432), PGUSER (the operating system's user),
  PGPASSWORD, PGPASSWORD_FILE (a file that holds it and nothing else) or
  PGPASSFILE (~/.pgpass), PGDATABASE (named like the user), PGSERVICE,
  PGAPPNAME (pg_mask loader), PGCONNECT_TIMEOUT (10 seconds), PGOPTIONS,
  PGTARGETSESSIONATTRS (read-write): of several hosts, the one that takes writes,
  PGSSLMODE (prefer), PGSSLROOTCERT, PGSSLCERT, PGSSLKEY, PGCHANNELBINDING ...
  The README says of each what becomes of it. Across a network use verify-full.

AWS, by its standard chain:
  AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION, web
  identity, container and instance roles. With an endpoint of your own and no
  region, the region is us-east-1.

A file of variables:
  LOADER_ENV_FILE names a file with lines NAME=value, for variables that the
  environment leaves out. No other file of variables is read.

Traces:
  OTEL_EXPORTER_OTLP_ENDPOINT and OpenTelemetry's other variables, in builds with
  the feature otlp

Rights that the loader needs:
  PostgreSQL  CONNECT on the database, USAGE on the schemas of the inbox and of
              pg_mask, INSERT on the inbox
  IAM         sqs:ReceiveMessage, sqs:DeleteMessage,
              sqs:ChangeMessageVisibility, sqs:GetQueueAttributes; with --queue
              sqs:GetQueueUrl; kms:Decrypt for a queue encrypted by your own key

Signals:
  SIGTERM, SIGINT  Receive no more, commit and delete what is in hand, exit 0.
                   On a second one, or when --grace has passed, make the rest
                   visible again and exit 0.

Standard output, when the loader ends:
  received N, stored N, duplicate N, rejected N, deleted N
  (with --dry-run a line that begins with 'dry run:'; redrive: taken N, stored N,
  duplicate N, rejected N). Everything else goes to standard error. No event is
  ever printed.

Exit codes:
  0  done, or stopped by a signal
  1  internal error, or a port or file of this machine that cannot be used now
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

/// What the loader can do besides moving events.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Looks at everything that a run with these options needs, says what is wrong and what to do about it, and moves
    /// nothing. Exits with 0 if a run can begin, warnings or not
    Check(Box<Check>),
    /// Puts rejects back into the inbox, once what was wrong is mended. That is done inside the database: no event
    /// passes through the loader, and what is stored leaves the rejects in the same transaction
    Redrive(Redrive),
    /// Prints completions of these options for a shell
    Completions(Completions),
    /// Prints the man page, or writes all of them
    Man(ManPages),
}

/// The commands that tell of the command line and do nothing else: whatever the environment holds, they work.
const BY_THEMSELVES: [&str; 2] = ["completions", "man"];

/// `loader check`.
// No Debug: see `Config`.
#[derive(clap::Args)]
pub(crate) struct Check {
    /// Print the items as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) config: Config,
}

/// `loader redrive`.
// No Debug: see `Config`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
// What the environment brings would stand there, too, as if it had to.
#[command(
    override_usage = "loader redrive [OPTIONS] <--reason <TEXT>|--older-than <INTERVAL>|--newer-than <INTERVAL>|\
                            --message-id <UUID>|--all>"
)]
pub(crate) struct Redrive {
    /// Those whose reason has this text in it
    #[arg(long, value_name = "TEXT", group = "which")]
    pub(crate) reason: Option<String>,

    /// Those that were rejected longer ago, as the server writes an interval: '2 hours', '1 day'
    #[arg(long, value_name = "INTERVAL", group = "which")]
    pub(crate) older_than: Option<String>,

    /// Those that were rejected since then
    #[arg(long, value_name = "INTERVAL", group = "which")]
    pub(crate) newer_than: Option<String>,

    /// Those of these messages
    #[arg(long, value_name = "UUID", value_delimiter = ',', group = "which")]
    pub(crate) message_id: Vec<Uuid>,

    /// All of them
    #[arg(long, group = "which", conflicts_with_all = ["reason", "older_than", "newer_than", "message_id"])]
    pub(crate) all: bool,

    /// At most so many rejects in one transaction
    #[arg(long, value_name = "REJECTS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) batch_size: u32,

    /// Say what would become of the first batch, and roll it back
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) target: Target,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

impl Cli {
    /// What to log.
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

    /// Reads the command line and the environment. Prints help, version and usage errors itself and exits for
    /// them.
    pub(crate) fn load() -> Result<Self, Error> {
        // A command can stand in the first place alone.
        if std::env::args_os().nth(1).is_some_and(|first| BY_THEMSELVES.iter().any(|name| first == *name)) {
            let matches = Self::command().mut_args(|option| option.env(Resettable::Reset)).get_matches();
            return Self::from_arg_matches(&matches).map_err(|e| Error::Config(e.to_string()));
        }
        if let Some(file) = std::env::var_os("LOADER_ENV_FILE").filter(|file| !file.is_empty()) {
            read_env_file(&PathBuf::from(file))?;
        }
        let matches = Self::command().try_get_matches().unwrap_or_else(|error| usage(&error));
        let mut cli = Self::from_arg_matches(&matches).map_err(|e| Error::Config(e.to_string()))?;
        let matches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
        let in_the_open = matches.value_source("database_url") == Some(ValueSource::CommandLine);
        cli.target().url_is_in_the_open = in_the_open;
        let config = match &mut cli.command {
            None => &mut cli.config,
            Some(Command::Check(check)) => &mut check.config,
            Some(_) => return Ok(cli),
        };
        config.prefer_service_endpoint(matches, std::env::var("AWS_ENDPOINT_URL_SQS").ok());
        config.validate()?;
        Ok(cli)
    }
}

/// Prints help, version, or what is wrong with the command line, and exits.
fn usage(error: &clap::Error) -> ! {
    use clap::error::{ContextKind, ContextValue};
    // A connection string without its quotes falls into arguments of their own, and one of them may be the password.
    let holds_a_string = |value: &ContextValue| {
        let ContextValue::String(text) = value else { return false };
        text.contains('=') || text.contains("://")
    };
    let unexpected = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand];
    if error.use_stderr() && unexpected.iter().any(|kind| error.get(*kind).is_some_and(holds_a_string)) {
        let kind = clap::error::ErrorKind::UnknownArgument;
        let text = "an argument that is not expected here has a = or :// in it, and is not shown, as it may hold a password. \
                    Are there quotes around what follows --database-url?";
        Cli::command().error(kind, text).exit();
    }
    error.exit()
}

/// Sets the variables of `file` that are not set yet. To be called while there is but one thread.
fn read_env_file(file: &Path) -> Result<(), Error> {
    dotenvy::from_path(file).map_err(|error| {
        let text = |why: &str| format!("LOADER_ENV_FILE: {} cannot be read: {why}", file.display());
        match error {
            // It may be about to be replaced.
            dotenvy::Error::Io(error) => Error::Machine(text(&error.to_string())),
            // Its text has the line, which may hold a password.
            _ => Error::Config(text("there is a line in it that is not NAME=value")),
        }
    })
}
