//! Messages to the service manager via `sd_notify(3)`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::common::{World, event, events};

const READY: &str = "READY=1\nSTATUS=moving messages into login_inbox";
const STOPPING: &str = "STOPPING=1\nSTATUS=receiving no more; finishing what is in flight\n";

/// A service manager that listens in the abstract namespace.
struct Manager {
    socket: tokio::net::UnixDatagram,
    address: String,
}

impl Manager {
    fn listen() -> Self {
        let name = format!("pg_mask-service-{:016x}", fastrand::u64(..));
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket: tokio::net::UnixDatagram::from_std(socket).unwrap(), address: format!("@{name}") }
    }

    /// Returns the next message, or `None` if there's none within `seconds`.
    async fn hears_within(&self, seconds: u64) -> Option<String> {
        let mut buffer = [0; 4096];
        let length =
            timeout(Duration::from_secs(seconds), self.socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Returns the next message, within a minute.
    async fn hears(&self) -> String {
        self.hears_within(60).await.expect("a message to the service manager")
    }
}

#[tokio::test]
async fn readiness_is_told_once_both_sides_were_looked_at() {
    World::run(async |world| {
        let manager = Manager::listen();
        let loader = || world.loader().env("NOTIFY_SOCKET", &manager.address);
        // A database that accepts connections and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nowhere = format!("postgres://u@{}/d", silent.local_addr().unwrap());
        let waiting = loader().env("DATABASE_URL", &nowhere).start();
        assert_eq!(manager.hears_within(2).await, None, "the database has not answered");
        waiting.signal("TERM").await;
        waiting.end().await.expect(0);
        loader().options("--inbox no_such_inbox").end().await.expect(4);
        loader().options("--queue nowhere").end().await.expect(3);
        assert_eq!(manager.hears_within(1).await, None, "one side was not in order");

        world.queue.send(&[event(1)]).await;
        let running = loader().start();
        assert_eq!(manager.hears().await, READY);
        running.signal("TERM").await;
        assert!(manager.hears().await.starts_with(STOPPING));
        running.end().await.expect(0);
        assert_eq!(manager.hears_within(1).await, None, "nobody asked for a watchdog");
    })
    .await;
}

#[tokio::test]
async fn the_watchdog_hears_that_the_loader_lives_until_it_has_ended() {
    World::run(async |world| {
        let manager = Manager::listen();
        let lock = world.lock_logins().await;
        world.queue.send(&events(10)).await;
        let loader = || {
            world
                .loader()
                .env("NOTIFY_SOCKET", &manager.address)
                .env("WATCHDOG_USEC", "500000")
                .options("--grace 60")
        };
        let running = loader().after("export WATCHDOG_PID=$$").start();
        assert_eq!(manager.hears().await, READY);
        // A database that keeps the loader waiting is no reason to kill it.
        world.backends_in_copy(1).await;
        for _ in 0..3 {
            assert_eq!(manager.hears_within(2).await.as_deref(), Some("WATCHDOG=1"));
        }
        running.signal("TERM").await;
        let mut told = manager.hears().await;
        while told == "WATCHDOG=1" {
            told = manager.hears().await;
        }
        assert_eq!(told, format!("{STOPPING}EXTEND_TIMEOUT_USEC=72000000"));
        assert_eq!(manager.hears_within(2).await.as_deref(), Some("WATCHDOG=1"), "it has yet to finish");
        lock.batch_execute("COMMIT").await.unwrap();
        assert_eq!(running.end().await.expect(0).summary().stored, 10);
        while manager.hears_within(1).await.is_some() {}

        // The watchdog belongs to another process.
        let running = loader().env("WATCHDOG_PID", "1").start();
        assert_eq!(manager.hears().await, READY);
        assert_eq!(manager.hears_within(1).await, None);
        running.stop().await.expect(0);
    })
    .await;
}

#[tokio::test]
async fn the_loader_runs_on_without_a_service_manager() {
    World::run(async |world| {
        world.queue.send(&events(10)).await;
        let loader = world.loader().env("NOTIFY_SOCKET", "/nowhere/notify");
        let ended = loader.until_empty(&world.queue).await.expect(0);
        assert_eq!(ended.says(&["NOTIFY_SOCKET", "no messages to the service manager"]).summary().stored, 10);
    })
    .await;
}
