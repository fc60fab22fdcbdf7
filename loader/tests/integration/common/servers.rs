//! The servers that `make test` has started.

use std::path::PathBuf;

use tokio_postgres::{Client, Config, NoTls};

/// A variable that describes the servers.
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these with make test"))
}

/// A superuser's session in `database`, or in the one that `DATABASE_URL` names.
pub(super) async fn connect(database: Option<&str>) -> Client {
    let mut config: Config = setting("DATABASE_URL").parse().unwrap();
    if let Some(database) = database {
        config.dbname(database);
    }
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A program of the server's version where there is one, else the one on the PATH.
pub(crate) fn postgres_program(name: &str) -> PathBuf {
    let path = PathBuf::from(setting("PGBIN")).join(name);
    if path.exists() { path } else { name.into() }
}
