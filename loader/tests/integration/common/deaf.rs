//! A client that can stop reading.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

use super::{World, setting};

/// A session of the world's role via the server's Unix socket, whose buffers hold a constant number of bytes. Dropping this
/// closes the connection.
pub(crate) struct Deaf {
    pub(crate) client: Arc<Client>,
    /// Bytes read so far.
    pub(crate) read: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    connection: JoinHandle<()>,
}

impl Deaf {
    pub(crate) async fn connect(world: &World) -> Self {
        let file = format!("socket/.s.PGSQL.{}", setting("PGPORT"));
        let stream = UnixStream::connect(Path::new(&setting("SERVERS_ROOT")).join(file)).await.unwrap();
        let (read, stopped) = (Arc::default(), Arc::default());
        let ear = Ear { stream, read: Arc::clone(&read), stopped: Arc::clone(&stopped) };
        let (client, connection) = Config::new()
            .user(&world.name)
            .password(&world.password)
            .dbname(&world.name)
            .application_name(&world.name)
            .connect_raw(ear, NoTls)
            .await
            .unwrap();
        let connection = tokio::spawn(async move {
            // The test looks at the server's view of the connection.
            _ = connection.await;
        });
        Self { client: Arc::new(client), read, stopped, connection }
    }

    /// Sends a query and reads nothing from now on.
    pub(crate) fn send_and_read_nothing(&self, query: &str) {
        self.stopped.store(true, Relaxed);
        let (client, query) = (Arc::clone(&self.client), query.to_owned());
        tokio::spawn(async move { client.simple_query(&query).await });
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

struct Ear {
    stream: UnixStream,
    read: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl AsyncRead for Ear {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stopped.load(Relaxed) {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read.fetch_add(buffer.filled().len() - before, Relaxed);
        result
    }
}

impl AsyncWrite for Ear {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
