//! Revisions, and the keys under which records lie in the `key` bucket.
//!
//! ```text
//! record key (17 bytes, 18 for a tombstone; big-endian)
//!    0  8  revision
//!    8  1  separator
//!    9  8  sub-revision
//!   17  1  tombstone mark
//! ```
//!
//! Source: etcd `server/storage/mvcc/revision.go`. Byte order is revision order, and a tombstone
//! comes behind a put of the same revision.

use std::fmt;

const SEPARATOR_AT: usize = 8;
const SUB_AT: usize = SEPARATOR_AT + 1;
const MARK_AT: usize = SUB_AT + 8;
const SEPARATOR: u8 = b'_';
const MARK: u8 = b't';

/// A revision of the whole keyspace, as etcd counts them: 1 is the empty store, every transaction
/// that changes something adds 1. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(i64);

impl Revision {
    /// The revision of a store in which nothing was ever written.
    pub const FIRST: Self = Self(1);
    /// The last that can be written down.
    pub const MAX: Self = Self(i64::MAX);

    /// `None` where the number is negative.
    #[must_use]
    pub const fn new(number: i64) -> Option<Self> {
        if number < 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The revision `amount` later; `None` where there is none.
    #[must_use]
    pub fn later(self, amount: u64) -> Option<Self> {
        self.0.checked_add_unsigned(amount).map(Self)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The key of one record: which change of which revision, and whether it deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// The transaction.
    pub revision: Revision,
    /// The place of the change in its transaction, from 0.
    pub sub: i64,
    /// The change was a delete.
    pub tombstone: bool,
}

/// Why bytes are no record key; etcd panics on each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordKeyFault {
    /// Neither 17 nor 18 bytes.
    #[error("a record key of {got} bytes, not 17 or 18")]
    Length {
        /// Its length.
        got: usize,
    },
    /// No `_` between the two numbers.
    #[error("byte {got:#04x} between the numbers, not 0x5f")]
    Separator {
        /// What stands there.
        got: u8,
    },
    /// The 18th byte is not `t`.
    #[error("byte {got:#04x} as the tombstone mark, not 0x74")]
    Mark {
        /// What stands there.
        got: u8,
    },
    /// A number with its highest bit set.
    #[error("a negative revision")]
    Negative,
}

impl RecordKey {
    /// Reads a key of the `key` bucket.
    ///
    /// # Errors
    /// Whatever etcd itself would not take.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordKeyFault> {
        let length = RecordKeyFault::Length { got: bytes.len() };
        let (revision, rest) = bytes.split_first_chunk::<8>().ok_or(length)?;
        let (separator, rest) = rest.split_first().ok_or(length)?;
        let (sub, rest) = rest.split_first_chunk::<8>().ok_or(length)?;
        if *separator != SEPARATOR {
            return Err(RecordKeyFault::Separator { got: *separator });
        }
        let tombstone = match rest {
            [] => false,
            [MARK] => true,
            [got] => return Err(RecordKeyFault::Mark { got: *got }),
            _ => return Err(length),
        };
        let sub = i64::from_be_bytes(*sub);
        let revision = Revision::new(i64::from_be_bytes(*revision));
        match revision {
            Some(revision) if sub >= 0 => Ok(Self { revision, sub, tombstone }),
            _ => Err(RecordKeyFault::Negative),
        }
    }

    /// The bytes etcd would use.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MARK_AT + 1);
        bytes.extend_from_slice(&self.revision.0.to_be_bytes());
        bytes.push(SEPARATOR);
        bytes.extend_from_slice(&self.sub.to_be_bytes());
        if self.tombstone {
            bytes.push(MARK);
        }
        bytes
    }

    /// The key of a revision's first change, as the `meta` bucket stores revisions.
    #[must_use]
    pub fn first_of(revision: Revision) -> Self {
        Self { revision, sub: 0, tombstone: false }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.tombstone { " (delete)" } else { "" };
        write!(f, "{}/{}{mark}", self.revision, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_etcd_writes_them() {
        let key = RecordKey { revision: Revision(5), sub: 1, tombstone: true };
        let bytes = *b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\x01t";
        assert_eq!(key.to_bytes(), bytes);
        assert_eq!(RecordKey::parse(&bytes), Ok(key));
        let put = RecordKey { tombstone: false, ..key };
        assert_eq!(put.to_bytes(), bytes[..17]);
        assert_eq!(RecordKey::parse(&bytes[..17]), Ok(put));
        assert!(put < key);
    }

    #[test]
    fn keys_that_etcd_would_not_take() {
        let parse = |change: fn(&mut Vec<u8>)| {
            let mut bytes = RecordKey::first_of(Revision(7)).to_bytes();
            change(&mut bytes);
            RecordKey::parse(&bytes).unwrap_err()
        };
        assert_eq!(parse(Vec::clear), RecordKeyFault::Length { got: 0 });
        assert_eq!(parse(|b| b.truncate(16)), RecordKeyFault::Length { got: 16 });
        assert_eq!(parse(|b| b.extend(b"tt")), RecordKeyFault::Length { got: 19 });
        assert_eq!(parse(|b| b[8] = b'-'), RecordKeyFault::Separator { got: b'-' });
        assert_eq!(parse(|b| b.push(b'x')), RecordKeyFault::Mark { got: b'x' });
        assert_eq!(parse(|b| b[0] = 0x80), RecordKeyFault::Negative);
        assert_eq!(parse(|b| b[9] = 0x80), RecordKeyFault::Negative);
    }
}
