//! Some records, compressed together: what is read and checked at once.
//!
//! ```text
//! block, as stored: one zstd frame that holds
//!    varint  records
//!    varint  bytes of the entries
//!    entries, one a record
//!       varint  revision, less that of the record before (of the first: as it is)
//!       varint  2 x sub-revision, + 1 for a tombstone
//!       varint  bytes of the value
//!    values, one behind the other: KeyValue bytes exactly as etcd stores them
//! ```

use super::cursor::{Cursor, Put};
use super::digest::{DIGEST, Domain, ValueDigests};
use super::fault::FormatFault;
use super::filter::{self, KeyHash};
use rekindle_etcd::{RecordKey, Revision};
use std::io;
use std::ops::Range;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// Most bytes of a block of one record, before compression. etcd refuses requests of more than
/// 1.5 MiB unless it is told otherwise.
pub const RAW_MAX: usize = 256 << 20;

/// Most bytes of an entry, and more than stand before the entries: three varints.
const ENTRY_MAX: usize = 30;

const WHAT: &str = "a block";

/// How much is compressed together, and how hard that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// A block has at most so many bytes before compression, unless one record has more.
    pub bytes: usize,
    /// zstd's level.
    pub level: i32,
    /// Binary logarithm of the size of both of zstd's tables, where it is not the level's own. The window is
    /// the whole block then.
    pub tables: Option<u32>,
}

impl Packing {
    /// For what is waited for.
    pub const QUICK: Self = Self { bytes: 1 << 20, level: 1, tables: None };
    /// For what stays. A cluster at work writes the same keys again and again, some seconds apart: the more is
    /// compressed together, the less is new.
    pub const DENSE: Self = Self { bytes: 8 << 20, level: 3, tables: Some(20) };

    fn compress(&self, raw: &[u8]) -> io::Result<Vec<u8>> {
        let mut zstd = Compressor::new(self.level)?;
        if let Some(tables) = self.tables {
            zstd.set_parameter(CParameter::WindowLog(self.bytes.ilog2()))?;
            zstd.set_parameter(CParameter::HashLog(tables))?;
            zstd.set_parameter(CParameter::ChainLog(tables))?;
        }
        zstd.compress(raw)
    }
}

/// A block as the index of its run knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first record.
    pub first: RecordKey,
    /// The last record.
    pub last: RecordKey,
    /// Records, 1 at the least.
    pub records: u64,
    /// Bytes as stored.
    pub stored: usize,
    /// Bytes before compression.
    pub raw: usize,
    /// BLAKE3 of the bytes as stored.
    pub digest: [u8; DIGEST],
    /// See [`filter`].
    pub filter: Vec<u8>,
}

/// A block that is being filled.
#[derive(Debug, Default)]
pub struct Builder {
    records: Vec<Listed>,
    entries: Vec<u8>,
    values: Vec<u8>,
}

/// A record of a block that is being written.
#[derive(Clone, Copy, Debug)]
struct Listed {
    key: RecordKey,
    /// The key that it is about.
    name: KeyHash,
    /// Bytes of its value.
    len: usize,
}

/// A block that is full, not yet compressed.
#[derive(Debug)]
pub struct Filled {
    first: RecordKey,
    last: RecordKey,
    records: Vec<Listed>,
    entries: Vec<u8>,
    values: Vec<u8>,
}

impl Builder {
    /// Adds a record: its revision, its bytes, and the key that it is about. Records must come in
    /// order.
    ///
    /// # Errors
    /// [`FormatFault::Senseless`] for one out of order, [`FormatFault::TooLarge`].
    pub fn add(&mut self, key: RecordKey, value: &[u8], name: &[u8]) -> Result<(), FormatFault> {
        let before = match self.last() {
            Some(last) if key <= last => {
                return Err(FormatFault::Senseless { what: "a record's place" });
            }
            Some(last) => last.revision.get(),
            None => 0,
        };
        let bytes = self.bytes() + value.len() + ENTRY_MAX;
        if bytes > RAW_MAX - ENTRY_MAX {
            let (got, max) = (bytes as u64, RAW_MAX as u64);
            return Err(FormatFault::TooLarge { what: WHAT, got, max });
        }
        self.entries.put_varint(key.revision.get().abs_diff(before));
        self.entries.put_varint(packed_sub(key));
        self.entries.put_varint(value.len() as u64);
        self.values.extend_from_slice(value);
        self.records.push(Listed { key, name: KeyHash::of(name), len: value.len() });
        Ok(())
    }

    /// The record that was added last.
    #[must_use]
    pub fn last(&self) -> Option<RecordKey> {
        self.records.last().map(|record| record.key)
    }

    /// It holds enough to be closed before a value of so many bytes is added.
    #[must_use]
    pub fn is_full_before(&self, value: usize, packing: Packing) -> bool {
        !self.records.is_empty() && self.bytes().saturating_add(value) > packing.bytes
    }

    /// About so many bytes before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.len() + self.values.len()
    }

    /// What was added; none where nothing was. The builder is empty then.
    pub fn take(&mut self) -> Option<Filled> {
        let Self { records, entries, values } = std::mem::take(self);
        let (first, last) = (records.first()?.key, records.last()?.key);
        Some(Filled { first, last, records, entries, values })
    }
}

/// What tells a record from any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Its place.
    pub key: RecordKey,
    /// The key that it is about.
    pub name: KeyHash,
    /// Digest of its KeyValue bytes.
    pub value: [u8; DIGEST],
}

impl Filled {
    /// About so many bytes before compression.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.entries.len() + self.values.len()) as u64
    }

    /// The fingerprints of its records, in order.
    #[must_use]
    pub fn fingerprints(&self, digests: &ValueDigests) -> Vec<Fingerprint> {
        let mut at = 0;
        let each = |record: &Listed| {
            let value = self.values.get(at..at + record.len).unwrap_or_default();
            at += record.len;
            Fingerprint { key: record.key, name: record.name, value: digests.of(value) }
        };
        self.records.iter().map(each).collect()
    }

    /// Compresses it, and gives the bytes to store with what the index says of them.
    ///
    /// # Errors
    /// [`FormatFault::Compression`] where zstd fails, which it does only without memory.
    pub fn compress(self, packing: Packing) -> Result<(Vec<u8>, Entry), FormatFault> {
        let mut raw = Vec::with_capacity(self.entries.len() + self.values.len() + ENTRY_MAX);
        raw.put_varint(self.records.len() as u64);
        raw.put_sized(&self.entries);
        raw.extend_from_slice(&self.values);
        let compressed = packing.compress(&raw);
        let stored = compressed.map_err(|_| FormatFault::Compression { what: WHAT })?;
        let entry = Entry {
            first: self.first,
            last: self.last,
            records: self.records.len() as u64,
            stored: stored.len(),
            raw: raw.len(),
            digest: Domain::Block.digest(&[&stored]),
            filter: filter::build(self.records.iter().map(|record| record.name).collect()),
        };
        Ok((stored, entry))
    }
}

impl Entry {
    /// The block's records.
    ///
    /// # Errors
    /// Whatever no writer writes.
    pub fn open(&self, stored: &[u8]) -> Result<Records, FormatFault> {
        if Domain::Block.digest(&[stored]) != self.digest {
            return Err(FormatFault::Digest { what: WHAT });
        }
        self.open_unchecked(stored)
    }

    /// The same without comparing the digest: for bytes out of a body whose digest was compared.
    ///
    /// # Errors
    /// Whatever no writer writes.
    pub fn open_unchecked(&self, stored: &[u8]) -> Result<Records, FormatFault> {
        if self.raw > RAW_MAX {
            let (got, max) = (self.raw as u64, RAW_MAX as u64);
            return Err(FormatFault::TooLarge { what: WHAT, got, max });
        }
        let raw = zstd::bulk::decompress(stored, self.raw)
            .map_err(|_| FormatFault::Compression { what: WHAT })?;
        Records::new(self, raw)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        for key in [self.first, self.last] {
            put_key(out, key);
        }
        out.put_varint(self.records);
        out.put_varint(self.stored as u64);
        out.put_varint(self.raw as u64);
        out.extend_from_slice(&self.digest);
        out.put_sized(&self.filter);
    }

    pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, FormatFault> {
        let entry = Self {
            first: key(cursor)?,
            last: key(cursor)?,
            records: cursor.varint()?,
            stored: cursor.length()?,
            raw: cursor.length()?,
            digest: cursor.array()?,
            filter: cursor.sized()?.to_vec(),
        };
        match entry.first <= entry.last && entry.records > 0 {
            true => Ok(entry),
            false => Err(cursor.senseless()),
        }
    }
}

/// The records of a block, one after the other. All entries were looked through before.
#[derive(Clone, Debug)]
pub struct Records {
    raw: Vec<u8>,
    /// The entries that are to come.
    entries: Range<usize>,
    /// The value of the record that was come to; before the first an empty one where it begins.
    value: Range<usize>,
    before: Revision,
}

impl Records {
    fn new(entry: &Entry, raw: Vec<u8>) -> Result<Self, FormatFault> {
        let senseless = FormatFault::Senseless { what: WHAT };
        if raw.len() != entry.raw {
            return Err(senseless);
        }
        let mut cursor = Cursor::new(&raw, WHAT);
        let count = cursor.varint()?;
        let entries_len = cursor.sized()?.len();
        let values = raw.len() - cursor.rest().len();
        let (entries, value) = (values - entries_len..values, values..values);
        let before = Revision::default();
        let mut records = Self { raw, entries, value, before };
        let start = (records.entries.clone(), records.value.clone());
        let mut span = None;
        let mut seen = 0;
        while let Some(key) = records.step()? {
            let (first, last) = span.unwrap_or((key, key));
            if seen > 0 && key <= last {
                return Err(senseless);
            }
            span = Some((first, key));
            seen += 1;
        }
        let whole = records.value.end == records.raw.len();
        if !whole || span != Some((entry.first, entry.last)) || [count, entry.records] != [seen; 2]
        {
            return Err(senseless);
        }
        (records.entries, records.value) = start;
        records.before = before;
        Ok(records)
    }

    /// Goes on to the next record; none at the end.
    pub fn advance(&mut self) -> Option<RecordKey> {
        // The constructor has gone the same way.
        self.step().ok().flatten()
    }

    /// The KeyValue bytes of the record that [`Self::advance`] has come to.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        self.raw.get(self.value.clone()).unwrap_or_default()
    }

    fn step(&mut self) -> Result<Option<RecordKey>, FormatFault> {
        let mut cursor = Cursor::new(self.raw.get(self.entries.clone()).unwrap_or_default(), WHAT);
        if cursor.rest().is_empty() {
            return Ok(None);
        }
        let senseless = FormatFault::Senseless { what: WHAT };
        let revision = self.before.later(cursor.varint()?).ok_or(senseless)?;
        let key = key_of(revision, cursor.varint()?);
        let len = cursor.length()?;
        self.entries.start = self.entries.end - cursor.rest().len();
        self.before = revision;
        let end = self.value.end.checked_add(len).filter(|end| *end <= self.raw.len());
        self.value = self.value.end..end.ok_or(FormatFault::Ends { what: WHAT })?;
        Ok(Some(key))
    }
}

/// Twice the sub-revision, plus 1 for a tombstone.
pub(crate) fn packed_sub(key: RecordKey) -> u64 {
    key.sub.unsigned_abs() << 1 | u64::from(key.tombstone)
}

/// The key of a record of that revision, see [`packed_sub`].
pub(crate) fn key_of(revision: Revision, packed: u64) -> RecordKey {
    RecordKey { revision, sub: (packed >> 1).cast_signed(), tombstone: packed & 1 == 1 }
}

pub(crate) fn put_key(out: &mut Vec<u8>, key: RecordKey) {
    out.put_varint(key.revision.get().unsigned_abs());
    out.put_varint(packed_sub(key));
}

pub(crate) fn key(cursor: &mut Cursor<'_>) -> Result<RecordKey, FormatFault> {
    let revision = Revision::new(cursor.signed()?).ok_or_else(|| cursor.senseless())?;
    Ok(key_of(revision, cursor.varint()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn a_key(revision: i64, sub: i64, tombstone: bool) -> RecordKey {
        RecordKey { revision: Revision::new(revision).unwrap(), sub, tombstone }
    }

    fn a_block(records: &[(RecordKey, Vec<u8>)]) -> (Vec<u8>, Entry) {
        let mut builder = Builder::default();
        records.iter().for_each(|(key, value)| builder.add(*key, value, value).unwrap());
        builder.take().unwrap().compress(Packing::QUICK).unwrap()
    }

    fn read(mut records: Records) -> Vec<(RecordKey, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(key) = records.advance() {
            all.push((key, records.value().to_vec()));
        }
        all
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            records in proptest::collection::btree_map(
                (0_i64..i64::MAX, 0_i64..i64::MAX, any::<bool>()),
                proptest::collection::vec(any::<u8>(), 0..100),
                1..50,
            )
        ) {
            let records: Vec<_> =
                records.into_iter().map(|((r, s, t), value)| (a_key(r, s, t), value)).collect();
            let (stored, entry) = a_block(&records);
            prop_assert_eq!(read(entry.open(&stored).unwrap()), records);
        }
    }

    #[test]
    fn records_come_in_order_or_not_at_all() {
        let mut builder = Builder::default();
        builder.add(a_key(5, 1, false), b"", b"").unwrap();
        for key in [a_key(5, 1, false), a_key(5, 0, true), a_key(4, 9, false)] {
            let fault = builder.add(key, b"", b"").unwrap_err();
            assert_eq!(fault, FormatFault::Senseless { what: "a record's place" });
        }
        builder.add(a_key(5, 1, true), b"", b"").unwrap();
    }

    #[test]
    fn a_block_that_its_index_does_not_know_is_refused() {
        let records = [(a_key(3, 0, false), b"one".to_vec()), (a_key(4, 0, true), b"two".to_vec())];
        let (stored, entry) = a_block(&records);
        let check = |entry: Entry| entry.open(&stored).unwrap_err();
        let senseless = FormatFault::Senseless { what: WHAT };
        let other = a_key(9, 9, false);
        assert_eq!(check(Entry { first: a_key(2, 0, false), ..entry.clone() }), senseless);
        assert_eq!(check(Entry { last: other, ..entry.clone() }), senseless);
        assert_eq!(check(Entry { records: 3, ..entry.clone() }), senseless);
        assert_eq!(check(Entry { raw: entry.raw + 1, ..entry.clone() }), senseless);
        let compression = FormatFault::Compression { what: WHAT };
        assert_eq!(check(Entry { raw: entry.raw - 1, ..entry.clone() }), compression);
        let (got, max) = (RAW_MAX as u64 + 1, RAW_MAX as u64);
        let large = FormatFault::TooLarge { what: WHAT, got, max };
        assert_eq!(check(Entry { raw: RAW_MAX + 1, ..entry.clone() }), large);
        let digest = FormatFault::Digest { what: WHAT };
        assert_eq!(check(Entry { digest: [0; DIGEST], ..entry.clone() }), digest);
        assert_eq!(entry.open(&stored[1..]).unwrap_err(), digest);
        assert_eq!(entry.open_unchecked(&stored[1..]).unwrap_err(), compression);
    }
}
