//! Making a connection, so that every way in which it can fail has a name of its own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::config::Timeouts;
use crate::endpoint::{Address, Endpoint};
use crate::error::{DialFault, Error, TlsFault};
use crate::probe;
use crate::tls::{Tls, TlsFiles, handshake_fault, session_fault};
use crate::wire::{Stream, Trace, Wire, tls_error};

/// Makes the connections to one endpoint, one after the other.
#[derive(Clone)]
pub(crate) struct Connector {
    endpoint: Endpoint,
    tls_files: TlsFiles,
    timeouts: Timeouts,
    latest: Arc<Mutex<Latest>>,
}

/// The latest connection, for the explanation of its end.
#[derive(Clone, Default)]
struct Latest {
    trace: Arc<Trace>,
    tls: Option<Arc<Tls>>,
}

impl Connector {
    pub(crate) fn new(endpoint: Endpoint, tls_files: TlsFiles, timeouts: Timeouts) -> Self {
        Self { endpoint, tls_files, timeouts, latest: Arc::default() }
    }

    /// Looks for a better explanation of a lost connection than "it was lost".
    pub(crate) async fn explain_loss(&self) -> Option<Error> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fault = match (latest.trace.tls_error(), &latest.tls) {
            (Some(error), Some(tls)) => session_fault(error, tls),
            _ if latest.trace.heard() => return None,
            (None, Some(tls)) => session_fault(&self.first_alert(tls).await?, tls),
            (_, None) if self.peer_speaks_tls().await => TlsFault::PeerIsTls,
            _ => return None,
        };
        Some(self.tls_failed(fault))
    }

    /// What a server says that ended a session without ever having said anything. It may have
    /// done so in the first place, and the alert been lost: a peer that closes while we write
    /// resets the connection.
    async fn first_alert(&self, tls: &Tls) -> Option<rustls::Error> {
        let listened = async { probe::first_alert(self.handshake(tls).await.ok()?.0).await };
        timeout(self.timeouts.dial, listened).await.ok().flatten()
    }

    async fn peer_speaks_tls(&self) -> bool {
        let asked = async { probe::speaks_tls(self.dial().await.ok()?).await.ok() };
        timeout(self.timeouts.dial, asked).await.is_ok_and(|answer| answer == Some(true))
    }

    /// Whether anything accepts a connection, within the time for one.
    pub(crate) async fn is_heard(&self) -> bool {
        timeout(self.timeouts.dial, self.dial()).await.is_ok_and(|dialled| dialled.is_ok())
    }

    /// Makes a connection, TLS included, within the time for one.
    pub(crate) async fn connect(&self) -> Result<Wire, Error> {
        let within = self.timeouts.dial;
        match timeout(within, self.connect_without_limit()).await {
            Ok(connected) => connected,
            Err(_) => Err(self.dial_failed(DialFault::TimedOut(within))),
        }
    }

    async fn connect_without_limit(&self) -> Result<Wire, Error> {
        let trace = Arc::new(Trace::default());
        let (stream, tls) = if self.endpoint.is_tls() {
            let tls = Arc::new(self.load_tls().await?);
            (self.handshake(&tls).await?.0, Some(tls))
        } else {
            (self.dial().await?, None)
        };
        tracing::debug!(endpoint = %self.endpoint, tls = tls.is_some(), "connected");
        let latest = Latest { trace: Arc::clone(&trace), tls };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
        Ok(Wire::new(stream, trace))
    }

    async fn load_tls(&self) -> Result<Tls, Error> {
        let files = self.tls_files.clone();
        match tokio::task::spawn_blocking(move || files.load()).await {
            Ok(loaded) => loaded,
            Err(panicked) => Err(self.tls_failed(TlsFault::Other(panicked.to_string()))),
        }
    }

    async fn dial(&self) -> Result<Box<dyn Stream>, Error> {
        match self.endpoint.address() {
            Address::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(self.dial_failed(io_fault(&error))),
            },
            Address::Tcp { host, port } => self.dial_tcp(host, *port).await,
        }
    }

    async fn dial_tcp(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, Error> {
        let unknown = |message: String| {
            self.dial_failed(DialFault::UnknownHost { host: host.to_owned(), message })
        };
        let addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| unknown(error.to_string()))?;
        let mut failure = unknown("it has no address".to_owned());
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Requests are small and waited for. A socket that refuses the option works too.
                    let _ = stream.set_nodelay(true);
                    return Ok(Box::new(stream));
                }
                Err(error) => failure = self.dial_failed(io_fault(&error)),
            }
        }
        Err(failure)
    }

    /// A connection of its own, and the certificate that the peer has shown, in DER.
    pub(crate) async fn introduction(&self) -> Result<(Wire, Option<Vec<u8>>), Error> {
        let within = self.timeouts.dial;
        let met = async {
            if !self.endpoint.is_tls() {
                return Ok((self.dial().await?, None));
            }
            self.handshake(&self.load_tls().await?.for_http1()).await
        };
        let met = timeout(within, met).await;
        let (stream, shown) = met.map_err(|_| self.dial_failed(DialFault::TimedOut(within)))??;
        Ok((Wire::new(stream, Arc::default()), shown))
    }

    /// The connection, and the peer's certificate.
    async fn handshake(&self, tls: &Tls) -> Result<(Box<dyn Stream>, Option<Vec<u8>>), Error> {
        let name = self.endpoint.server_name();
        let server_name = ServerName::try_from(name.clone())
            .map_err(|error| self.tls_failed(TlsFault::Other(error.to_string())))?;
        let (config, seen) = tls.for_one_connection();
        let stream = self.dial().await?;
        let error = match TlsConnector::from(config).connect(server_name, stream).await {
            Ok(stream) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let shown = shown.map(|certificate| certificate.as_ref().to_vec());
                return Ok((Box::new(stream), shown));
            }
            Err(error) => error,
        };
        let fault = match tls_error(&error) {
            // Something that is not TLS came back, or nothing at all.
            Some(rustls::Error::InvalidMessage(_)) | None if self.peer_is_plain().await => {
                TlsFault::PeerIsPlain
            }
            Some(error) => handshake_fault(error, tls, &seen, &name),
            None => return Err(self.dial_failed(io_fault(&error))),
        };
        Err(self.tls_failed(fault))
    }

    async fn peer_is_plain(&self) -> bool {
        match self.dial().await {
            Ok(stream) => probe::speaks_plain_http2(stream).await.unwrap_or(false),
            Err(_) => false,
        }
    }

    fn dial_failed(&self, fault: DialFault) -> Error {
        Error::Unreachable { endpoint: self.endpoint.clone(), fault }
    }

    fn tls_failed(&self, fault: TlsFault) -> Error {
        Error::Tls { endpoint: self.endpoint.clone(), fault: Box::new(fault) }
    }
}

fn io_fault(error: &io::Error) -> DialFault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialFault::Refused,
        kind => DialFault::Io { kind, message: error.to_string() },
    }
}

/// How tonic asks for a connection. The address is this connector's own.
impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}
