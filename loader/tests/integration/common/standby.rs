//! A streaming standby for a test's own `PostgreSQL`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output};

use tokio_postgres::{Client, Config, NoTls};

use super::{OwnServers, server_environment};

/// A standby. Dropping it stops it; drop it before its primary.
pub(crate) struct Standby {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
    /// Superuser login.
    login: Config,
    /// User and group that `PostgreSQL` runs as.
    owner: (u32, u32),
}

impl Standby {
    /// Copies the primary's cluster and starts streaming.
    pub(crate) fn start(servers: &OwnServers) -> Self {
        Self::start_with(servers, &[])
    }

    /// Copies the cluster with additional `pg_basebackup` options and starts streaming.
    pub(crate) fn start_with(servers: &OwnServers, options: &[&str]) -> Self {
        let data = servers.data().with_file_name("standby");
        let primary = fs::metadata(servers.data()).unwrap();
        let owner = (primary.uid(), primary.gid());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut login = Config::new();
        login
            .host("127.0.0.1")
            .port(port)
            .user("postgres")
            .dbname("postgres")
            .password(servers.setting("PGPASSWORD"));
        let standby = Self { bin: servers.setting("PGBIN").into(), data, port, login, owner };
        fs::DirBuilder::new().mode(0o700).create(&standby.data).unwrap();
        chown(&standby.data, Some(owner.0), Some(owner.1)).unwrap();
        let data = standby.data.to_str().unwrap();
        let url = servers.setting("DATABASE_URL");
        let copy = ["--pgdata", data, "--dbname", url, "--write-recovery-conf", "--checkpoint=fast"];
        standby.run("pg_basebackup", &[&copy, options].concat());
        standby.resume();
        standby
    }

    /// Opens a superuser session.
    pub(crate) async fn connect(&self) -> Client {
        self.connect_to("postgres").await
    }

    /// Opens a superuser session in a database.
    pub(crate) async fn connect_to(&self, database: &str) -> Client {
        let (client, connection) = self.login.clone().dbname(database).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Returns the standby's address as `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the process id of the WAL receiver.
    pub(crate) async fn wal_receiver(&self) -> i32 {
        self.connect().await.query_one("SELECT pid FROM pg_stat_wal_receiver", &[]).await.unwrap().get(0)
    }

    /// Stops the primary in immediate mode: no shutdown checkpoint is written to the WAL, as in a crash.
    pub(crate) fn crash_primary(&self, servers: &OwnServers) {
        self.run("pg_ctl", &["stop", "--pgdata", servers.data().to_str().unwrap(), "--mode=immediate"]);
    }

    /// Stops the standby, as an outage would.
    pub(crate) fn pause(&self) {
        self.run("pg_ctl", &["stop", "--pgdata", self.data.to_str().unwrap(), "--mode=fast"]);
    }

    /// Starts the standby again.
    pub(crate) fn resume(&self) {
        let port = self.port;
        let (data, log) = (self.data.to_str().unwrap(), self.data.join("log"));
        let options = format!("-p {port} -c unix_socket_directories={data}");
        self.run(
            "pg_ctl",
            &["start", "--wait", "--pgdata", data, "--log", log.to_str().unwrap(), "--options", &options],
        );
    }

    /// Promotes the standby to the primary of a new timeline.
    pub(crate) fn promote(&self) {
        self.run("pg_ctl", &["promote", "--wait", "--pgdata", self.data.to_str().unwrap()]);
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.try_to_run(program, arguments);
        let log = fs::read_to_string(self.data.join("log")).unwrap_or_default();
        assert!(output.status.success(), "{program}: {}{log}", String::from_utf8_lossy(&output.stderr));
    }

    fn try_to_run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("setpriv");
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.args([
                &format!("--reuid={}", self.owner.0),
                &format!("--regid={}", self.owner.1),
                "--clear-groups",
            ]);
        }
        command.arg(self.bin.join(program)).args(arguments).current_dir("/");
        command.env_clear().envs(server_environment(&self.bin)).output().unwrap()
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        _ = self.try_to_run("pg_ctl", &["stop", "--pgdata", self.data.to_str().unwrap(), "--mode=immediate"]);
    }
}
