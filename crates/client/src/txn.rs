//! Transactions: conditions, and what is done when all of them hold, or otherwise.

use bytes::Bytes;

use crate::client::Client;
use crate::error::Error;
use crate::kv::{Deleted, Header, Keys, Put, Range, RangeResult};
use crate::method::Method;
use crate::proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;

/// As for ranges, which a transaction may contain.
const TXN_BYTES_MAX: usize = i32::MAX as usize;

const TXN: Method<pb::TxnRequest, pb::TxnResponse> = pb::TXN.up_to(TXN_BYTES_MAX);

/// A transaction: one revision for all that it changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Txn(pb::TxnRequest);

impl Txn {
    /// One that does nothing yet, under no condition.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn when(mut self, condition: Compare) -> Self {
        self.0.compare.push(condition.0);
        self
    }

    /// Adds what is done when every condition holds.
    pub fn then(mut self, op: Op) -> Self {
        self.0.success.push(op.into_request());
        self
    }

    /// Adds what is done when one does not.
    pub fn otherwise(mut self, op: Op) -> Self {
        self.0.failure.push(op.into_request());
        self
    }
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare(pb::Compare);

/// How a key's property must relate to the one given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareIs {
    /// It is the same.
    Equal,
    /// It is greater.
    Greater,
    /// It is less.
    Less,
    /// It is another.
    NotEqual,
}

impl Compare {
    /// The key's version; 0 where there is no such key.
    pub fn version(key: impl Into<Bytes>, is: CompareIs, version: i64) -> Self {
        Self::new(key.into(), is, CompareTarget::Version, TargetUnion::Version(version))
    }

    /// The revision that created the key; 0 where there is no such key.
    pub fn create_revision(key: impl Into<Bytes>, is: CompareIs, revision: i64) -> Self {
        Self::new(key.into(), is, CompareTarget::Create, TargetUnion::CreateRevision(revision))
    }

    /// The revision that wrote the key last; 0 where there is no such key.
    pub fn mod_revision(key: impl Into<Bytes>, is: CompareIs, revision: i64) -> Self {
        Self::new(key.into(), is, CompareTarget::Mod, TargetUnion::ModRevision(revision))
    }

    /// The key's value. Never holds where there is no such key.
    pub fn value(key: impl Into<Bytes>, is: CompareIs, value: impl Into<Bytes>) -> Self {
        Self::new(key.into(), is, CompareTarget::Value, TargetUnion::Value(value.into()))
    }

    fn new(key: Bytes, is: CompareIs, target: CompareTarget, value: TargetUnion) -> Self {
        let result = match is {
            CompareIs::Equal => CompareResult::Equal,
            CompareIs::Greater => CompareResult::Greater,
            CompareIs::Less => CompareResult::Less,
            CompareIs::NotEqual => CompareResult::NotEqual,
        };
        Self(pb::Compare {
            result: result.into(),
            target: target.into(),
            key,
            target_union: Some(value),
        })
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key.
    Put(Put),
    /// Deletes keys.
    Delete(Keys),
    /// Reads keys, as the operations before left them.
    Range(Range),
}

impl Op {
    fn into_request(self) -> pb::RequestOp {
        let request = match self {
            Self::Put(put) => Request::RequestPut(put.0),
            Self::Delete(Keys { key, range_end }) => {
                Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end })
            }
            Self::Range(range) => Request::RequestRange(range.into_request()),
        };
        pb::RequestOp { request: Some(request) }
    }
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq)]
pub struct TxnResult {
    /// Who answered, and at which revision.
    pub header: Header,
    /// Whether every condition held.
    pub succeeded: bool,
    /// One result for each operation that was carried out, in order.
    pub results: Vec<OpResult>,
}

/// What one operation of a transaction did.
#[derive(Debug, Clone, PartialEq)]
pub enum OpResult {
    /// The key was written.
    Put,
    /// The keys were deleted.
    Delete(Deleted),
    /// The keys were read.
    Range(RangeResult),
}

impl OpResult {
    fn from_response(op: pb::ResponseOp) -> Option<Self> {
        Some(match op.response? {
            Response::ResponsePut(_) => Self::Put,
            Response::ResponseDeleteRange(deleted) => Self::Delete(deleted.into()),
            Response::ResponseRange(found) => Self::Range(found.into()),
        })
    }
}

impl Client {
    /// Carries out a transaction. A write, even where it only reads.
    ///
    /// # Errors
    /// [`EtcdFault::TooManyOps`](crate::EtcdFault::TooManyOps),
    /// [`EtcdFault::DuplicateKey`](crate::EtcdFault::DuplicateKey),
    /// [`EtcdFault::RequestTooLarge`](crate::EtcdFault::RequestTooLarge) and those of a write.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResult, Error> {
        let answer = self.write(&TXN, txn.0).await?;
        Ok(TxnResult {
            header: answer.header.into(),
            succeeded: answer.succeeded,
            results: answer.responses.into_iter().filter_map(OpResult::from_response).collect(),
        })
    }
}
