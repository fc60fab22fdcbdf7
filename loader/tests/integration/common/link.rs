//! A connection to a server that a test can cut and mend.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A proxy that passes everything on while it's whole.
pub(crate) struct Link {
    /// Port on 127.0.0.1.
    pub(crate) port: u16,
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Cut,
    /// Accepts connections and never answers.
    Silent,
    /// Answers each login with an error, as a pooler does that has lost its server.
    Refusing,
}

/// Answer to a login: the type of an error, the length of the rest, its severity, code and message.
const REFUSAL: &[u8] = b"E\0\0\0\x25SFATAL\0VFATAL\0CXX000\0Mno server\0\0";

impl Link {
    /// Creates a link to `server`, given as host and port.
    pub(crate) async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, server) = (Arc::new(watch::Sender::new(State::Whole)), server.to_owned());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut state, server) = (shared.subscribe(), server.clone());
                tokio::spawn(async move {
                    // A cut link closes the open connections and each new one.
                    let now = *state.borrow();
                    match now {
                        State::Whole => {
                            let mut server = TcpStream::connect(server).await.unwrap();
                            tokio::select! {
                                _ = copy_bidirectional(&mut client, &mut server) => {}
                                _ = state.wait_for(|state| *state != State::Whole) => {}
                            }
                        }
                        State::Refusing => {
                            _ = client.read(&mut [0; 1024]).await;
                            _ = client.write_all(REFUSAL).await;
                        }
                        State::Silent => _ = state.wait_for(|state| *state != State::Silent).await,
                        State::Cut => {}
                    }
                });
            }
        });
        Self { port, state }
    }

    /// Closes all open connections, and each new one.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Closes all open connections, and doesn't answer new ones.
    pub(crate) fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Closes all open connections, and refuses logins to `PostgreSQL`.
    pub(crate) fn refuse_logins(&self) {
        self.state.send_replace(State::Refusing);
    }

    /// Passes connections on again.
    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}
