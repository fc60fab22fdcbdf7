//! A TCP proxy that can slow, stall, reset, truncate and half-close its connections.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Maximum bytes passed on at a time.
const CHUNK: usize = 16 * 1024;
/// Maximum delay of a chunk while the network is slow.
const LONGEST_DELAY: Duration = Duration::from_millis(100);

/// Condition of the network, for all current and future connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Each chunk is delayed.
    Slow,
    /// Nothing passes and nothing is closed: a black hole. New connections are accepted, and nothing more.
    Stalled,
}

/// Direction in which bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// A fault for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Both sides get an RST.
    Reset,
    /// Half of the next chunk in this direction is passed on, then the connection is closed.
    Truncate(Direction),
    /// Nothing more is passed on in this direction, so the receiver sees the end. The other direction stays open.
    HalfClose(Direction),
}

/// Numbers of connections hit, by fault.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) connections: AtomicUsize,
    pub(crate) slowed: AtomicUsize,
    pub(crate) stalled: AtomicUsize,
    pub(crate) reset: AtomicUsize,
    pub(crate) truncated: AtomicUsize,
    pub(crate) half_closed: AtomicUsize,
}

impl Made {
    /// Returns how many connections were hit by orders of this kind.
    pub(crate) fn by(&self, order: Order) -> usize {
        let counter = match order {
            Order::Reset => &self.reset,
            Order::Truncate(_) => &self.truncated,
            Order::HalfClose(_) => &self.half_closed,
        };
        counter.load(Relaxed)
    }
}

/// A proxy in front of one server. It serves until the test ends.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    weather: watch::Sender<Weather>,
    open: Mutex<HashMap<u64, watch::Sender<Option<Order>>>>,
    last: AtomicU64,
    made: Made,
}

impl Proxy {
    /// Starts a proxy that passes everything on to a port of this machine.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: ([127, 0, 0, 1], target).into(),
            weather: watch::Sender::new(Weather::Fair),
            open: Mutex::default(),
            last: AtomicU64::new(0),
            made: Made::default(),
        });
        let for_all = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => drop(tokio::spawn(Arc::clone(&for_all).carry(client))),
                    // Most likely, the process is out of file descriptors.
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Self { port, shared }
    }

    /// Starts a proxy in front of the port in `url`.
    pub(crate) async fn start_before_url(url: &str) -> Self {
        Self::start(url.rsplit_once(':').unwrap().1.trim_end_matches('/').parse().unwrap()).await
    }

    /// Returns the proxy's URL, for use as an SQS endpoint.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Changes the weather. Bad weather counts as a hit for each open connection, and for each new one as it arrives.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.shared.hit_by(weather, self.shared.open.lock().unwrap().len());
        self.shared.weather.send_replace(weather);
    }

    /// Gives every open connection an order.
    pub(crate) fn order(&self, order: Order) {
        for connection in self.shared.open.lock().unwrap().values() {
            connection.send_replace(Some(order));
        }
    }

    /// Returns the numbers of connections hit so far.
    pub(crate) fn made(&self) -> &Made {
        &self.shared.made
    }
}

impl Shared {
    fn hit_by(&self, weather: Weather, connections: usize) {
        match weather {
            Weather::Fair => {}
            Weather::Slow => drop(self.made.slowed.fetch_add(connections, Relaxed)),
            Weather::Stalled => drop(self.made.stalled.fetch_add(connections, Relaxed)),
        }
    }

    async fn carry(self: Arc<Self>, mut client: TcpStream) {
        self.made.connections.fetch_add(1, Relaxed);
        let weather = *self.weather.borrow();
        self.hit_by(weather, 1);
        self.flowing().await;
        let Ok(mut server) = TcpStream::connect(self.target).await else {
            // The server is down. A reset is the closest that an accepted connection can get to a refused one.
            _ = client.set_zero_linger();
            return;
        };
        _ = (client.set_nodelay(true), server.set_nodelay(true));
        let id = self.last.fetch_add(1, Relaxed);
        let (sender, orders) = watch::channel(None);
        self.open.lock().unwrap().insert(id, sender);
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = self.pump(Direction::ToServer, from_client, to_server, orders.clone());
        let down = self.pump(Direction::ToClient, from_server, to_client, orders.clone());
        let is_reset = tokio::select! {
            () = wait_for_order(orders, Order::Reset) => true,
            _ = async { tokio::try_join!(up, down) } => false,
        };
        self.open.lock().unwrap().remove(&id);
        if is_reset {
            self.made.reset.fetch_add(1, Relaxed);
            _ = (client.set_zero_linger(), server.set_zero_linger());
        }
    }

    /// Passes on one direction until it ends. An error ends the other direction too.
    async fn pump(
        &self,
        way: Direction,
        mut from: ReadHalf<'_>,
        mut to: WriteHalf<'_>,
        orders: watch::Receiver<Option<Order>>,
    ) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            self.flowing().await;
            let length = tokio::select! {
                biased;
                () = wait_for_order(orders.clone(), Order::HalfClose(way)) => {
                    self.made.half_closed.fetch_add(1, Relaxed);
                    return to.shutdown().await;
                }
                length = from.read(&mut chunk) => length?,
            };
            // The chunk was read before the stall began, but must not pass it.
            self.flowing().await;
            if length == 0 {
                return to.shutdown().await;
            }
            let is_slow = *self.weather.borrow() == Weather::Slow;
            if is_slow {
                sleep(LONGEST_DELAY.mul_f64(fastrand::f64())).await;
            }
            let order = *orders.borrow();
            if order == Some(Order::Truncate(way)) {
                self.made.truncated.fetch_add(1, Relaxed);
                to.write_all(&chunk[..length / 2]).await?;
                return Err(Error::from(ErrorKind::ConnectionAborted));
            }
            to.write_all(&chunk[..length]).await?;
        }
    }

    /// Waits until no stall is on.
    async fn flowing(&self) {
        // The sender belongs to `self`, so it exists.
        _ = self.weather.subscribe().wait_for(|weather| *weather != Weather::Stalled).await;
    }
}

/// Waits for this order.
async fn wait_for_order(mut orders: watch::Receiver<Option<Order>>, this: Order) {
    // The sender exists as long as the connection.
    _ = orders.wait_for(|order| *order == Some(this)).await;
}
