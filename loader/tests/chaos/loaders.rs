//! Loaders that run until they are told to stop, and are started again as soon as they are killed.

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

/// For how long messages are hidden. It is what a killed loader's messages are waited for, so little is good.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(8);
/// Exit codes of a loader that found a server down when it started: then it does not try again.
const NOT_STARTED: [i32; 2] = [3, 4];

/// What a loader is told, and where it writes.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    pub(crate) queue: &'static str,
    pub(crate) endpoint: String,
    pub(crate) database: String,
    pub(crate) logs: PathBuf,
    /// A port for metrics. Then nobody reads the log.
    pub(crate) unread_at: Option<u16>,
}

/// How the processes of one place have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) killed: usize,
    /// A server was down when it started.
    pub(crate) not_started: usize,
    /// By SIGTERM, with exit code 0.
    pub(crate) stopped: usize,
}

enum Order {
    Kill(oneshot::Sender<()>),
    Stop,
}

/// A place in which there is always a loader.
pub(crate) struct Place {
    orders: mpsc::UnboundedSender<Order>,
    has_failed: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
    task: JoinHandle<Result<Ends, String>>,
}

impl Place {
    /// Starts the first.
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

    /// The process that runs now.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Relaxed)
    }

    /// kill -9, and a new one.
    pub(crate) async fn kill(&self) {
        let (done, is_done) = oneshot::channel();
        _ = self.orders.send(Order::Kill(done));
        // Where there is nobody to do it, the end of the task says why.
        _ = is_done.await;
    }

    /// Whether one has ended as it should not.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Relaxed)
    }

    /// SIGTERM, without waiting for the end.
    pub(crate) fn stop(&self) {
        _ = self.orders.send(Order::Stop);
    }

    /// Waits for the end. Panics unless the last one ended in good order.
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
        // By its own answer where nobody reads the log.
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
                    return Err(told("a loader ended by itself", status, &log));
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
        // One that is told to stop while it starts is as likely to say that a server is down.
        if status.code() != Some(0) && was_ready() {
            return Err(told("a loader that got SIGTERM did not end in good order", status, &log));
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
        ("LOADER_WAIT", "1"),
        ("LOADER_VISIBILITY", &visibility),
        ("LOADER_POLLERS", "8"),
        ("LOADER_BATCH_SIZE", "300"),
        ("LOADER_LINGER", "50"),
        ("LOADER_WRITERS", "2"),
        ("LOADER_STORE_TIMEOUT", "2"),
        ("LOADER_GRACE", "10"),
        // A line for each batch, from which the report is made.
        ("LOADER_LOG_LEVEL", "debug"),
        ("LOADER_LOG_FORMAT", "json"),
    ];
    command.envs(variables).stdin(Stdio::null()).stdout(Stdio::null());
    match setup.unread_at {
        // The pipe stays open with the child.
        Some(port) => {
            command.env("LOADER_METRICS_ADDRESS", format!("127.0.0.1:{port}")).stderr(Stdio::piped())
        }
        None => command.stderr(File::create(log).unwrap()),
    };
    command.spawn().unwrap()
}

/// Where the loaders read their AWS credentials.
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

/// Lines that the loader whose metrics are at `port` has dropped from a log that nobody reads.
pub(crate) async fn dropped_lines(port: u16) -> usize {
    let address = format!("127.0.0.1:{port}");
    // It may just be starting again.
    eventually("its metrics", async || TcpStream::connect(&address).await.is_ok()).await;
    let metrics = Metrics::of(&address).await;
    metrics.count("pg_mask_loader_log_lines_dropped_total", &[])
}

/// Failures of batches at a full disk, of the loader whose metrics are at `port`.
pub(crate) async fn full_disks(port: u16) -> usize {
    let address = format!("127.0.0.1:{port}");
    if TcpStream::connect(&address).await.is_err() {
        // It starts again.
        return 0;
    }
    let metrics = Metrics::of(&address).await;
    let (name, full) = ("pg_mask_loader_store_failures_total", [("sqlstate", "53100")]);
    if metrics.text.contains("53100") { metrics.count(name, &full) } else { 0 }
}

/// Waits until the loader whose metrics are at this port is ready.
async fn answers_ready(port: Option<u16>) {
    let Some(port) = port else { return pending().await };
    loop {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
            // The loader may be killed in the middle of it.
            _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: l\r\nconnection: close\r\n\r\n").await;
            _ = stream.read_to_string(&mut answer).await;
        }
        if answer.starts_with("HTTP/1.1 200") {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the loader with this log was ready, as far as somebody reads it.
fn is_ready(log: &Path) -> bool {
    fs::read_to_string(log).is_ok_and(|log| log.contains(r#""message":"ready""#))
}

fn told(what: &str, status: ExitStatus, log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(20)..];
    format!("{what}, with {status}; the end of {}:\n{}", log.display(), last.join("\n"))
}

/// How often the loaders have written this.
pub(crate) fn count_in_logs(folder: &Path, text: &str) -> usize {
    let logs = fs::read_dir(folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    logs.map(|log| log.matches(text).count()).sum()
}

/// What the loaders wrote, added up.
#[derive(Default)]
pub(crate) struct Logs {
    /// Numbers of the messages of a batch, by their names.
    pub(crate) batches: BTreeMap<&'static str, u64>,
    pub(crate) extended: u64,
    /// Leases that ran out, or that SQS refused to extend.
    pub(crate) lapsed: u64,
    /// Deletes that SQS refused.
    pub(crate) undeleted: u64,
    /// Lines that say that something is tried again.
    pub(crate) again: u64,
    /// SQLSTATEs and how often they were met.
    pub(crate) states: BTreeMap<String, u64>,
}

impl Logs {
    /// Reads all that is in a folder.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut logs = Self::default();
        for entry in fs::read_dir(folder).unwrap() {
            fs::read_to_string(entry.unwrap().path()).unwrap().lines().for_each(|line| logs.add(line));
        }
        logs
    }

    fn add(&mut self, line: &str) {
        // The last line of one that was killed may be half of one.
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { return };
        let number = |name: &str| line[name].as_u64().unwrap_or(0);
        let message = line["message"].as_str().unwrap_or_default();
        if message == "batch committed" {
            for name in ["messages", "received_before", "stored", "duplicate", "rejected"] {
                *self.batches.entry(name).or_default() += number(name);
            }
        } else if message == "leases extended" {
            self.extended += number("extended");
            self.lapsed += number("lost");
        } else if message.starts_with("leases ran out") {
            self.lapsed += number("messages");
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
