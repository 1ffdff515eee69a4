//! What a member shows of itself beside its status: whether a quorum is behind it, whom it knows, its certificate and its
//! clock.

use http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::error::{Error, EtcdFault};
use crate::member::Member;
use crate::membership::MemberList;
use crate::proto::etcdserverpb as pb;

/// Where a member tells anyone its version (etcd's `server/etcdserver/api/etcdhttp/version.go`).
const VERSION: &str = "/version";
/// A key that need not be there, as etcdctl's `endpoint health` asks for it.
const HEALTH: &[u8] = b"health";

/// How a member introduces itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// The certificate that it serves with, in DER; none without TLS.
    pub certificate: Option<Vec<u8>>,
    /// Its clock, as the `Date` of an HTTP answer has it (RFC 9110, 6.6.1); none where it answers none.
    pub date: Option<String>,
}

impl Member {
    /// Reads as of now: the member answers only with a leader, and a quorum behind that. That the user may not read
    /// what was asked for is an answer, too.
    ///
    /// # Errors
    /// [`Error::Deadline`] without a quorum; those of any call.
    pub async fn read_as_of_now(&self) -> Result<(), Error> {
        let request =
            pb::RangeRequest { key: HEALTH.into(), keys_only: true, ..Default::default() };
        match self.call(&pb::RANGE, request).await {
            Err(Error::Etcd {
                fault: EtcdFault::PermissionDenied | EtcdFault::UserEmpty, ..
            }) => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    /// The members that this one knows, be they right or not: it is asked where there is no quorum to ask.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn members_known(&self) -> Result<MemberList, Error> {
        let request = pb::MemberListRequest { linearizable: false };
        Ok(self.call(&pb::MEMBER_LIST, request).await?.into())
    }

    /// Has it introduce itself, on a connection of its own, within the times of a dial and a command.
    ///
    /// # Errors
    /// No connection comes about.
    pub async fn introduction(&self) -> Result<Introduction, Error> {
        let (wire, certificate) = self.connector().introduction().await?;
        let asked = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await.ok()?;
            let request = Request::get(VERSION).header(header::HOST, self.endpoint().authority());
            let request = request.body(String::new()).ok()?;
            // The connection moves only while it is polled, and ends when nobody wants anything of it.
            let asked = async move { sender.send_request(request).await };
            let (response, _) = tokio::join!(asked, connection);
            let date = response.ok()?.headers().get(header::DATE)?.to_str().ok()?.to_owned();
            Some(date)
        };
        let date = timeout(self.timeouts().command, asked).await.ok().flatten();
        Ok(Introduction { certificate, date })
    }
}
