//! A slow link to a server: all answers together get a limited number of bytes per second, or none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Bytes passed on at a time.
const PIECE: usize = 8 * 1024;

/// A link that passes everything on until its test ends.
pub(crate) struct SlowLink {
    /// URL of the link, used as the endpoint.
    pub(crate) url: String,
    /// Bytes per second for answers; 0 stops them.
    rate: Arc<AtomicU64>,
}

impl SlowLink {
    /// Creates a link to the server at `url`.
    pub(crate) async fn to(url: &str, rate: u64) -> Self {
        let server = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rate = Arc::new(AtomicU64::new(rate));
        let (shared, turn) = (Arc::clone(&rate), Arc::new(Mutex::new(())));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&shared), Arc::clone(&turn)));
            }
        });
        Self { url, rate }
    }

    /// Sets the rate of answers, in bytes per second.
    pub(crate) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, SeqCst);
    }
}

async fn pass(client: TcpStream, server: TcpStream, rate: Arc<AtomicU64>, turn: Arc<Mutex<()>>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let answers = async {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = from_server.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                return;
            }
            let _turn = turn.lock().await;
            while rate.load(SeqCst) == 0 {
                sleep(Duration::from_millis(10)).await;
            }
            let microseconds = u64::try_from(length).unwrap() * 1_000_000 / rate.load(SeqCst).max(1);
            sleep(Duration::from_micros(microseconds)).await;
            if to_client.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = copy(&mut from_client, &mut to_server) => {}
    }
}
