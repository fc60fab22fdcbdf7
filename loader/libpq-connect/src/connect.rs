//! Connects: tries each server and each of its addresses in turn, with or without TLS.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::lookup_host;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Connection, Error as PgError, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls::Mode;
use crate::{Error, Host, Servers, Warnings, handshake};

/// Maximum time for logging in, in addition to the connect timeout. Without it, a server that accepts and then says
/// nothing would block a login indefinitely.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is logged in.
pub struct Session {
    /// The client of the connection.
    pub client: Client,
    /// The server's address. `None` for a Unix socket.
    pub address: Option<IpAddr>,
    /// Task that drives the connection. It ends with the connection and returns the reason.
    pub connection: JoinHandle<Result<(), PgError>>,
    /// Cancels the session's running statement.
    pub canceller: Canceller,
    /// Warnings from the server. A warning that precedes an answer is counted by the time the answer arrives.
    pub warnings: Arc<Warnings>,
}

/// Asks a server to cancel a session's statement, via TLS if the session uses TLS.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    tls: Option<MakeRustlsConnect>,
}

impl Canceller {
    /// Sends the request. The server doesn't answer it.
    pub async fn cancel(self) -> Result<(), PgError> {
        match self.tls {
            Some(tls) => self.token.cancel_query(tls).await,
            None => self.token.cancel_query(NoTls).await,
        }
    }
}

/// Reason why there is no session.
pub enum ConnectError {
    /// A configured file or password source can't be used, or TLS can't be set up.
    Setup(Error),
    /// Every attempt failed. Holds each attempt with its cause.
    Refused(Vec<FailedAttempt>),
}

/// A failed attempt and its cause.
pub struct FailedAttempt {
    /// The server, as `host:port`.
    pub server: String,
    /// The server's name. `verify-full` looks for it in the certificate.
    pub host: String,
    /// Whether the attempt used TLS.
    pub transport: Transport,
    /// Cause of the failure.
    pub cause: Cause,
}

/// Cause of a failed attempt.
pub enum Cause {
    /// The server's name couldn't be resolved.
    NoAddress(io::Error),
    /// The server didn't answer within this time.
    TimedOut(Duration),
    /// The server refused, or the connection failed.
    Postgres(PgError),
}

/// How an attempt uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Without TLS.
    Plain,
    /// With TLS if the server supports it.
    Offered,
    /// With TLS.
    Tls,
}

impl Mode {
    /// Returns the transports to try, in this order.
    fn transports(self) -> &'static [Transport] {
        match self {
            Self::Disable => &[Transport::Plain],
            Self::Allow => &[Transport::Plain, Transport::Tls],
            Self::Prefer => &[Transport::Offered, Transport::Plain],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[Transport::Tls],
        }
    }
}

impl Servers {
    /// Logs in to the first server that accepts us.
    pub async fn connect(&self) -> Result<Session, ConnectError> {
        let tls = match self.tls.mode {
            Mode::Disable => None,
            _ if self.hosts.iter().all(Host::is_socket) => None,
            _ => Some(MakeRustlsConnect::new(self.tls.client_config().map_err(ConnectError::Setup)?)),
        };
        let mut refusals = Vec::new();
        for host in self.in_order() {
            let password = self.password.of(self, host).await.map_err(ConnectError::Setup)?;
            for address in self.addresses(host, &mut refusals).await {
                let transports = if tls.is_none() || host.is_socket() {
                    &[Transport::Plain]
                } else {
                    self.tls.mode.transports()
                };
                for transport in transports {
                    let attempt = self.attempt(host, address, *transport, tls.as_ref(), password.as_deref());
                    let limit = self.connect_timeout() + LOGIN_TIMEOUT;
                    let cause = match timeout(limit, attempt).await {
                        Ok(Ok(session)) => return Ok(session),
                        Ok(Err(error)) => Cause::Postgres(error),
                        Err(_) => Cause::TimedOut(limit),
                    };
                    let may_go_on = may_try_other_transport(*transport, &cause);
                    refusals.push(FailedAttempt {
                        server: host.to_string(),
                        host: host.name.clone(),
                        transport: *transport,
                        cause,
                    });
                    if !may_go_on {
                        break;
                    }
                }
            }
        }
        Err(ConnectError::Refused(refusals))
    }

    fn in_order(&self) -> Vec<&Host> {
        let mut hosts: Vec<&Host> = self.hosts.iter().collect();
        if self.shuffled {
            fastrand::shuffle(&mut hosts);
        }
        hosts
    }

    /// Returns a host's addresses. For a Unix socket it returns one entry, `None`.
    async fn addresses(&self, host: &Host, refusals: &mut Vec<FailedAttempt>) -> Vec<Option<IpAddr>> {
        if host.is_socket() {
            return vec![None];
        }
        if let Some(address) = host.address {
            return vec![Some(address)];
        }
        let limit = self.connect_timeout();
        let cause = match timeout(limit, lookup_host((&*host.name, host.port))).await {
            Ok(Ok(found)) => {
                let mut addresses: Vec<_> = found.map(|address: SocketAddr| Some(address.ip())).collect();
                if self.shuffled {
                    fastrand::shuffle(&mut addresses);
                }
                return addresses;
            }
            Ok(Err(error)) => Cause::NoAddress(error),
            Err(_) => Cause::TimedOut(limit),
        };
        refusals.push(FailedAttempt {
            server: host.to_string(),
            host: host.name.clone(),
            transport: Transport::Plain,
            cause,
        });
        Vec::new()
    }

    async fn attempt(
        &self,
        host: &Host,
        address: Option<IpAddr>,
        transport: Transport,
        tls: Option<&MakeRustlsConnect>,
        password: Option<&str>,
    ) -> Result<Session, PgError> {
        let mut config = self.config.clone();
        config.host(&host.name).port(host.port);
        if let Some(address) = address {
            config.hostaddr(address);
        }
        if let Some(password) = password {
            config.password(password);
        }
        config.ssl_mode(match transport {
            Transport::Plain => SslMode::Disable,
            Transport::Offered => SslMode::Prefer,
            Transport::Tls => SslMode::Require,
        });
        if self.tls.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        match tls.filter(|_| transport != Transport::Plain) {
            None => log_in(&config, NoTls, None).await,
            Some(tls) => log_in(&config, tls.clone(), Some(tls.clone())).await,
        }
    }
}

async fn log_in<T>(
    config: &tokio_postgres::Config,
    connector: T,
    tls: Option<MakeRustlsConnect>,
) -> Result<Session, PgError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Unpin + Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(connector).await?;
    let canceller = Canceller { token: client.cancel_token(), tls };
    let address = config.get_hostaddrs().first().copied();
    let warnings = Arc::new(Warnings::default());
    let connection = tokio::spawn(drive(connection, Arc::clone(&warnings)));
    Ok(Session { client, address, connection, canceller, warnings })
}

/// Drives a connection until it ends, and counts the server's warnings.
async fn drive<T>(mut connection: Connection<Socket, T>, warnings: Arc<Warnings>) -> Result<(), PgError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message? {
            warnings.receive(&notice);
        }
    }
    Ok(())
}

/// Whether to try again with TLS (`allow`) or without (`prefer`), as libpq does. True if the server's `pg_hba.conf`
/// refused the connection or, where TLS was offered, TLS failed.
fn may_try_other_transport(transport: Transport, cause: &Cause) -> bool {
    let Cause::Postgres(error) = cause else { return false };
    let refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    match transport {
        Transport::Plain => refused,
        Transport::Offered => refused || handshake::has_failed(error),
        Transport::Tls => false,
    }
}
