//! A `PostgreSQL` for the test alone, so that the test can kill it, restart it and fill its disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command as Blocking, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::common::{OwnServers, PgBouncer, SCHEMA, Standby, server_environment};
use crate::disk::Disk;

/// Role that the loaders log in as.
pub(crate) const ROLE: &str = "chaos_loader";
/// Time limit of `pg_ctl` in seconds, for a server that recovers on a slow machine.
const PG_CTL_SECONDS: &str = "600";
/// Maximum time until someone reaps a process that has ended. In some containers nobody ever does.
const REAPED_AFTER: Duration = Duration::from_secs(3);

/// The database, and the real SQS server that was started with it.
pub(crate) struct Database {
    /// Declared before `servers`, so that it's dropped before its primary.
    standby: Option<Standby>,
    /// Whether the standby has taken over.
    promoted: bool,
    pub(crate) servers: OwnServers,
    /// File system of the table; `None` if none can be mounted.
    pub(crate) disk: Option<Disk>,
    password: String,
    /// Folder where the server's log is kept when the test fails.
    logs: PathBuf,
}

impl Database {
    /// Starts the servers and applies the schema. Given `disk_mib`, moves `user_logins` to a file system of that many MiB.
    pub(crate) async fn start(disk_mib: Option<usize>, logs: PathBuf) -> Self {
        let servers = OwnServers::start("chaos", &["log_lock_waits=on"]);
        let owner = owner(&servers);
        let folder = PathBuf::from(servers.setting("SERVERS_ROOT")).join("disk");
        let disk = disk_mib.and_then(|mib| Disk::mount(folder, mib, owner));
        let password = format!("{:016x}", fastrand::u64(..));
        let database = Self { standby: None, promoted: false, servers, disk, password, logs };
        let client = database.session().await;
        for file in SCHEMA {
            client.batch_execute(file).await.unwrap();
        }
        let role = format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{}' IN ROLE login_loader", database.password);
        client.batch_execute(&role).await.unwrap();
        if let Some(disk) = &database.disk {
            let place = format!("CREATE TABLESPACE small LOCATION '{}'", disk.folder.display());
            client.batch_execute(&place).await.unwrap();
            client.batch_execute("ALTER TABLE user_logins SET TABLESPACE small").await.unwrap();
        }
        database
    }

    /// Returns the server's own port, without a proxy.
    pub(crate) fn port(&self) -> u16 {
        self.servers.setting("PGPORT").parse().unwrap()
    }

    /// Returns the URL for a loader. It names the proxy at `port` and, if there is one, the standby as a second host.
    pub(crate) fn url_by(&self, port: u16) -> String {
        let database = self.servers.setting("PGDATABASE");
        let standby = self.standby.as_ref().map_or_else(String::new, |s| format!(",{}", s.address()));
        format!("postgres://{ROLE}:{}@127.0.0.1:{port}{standby}/{database}", self.password)
    }

    /// Starts a `PgBouncer` in front of the proxy at `port`.
    pub(crate) async fn bouncer(&self, port: u16) -> PgBouncer {
        let settings = "pool_mode = transaction\ndefault_pool_size = 4\nserver_login_retry = 1";
        PgBouncer::start_before(&format!("host=127.0.0.1 port={port}"), ROLE, &self.password, settings).await
    }

    /// Starts a standby that each COMMIT waits for.
    pub(crate) async fn start_standby(&mut self) {
        let options = self.disk.as_ref().map(|disk| {
            let mapped = disk.folder.with_file_name("disk_of_standby");
            let (user, group) = owner(&self.servers);
            fs::create_dir(&mapped).unwrap();
            chown(&mapped, Some(user), Some(group)).unwrap();
            format!("--tablespace-mapping={}={}", disk.folder.display(), mapped.display())
        });
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.standby = Some(Standby::start_with(&self.servers, &options));
        // Set after the copy. Copied, the setting would make the standby wait for a standby too, once it's the primary.
        let session = self.session().await;
        session.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
        session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    }

    /// Ends the primary for good. Its standby takes over.
    pub(crate) fn promote(&mut self) {
        if let Some(standby) = &self.standby {
            standby.crash_primary(&self.servers);
            standby.promote();
            self.promoted = true;
        }
    }

    /// Opens a superuser session without the proxy. Waits if the server is recovering.
    pub(crate) async fn session(&self) -> Client {
        if let Some(standby) = self.standby.as_ref().filter(|_| self.promoted) {
            return standby.connect_to(self.servers.setting("PGDATABASE")).await;
        }
        loop {
            match self.servers.try_connect().await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Kills the server and all its processes with SIGKILL, and starts it again, so that it has to recover.
    pub(crate) async fn kill(&self) {
        let postmaster = self.postmaster();
        // Stopped first, because it starts other processes. Each process is a group of its own, so they're killed one by
        // one.
        signal("STOP", postmaster);
        let mut left = children(postmaster);
        left.insert(postmaster);
        for pid in &left {
            signal("KILL", *pid);
        }
        // A server doesn't start while processes of an earlier one are left ...
        while left.iter().any(|pid| is_there(*pid)) {
            sleep(Duration::from_millis(10)).await;
        }
        // ... and takes an ended process that nobody has reaped for alive. In some containers nobody reaps it.
        let deadline = Instant::now() + REAPED_AFTER;
        while Path::new(&format!("/proc/{postmaster}")).exists() && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        if Instant::now() >= deadline {
            fs::remove_file(self.servers.data().join("postmaster.pid")).unwrap();
        }
        self.pg_ctl(&["start"]).await;
    }

    /// Kills one of the loaders' backends with SIGKILL. The server then ends all other backends and recovers. Returns false
    /// if there's no such backend.
    pub(crate) async fn kill_backend(&self) -> bool {
        let Ok(client) = self.servers.try_connect().await else { return false };
        let query = "SELECT pid FROM pg_stat_activity WHERE usename = $1 ORDER BY random() LIMIT 1";
        let Ok(Some(row)) = client.query_opt(query, &[&ROLE]).await else { return false };
        let pid = u32::try_from(row.get::<_, i32>(0)).unwrap();
        // The backend may have ended meanwhile.
        let is_ours = children(self.postmaster()).contains(&pid);
        if is_ours {
            signal("KILL", pid);
            // A session opened before the server has noticed the crash is ended once the server does.
            while client.simple_query("SELECT").await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        }
        is_ours
    }

    /// Ends all sessions and restarts the server.
    pub(crate) async fn restart(&self) {
        // `PostgreSQL` 15 can hang if it's told to stop while it recovers from a backend crash.
        drop(self.session().await);
        self.pg_ctl(&["restart", "-m", "fast"]).await;
    }

    /// Counts the crash recoveries in the server's log: (of the whole server, after a backend's crash).
    pub(crate) fn recoveries(&self) -> (usize, usize) {
        let log = fs::read_to_string(self.servers.setting("PGLOG")).unwrap();
        let backends = log.matches("all server processes terminated; reinitializing").count();
        (log.matches("automatic recovery in progress").count() - backends, backends)
    }

    fn postmaster(&self) -> u32 {
        let file = self.servers.data().join("postmaster.pid");
        let pid = fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap();
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let data = self.servers.setting("PGDATA");
        assert!(
            String::from_utf8_lossy(&command).contains(data),
            "process {pid} is not the server of {data}"
        );
        pid
    }

    async fn pg_ctl(&self, command: &[&str]) {
        let (program, arguments) = self.pg_ctl_command(command);
        let (user, group) = owner(&self.servers);
        let mut pg_ctl = Command::new(&program);
        pg_ctl.args(arguments).env_clear();
        pg_ctl.envs(server_environment(program.parent().unwrap_or(&program)));
        pg_ctl.current_dir("/").stdin(Stdio::null()).uid(user).gid(group);
        let output = pg_ctl.output().await.unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pg_ctl {command:?} failed: {why}");
    }

    fn pg_ctl_command(&self, command: &[&str]) -> (PathBuf, Vec<String>) {
        let setting = |name| self.servers.setting(name).to_owned();
        let mut arguments: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        arguments.extend(["-w", "-s", "-t", PG_CTL_SECONDS, "-D"].map(str::to_owned));
        arguments.extend([setting("PGDATA"), "-l".to_owned(), setting("PGLOG")]);
        (PathBuf::from(setting("PGBIN")).join("pg_ctl"), arguments)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            _ = fs::copy(self.servers.setting("PGLOG"), self.logs.join("postgres.log"));
        }
        if self.disk.is_none() {
            return;
        }
        // The server has files open in the file system to unmount. An immediate stop spares it from writing them once more.
        let (program, mut arguments) = self.pg_ctl_command(&["stop", "-m", "immediate"]);
        arguments.truncate(arguments.len() - 2);
        let (user, group) = owner(&self.servers);
        let mut stop = Blocking::new(program);
        std::os::unix::process::CommandExt::uid(&mut stop, user);
        std::os::unix::process::CommandExt::gid(&mut stop, group);
        _ = stop.args(arguments).current_dir("/").stdout(Stdio::null()).stderr(Stdio::null()).status();
        self.disk = None;
    }
}

/// Returns the user and the group that the server runs as.
fn owner(servers: &OwnServers) -> (u32, u32) {
    let metadata = fs::metadata(servers.data()).unwrap();
    (metadata.uid(), metadata.gid())
}

/// Returns the child processes of `parent`.
fn children(parent: u32) -> BTreeSet<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields after the name, which can contain anything, start with the state and the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether the process hasn't ended. A process that has ended and isn't reaped has no command line any more.
fn is_there(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty())
}

fn signal(name: &str, pid: u32) {
    // The shell's built-in kill exists on every system. The process may already have ended.
    let command = format!("kill -{name} {pid}");
    _ = Blocking::new("sh").args(["-c", &command]).stderr(Stdio::null()).status();
}
