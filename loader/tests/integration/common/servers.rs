//! The servers that `make test` has started, and the servers that a test starts for itself.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

/// Script that starts and stops servers.
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/servers.py");

/// Returns the environment variable `name`, which describes the shared servers.
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these with make test"))
}

/// Opens a superuser session in `database`, or in the one that `DATABASE_URL` names.
pub(super) async fn connect(database: Option<&str>) -> Client {
    connect_by(&setting("DATABASE_URL"), database).await.unwrap()
}

async fn connect_by(url: &str, database: Option<&str>) -> Result<Client, tokio_postgres::Error> {
    let mut config: Config = url.parse().unwrap();
    if let Some(database) = database {
        config.dbname(database);
    }
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Returns the path of a program from the server's version if it's there, else the name to find on the PATH.
pub(crate) fn postgres_program(name: &str) -> PathBuf {
    let path = PathBuf::from(setting("PGBIN")).join(name);
    if path.exists() { path } else { name.into() }
}

/// Returns the environment of a server's programs in `bin`: nothing of the test's, and the libraries that came with them.
pub(crate) fn server_environment(bin: &Path) -> Vec<(&'static str, OsString)> {
    let mut environment = vec![("PATH", "/usr/local/bin:/usr/bin:/bin".into()), ("LANG", "C.UTF-8".into())];
    let libraries = bin.with_file_name("lib");
    if libraries.join("libpq.so.5").exists() {
        environment.push(("LD_LIBRARY_PATH", libraries.into()));
    }
    environment
}

/// Servers for one test alone, for tests that would disturb others on the shared servers. Dropping this stops them.
pub(crate) struct OwnServers {
    /// Folder of the servers; its file `env` describes them. The test may put files there, and must remove them.
    pub(crate) state: PathBuf,
    env: String,
}

impl OwnServers {
    /// Starts the servers with additional `PostgreSQL` settings, each as `name=value`.
    pub(crate) fn start(name: &str, settings: &[&str]) -> Self {
        let state = std::env::temp_dir().join(format!("pg_mask-{name}-{}", std::process::id()));
        let mut command = Command::new(SERVERS);
        command.arg("start").arg(&state);
        for setting in settings {
            command.args(["--conf", setting]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let env = fs::read_to_string(state.join("env")).unwrap();
        Self { state, env }
    }

    /// Returns a variable that describes the servers.
    pub(crate) fn setting<'s>(&'s self, name: &str) -> &'s str {
        let value = |line: &'s str| line.strip_prefix(name)?.strip_prefix('=');
        self.env.lines().find_map(value).unwrap().trim_matches('\'')
    }

    /// Opens a superuser session.
    pub(crate) async fn connect(&self) -> Client {
        self.try_connect().await.unwrap()
    }

    /// Opens a superuser session if `PostgreSQL` accepts connections.
    pub(crate) async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        connect_by(self.setting("DATABASE_URL"), None).await
    }

    /// Runs `pg_ctl` with these arguments, as the user that owns the data directory.
    pub(crate) fn pg_ctl(&self, arguments: &[&str]) {
        let owner = fs::metadata(self.data()).unwrap();
        let program = postgres_program("pg_ctl");
        let mut command = Command::new(&program);
        command.args(arguments).args(["-w", "-s", "-t", "60", "-D", self.setting("PGDATA")]);
        command.args(["-l", self.setting("PGLOG")]).uid(owner.uid()).gid(owner.gid());
        command.env_clear().envs(server_environment(program.parent().unwrap_or(&program))).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // While the server is stopped, a connection of another test can have its port for a moment.
        let succeeds = |_| {
            let succeeded = command.status().unwrap().success();
            succeeded || {
                sleep(Duration::from_secs(3));
                false
            }
        };
        assert!((0..5).any(succeeds), "pg_ctl {arguments:?} fails");
    }

    /// Returns the data directory.
    pub(crate) fn data(&self) -> &Path {
        Path::new(self.setting("PGDATA"))
    }
}

impl Drop for OwnServers {
    fn drop(&mut self) {
        // A test that fails must leave no servers behind. Nothing more can be done about an error here.
        _ = Command::new(SERVERS).arg("stop").arg(&self.state).stdout(Stdio::null()).status();
    }
}
