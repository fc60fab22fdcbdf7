//! The service manager that has started the loader, systemd most often. It is told, by the protocol of `sd_notify(3)`,
//! when the loader is ready, what it has done, that it lives, and that it stops.

use std::convert::Infallible;
use std::env;
use std::ffi::OsStr;
use std::future::pending;
use std::io;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tracing::warn;

use crate::shutdown::{END_TIME, Shutdown};
use crate::stats::Stats;

/// How often what has been done is told anew.
const STATUS_EVERY: Duration = Duration::from_mins(1);
/// How long a service manager that does not read may hold the loader up.
const SEND_TIME: Duration = Duration::from_secs(1);
/// Time for the last try of a start.
const START_TIME: Duration = Duration::from_mins(1);

/// The service manager, if there is one that wants to be told. Where `NOTIFY_SOCKET` is not set, nothing happens.
#[derive(Default)]
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// The loader counts as dead, and is killed, when it has not been heard of for so long.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names.
    pub(crate) fn from_env() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::default();
        };
        match Self::at(&address, sd_notify::watchdog_enabled()) {
            Ok(supervisor) => supervisor,
            Err(error) => {
                warn!("NOTIFY_SOCKET: the service manager cannot be told anything: {error}");
                Self::default()
            }
        }
    }

    fn at(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&socket_address(address)?)?;
        socket.set_write_timeout(Some(SEND_TIME))?;
        Ok(Self { socket: Some(socket), watchdog: watchdog.filter(|limit| !limit.is_zero()) })
    }

    /// The start may take as long as `wait` beyond what the service manager allows.
    pub(crate) fn starting(&self, wait: Duration) {
        if !wait.is_zero() {
            let limit = NotifyState::ExtendTimeoutUsec(microseconds(wait + START_TIME));
            self.tell(&[NotifyState::Status("waiting for the database and SQS"), limit]);
        }
    }

    /// Both sides were looked at, and the run begins.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// Tells, for as long as it is polled, that the loader lives, what it has done, and when it stops, for which it may
    /// take `grace`.
    ///
    /// To be polled by the very task that runs the pipeline, and never by a thread of its own: the watchdog then hears
    /// that the runtime turns, its timers too, and that the task which extends leases and waits for all others is not
    /// stuck. More is not asked. Every call to SQS and to the database has a time limit, so no task waits for ever for
    /// one; a task that panics ends the run by itself; and a run that makes no progress since a side is away is to
    /// go on, as nothing would be won by killing it.
    pub(crate) async fn watch(&self, stats: &Stats, shutdown: &Shutdown, grace: Duration) -> Infallible {
        if self.socket.is_none() {
            return pending().await;
        }
        let mut pings = interval(self.watchdog.unwrap_or(STATUS_EVERY) / 2);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut statuses = interval_at(Instant::now() + STATUS_EVERY, STATUS_EVERY);
        let mut told_stopping = false;
        loop {
            tokio::select! {
                _ = pings.tick(), if self.watchdog.is_some() => self.tell(&[NotifyState::Watchdog]),
                _ = statuses.tick() => self.tell(&[NotifyState::Status(&stats.summary().to_string())]),
                () = shutdown.stopping(), if !told_stopping => {
                    told_stopping = true;
                    self.tell(&[
                        NotifyState::Stopping,
                        NotifyState::Status("receiving no more; finishing what is in flight"),
                        // A grace longer than the service manager's own patience is meant.
                        NotifyState::ExtendTimeoutUsec(microseconds(grace + END_TIME)),
                    ]);
                }
            }
        }
    }

    /// Sends it all as one message. One that does not arrive is no reason to stop moving events.
    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let message = states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if let Err(error) = socket.send(message.as_bytes()) {
            warn!("NOTIFY_SOCKET: the service manager was not told: {error}");
        }
    }
}

/// A path, or a name in Linux's abstract namespace, which is written with an @ before it.
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

    /// A service manager that listens in the abstract namespace, and what it hears.
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
    async fn the_status_is_told_once_a_minute_and_stopping_once() {
        let (socket, address) = listening("status");
        let supervisor = Supervisor::at(OsStr::new(&address), None).unwrap();
        let (stats, shutdown) = (Stats::new(["q"]), Shutdown::default());
        stats.of(0).add_received(7);
        supervisor.ready("ready");
        shutdown.stop();
        let watch = supervisor.watch(&stats, &shutdown, Duration::from_secs(25));
        _ = tokio::time::timeout(Duration::from_secs(130), watch).await;
        let done = "STATUS=received 7, stored 0, duplicate 0, rejected 0, deleted 0";
        let stopping =
            "STOPPING=1\nSTATUS=receiving no more; finishing what is in flight\nEXTEND_TIMEOUT_USEC=37000000";
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=ready", stopping, done, done]);
    }

    #[test]
    fn a_runtime_that_does_not_turn_is_not_said_to_live() {
        let (socket, address) = listening("wedged");
        let limit = Duration::from_millis(200);
        let supervisor = Supervisor::at(OsStr::new(&address), Some(limit)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stats, shutdown) = (Stats::new(["q"]), Shutdown::default());
        runtime.block_on(async {
            let watch = supervisor.watch(&stats, &shutdown, Duration::ZERO);
            _ = tokio::time::timeout(limit * 2, watch).await;
            assert!(heard(&socket).len() >= 2, "it lives");
            let watch = supervisor.watch(&stats, &shutdown, Duration::ZERO);
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
