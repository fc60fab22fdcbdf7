//! Connecting: one server after the other, one address after the other, with TLS or without.

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

use super::tls::Mode;
use super::{Host, Servers, Warnings, handshake, rds};
use crate::error::Error;

/// How long the whole of logging in may take beyond connecting. A server that accepts and says nothing would
/// otherwise be waited for for ever.
pub(crate) const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is logged in.
pub(crate) struct Session {
    pub(crate) client: Client,
    /// The server's address; none for a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// Ends with the connection, and then knows why it ended.
    pub(crate) connection: JoinHandle<Result<(), PgError>>,
    /// How to ask for an end of what it does.
    pub(crate) canceller: Canceller,
    /// Warnings from the server. One that comes before an answer is counted when the answer is there.
    pub(crate) warnings: Arc<Warnings>,
}

/// Asks a server to break off what a session does, with TLS where the session has it.
#[derive(Clone)]
pub(crate) struct Canceller {
    token: CancelToken,
    tls: Option<MakeRustlsConnect>,
}

impl Canceller {
    /// Asks. The server does not answer.
    pub(crate) async fn cancel(self) -> Result<(), PgError> {
        match self.tls {
            Some(tls) => self.token.cancel_query(tls).await,
            None => self.token.cancel_query(NoTls).await,
        }
    }
}

/// Why there is no session.
pub(crate) enum NotConnected {
    /// A file that was asked for cannot be used.
    Setup(Error),
    /// What each server had to say, or what became of asking it.
    Refused(Vec<Refusal>),
}

/// Why one attempt failed.
pub(crate) struct Refusal {
    /// The server, as `host:port`.
    pub(crate) server: String,
    /// Its name, as it was looked for in its certificate.
    pub(crate) host: String,
    /// With or without TLS.
    pub(crate) way: Way,
    pub(crate) why: Why,
}

/// The reason of a refusal.
pub(crate) enum Why {
    /// Its name has no address.
    NoAddress(io::Error),
    /// It did not answer within so long.
    Late(Duration),
    Postgres(PgError),
}

/// How an attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    /// TLS if the server has it.
    Offered,
    Tls,
}

impl Mode {
    /// The ways to try, one after the other.
    fn ways(self) -> &'static [Way] {
        match self {
            Self::Disable => &[Way::Plain],
            Self::Allow => &[Way::Plain, Way::Tls],
            Self::Prefer => &[Way::Offered, Way::Plain],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[Way::Tls],
        }
    }
}

impl Servers {
    /// Logs in to the first server that will have us.
    pub(crate) async fn connect(&self) -> Result<Session, NotConnected> {
        let tls = match self.tls.mode {
            Mode::Disable => None,
            _ if self.hosts.iter().all(Host::is_socket) => None,
            _ => Some(MakeRustlsConnect::new(self.tls.client_config().map_err(NotConnected::Setup)?)),
        };
        let mut refusals = Vec::new();
        for host in self.in_order() {
            let password = if self.by_rds_token {
                rds::token(host, &self.user).await.map(Some)
            } else {
                self.password.of(self, host)
            };
            let password = password.map_err(NotConnected::Setup)?;
            for address in self.addresses(host, &mut refusals).await {
                let ways =
                    if tls.is_none() || host.is_socket() { &[Way::Plain] } else { self.tls.mode.ways() };
                for way in ways {
                    let attempt = self.attempt(host, address, *way, tls.as_ref(), password.as_deref());
                    let limit = self.connect_timeout() + LOGIN_TIMEOUT;
                    let why = match timeout(limit, attempt).await {
                        Ok(Ok(session)) => return Ok(session),
                        Ok(Err(error)) => Why::Postgres(error),
                        Err(_) => Why::Late(limit),
                    };
                    let other_way = may_go_another_way(*way, &why);
                    refusals.push(Refusal {
                        server: host.to_string(),
                        host: host.name.clone(),
                        way: *way,
                        why,
                    });
                    if !other_way {
                        break;
                    }
                }
            }
        }
        Err(NotConnected::Refused(refusals))
    }

    fn in_order(&self) -> Vec<&Host> {
        let mut hosts: Vec<&Host> = self.hosts.iter().collect();
        if self.shuffled {
            fastrand::shuffle(&mut hosts);
        }
        hosts
    }

    /// A host's addresses; one that is none for a Unix socket.
    async fn addresses(&self, host: &Host, refusals: &mut Vec<Refusal>) -> Vec<Option<IpAddr>> {
        if host.is_socket() {
            return vec![None];
        }
        if let Some(address) = host.address {
            return vec![Some(address)];
        }
        let limit = self.connect_timeout();
        let why = match timeout(limit, lookup_host((&*host.name, host.port))).await {
            Ok(Ok(found)) => {
                let mut addresses: Vec<_> = found.map(|address: SocketAddr| Some(address.ip())).collect();
                if self.shuffled {
                    fastrand::shuffle(&mut addresses);
                }
                return addresses;
            }
            Ok(Err(error)) => Why::NoAddress(error),
            Err(_) => Why::Late(limit),
        };
        refusals.push(Refusal { server: host.to_string(), host: host.name.clone(), way: Way::Plain, why });
        Vec::new()
    }

    async fn attempt(
        &self,
        host: &Host,
        address: Option<IpAddr>,
        way: Way,
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
        config.ssl_mode(match way {
            Way::Plain => SslMode::Disable,
            Way::Offered => SslMode::Prefer,
            Way::Tls => SslMode::Require,
        });
        if self.tls.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        match tls.filter(|_| way != Way::Plain) {
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

/// Whether a failed attempt is one that libpq makes again with TLS (allow) or without (prefer): the server refuses such
/// connections by its `pg_hba.conf`, or TLS came to nothing.
fn may_go_another_way(way: Way, why: &Why) -> bool {
    let Why::Postgres(error) = why else { return false };
    let refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    match way {
        Way::Plain => refused,
        Way::Offered => refused || handshake::has_failed(error),
        Way::Tls => false,
    }
}
