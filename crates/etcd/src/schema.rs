//! The buckets of etcd's backend and the keys of the small ones.
//!
//! Source: etcd `server/storage/schema/*.go`; 3.4: `mvcc/kvstore.go`, `auth/store.go`. The names
//! are the same in 3.4 to 3.7, and any bucket may be missing.

/// Records by revision.
pub const KEY: &[u8] = b"key";
/// Raft index, compaction, storage version.
pub const META: &[u8] = b"meta";
/// Leases by id.
pub const LEASE: &[u8] = b"lease";
/// Alarms that were raised.
pub const ALARM: &[u8] = b"alarm";
/// Cluster version and downgrade.
pub const CLUSTER: &[u8] = b"cluster";
/// Members of the cluster by hexadecimal id.
pub const MEMBERS: &[u8] = b"members";
/// Ids that were removed and may not come back.
pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
/// Whether authentication is on, and its revision.
pub const AUTH: &[u8] = b"auth";
/// Users by name.
pub const AUTH_USERS: &[u8] = b"authUsers";
/// Roles by name.
pub const AUTH_ROLES: &[u8] = b"authRoles";

/// Keys of [`META`].
pub mod meta {
    /// The raft index applied last: 8 bytes, big-endian.
    pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
    /// The raft term of that index (since 3.5): 8 bytes, big-endian.
    pub const TERM: &[u8] = b"term";
    /// The raft configuration as JSON (since 3.5).
    pub const CONF_STATE: &[u8] = b"confState";
    /// The schema's version, such as `3.6.0` (since 3.6).
    pub const STORAGE_VERSION: &[u8] = b"storageVersion";
    /// The compaction asked for last: a record key.
    pub const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
    /// The compaction carried out last: a record key.
    pub const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
}

/// Keys of [`CLUSTER`].
pub mod cluster {
    /// The version that all members speak, such as `3.6.0`.
    pub const VERSION: &[u8] = b"clusterVersion";
    /// A downgrade under way, as JSON.
    pub const DOWNGRADE: &[u8] = b"downgrade";
}

/// Keys of [`AUTH`].
pub mod auth {
    /// One byte: 1 = on.
    pub const ENABLED: &[u8] = b"authEnabled";
    /// 8 bytes, big-endian; grows with each change of users and roles.
    pub const REVISION: &[u8] = b"authRevision";
}

/// Where Kubernetes keeps its objects: the API server's default, and OpenShift's.
pub const KUBERNETES_PREFIXES: [&[u8]; 2] = [b"/registry/", b"/kubernetes.io/"];

/// The key belongs to Kubernetes.
#[must_use]
pub fn is_kubernetes(key: &[u8]) -> bool {
    KUBERNETES_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}
