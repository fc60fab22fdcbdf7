//! A connection to a server that can be cut off and mended.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes everything on to a server, while it is whole.
pub(crate) struct Link {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Cut,
    /// It takes connections and says nothing.
    Silent,
    /// As a pooler of `PostgreSQL` that has lost its server, say.
    Refusing,
}

/// What a login is answered with: the type of an error, the length of the rest, its severity, code and message.
const REFUSAL: &[u8] = b"E\0\0\0\x25SFATAL\0VFATAL\0CXX000\0Mno server\0\0";

impl Link {
    /// A link to `server`, which is a host and a port.
    pub(crate) async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, server) = (Arc::new(watch::Sender::new(State::Whole)), server.to_owned());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut state, server) = (shared.subscribe(), server.clone());
                tokio::spawn(async move {
                    // Cut, it closes what is open and what comes.
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

    /// Ends all connections, and those to come.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Ends all connections, and answers no new one.
    pub(crate) fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Ends all connections, and refuses logins to `PostgreSQL`.
    pub(crate) fn refuse_logins(&self) {
        self.state.send_replace(State::Refusing);
    }

    /// Takes connections again.
    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}
