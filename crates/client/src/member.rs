//! One member: its connection, made when first needed, and calls that are meant for it alone.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Uri;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::config::{Credentials, Timeouts};
use crate::connect::Connector;
use crate::endpoint::Endpoint;
use crate::error::{Error, EtcdFault};
use crate::method::Method;
use crate::session::{Session, Token};
use crate::tls::TlsFiles;

/// How much a peer may send before we have read what came, for a stream and for a connection.
/// Larger windows do not make a snapshot faster: the server is the limit.
const WINDOW_BYTES: u32 = 1 << 20;

/// Go's gRPC clients never ask more often than this whether their peer is there
/// (`internal/internal.go`, `KeepaliveMinPingTime`), and etcd relies on it: it closes connections
/// of clients that ask more often than `--grpc-keepalive-min-time`, 5 s by default: one that asks
/// every 2 s loses its watch after 9.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// The token's name among a request's metadata (etcd's `api/v3rpc/rpctypes/metadatafields.go`).
const TOKEN: &str = "token";

/// Asks a member to refuse a stream, or to end it, while it sees no leader (`rpctypes/md.go`).
const HAS_LEADER: &str = "hasleader";

/// One member of a cluster, reached at one endpoint. Cheap to clone; clones share a connection.
#[derive(Clone)]
pub struct Member(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    timeouts: Timeouts,
    connector: Connector,
    channel: OnceLock<Channel>,
    session: Session,
}

impl Member {
    pub(crate) fn new(
        endpoint: Endpoint,
        tls: TlsFiles,
        credentials: Option<Credentials>,
        timeouts: Timeouts,
    ) -> Self {
        let connector = Connector::new(endpoint.clone(), tls, timeouts.clone());
        let session = Session::new(credentials);
        Self(Arc::new(Inner { endpoint, timeouts, connector, channel: OnceLock::new(), session }))
    }

    /// Where it is reached.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.0.connector
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.0.timeouts
    }

    /// Calls a method that answers once, within the time of a command.
    pub(crate) async fn call<Q, P>(&self, method: &Method<Q, P>, request: Q) -> Result<P, Error>
    where
        Q: Message + Clone + 'static,
        P: Message + Default + 'static,
    {
        self.call_within(self.0.timeouts.command, method, request).await
    }

    /// Calls a method that answers once. Where the token turns out to be stale the call is made
    /// once more with a new one: etcd looks at the token before it does anything.
    pub(crate) async fn call_within<Q, P>(
        &self,
        within: Duration,
        method: &Method<Q, P>,
        request: Q,
    ) -> Result<P, Error>
    where
        Q: Message + Clone + 'static,
        P: Message + Default + 'static,
    {
        let token = self.0.session.token(self).await?;
        match self.call_once(within, method, request.clone(), token.as_ref()).await {
            Err(error) if error.wants_new_token() => {
                tracing::debug!(endpoint = %self.0.endpoint, %error, "renewing the token");
                let token = self.0.session.renewed(self, token).await?;
                self.call_once(within, method, request, token.as_ref()).await
            }
            answer => answer,
        }
    }

    /// Calls a method that answers once, once, with this token or none.
    pub(crate) async fn call_once<Q, P>(
        &self,
        within: Duration,
        method: &Method<Q, P>,
        request: Q,
        token: Option<&Token>,
    ) -> Result<P, Error>
    where
        Q: Message + 'static,
        P: Message + Default + 'static,
    {
        let mut grpc = self.grpc(method);
        let answer = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            grpc.unary(with_token(Request::new(request), token), method.path(), codec()).await
        };
        self.settle(method, within, timeout(within, answer).await).await
    }

    /// Calls a method that answers with a stream. The token is always a new one, as etcd's own
    /// client has it: a watch of 3.4 says "permission denied" to a stale one.
    pub(crate) async fn call_streaming<Q, P>(
        &self,
        within: Duration,
        method: &Method<Q, P>,
        request: Q,
    ) -> Result<Streaming<P>, Error>
    where
        Q: Message + 'static,
        P: Message + Default + 'static,
    {
        let token = self.0.session.fresh(self).await?;
        let mut grpc = self.grpc(method);
        let answer = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let request = with_token(Request::new(request), token.as_ref());
            grpc.server_streaming(request, method.path(), codec()).await
        };
        self.settle(method, within, timeout(within, answer).await).await
    }

    /// Calls a method that takes a stream and answers with one, as long as the cluster has a
    /// leader.
    pub(crate) async fn call_bidirectional<Q, P, S>(
        &self,
        within: Duration,
        method: &Method<Q, P>,
        requests: S,
    ) -> Result<Streaming<P>, Error>
    where
        Q: Message + 'static,
        P: Message + Default + 'static,
        S: tokio_stream::Stream<Item = Q> + Send + 'static,
    {
        let token = self.0.session.fresh(self).await?;
        let mut request = with_token(Request::new(requests), token.as_ref());
        request
            .metadata_mut()
            .insert(HAS_LEADER, tonic::metadata::MetadataValue::from_static("true"));
        let mut grpc = self.grpc(method);
        let answer = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            grpc.streaming(request, method.path(), codec()).await
        };
        self.settle(method, within, timeout(within, answer).await).await
    }

    /// What a failed call, or the end of a stream, means.
    pub(crate) async fn explain<Q, P>(&self, method: &Method<Q, P>, status: &Status) -> Error {
        let (endpoint, call) = (self.0.endpoint.clone(), method.name());
        // The transport failed, and not etcd. What it says cannot be held while something is awaited.
        let said =
            status.source().map(|source| ours(source).cloned().ok_or_else(|| causes(source)));
        match said {
            None => {}
            Some(Ok(ours)) => return ours,
            Some(Err(cause)) => {
                let explained = self.0.connector.explain_loss().await;
                return explained.unwrap_or(Error::Lost { endpoint, call, cause });
            }
        }
        let message = status.message().to_owned();
        match (EtcdFault::from_message(&message), status.code()) {
            (Some(fault), _) => Error::Etcd { endpoint, call, fault, message },
            // This is what gRPC says when a member was stopped in the middle of a call.
            (None, Code::Unavailable | Code::Cancelled) if !message.starts_with("etcdserver") => {
                Error::Lost { endpoint, call, cause: message }
            }
            (None, code) => Error::Rpc { endpoint, call, code, message },
        }
    }

    async fn settle<Q, P, A>(
        &self,
        method: &Method<Q, P>,
        within: Duration,
        answer: Result<Result<Response<A>, Status>, tokio::time::error::Elapsed>,
    ) -> Result<A, Error> {
        match answer {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.explain(method, &status).await),
            Err(_) => {
                let (endpoint, call) = (self.0.endpoint.clone(), method.name());
                Err(Error::Deadline { endpoint, call, after: within })
            }
        }
    }

    fn grpc<Q, P>(&self, method: &Method<Q, P>) -> Grpc<Channel> {
        let channel = self.0.channel.get_or_init(|| self.channel()).clone();
        Grpc::new(channel).max_decoding_message_size(method.response_bytes_max())
    }

    fn channel(&self) -> Channel {
        let Inner { endpoint, timeouts, connector, .. } = &*self.0;
        let builder = Channel::builder(Uri::from_static("http://etcd"))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(timeouts.keepalive_time.max(KEEPALIVE_TIME_MIN))
            .keep_alive_timeout(timeouts.keepalive_timeout);
        // What no URI can say (a host with an underscore, a zone) goes without an authority of its
        // own, which etcd does not look at.
        let builder = match endpoint.origin().parse() {
            Ok(origin) => builder.origin(origin),
            Err(_) => builder,
        };
        builder.connect_with_connector_lazy(connector.clone())
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Member").field(&self.0.endpoint).finish()
    }
}

fn codec<Q, P>() -> ProstCodec<Q, P> {
    ProstCodec::default()
}

fn with_token<T>(mut request: Request<T>, token: Option<&Token>) -> Request<T> {
    if let Some(token) = token {
        request.metadata_mut().insert(TOKEN, token.metadata());
    }
    request
}

/// An error, what caused it, what caused that, and so on.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The error of our connector, somewhere below what tonic made of it.
fn ours<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// An error and what caused it, each said once.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut said = String::new();
    for text in chain(error).map(ToString::to_string) {
        if !said.contains(&text) {
            let separator = if said.is_empty() { "" } else { ": " };
            said = said + separator + &text;
        }
    }
    said
}
