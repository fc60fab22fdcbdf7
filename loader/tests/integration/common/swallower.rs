//! A proxy in front of `PostgreSQL` that swallows the answer to the first COMMIT. The transaction is committed, but its
//! sender doesn't know.

use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::setting;

/// Simple query message with COMMIT: its type, the length of the rest, the text and a zero byte.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// A proxy that serves until its test ends.
pub(crate) struct Swallower {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Whether the first COMMIT has been sent.
    seen: AtomicBool,
    was_seen: Notify,
    /// Signal to close the connection that sent the first COMMIT.
    close: Notify,
}

impl Swallower {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    /// Waits for the first COMMIT.
    pub(crate) async fn commit_seen(&self) {
        self.state.was_seen.notified().await;
    }

    /// Closes the connection that sent the first COMMIT.
    pub(crate) fn close(&self) {
        self.state.close.notify_one();
    }
}

async fn serve(client: TcpStream, state: Arc<State>) -> Result<()> {
    let server = TcpStream::connect(("127.0.0.1", setting("PGPORT").parse().unwrap())).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Per connection: only the connection that sent the first COMMIT loses its answers.
    let swallow = Arc::new(AtomicBool::new(false));
    tokio::select! {
        result = requests(from_client, to_server, &state, &swallow) => result,
        result = answers(from_server, to_client, &swallow) => result,
        () = closed(&state, &swallow) => Ok(()),
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    swallow: &AtomicBool,
) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        // The client sends COMMIT after all earlier answers, so it arrives in a read of its own.
        if buffer[..length] == *COMMIT && !state.seen.swap(true, SeqCst) {
            swallow.store(true, SeqCst);
            state.was_seen.notify_one();
        }
        to.write_all(&buffer[..length]).await?;
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallow: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if !swallow.load(SeqCst) {
            to.write_all(&buffer[..length]).await?;
        }
    }
}

/// Resolves when the test asks to close and this connection is the one that swallows answers.
async fn closed(state: &State, swallow: &AtomicBool) {
    loop {
        state.close.notified().await;
        if swallow.load(SeqCst) {
            return;
        }
        state.close.notify_one();
        tokio::task::yield_now().await;
    }
}
