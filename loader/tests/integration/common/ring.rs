//! A key ring that appears in no statement, because the server logs statements.

use std::fs;
use std::path::{Path, PathBuf};

use super::traces::from_base64;
use super::{Traces, eventually};
use tokio_postgres::Client;

/// A key ring in a server's data directory, with one key of random bytes.
pub(crate) struct Ring {
    /// Path of the key ring.
    pub(crate) path: PathBuf,
    key: Vec<u8>,
}

impl Ring {
    /// Returns the shell command that makes a key ring. The server must run it in its data directory: its user must own the
    /// file.
    pub(crate) fn making(file: &str) -> String {
        let written = r#"{"primary": "k", "keys": [{"id": "k", "key": "%s", "state": "active"}]}"#;
        format!("(umask 077; printf '{written}' $(head -c 64 /dev/urandom | base64 -w 0) >{file})")
    }

    /// Reads an existing key ring.
    pub(crate) fn read(data: &Path, file: &str) -> Self {
        let path = data.join(file);
        let ring: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let key = from_base64(ring["keys"][0]["key"].as_str().unwrap());
        assert_eq!(key.len(), 64);
        Self { path, key }
    }

    /// Makes the server read its key ring from `file` in new sessions, which `connect` opens.
    pub(crate) async fn configure(file: &str, mut connect: impl AsyncFnMut() -> Client) {
        let session = connect().await;
        // A session knows the extension's settings once it has loaded the library.
        session.batch_execute("LOAD 'pg_mask'").await.unwrap();
        for (name, value) in [("keyring_command", ""), ("keyring_file", file)] {
            session.batch_execute(&format!("ALTER SYSTEM SET pg_mask.{name} TO '{value}'")).await.unwrap();
        }
        session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        eventually("a server with another ring", async || {
            let set = "SELECT coalesce(current_setting('pg_mask.keyring_file', true), '')";
            connect().await.query_one(set, &[]).await.unwrap().get::<_, &str>(0) == file
        })
        .await;
    }

    /// Returns the traces that reveal the key.
    pub(crate) fn traces(&self) -> Traces {
        Traces::of_key(&self.key)
    }

    /// Returns the traces that reveal the key in memory, which also holds its expanded round keys.
    pub(crate) fn traces_in_memory(&self) -> Traces {
        self.traces().and(Traces::of_round_keys(&self.key))
    }
}

/// Makes the server run a shell command in its data directory.
pub(crate) async fn run(session: &Client, command: &str) {
    // The `cat` reads all input first: a program that ends before it has read its input breaks the pipe.
    let copy = format!("COPY (SELECT) TO PROGRAM 'cat > /dev/null; {}'", command.replace('\'', "''"));
    session.batch_execute(&copy).await.unwrap();
}
