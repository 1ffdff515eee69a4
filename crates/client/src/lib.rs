//! The etcd v3 gRPC API as Rekindle uses it.
//!
//! A [`Client`] is a cluster, a [`Member`] one of its members. What any member can answer is asked
//! of the client, which goes from one endpoint to the next; what concerns one member (its status,
//! its snapshot, its hash) is asked of the member. Connections are made when they are needed.
//!
//! - Nothing here prints, waits for a user, or decides when to try again: errors say what failed,
//!   where, and through [`Error::retry`] whether trying again helps.
//! - No stream has a deadline. A stream that stops moving fails, one that is slow does not.
//! - No error, log line or `Debug` output holds a password, a token or a key.
//! - TLS is rustls with ring, named explicitly: the process's default provider does not matter.

mod auth;
mod client;
mod config;
mod connect;
mod endpoint;
mod error;
mod health;
mod kv;
mod lease;
mod maintenance;
mod member;
mod membership;
mod method;
mod peer;
mod probe;
mod proto;
mod session;
mod snapshot;
mod tls;
mod txn;
mod watch;
mod wire;

pub use auth::{Access, AuthStatus};
pub use client::Client;
pub use config::{Config, Credentials, Timeouts};
pub use endpoint::{Endpoint, EndpointFault};
pub use error::{
    CertificateSummary, Code, DialFault, Error, EtcdFault, FileFault, FileRole, Retry, TlsFault,
};
pub use health::Introduction;
pub use kv::{Compaction, Deleted, Header, Keys, Put, Range, RangeResult};
pub use lease::{Lease, LeaseKeys};
pub use maintenance::{Alarm, AlarmKind, Downgrade, HashKv, Status};
pub use member::Member;
pub use membership::{MemberInfo, MemberList, Role};
pub use peer::{AtPeerUrl, at_peer_url};
pub use proto::mvccpb::event::EventType;
pub use proto::mvccpb::{Event, KeyValue};
pub use snapshot::{SnapshotChunk, SnapshotStream};
pub use tls::TlsFiles;
pub use txn::{Compare, CompareIs, Op, OpResult, Txn, TxnResult};
pub use watch::{Changes, Watch, WatchMessage, WatchRequest};
