//! A real `PgBouncer` in front of `PostgreSQL`.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::{env, fs};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::{Loader, World, eventually, nobody, setting};

/// A `PgBouncer` for one role. Dropping it ends the process.
pub(crate) struct PgBouncer {
    pub(crate) port: u16,
    folder: PathBuf,
    /// Killed on drop.
    _process: Child,
}

impl PgBouncer {
    /// Starts a `PgBouncer` for a world, with additional settings, one per line.
    pub(crate) async fn start(world: &World, settings: &str) -> Self {
        let server = format!("host={} port={}", setting("PGHOST"), setting("PGPORT"));
        Self::start_before(&server, &world.name, &world.password, settings).await
    }

    /// Starts a `PgBouncer` in front of a server, given as `host=… port=…`.
    pub(crate) async fn start_before(server: &str, role: &str, password: &str, settings: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pg_mask-bouncer-{role}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let users = folder.join("users");
        fs::write(&users, format!("\"{role}\" \"{password}\"\n")).unwrap();
        let configuration = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = {server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\n{settings}\n",
            users.display()
        );
        fs::write(&configuration, text).unwrap();
        // `PgBouncer` doesn't run as root, so another user must be able to read these.
        for (file, mode) in [(&folder, 0o755), (&users, 0o644), (&configuration, 0o644)] {
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        // `PGBOUNCER` selects another version than the system's.
        let program = env::var("PGBOUNCER").unwrap_or_else(|_| "/usr/sbin/pgbouncer".into());
        let mut command: Command = nobody(&program);
        command.arg("-q").arg(&configuration);
        let mut process = command.spawn().expect("pgbouncer: run dev/install tests");
        eventually("PgBouncer", async || {
            assert!(process.try_wait().unwrap().is_none(), "pgbouncer has ended");
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self { port, folder, _process: process }
    }

    /// Creates a loader of the world that connects through this `PgBouncer`.
    pub(crate) fn loader(&self, world: &World) -> Loader {
        let World { name, password, .. } = world;
        let url = format!("postgres://{name}:{password}@127.0.0.1:{}/{name}", self.port);
        world.loader().env("DATABASE_URL", &url)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.folder);
    }
}
