//! Notifies the service manager that started the loader, usually systemd, via the protocol of `sd_notify(3)`: readiness,
//! status, signs of life for the watchdog, and the stop.

use std::convert::Infallible;
use std::env;
use std::ffi::OsStr;
use std::future::pending;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tracing::warn;

use crate::shutdown::{END_TIME, Shutdown};
use crate::telemetry::stats::Stats;

/// Interval of status messages.
const STATUS_EVERY: Duration = Duration::from_mins(1);
/// Maximum time that one notification can block the loader, if the service manager doesn't read.
const SEND_TIME: Duration = Duration::from_secs(1);
/// Time for the last try of a start.
const START_TIME: Duration = Duration::from_mins(1);

/// The service manager, if it wants messages. If `NOTIFY_SOCKET` is not set, nothing happens.
#[derive(Default)]
pub(crate) struct Systemd {
    socket: Option<UnixDatagram>,
    /// Maximum time without a message. After that, the service manager counts the loader as dead and kills it.
    watchdog: Option<Duration>,
    told_stopping: AtomicBool,
}

impl Systemd {
    /// Returns the service manager that the environment names.
    pub(crate) fn from_env() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        match Self::at(&address, sd_notify::watchdog_enabled()) {
            Ok(systemd) => systemd,
            Err(error) => {
                warn!("NOTIFY_SOCKET: no messages to the service manager: {error}");
                Self::default()
            }
        }
    }

    fn at(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&socket_address(address)?)?;
        socket.set_write_timeout(Some(SEND_TIME))?;
        let watchdog = watchdog.filter(|limit| !limit.is_zero());
        Ok(Self { socket: Some(socket), watchdog, told_stopping: AtomicBool::default() })
    }

    /// Allows the start to take as long as `wait`, even beyond the service manager's own limit.
    pub(crate) fn starting(&self, wait: Duration) {
        if !wait.is_zero() {
            let limit = NotifyState::ExtendTimeoutUsec(microseconds(wait + START_TIME));
            self.notify(&[NotifyState::Status("waiting for the database and SQS"), limit]);
        }
    }

    /// Reports that both sides were checked and that the run begins.
    pub(crate) fn ready(&self, status: &str) {
        self.notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Sends signs of life and the status until it is dropped, and the stop when it begins. A stop can take `grace`.
    ///
    /// The task that runs the pipeline must poll it, and never another thread. The watchdog then learns that the
    /// runtime and its timers work, and that this task isn't stuck: it extends leases and waits for all other tasks.
    /// Nothing more is checked. Every call to SQS and to the database has a time limit, so no task waits indefinitely
    /// for one. A task that panics ends the run by itself. A run that makes no progress because a side is away should
    /// go on, because killing it would gain nothing.
    pub(crate) async fn watch(&self, stats: &Stats, shutdown: &Shutdown, grace: Duration) -> Infallible {
        if self.socket.is_none() {
            return pending().await;
        }
        let mut pings = interval(self.watchdog.unwrap_or(STATUS_EVERY) / 2);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut statuses = interval_at(Instant::now() + STATUS_EVERY, STATUS_EVERY);
        loop {
            tokio::select! {
                _ = pings.tick(), if self.watchdog.is_some() => self.notify(&[NotifyState::Watchdog]),
                _ = statuses.tick() => self.notify(&[NotifyState::Status(&stats.summary().to_string())]),
                () = shutdown.stopping(), if !self.told_stopping.load(Relaxed) => self.stopping(grace),
            }
        }
    }

    /// Reports, once, that the stop has begun, which can take `grace`.
    pub(crate) fn stopping(&self, grace: Duration) {
        if !self.told_stopping.swap(true, Relaxed) {
            self.notify(&[
                NotifyState::Stopping,
                NotifyState::Status("receiving no more; finishing what is in flight"),
                // A grace period longer than the service manager's own limit is intended.
                NotifyState::ExtendTimeoutUsec(microseconds(grace + END_TIME)),
            ]);
        }
    }

    /// Sends all states as one message. A message that doesn't arrive is no reason to stop moving events.
    fn notify(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message = states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if let Err(error) = socket.send(message.as_bytes()) {
            warn!("NOTIFY_SOCKET: the service manager could not be notified: {error}");
        }
    }
}

/// Returns the address of a path, or of a name in Linux's abstract namespace, which is written with an @ before it.
fn socket_address(address: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = address.as_bytes().strip_prefix(b"@") {
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(address)
}

fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the socket of a service manager in the abstract namespace, and its address.
    fn listening(name: &str) -> (UnixDatagram, String) {
        let name = format!("pg_mask-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, format!("@{name}"))
    }

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        let mut messages = Vec::new();
        while let Ok(length) = socket.recv(&mut buffer) {
            messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        messages
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_is_sent_once_a_minute_and_stopping_once() {
        let (socket, address) = listening("status");
        let systemd = Systemd::at(OsStr::new(&address), None).unwrap();
        let (stats, shutdown) = (Stats::new(["q"]), Shutdown::default());
        stats.queue(0).add_received(7);
        systemd.ready("ready");
        shutdown.stop();
        let watch = systemd.watch(&stats, &shutdown, Duration::from_secs(25));
        _ = tokio::time::timeout(Duration::from_secs(130), watch).await;
        let done = "STATUS=received 7, stored 0, duplicate 0, rejected 0, deleted 0";
        let stopping =
            "STOPPING=1\nSTATUS=receiving no more; finishing what is in flight\nEXTEND_TIMEOUT_USEC=37000000";
        // A run can end before `watch` sees the stop, so the run tells of it as well.
        systemd.stopping(Duration::from_secs(25));
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=ready", stopping, done, done]);
    }

    #[test]
    fn a_stalled_runtime_sends_no_watchdog_ping() {
        let (socket, address) = listening("wedged");
        let limit = Duration::from_millis(200);
        let systemd = Systemd::at(OsStr::new(&address), Some(limit)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stats, shutdown) = (Stats::new(["q"]), Shutdown::default());
        runtime.block_on(async {
            let watch = systemd.watch(&stats, &shutdown, Duration::ZERO);
            _ = tokio::time::timeout(limit * 2, watch).await;
            assert!(heard(&socket).len() >= 2, "it lives");
            let watch = systemd.watch(&stats, &shutdown, Duration::ZERO);
            let wedged = async { std::thread::sleep(limit * 3) };
            tokio::select! {
                biased;
                () = wedged => {}
                never = watch => match never {},
            }
        });
        assert_eq!(heard(&socket), Vec::<String>::new());
    }
}
