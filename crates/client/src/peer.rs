//! The port on which members speak with each other: does a member serve there, and whose?

use http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::config::Timeouts;
use crate::connect::Connector;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::tls::TlsFiles;

/// Where a member tells anyone its cluster (etcd's `server/etcdserver/api/etcdhttp/peer.go`).
const MEMBERS: &str = "/members";
/// The header that does so, in hexadecimal.
const CLUSTER_ID: &str = "x-etcd-cluster-id";

/// What was found at a peer URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtPeerUrl {
    /// No connection can be made.
    Nobody,
    /// A member of the cluster with this id serves there.
    Cluster(u64),
    /// Something listens, and this is why its cluster is not known.
    Unknown(String),
}

/// Looks who serves at a peer URL, within the time of a dial and then that of a command.
///
/// `identity` is what members present to each other; the file of authorities in it is not used, as
/// nothing is entrusted to the answer.
///
/// # Errors
/// [`Error::Endpoint`] where it is no URL of a host and port.
pub async fn at_peer_url(
    url: &str,
    identity: TlsFiles,
    timeouts: &Timeouts,
) -> Result<AtPeerUrl, Error> {
    let endpoint = Endpoint::parse(url, false)?;
    let files = TlsFiles { ca_cert: None, insecure_skip_verify: true, ..identity };
    let connector = Connector::new(endpoint.clone(), files, timeouts.clone());
    if !connector.is_heard().await {
        return Ok(AtPeerUrl::Nobody);
    }
    let asked = async {
        match ask(&endpoint, &connector).await {
            Err(why) => Err(match connector.explain_loss().await {
                Some(better) => better.to_string(),
                None => why,
            }),
            answer => answer,
        }
    };
    let within = timeouts.command;
    let answer = timeout(within, asked).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {within:?}")));
    Ok(answer.map_or_else(AtPeerUrl::Unknown, AtPeerUrl::Cluster))
}

/// The cluster's id, or why there is none.
async fn ask(endpoint: &Endpoint, connector: &Connector) -> Result<u64, String> {
    let wire = connector.connect().await.map_err(|error| error.to_string())?;
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await.map_err(failed)?;
    let request = Request::get(MEMBERS)
        .header(header::HOST, endpoint.authority())
        .body(String::new())
        .map_err(|error| error.to_string())?;
    // The connection moves only while it is polled, and ends when nobody wants anything of it.
    let asked = async move { sender.send_request(request).await };
    let (response, _) = tokio::join!(asked, connection);
    let response = response.map_err(failed)?;
    let id = response.headers().get(CLUSTER_ID).and_then(|value| value.to_str().ok());
    id.and_then(|id| u64::from_str_radix(id, 16).ok())
        .ok_or_else(|| format!("it answers {} and names no cluster", response.status()))
}
