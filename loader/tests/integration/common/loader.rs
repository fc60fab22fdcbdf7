//! The loader as a process: start it, signal it, and inspect it after it has ended.

use std::fs;
use std::io::{PipeReader, pipe};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::{Depth, Proxy, Queue, World, eventually, setting};

/// A loader to start. It inherits nothing from the caller's environment.
pub(crate) struct Loader {
    command: Command,
}

impl Loader {
    pub(super) fn of(world: &World) -> Self {
        Self::at_queue(&world.name).database(&world.name, &world.password, &world.name)
    }

    /// Creates a loader without a database.
    pub(crate) fn at_queue(queue: &str) -> Self {
        let mut command = bare(env!("CARGO_BIN_EXE_loader"));
        for name in ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
            command.env(name, setting(name));
        }
        command
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("LOADER_QUEUE", queue)
            .env("LOADER_INBOX", "login_inbox")
            // These are variables, because an option may be given only once and a test may want to give these.
            .env("LOADER_WAIT", "1")
            .env("LOADER_LINGER", "100")
            // Longer than any test: a message that came back by itself would hide that the loader didn't give it back.
            .env("LOADER_VISIBILITY", "3600")
            .env("LOADER_LOG_FORMAT", "human");
        Self { command }
    }

    /// Connects to another database or as another role.
    pub(crate) fn database(self, role: &str, password: &str, database: &str) -> Self {
        let (host, port) = (setting("PGHOST"), setting("PGPORT"));
        self.env("DATABASE_URL", &format!("postgres://{role}:{password}@{host}:{port}/{database}"))
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds options, written as on a command line.
    pub(crate) fn options(mut self, options: &str) -> Self {
        self.command.args(options.split_whitespace());
        self
    }

    /// Sends all SQS calls through `proxy`.
    pub(crate) fn through(self, proxy: &Proxy) -> Self {
        self.env("AWS_ENDPOINT_URL", &proxy.url)
    }

    /// Uses another SQS server, which may be a stub.
    pub(crate) fn at(self, url: &str) -> Self {
        self.env("AWS_ENDPOINT_URL", url)
    }

    /// Removes an environment variable.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Makes a shell run `before` and then become the loader. The shell's `$$` is thus the loader's process id.
    pub(crate) fn after(self, before: &str) -> Self {
        let line = format!("{before}; exec {}", self.line());
        self.started_by("sh", &["-c", &line])
    }

    /// Runs the loader at a terminal with this many columns. Both of its outputs then arrive as standard output.
    pub(crate) fn at_a_terminal(self, columns: u16) -> Self {
        let line = format!("stty cols {columns} rows 24; exec {}", self.line());
        self.started_by("script", &["-q", "-e", "-c", &line, "/dev/null"])
    }

    /// Runs `program`, a copy of the loader, as a user who isn't root.
    pub(crate) fn by_nobody(self, program: &Path) -> Self {
        let mut command = nobody(program.to_str().unwrap());
        let old = self.command.as_std();
        command.args(old.get_args()).envs(old.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self { command }
    }

    fn line(&self) -> String {
        let command = self.command.as_std();
        let words = [command.get_program()].into_iter().chain(command.get_args());
        words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    fn started_by(self, program: &str, arguments: &[&str]) -> Self {
        let variables = self.command.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut command = bare(program);
        command.args(arguments).envs(variables);
        Self { command }
    }

    /// Starts the loader.
    pub(crate) fn start(mut self) -> Running {
        let mut child = self.command.spawn().unwrap();
        let pid = child.id().unwrap();
        let said = Arc::<Mutex<String>>::default();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let for_output = Arc::clone(&said);
        let output = tokio::spawn(async move {
            let stderr = async {
                while let Some(line) = lines.next_line().await.unwrap() {
                    for_output.lock().unwrap().extend([line.as_str(), "\n"]);
                }
            };
            let (output, ()) = tokio::join!(child.wait_with_output(), stderr);
            let output = output.unwrap();
            Ended {
                code: output.status.code(),
                dumped: output.status.core_dumped(),
                stdout: String::from_utf8(output.stdout).unwrap(),
                stderr: for_output.lock().unwrap().clone(),
            }
        });
        Running { pid, said, output }
    }

    /// Starts the loader with both outputs in one pipe, which nobody reads until the test does.
    pub(crate) fn start_unread(mut self) -> (Child, PipeReader) {
        let (unread, writer) = pipe().unwrap();
        // The smallest pipe that Linux allows, so that little output fills it.
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
        self.command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = self.command.spawn().unwrap();
        // The command holds the pipe's write end, which must close with the loader.
        drop(self);
        (child, unread)
    }

    /// Runs the loader until the queue is empty. This is quicker than `--drain`, which looks twice.
    pub(crate) async fn until_empty(self, queue: &Queue) -> Ended {
        let running = self.start();
        eventually("an empty queue", async || {
            running.output.is_finished() || queue.depth().await == Depth::EMPTY
        })
        .await;
        if running.output.is_finished() { running.end().await } else { running.stop().await }
    }

    /// Starts the loader and waits until it ends.
    pub(crate) async fn end(self) -> Ended {
        self.start().end().await
    }
}

/// Returns a command that runs as a user who isn't root: as the test's own user if that isn't root, else as user 65534.
pub(crate) fn nobody(program: &str) -> Command {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return bare(program);
    }
    let mut command = bare("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
    command
}

fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A test that fails must leave no loader behind.
    command.kill_on_drop(true);
    command
}

/// A running loader.
pub(crate) struct Running {
    pub(crate) pid: u32,
    said: Arc<Mutex<String>>,
    output: JoinHandle<Ended>,
}

impl Running {
    /// Sends the signal `TERM`, `INT` or `KILL`. The loader may already have ended after an earlier signal.
    pub(crate) async fn signal(&self, name: &str) {
        // The shell's built-in kill exists on every system.
        let command = format!("kill -{name} {}", self.pid);
        if !Command::new("sh").args(["-c", &command]).status().await.unwrap().success() {
            eventually(&command, async || self.output.is_finished()).await;
        }
    }

    /// Returns the standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits for the address of the loader's metrics and returns it as `host:port`.
    pub(crate) async fn metrics_address(&self) -> String {
        let address =
            |said: &str| Some(said.split_once("metrics at http://")?.1.split_once('/')?.0.to_owned());
        eventually("an address of metrics", async || address(&self.said()).is_some()).await;
        address(&self.said()).unwrap()
    }

    /// Waits until the loader ends.
    pub(crate) async fn end(mut self) -> Ended {
        (&mut self.output).await.unwrap()
    }

    /// Sends SIGTERM and waits until the loader ends.
    pub(crate) async fn stop(self) -> Ended {
        self.signal("TERM").await;
        self.end().await
    }
}

impl Drop for Running {
    #[expect(clippy::print_stderr, reason = "the test harness shows it with the test's failure")]
    fn drop(&mut self) {
        // A test that waits in vain for a loader would otherwise not say why.
        if std::thread::panicking() {
            eprintln!("the loader said:\n{}", self.said());
        }
        self.output.abort();
    }
}

/// A loader that has ended.
pub(crate) struct Ended {
    /// Exit code; none if a signal ended the loader.
    pub(crate) code: Option<i32>,
    /// Whether the kernel made a core dump.
    pub(crate) dumped: bool,
    /// Complete standard output.
    pub(crate) stdout: String,
    /// Complete standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Panics unless the exit code is `code`.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code; the loader said:\n{}", self.output());
        self
    }

    /// Panics unless standard error contains each of `words`.
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in:\n{}", self.stderr);
        }
        self
    }

    /// Returns everything that the loader printed: standard output, then standard error.
    pub(crate) fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Returns the counts that the loader printed.
    pub(crate) fn summary(&self) -> Summary {
        self.try_summary().unwrap_or_else(|| panic!("no summary in {:?}", self.stdout))
    }

    fn try_summary(&self) -> Option<Summary> {
        let rest = self.stdout.strip_prefix("received ")?.strip_suffix('\n')?;
        let (received, rest) = rest.split_once(", stored ")?;
        let (stored, rest) = rest.split_once(", duplicate ")?;
        let (duplicate, rest) = rest.split_once(", rejected ")?;
        let (rejected, deleted) = rest.split_once(", deleted ")?;
        Some(Summary {
            received: received.parse().ok()?,
            stored: stored.parse().ok()?,
            duplicate: duplicate.parse().ok()?,
            rejected: rejected.parse().ok()?,
            deleted: deleted.parse().ok()?,
        })
    }
}

/// Counts from the last line of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) received: usize,
    pub(crate) stored: usize,
    pub(crate) duplicate: usize,
    pub(crate) rejected: usize,
    pub(crate) deleted: usize,
}

impl Summary {
    /// Returns the summary of a run that stored `messages` and nothing else.
    pub(crate) fn stored(messages: usize) -> Self {
        Self { received: messages, stored: messages, deleted: messages, ..Self::default() }
    }

    /// Returns the summary of a run in which all `messages` were stored already.
    pub(crate) fn duplicate(messages: usize) -> Self {
        Self { received: messages, duplicate: messages, deleted: messages, ..Self::default() }
    }
}
