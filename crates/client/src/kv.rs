//! Reading and writing keys.

use bytes::Bytes;

use crate::client::Client;
use crate::error::Error;
use crate::member::Member;
use crate::method::Method;
use crate::proto::etcdserverpb as pb;
use crate::proto::mvccpb::KeyValue;

/// The largest range that is taken, as in etcd's own client. Callers bound it by
/// [`Range::limit`].
const RANGE_BYTES_MAX: usize = i32::MAX as usize;

const RANGE: Method<pb::RangeRequest, pb::RangeResponse> = pb::RANGE.up_to(RANGE_BYTES_MAX);

/// What every answer begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The id of the member that answered.
    pub member_id: u64,
    /// The key space's revision at that member, when it answered.
    pub revision: i64,
    /// The raft term at that member.
    pub raft_term: u64,
}

impl From<Option<pb::ResponseHeader>> for Header {
    fn from(header: Option<pb::ResponseHeader>) -> Self {
        let pb::ResponseHeader { cluster_id, member_id, revision, raft_term } =
            header.unwrap_or_default();
        Self { cluster_id, member_id, revision, raft_term }
    }
}

/// Which keys: one, a range, or all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keys {
    pub(crate) key: Bytes,
    /// Exclusive; empty for one key, a zero byte for no end.
    pub(crate) range_end: Bytes,
}

impl Keys {
    /// This key alone.
    pub fn one(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), range_end: Bytes::new() }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { key: Bytes::from_static(b"\0"), range_end: Bytes::from_static(b"\0") }
    }

    /// Every key from this one on, itself included.
    pub fn from(first: impl Into<Bytes>) -> Self {
        Self { key: first.into(), range_end: Bytes::from_static(b"\0") }
    }

    /// Every key from `first` to before `end`.
    pub fn between(first: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { key: first.into(), range_end: end.into() }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        // The smallest key beyond: the last byte that can grow does, and the rest falls away.
        match prefix.iter().rposition(|byte| *byte < 0xff) {
            None if prefix.is_empty() => Self::all(),
            None => Self::from(prefix),
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                Self { key: prefix, range_end: end.into() }
            }
        }
    }
}

/// A question for keys. Linearizable and at the newest revision unless told otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range(pb::RangeRequest);

impl Range {
    /// These keys with their values.
    pub fn new(Keys { key, range_end }: Keys) -> Self {
        Self(pb::RangeRequest { key, range_end, ..Default::default() })
    }

    /// At most so many keys.
    pub fn limit(mut self, keys: i64) -> Self {
        self.0.limit = keys;
        self
    }

    /// As of this revision.
    pub fn at_revision(mut self, revision: i64) -> Self {
        self.0.revision = revision;
        self
    }

    /// As the member knows them, without asking the others. Answers without a quorum, too.
    pub fn serializable(mut self) -> Self {
        self.0.serializable = true;
        self
    }

    /// Without their values.
    pub fn keys_only(mut self) -> Self {
        self.0.keys_only = true;
        self
    }

    /// Only their number.
    pub fn count_only(mut self) -> Self {
        self.0.count_only = true;
        self
    }

    pub(crate) fn into_request(self) -> pb::RangeRequest {
        self.0
    }
}

/// What a [`Range`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeResult {
    /// Who answered, and at which revision.
    pub header: Header,
    /// The keys, ascending.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left some out.
    pub more: bool,
    /// How many there are, those left out included.
    pub count: i64,
}

impl From<pb::RangeResponse> for RangeResult {
    fn from(answer: pb::RangeResponse) -> Self {
        let pb::RangeResponse { header, kvs, more, count } = answer;
        Self { header: header.into(), kvs, more, count }
    }
}

/// A key to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put(pub(crate) pb::PutRequest);

impl Put {
    /// This key with this value, attached to no lease.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self(pb::PutRequest { key: key.into(), value: value.into(), lease: 0 })
    }

    /// Attached to this lease.
    pub fn lease(mut self, id: i64) -> Self {
        self.0.lease = id;
        self
    }
}

/// What a deletion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Who answered, and at which revision.
    pub header: Header,
    /// How many keys there were.
    pub count: i64,
}

impl From<pb::DeleteRangeResponse> for Deleted {
    fn from(answer: pb::DeleteRangeResponse) -> Self {
        Self { header: answer.header.into(), count: answer.deleted }
    }
}

/// When a compaction answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// When the old revisions can no longer be read.
    Scheduled,
    /// When the answering member has removed them from its database.
    Finished,
}

impl Client {
    /// Reads keys. A read.
    ///
    /// # Errors
    /// [`EtcdFault::Compacted`](crate::EtcdFault::Compacted) and
    /// [`EtcdFault::FutureRevision`](crate::EtcdFault::FutureRevision) for a revision that is not
    /// there.
    pub async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        Ok(self.read(&RANGE, range.into_request()).await?.into())
    }

    /// The revision that the cluster has agreed on now: a linearizable read of as little as
    /// possible. What a member answers later is at least as new, if it is not behind. A read.
    ///
    /// # Errors
    /// [`EtcdFault::PermissionDenied`](crate::EtcdFault::PermissionDenied) for a user who may not
    /// read everything.
    pub async fn linearizable_revision(&self) -> Result<i64, Error> {
        Ok(self.header().await?.revision)
    }

    /// Who answers a linearizable read, and the revision that the cluster is at. A read.
    ///
    /// # Errors
    /// Those of [`Client::linearizable_revision`].
    pub async fn header(&self) -> Result<Header, Error> {
        let any = Range::new(Keys::all()).keys_only().limit(1);
        Ok(self.range(any).await?.header)
    }

    /// Writes a key. A write.
    ///
    /// # Errors
    /// [`EtcdFault::NoSpace`](crate::EtcdFault::NoSpace),
    /// [`EtcdFault::LeaseNotFound`](crate::EtcdFault::LeaseNotFound) and the like.
    pub async fn put(&self, put: Put) -> Result<Header, Error> {
        Ok(self.write(&pb::PUT, put.0).await?.header.into())
    }

    /// Deletes keys. A write.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn delete(&self, Keys { key, range_end }: Keys) -> Result<Deleted, Error> {
        let request = pb::DeleteRangeRequest { key, range_end };
        Ok(self.write(&pb::DELETE_RANGE, request).await?.into())
    }

    /// Forgets what was before `revision`. A write.
    ///
    /// # Errors
    /// [`EtcdFault::Compacted`](crate::EtcdFault::Compacted) when it is forgotten already.
    pub async fn compact(&self, revision: i64, answer: Compaction) -> Result<Header, Error> {
        let physical = answer == Compaction::Finished;
        let request = pb::CompactionRequest { revision, physical };
        let call = async |member: &Member| {
            let timeouts = member.timeouts();
            let within = if physical { timeouts.scan } else { timeouts.command };
            member.call_within(within, &pb::COMPACT, request).await
        };
        Ok(self.first(Error::was_not_carried_out, call).await?.header.into())
    }
}

impl Member {
    /// Reads keys through this member.
    ///
    /// # Errors
    /// Those of [`Client::range`].
    pub async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        Ok(self.call(&RANGE, range.into_request()).await?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        for (prefix, want) in [
            (&b"a"[..], &b"b"[..]),
            (b"a/", b"a0"),
            (b"a\xff", b"b"),
            (b"\xff\xff", b"\0"),
            (b"", b"\0"),
        ] {
            assert_eq!(Keys::prefix(prefix).range_end, want, "{prefix:?}");
        }
        assert_eq!(Keys::prefix(""), Keys::all());
    }
}
