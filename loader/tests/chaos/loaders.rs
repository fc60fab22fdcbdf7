//! Loaders that run until they're told to stop. A killed loader is started again at once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::common::{Metrics, eventually, setting};

/// Visibility timeout. A killed loader's messages are hidden until it ends, so it's short.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(8);
/// Exit codes of a loader that found a server down at its start. It doesn't retry then.
const NOT_STARTED: [i32; 2] = [3, 4];

/// Settings of a loader, and the folder for its logs.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) queue: &'static str,
    pub(crate) endpoint: String,
    pub(crate) database: String,
    pub(crate) logs: PathBuf,
    /// Port for metrics. A loader with this has a log that nobody reads.
    pub(crate) unread_at: Option<u16>,
}

/// Number of processes of one place, by how they ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) killed: usize,
    /// A server was down at the start.
    pub(crate) not_started: usize,
    /// Stopped by SIGTERM.
    pub(crate) stopped: usize,
}

enum Order {
    Kill(oneshot::Sender<()>),
    Stop,
}

/// A place in which a loader always runs.
pub(crate) struct Place {
    orders: mpsc::UnboundedSender<Order>,
    has_failed: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
    task: JoinHandle<Result<Ends, String>>,
}

impl Place {
    /// Starts the first loader.
    pub(crate) fn start(setup: Setup) -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let has_failed = Arc::new(AtomicBool::new(false));
        let pid = Arc::new(AtomicU32::new(0));
        let (flag, current) = (Arc::clone(&has_failed), Arc::clone(&pid));
        let task = tokio::spawn(async move {
            let ends = keep_running(setup, ordered, &current).await;
            flag.store(ends.is_err(), Relaxed);
            ends
        });
        Self { orders, has_failed, pid, task }
    }

    /// Returns the process id of the current loader.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Relaxed)
    }

    /// Kills the loader with SIGKILL. The place starts a new one.
    pub(crate) async fn kill(&self) {
        let (done, is_done) = oneshot::channel();
        _ = self.orders.send(Order::Kill(done));
        // If the task has ended and nobody handles the order, the task's result says why.
        _ = is_done.await;
    }

    /// Whether a loader has ended in a way that it shouldn't.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Relaxed)
    }

    /// Sends SIGTERM without waiting for the end.
    pub(crate) fn stop(&self) {
        _ = self.orders.send(Order::Stop);
    }

    /// Stops the loader and waits for its end. Panics unless the last loader ended in good order.
    pub(crate) async fn end(self) -> Ends {
        self.stop();
        self.task.await.unwrap().unwrap_or_else(|why| panic!("{why}"))
    }
}

async fn keep_running(
    setup: Setup,
    mut orders: mpsc::UnboundedReceiver<Order>,
    pid: &AtomicU32,
) -> Result<Ends, String> {
    let mut ends = Ends::default();
    for number in 1.. {
        let log = setup.logs.join(format!("{}-{number}.log", setup.name));
        let mut child = start(&setup, &log);
        pid.store(child.id().unwrap_or_default(), Relaxed);
        // If nobody reads the log, readiness is taken from the loader's own `/readyz`.
        let mut has_answered = false;
        let order = loop {
            tokio::select! {
                order = orders.recv() => break Ok(order),
                status = child.wait() => break Err(status.unwrap()),
                () = answers_ready(setup.unread_at), if !has_answered => has_answered = true,
            }
        };
        let was_ready = || has_answered || is_ready(&log);
        let order = match order {
            Ok(order) => order,
            Err(status) => {
                if was_ready() || !status.code().is_some_and(|code| NOT_STARTED.contains(&code)) {
                    return Err(end_of_log("a loader ended by itself", status, &log));
                }
                ends.not_started += 1;
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        if let Some(Order::Kill(done)) = order {
            child.kill().await.unwrap();
            ends.killed += 1;
            _ = done.send(());
            continue;
        }
        let command = format!("kill -TERM {}", child.id().unwrap());
        _ = Command::new("sh").args(["-c", &command]).status().await;
        let status = child.wait().await.unwrap();
        // A loader that gets SIGTERM while it starts may as well end because a server is down.
        if status.code() != Some(0) && was_ready() {
            return Err(end_of_log("a loader that got SIGTERM did not end in good order", status, &log));
        }
        ends.stopped += 1;
        break;
    }
    Ok(ends)
}

fn start(setup: &Setup, log: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loader"));
    command.env_clear().kill_on_drop(true);
    command.env("AWS_REGION", setting("AWS_REGION"));
    let visibility = VISIBILITY.as_secs().to_string();
    let credentials = credentials_file(&setup.logs);
    let variables = [
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
        ("AWS_ENDPOINT_URL", &setup.endpoint),
        ("DATABASE_URL", &setup.database),
        ("PGCONNECT_TIMEOUT", "2"),
        ("LOADER_QUEUE", setup.queue),
        ("LOADER_INBOX", "login_inbox"),
        ("LOADER_WAIT", "1"),
        ("LOADER_VISIBILITY", &visibility),
        ("LOADER_POLLERS", "8"),
        ("LOADER_BATCH_SIZE", "300"),
        ("LOADER_LINGER", "50"),
        ("LOADER_WRITERS", "2"),
        ("LOADER_STORE_TIMEOUT", "2"),
        ("LOADER_GRACE", "10"),
        // Debug logs one line per batch, from which the report is made.
        ("LOADER_LOG_LEVEL", "debug"),
        ("LOADER_LOG_FORMAT", "json"),
    ];
    command.envs(variables).stdin(Stdio::null()).stdout(Stdio::null());
    match setup.unread_at {
        // The child holds the pipe, which so stays open as long as the child.
        Some(port) => {
            command.env("LOADER_METRICS_ADDRESS", format!("127.0.0.1:{port}")).stderr(Stdio::piped())
        }
        None => command.stderr(File::create(log).unwrap()),
    };
    command.spawn().unwrap()
}

/// Returns the path of the loaders' AWS credentials file.
fn credentials_file(logs: &Path) -> PathBuf {
    logs.with_file_name("chaos-credentials")
}

/// Gives the loaders an access key, or takes it away.
pub(crate) fn set_credentials(logs: &Path, key: Option<&str>) {
    let text = key.map_or_else(String::new, |key| {
        format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")
    });
    fs::write(credentials_file(logs), text).unwrap();
}

/// Returns the number of log lines that the loader with metrics at `port` has dropped, because nobody reads its log.
pub(crate) async fn dropped_lines(port: u16) -> usize {
    let address = format!("127.0.0.1:{port}");
    // The loader may be restarting.
    eventually("its metrics", async || TcpStream::connect(&address).await.is_ok()).await;
    let metrics = Metrics::of(&address).await;
    metrics.count("pg_mask_loader_log_lines_dropped_total", &[])
}

/// Returns how often the loader with metrics at `port` has failed to store a batch because the disk was full; 0 while it is
/// down.
pub(crate) async fn full_disks(port: u16) -> usize {
    let address = format!("127.0.0.1:{port}");
    if TcpStream::connect(&address).await.is_err() {
        // The loader is restarting.
        return 0;
    }
    let metrics = Metrics::of(&address).await;
    let (name, full) = ("pg_mask_loader_store_failures_total", [("sqlstate", "53100")]);
    if metrics.text.contains("53100") { metrics.count(name, &full) } else { 0 }
}

/// Waits until the loader with metrics at `port` is ready. Waits indefinitely without a port.
async fn answers_ready(port: Option<u16>) {
    let Some(port) = port else { return pending().await };
    loop {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
            // The loader may be killed during the request.
            _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: l\r\nconnection: close\r\n\r\n").await;
            _ = stream.read_to_string(&mut answer).await;
        }
        if answer.starts_with("HTTP/1.1 200") {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the loader with this log was ready. Always false for a log that nobody reads.
fn is_ready(log: &Path) -> bool {
    fs::read_to_string(log).is_ok_and(|log| log.contains(r#""message":"ready""#))
}

fn end_of_log(what: &str, status: ExitStatus, log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    format!("{what}, with {status}; the end of {}:\n{}", log.display(), last.join("\n"))
}

/// Counts the occurrences of `text` in all logs.
pub(crate) fn count_in_logs(folder: &Path, text: &str) -> usize {
    let logs = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    logs.map(|log| log.matches(text).count()).sum()
}

/// Totals of what the loaders have logged.
#[derive(Default)]
pub(crate) struct Logs {
    /// Message counts of all batches, by the name of the log field.
    pub(crate) batches: BTreeMap<&'static str, u64>,
    pub(crate) extended: u64,
    /// Leases that expired, or that SQS refused to extend.
    pub(crate) expired: u64,
    /// Deletes that SQS refused.
    pub(crate) undeleted: u64,
    /// Lines that report a retry.
    pub(crate) again: u64,
    /// SQLSTATEs and how often each occurred.
    pub(crate) states: BTreeMap<String, u64>,
}

impl Logs {
    /// Reads all logs in a folder.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut logs = Self::default();
        for entry in fs::read_dir(folder).unwrap() {
            fs::read_to_string(entry.unwrap().path()).unwrap().lines().for_each(|line| logs.add(line));
        }
        logs
    }

    fn add(&mut self, line: &str) {
        // The last line of a killed loader may be incomplete.
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { return };
        let number = |name: &str| line[name].as_u64().unwrap_or(0);
        let message = line["message"].as_str().unwrap_or_default();
        if message == "batch committed" {
            for name in ["messages", "received_before", "stored", "duplicate", "rejected"] {
                *self.batches.entry(name).or_default() += number(name);
            }
        } else if message == "leases extended" {
            self.extended += number("extended");
        } else if message.starts_with("leases expired or refused") {
            self.expired += number("expired") + number("refused");
        } else if message.starts_with("SQS refuses to delete") {
            let ids = line["message_ids"].as_str().unwrap_or_default();
            self.undeleted += ids.split_whitespace().count() as u64;
        }
        self.again += u64::from(message.contains("trying again"));
        if let Some((_, rest)) = message.split_once("SQLSTATE ") {
            let state = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            *self.states.entry(state).or_default() += 1;
        }
    }
}
