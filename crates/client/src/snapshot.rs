//! The stream of a member's database.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::Streaming;

use crate::error::Error;
use crate::member::Member;
use crate::method::Method;
use crate::proto::etcdserverpb as pb;

/// etcd sends 32 KiB at a time (`server/etcdserver/api/v3rpc/maintenance.go`); this leaves room for
/// a server that changes its mind, and none for one that means to fill our memory.
const CHUNK_BYTES_MAX: usize = 4 << 20;

const SNAPSHOT: Method<pb::SnapshotRequest, pb::SnapshotResponse> =
    pb::SNAPSHOT.up_to(CHUNK_BYTES_MAX);

/// A member's database as it arrives: a copy as of one moment, then the SHA-256 of all of it.
///
/// The pieces come in order and as the server cut them. The last 32 bytes of the whole are the
/// digest, always as a piece of their own so far, which nothing but the end of the stream tells
/// from data: the reader keeps the last 32 bytes apart, and compares. A stream that a server ends
/// early, but properly, is only found out that way.
///
/// Dropping it ends the call.
#[derive(Debug)]
pub struct SnapshotStream {
    member: Member,
    stream: Streaming<pb::SnapshotResponse>,
    stall: Duration,
    received: u64,
}

/// A piece of a [`SnapshotStream`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The bytes.
    pub blob: Bytes,
    /// How many bytes of data are to come; the digest is not counted. 0 is not yet the end.
    pub remaining_bytes: u64,
    /// The version of the database's layout, `3.6.0`; empty before 3.6, and in the first seconds of
    /// a new cluster.
    pub version: String,
}

impl Member {
    /// Asks for its database. That is the member's own state: it may be behind the cluster's.
    ///
    /// # Errors
    /// [`EtcdFault::PermissionDenied`](crate::EtcdFault::PermissionDenied) without the root role,
    /// here or with the first piece; [`Error::Deadline`] when nothing came for the time of a stall.
    pub async fn snapshot(&self) -> Result<SnapshotStream, Error> {
        let stall = self.timeouts().stall;
        let stream = self.call_streaming(stall, &SNAPSHOT, pb::SnapshotRequest {}).await?;
        Ok(SnapshotStream { member: self.clone(), stream, stall, received: 0 })
    }
}

impl SnapshotStream {
    /// The next piece; none when the server has ended the stream properly.
    ///
    /// # Errors
    /// [`Error::Stalled`] when nothing came for the time of a stall, counted from this call: a slow
    /// stream never fails. [`Error::Lost`] when the connection ended before the stream did.
    pub async fn next(&mut self) -> Result<Option<SnapshotChunk>, Error> {
        let message = match timeout(self.stall, self.stream.message()).await {
            Ok(Ok(message)) => message,
            Ok(Err(status)) => return Err(self.member.explain(&SNAPSHOT, &status).await),
            Err(_) => {
                return Err(Error::Stalled {
                    endpoint: self.member.endpoint().clone(),
                    call: SNAPSHOT.name(),
                    after: self.stall,
                    received: self.received,
                });
            }
        };
        let Some(pb::SnapshotResponse { blob, remaining_bytes, version, .. }) = message else {
            return Ok(None);
        };
        self.received += blob.len() as u64;
        Ok(Some(SnapshotChunk { blob, remaining_bytes, version }))
    }

    /// How many bytes have come so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The member whose database it is.
    pub fn member(&self) -> &Member {
        &self.member
    }
}
