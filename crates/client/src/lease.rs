//! Leases.

use bytes::Bytes;

use crate::client::Client;
use crate::error::Error;
use crate::method::Method;
use crate::proto::etcdserverpb as pb;

/// Room for a million leases, or for a lease with as many keys: some ten bytes each and more.
const LEASES_BYTES_MAX: usize = 256 << 20;

const LEASES: Method<pb::LeaseLeasesRequest, pb::LeaseLeasesResponse> =
    pb::LEASE_LEASES.up_to(LEASES_BYTES_MAX);

const TIME_TO_LIVE: Method<pb::LeaseTimeToLiveRequest, pb::LeaseTimeToLiveResponse> =
    pb::LEASE_TIME_TO_LIVE.up_to(LEASES_BYTES_MAX);

/// A lease and how long it has to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: i64,
    /// The time to live that it was granted and returns to when kept alive, in seconds.
    pub granted_ttl_s: i64,
    /// What is left of it, in seconds.
    pub remaining_ttl_s: i64,
    /// The keys attached to it, where they were asked for.
    pub keys: Vec<Bytes>,
}

/// Whether a lease's keys are wanted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseKeys {
    /// They are.
    Listed,
    /// They are not.
    Omitted,
}

impl Client {
    /// Grants a lease of `ttl_s` seconds, under an id of etcd's choice for 0. A write.
    ///
    /// # Errors
    /// [`EtcdFault::LeaseExists`](crate::EtcdFault::LeaseExists),
    /// [`EtcdFault::LeaseTtlTooLarge`](crate::EtcdFault::LeaseTtlTooLarge).
    pub async fn lease_grant(&self, id: i64, ttl_s: i64) -> Result<Lease, Error> {
        let request = pb::LeaseGrantRequest { id, ttl: ttl_s };
        let granted = self.write(&pb::LEASE_GRANT, request).await?;
        // etcd raises what is shorter than an election.
        let pb::LeaseGrantResponse { id, ttl, .. } = granted;
        Ok(Lease { id, granted_ttl_s: ttl, remaining_ttl_s: ttl, keys: Vec::new() })
    }

    /// Ends a lease, and with it the keys attached to it. A write.
    ///
    /// # Errors
    /// [`EtcdFault::LeaseNotFound`](crate::EtcdFault::LeaseNotFound).
    pub async fn lease_revoke(&self, id: i64) -> Result<(), Error> {
        self.write(&pb::LEASE_REVOKE, pb::LeaseRevokeRequest { id }).await.map(drop)
    }

    /// A lease's state; none when there is no such lease. A read.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn lease(&self, id: i64, keys: LeaseKeys) -> Result<Option<Lease>, Error> {
        let keys = keys == LeaseKeys::Listed;
        let found = self.read(&TIME_TO_LIVE, pb::LeaseTimeToLiveRequest { id, keys }).await?;
        let pb::LeaseTimeToLiveResponse { id, ttl, granted_ttl, keys, .. } = found;
        // etcd answers -1 for a lease that is not there (`server/etcdserver/api/v3rpc/lease.go`).
        let lease = Lease { id, granted_ttl_s: granted_ttl, remaining_ttl_s: ttl, keys };
        Ok((ttl >= 0).then_some(lease))
    }

    /// The ids of all leases. A read.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn lease_ids(&self) -> Result<Vec<i64>, Error> {
        let answer = self.read(&LEASES, pb::LeaseLeasesRequest {}).await?;
        Ok(answer.leases.into_iter().map(|lease| lease.id).collect())
    }
}
