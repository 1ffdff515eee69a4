//! What can be wrong with what etcd keeps.

use crate::revision::{RecordKey, RecordKeyFault, Revision};
use crate::wire::WireFault;
use rekindle_bolt as bolt;

/// Why an etcd database could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file below is damaged, unreadable or none of bbolt's.
    #[error(transparent)]
    Bolt(#[from] bolt::Error),
    /// The file has no `key` bucket: a bbolt database of something else.
    #[error("a bbolt database, but not etcd's: it has no bucket \"key\"")]
    NotEtcd,
    /// A record that etcd could not read.
    #[error(transparent)]
    Record(#[from] RecordDamage),
    /// A pair of a small bucket that etcd could not read.
    #[error("bucket {bucket}, key {key}: {fault}")]
    Pair {
        /// The bucket.
        bucket: &'static str,
        /// The key, as text where it is text.
        key: String,
        /// What is wrong with its value.
        fault: PairFault,
    },
    /// A bucket that should be small is not.
    #[error("bucket {bucket} holds more than {max} bytes, which no etcd writes")]
    BucketTooLarge {
        /// The bucket.
        bucket: &'static str,
        /// The most that is read.
        max: usize,
    },
    /// HashKV of a revision whose records were compacted away.
    #[error("revision {asked} has been compacted: the oldest that can be hashed is {compact}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The compact revision.
        compact: Revision,
    },
    /// HashKV of a revision that has not been.
    #[error("revision {asked} is in the future: the latest is {latest}")]
    FutureRevision {
        /// The revision asked for.
        asked: Revision,
        /// The latest revision.
        latest: Revision,
    },
    /// A HashKV at a compact revision below the database's own: those records are gone.
    #[error("compact revision {asked} cannot be hashed: records up to {compact} were compacted")]
    CompactRevision {
        /// The compact revision asked for.
        asked: Revision,
        /// The database's.
        compact: Revision,
    },
    /// More records than can be told apart.
    #[error("more than 2^40 records")]
    TooManyRecords,
}

/// A record that etcd could not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {}: {fault}", record_text(.key))]
pub struct RecordDamage {
    /// The record's key as it stands in the bucket.
    pub key: Vec<u8>,
    /// What is wrong.
    pub fault: RecordFault,
}

fn record_text(key: &[u8]) -> String {
    RecordKey::parse(key).map_or_else(|_| text_of(key), |key| key.to_string())
}

/// Bytes for a message: as text where they are plain, else as hexadecimal digits.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    let plain = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    match std::str::from_utf8(bytes) {
        Ok(text) if plain && !text.is_empty() => text.to_owned(),
        _ => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// Its key.
    #[error(transparent)]
    Key(#[from] RecordKeyFault),
    /// Its value is no KeyValue.
    #[error("its value is no KeyValue: {0}")]
    Value(#[from] WireFault),
    /// The KeyValue belongs to another revision.
    #[error("its value says that it was written at revision {got}")]
    ModRevision {
        /// What it says.
        got: i64,
    },
    /// The value is a bucket.
    #[error("a bucket in place of a value")]
    Bucket,
}

/// What is wrong with a value of a small bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairFault {
    /// Another length than etcd writes.
    #[error("{got} bytes, not {want}")]
    Length {
        /// Its length.
        got: usize,
        /// The length that etcd writes.
        want: usize,
    },
    /// No record key.
    #[error(transparent)]
    RecordKey(#[from] RecordKeyFault),
    /// No message.
    #[error(transparent)]
    Wire(#[from] WireFault),
    /// No version number.
    #[error("\"{got}\" is no version")]
    Version {
        /// What stands there.
        got: String,
    },
    /// No JSON of the expected shape.
    #[error("not the JSON that etcd writes: {what}")]
    Json {
        /// What is missing or wrong.
        what: &'static str,
    },
    /// No member id.
    #[error("not a member id")]
    MemberId,
}
