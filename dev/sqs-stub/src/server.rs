//! The server as a value that runs as long as it is held.

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

/// How a server starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// 0 for any that is free.
    pub port: u16,
    /// Added to every call.
    pub delay: Duration,
    /// Threads that serve. With one it takes no more than one core.
    pub threads: usize,
    /// Of the random numbers that decide about faults.
    pub seed: u64,
    /// What goes wrong.
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
    /// Starts a server on 127.0.0.1, on threads of its own. It accepts connections when this returns.
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
                // Stopped, or the server was forgotten.
                _ = stopped.await;
                listening.abort();
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { broker, address, stop: Some(stop), thread: Some(thread) })
    }

    /// The endpoint: `http://127.0.0.1:` and the port.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL that this queue has or would have.
    #[must_use]
    pub fn queue_url(&self, queue: &str) -> String {
        self.broker.url_of(queue)
    }

    /// Makes a queue with these attributes, such as `("VisibilityTimeout", "2")`, unless it is there with the
    /// same ones. Returns its URL.
    pub fn create_queue(&self, queue: &str, attributes: &[(&str, &str)]) -> io::Result<String> {
        let attributes: BTreeMap<_, _> =
            attributes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        match self.broker.create(queue, attributes) {
            Ok(queue) => Ok(self.broker.url_of(&queue.name)),
            Err(refusal) => Err(io::Error::other(refusal.message)),
        }
    }

    /// Sets what is added to every call from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.broker.set_delay(delay);
    }

    /// Sets what goes wrong from now on. What is not named does not.
    pub fn set_faults(&self, faults: Faults) {
        self.broker.set_faults(faults);
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.broker.tally.counters()
    }

    /// Puts messages into a queue, without a call; it is made if it is missing. In a FIFO queue they are all
    /// of one group.
    pub fn fill(&self, queue: &str, count: usize, body: impl FnMut(usize) -> String) {
        self.fill_groups(queue, count, 1, body);
    }

    /// The same with several message groups, which take turns and are named by their numbers from 0.
    pub fn fill_groups(&self, queue: &str, count: usize, groups: usize, body: impl FnMut(usize) -> String) {
        // A queue without attributes cannot be refused.
        if let Ok(queue) = self.broker.ensure(queue) {
            self.broker.fill(&queue, count, groups, body);
        }
    }

    /// How many messages a queue holds, if it is there.
    #[must_use]
    pub fn depth(&self, queue: &str) -> Option<Depth> {
        let queue = self.broker.queue(queue).ok()?;
        let mut state = queue.state();
        state.advance(Instant::now());
        Some(state.depth)
    }

    /// Empties a queue.
    pub fn reset(&self, queue: &str) {
        if let Ok(queue) = self.broker.queue(queue) {
            queue.state().purge();
        }
    }

    /// Starts or stops keeping events. It is off at first: a benchmark would fill the memory.
    pub fn record(&self, on: bool) {
        self.broker.recorder.switch(on);
    }

    /// Takes out the events kept so far.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.broker.recorder.take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It is gone if its thread has ended already.
            _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            // There is nobody to tell of a panic.
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
    /// The URL of a queue of this name.
    pub(crate) fn url_of(&self, queue: &str) -> String {
        format!("{}/{ACCOUNT}/{queue}", self.base_url)
    }
}
