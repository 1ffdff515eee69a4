//! The digests of the format: BLAKE3 in its mode for deriving keys, so that no two sorts of bytes can
//! have the same one.

use super::block::packed_sub;
use rekindle_etcd::RecordKey;

/// Bytes of a digest.
pub const DIGEST: usize = 32;

/// What is digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The facts of a header.
    Facts,
    /// A header up to its digest.
    Header,
    /// A body, as stored.
    Body,
    /// A block, as stored.
    Block,
    /// The index of a run.
    Index,
    /// The records of a range of the log.
    Log,
    /// What a timeline's id follows from.
    Timeline,
    /// The digest table of a spool.
    Table,
    /// A generation of an archive's keys.
    Fingerprint,
    /// A sealed key, whole.
    KeyObject,
    /// A secret key, from which follows the one that endorses the next generation.
    Endorser,
}

impl Domain {
    /// The context string.
    #[must_use]
    pub const fn context(self) -> &'static str {
        match self {
            Self::Facts => "rekindle 2026 facts",
            Self::Header => "rekindle 2026 header",
            Self::Body => "rekindle 2026 body",
            Self::Block => "rekindle 2026 block",
            Self::Index => "rekindle 2026 index",
            Self::Log => "rekindle 2026 log",
            Self::Timeline => "rekindle 2026 timeline",
            Self::Table => "rekindle 2026 table",
            Self::Fingerprint => "rekindle 2026 fingerprint",
            Self::KeyObject => "rekindle 2026 key object",
            Self::Endorser => "rekindle 2026 endorser",
        }
    }

    /// The digest of these parts, one behind the other.
    #[must_use]
    pub fn digest(self, parts: &[&[u8]]) -> [u8; DIGEST] {
        let mut hasher = self.hasher();
        parts.iter().for_each(|part| hasher.add(part));
        hasher.value()
    }

    /// Begins a digest of what comes bit by bit.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        Hasher(blake3::Hasher::new_derive_key(self.context()))
    }
}

/// A digest that is being made.
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn value(&self) -> [u8; DIGEST] {
        *self.0.finalize().as_bytes()
    }
}

/// The context from which the key of [`ValueDigests`] follows.
const VALUE_CONTEXT: &str = "rekindle 2026 value";

/// Digests of values: BLAKE3 with a key of its own, which costs less to begin than a context does.
#[derive(Clone, Copy)]
pub struct ValueDigests {
    key: [u8; DIGEST],
}

impl Default for ValueDigests {
    fn default() -> Self {
        Self { key: blake3::derive_key(VALUE_CONTEXT, &[]) }
    }
}

impl ValueDigests {
    /// Of the KeyValue bytes of a record.
    #[must_use]
    pub fn of(&self, value: &[u8]) -> [u8; DIGEST] {
        *blake3::keyed_hash(&self.key, value).as_bytes()
    }
}

/// The digest of a range of the log, by which a base knows its records however they are cut into
/// segments: over each record's revision and twice its sub-revision, plus 1 for a tombstone (8 bytes
/// each), and the digest of its value.
#[derive(Clone)]
pub struct LogDigest(Hasher);

impl Default for LogDigest {
    fn default() -> Self {
        Self(Domain::Log.hasher())
    }
}

impl LogDigest {
    /// Adds the next record.
    pub fn add(&mut self, key: RecordKey, value: &[u8; DIGEST]) {
        self.0.add(&key.revision.get().to_le_bytes());
        self.0.add(&packed_sub(key).to_le_bytes());
        self.0.add(value);
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn value(&self) -> [u8; DIGEST] {
        self.0.value()
    }
}
