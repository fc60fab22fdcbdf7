//! The server as a value, which runs until the value is dropped.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::ACCOUNT;
use crate::broker::Broker;
use crate::counters::Counters;
use crate::depth::Depth;
use crate::faults::Faults;
use crate::http;
use crate::recorder::Event;

/// Options for starting a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port; 0 chooses a free one.
    pub port: u16,
    /// Delay added to every call.
    pub delay: Duration,
    /// Number of threads that serve calls. With one thread, it uses at most one core.
    pub threads: usize,
    /// Seed of the random numbers that decide about faults.
    pub seed: u64,
    /// The faults to make.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: 0, delay: Duration::ZERO, threads: 1, seed: 1, faults: Faults::default() }
    }
}

/// A running server. It stops when it is dropped.
pub struct Server {
    broker: Arc<Broker>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on 127.0.0.1, on its own threads. It accepts connections when this returns.
    pub fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = runtime(options.threads)?;
        let broker = Arc::new(Broker::new(format!("http://{address}"), options.seed));
        broker.set_delay(options.delay);
        broker.set_faults(options.faults);
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&broker);
        let thread = thread::Builder::new().name("sqs-stub".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                let listening = tokio::spawn(http::listen(listener, shared));
                // The server was stopped, or its value was leaked.
                _ = stopped.await;
                listening.abort();
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { broker, address, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the endpoint: `http://127.0.0.1:` and the port.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the URL that this queue has or would have.
    #[must_use]
    pub fn queue_url(&self, queue: &str) -> String {
        self.broker.url_of(queue)
    }

    /// Creates a queue with these attributes, such as `("VisibilityTimeout", "2")`, unless it exists with equal ones.
    /// Returns its URL.
    pub fn create_queue(&self, queue: &str, attributes: &[(&str, &str)]) -> io::Result<String> {
        let attributes: BTreeMap<_, _> =
            attributes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        match self.broker.create(queue, attributes) {
            Ok(queue) => Ok(self.broker.url_of(&queue.name)),
            Err(refusal) => Err(io::Error::other(refusal.message)),
        }
    }

    /// Sets the delay added to every call from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.broker.set_delay(delay);
    }

    /// Sets the faults to make from now on. Faults that are not named stop.
    pub fn set_faults(&self, faults: Faults) {
        self.broker.set_faults(faults);
    }

    /// Returns the counters so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.broker.tally.counters()
    }

    /// Puts messages into a queue without a call, and creates the queue if it is missing. In a FIFO queue, all messages are
    /// in one group.
    pub fn fill(&self, queue: &str, count: usize, body: impl FnMut(usize) -> String) {
        self.fill_groups(queue, count, 1, body);
    }

    /// Puts messages into a queue as [`Self::fill`] does, but into several message groups in turn. The groups are named by
    /// number, from 0.
    pub fn fill_groups(&self, queue: &str, count: usize, groups: usize, body: impl FnMut(usize) -> String) {
        // A queue without attributes is never refused.
        if let Ok(queue) = self.broker.ensure(queue) {
            self.broker.fill(&queue, count, groups, body);
        }
    }

    /// Returns the number of messages in a queue, if it exists.
    #[must_use]
    pub fn depth(&self, queue: &str) -> Option<Depth> {
        let queue = self.broker.queue(queue).ok()?;
        let mut state = queue.state();
        state.advance(Instant::now());
        Some(state.depth)
    }

    /// Deletes all messages of a queue.
    pub fn reset(&self, queue: &str) {
        if let Ok(queue) = self.broker.queue(queue) {
            queue.state().purge();
        }
    }

    /// Starts or stops keeping events. It is off at first, because a benchmark's events would fill the memory.
    pub fn record(&self, on: bool) {
        self.broker.recorder.switch(on);
    }

    /// Removes and returns the events kept so far.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.broker.recorder.take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The receiver is gone if its thread has already ended.
            _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // Nobody can be told of a panic.
            _ = thread.join();
        }
    }
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    let mut builder = if threads > 1 { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()
}

impl Broker {
    /// Returns the URL of the queue with this name.
    pub(crate) fn url_of(&self, queue: &str) -> String {
        format!("{}/{ACCOUNT}/{queue}", self.base_url)
    }
}
