//! What etcd keeps on disk.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

mod backend;
mod changed;
mod crc;
pub mod digest;
mod error;
mod hashkv;
mod ids;
mod keytable;
mod kv;
mod lease;
mod log;
mod membership;
pub mod raft;
mod records;
pub mod restore;
mod revision;
pub mod schema;
pub mod snap;
mod status;
mod version;
pub mod wal;
mod wire;

pub use backend::{Alarm, AlarmKind, Auth, Backend, Compaction, Downgrade, Facts};
pub use changed::{Changed, Changes, kind_of};
pub use crc::Crc32c;
pub use error::{Error, PairFault, RecordDamage, RecordFault};
pub use hashkv::{HashKv, HashKvHasher, HashRequest, TombstonesAtCompaction};
pub use ids::{ClusterId, MemberId, RaftIndex, RaftTerm};
pub use kv::KeyValue;
pub use lease::Lease;
pub use log::LogState;
pub use membership::{Cluster, ClusterFault, InitialCluster, Member, Url, UrlFault};
pub use records::{Records, RecordsError, RecordsFault};
pub use revision::{RecordKey, RecordKeyFault, Revision};
pub use status::{BucketUse, Ended, KeyCount, Share, Status, read_record};
pub use version::{Advisory, Boots, Line, Marks, Version, advisories};
pub use wire::WireFault;
