//! HashKV: the hash of the keyspace by which members are compared.
//!
//! CRC-32C over `key` and then, in the order of the bucket, key and value of every record up to the
//! revision that compaction at the compact revision would have left. Two hashes may be compared
//! only if both numbers are equal. Source: etcd `server/storage/mvcc/hash.go`, `kvstore.go`; checked
//! against 3.4, 3.5, 3.6 and 3.7.

use crate::backend::{Backend, Facts};
use crate::crc::{Crc32c, graft};
use crate::error::{Error, RecordDamage};
use crate::keytable::KeyTable;
use crate::records::{Records, RecordsError};
use crate::revision::Revision;
use crate::schema;
use crate::status::read_record;
use crate::version::Version;
use rekindle_bolt::{Pair, ReadAt, Scan};
use std::ops::ControlFlow;

/// What to hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashRequest {
    /// Up to which revision; `None`: the latest.
    pub revision: Option<Revision>,
    /// As if compacted at which revision; `None`: the database's own.
    pub compact_revision: Option<Revision>,
    /// The rule of the server to compare with.
    pub tombstones: TombstonesAtCompaction,
}

/// What happens to a tombstone exactly at the compact revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TombstonesAtCompaction {
    /// It is left out: from 3.4.34, 3.5.16 and 3.6.0 on (PR 18475).
    #[default]
    Skipped,
    /// It is hashed where it is there: before.
    Hashed,
}

impl TombstonesAtCompaction {
    /// The rule of a release of etcd.
    #[must_use]
    pub fn of(version: Version) -> Self {
        let skips_from = match (version.major, version.minor) {
            (..=3, ..=3) => return Self::Hashed,
            (3, 4) => 34,
            (3, 5) => 16,
            _ => 0,
        };
        if version.patch >= skips_from { Self::Skipped } else { Self::Hashed }
    }
}

/// A hash and the two numbers without which it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// The revision up to which records were hashed.
    pub revision: Revision,
    /// The compact revision; `None` where nothing was ever compacted (servers say -1).
    pub compact_revision: Option<Revision>,
}

impl<S: ReadAt> Backend<S> {
    /// Computes HashKV as a server would answer it that was started on this database. Needs some
    /// 30 bytes of memory a live key where something was compacted, and next to none otherwise.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::CompactRevision`] for a request
    /// that cannot be met; [`Error::Bolt`] and [`Error::Record`] for a damaged database.
    pub fn hash_kv(&self, request: &HashRequest) -> Result<HashKv, Error> {
        let mut hasher = HashKvHasher::new(request, &self.facts()?)?;
        let bucket = self.key_bucket()?;
        let mut scan = Scan::new(self.db(), &bucket);
        while let Some(leaf) = scan.next_leaf()? {
            for pair in leaf.pairs() {
                if hasher.add(pair)?.is_break() {
                    return Ok(hasher.finish());
                }
            }
        }
        Ok(hasher.finish())
    }

    /// The same of a database whose records lie elsewhere.
    ///
    /// # Errors
    /// Those of [`Self::hash_kv`]; [`RecordsError::Records`].
    pub fn hash_kv_of(
        &self,
        records: &mut dyn Records,
        request: &HashRequest,
    ) -> Result<HashKv, RecordsError> {
        let mut hasher = HashKvHasher::new(request, &self.facts()?)?;
        while let Some(pair) = records.next_record().map_err(RecordsError::Records)? {
            if hasher.add(pair)?.is_break() {
                break;
            }
        }
        Ok(hasher.finish())
    }
}

/// Hashes the records of a keyspace in their order.
///
/// Up to the compact revision only the newest record of each living key counts, and which one that
/// is shows only at the end. So all are hashed on the way, and behind each of those it is remembered
/// where the hash stood: what lies between two such marks can be put together without the rest.
pub struct HashKvHasher {
    revision: Revision,
    compact_revision: Option<Revision>,
    tombstones: TombstonesAtCompaction,
    crc: Crc32c,
    newest: KeyTable,
    /// Records so far.
    ordinal: u64,
    /// Of each record up to the compact revision.
    marks: Marks,
    /// Bytes behind those records.
    tail_bytes: u64,
}

impl HashKvHasher {
    /// Begins; `facts` are those of the database.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::CompactRevision`] for a request that
    /// cannot be met.
    pub fn new(request: &HashRequest, facts: &Facts) -> Result<Self, Error> {
        let latest = facts.revision();
        let revision = request.revision.unwrap_or(latest);
        let own = facts.compaction.revision();
        let compact_revision = request.compact_revision.or(own);
        if let Some(compact) = own.filter(|own| compact_revision < Some(*own)) {
            let asked = compact_revision.unwrap_or_default();
            return Err(Error::CompactRevision { asked, compact });
        }
        if let Some(compact) = compact_revision.filter(|compact| revision < *compact) {
            return Err(Error::Compacted { asked: revision, compact });
        }
        if revision > latest {
            return Err(Error::FutureRevision { asked: revision, latest });
        }
        Ok(Self {
            revision,
            compact_revision,
            tombstones: request.tombstones,
            crc: before_all(),
            newest: KeyTable::new(),
            ordinal: 0,
            marks: Marks::default(),
            tail_bytes: 0,
        })
    }

    /// Adds the next record; breaks at one that is of a later revision, as all behind it are.
    ///
    /// # Errors
    /// [`Error::Record`], [`Error::TooManyRecords`].
    pub fn add(&mut self, pair: Pair<'_>) -> Result<ControlFlow<()>, Error> {
        let (key, kv) =
            read_record(pair).map_err(|fault| RecordDamage { key: pair.key.to_vec(), fault })?;
        if key.revision > self.revision {
            return Ok(ControlFlow::Break(()));
        }
        let Some(compact) = self.compact_revision else {
            self.hash(pair);
            return Ok(ControlFlow::Continue(()));
        };
        if key.tombstone {
            self.newest.remove(kv.key);
        } else {
            self.newest.insert(kv.key, self.ordinal).map_err(|_| Error::TooManyRecords)?;
        }
        self.ordinal += 1;
        let skipped = self.tombstones == TombstonesAtCompaction::Skipped
            && key.tombstone
            && key.revision == compact;
        let bytes = if skipped { 0 } else { self.hash(pair) };
        if key.revision > compact {
            self.tail_bytes += bytes;
        } else {
            self.marks.push(Mark { crc: self.crc.value(), bytes });
        }
        Ok(ControlFlow::Continue(()))
    }

    /// How many bytes that were.
    fn hash(&mut self, pair: Pair<'_>) -> u64 {
        self.crc.update(pair.key);
        self.crc.update(pair.value);
        (pair.key.len() + pair.value.len()) as u64
    }

    /// The hash of all that was added.
    #[must_use]
    pub fn finish(self) -> HashKv {
        let hash = match self.newest.len() {
            // Nothing was compacted; or no key lives, and then servers leave nothing else out.
            0 => self.crc.value(),
            _ => self.hash_of_kept(),
        };
        HashKv { hash, revision: self.revision, compact_revision: self.compact_revision }
    }

    fn hash_of_kept(&self) -> u32 {
        let kept = self.newest.ordinals().filter(|ordinal| *ordinal < self.marks.len);
        let kept = Bits::of(kept, self.marks.len);
        let start = before_all().value();
        // Of what is kept so far; where the hash stood before the neighbours that are kept, and where
        // it stands behind the last of them.
        let (mut total, mut before, mut behind, mut bytes) = (start, start, start, 0);
        for (ordinal, mark) in (0..).zip(self.marks.iter()) {
            if kept.contains(ordinal) {
                bytes += mark.bytes;
            } else {
                total = graft(total, before, behind, bytes);
                (before, bytes) = (mark.crc, 0);
            }
            behind = mark.crc;
        }
        graft(total, before, self.crc.value(), bytes + self.tail_bytes)
    }
}

/// The hash before the first record.
fn before_all() -> Crc32c {
    let mut crc = Crc32c::new();
    crc.update(schema::KEY);
    crc
}

/// Where the hash stood behind a record.
struct Mark {
    crc: u32,
    /// Bytes of the record that were hashed.
    bytes: u64,
}

/// Marks in eight bytes each, of which there may be many: their memory grows by pieces.
#[derive(Default)]
struct Marks {
    pieces: Vec<Vec<(u32, u32)>>,
    len: u64,
}

/// Marks in a piece.
const PIECE: usize = 1 << 14;

impl Marks {
    fn push(&mut self, mark: Mark) {
        // bbolt takes no value of more than 2 GiB.
        let mark = (mark.crc, u32::try_from(mark.bytes).unwrap_or(u32::MAX));
        self.len += 1;
        match self.pieces.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(mark),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(mark);
                self.pieces.push(piece);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = Mark> {
        let marks = self.pieces.iter().flatten();
        marks.map(|(crc, bytes)| Mark { crc: *crc, bytes: u64::from(*bytes) })
    }
}

/// A set of small numbers, one bit each.
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// These numbers, all of them below `end`.
    fn of(numbers: impl Iterator<Item = u64>, end: u64) -> Self {
        let mut words = vec![0; usize::try_from(end.div_ceil(64)).unwrap_or_default()];
        for number in numbers {
            if let Some(word) = words.get_mut(word_of(number)) {
                *word |= 1 << (number % 64);
            }
        }
        Self { words }
    }

    fn contains(&self, number: u64) -> bool {
        let word = self.words.get(word_of(number));
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

fn word_of(number: u64) -> usize {
    usize::try_from(number / 64).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KeyValue;
    use crate::records::RecordsFault;
    use crate::revision::RecordKey;
    use proptest::prelude::*;
    use rekindle_bolt::{BulkWriter, Layout};
    use std::collections::HashMap;

    /// What is done at a revision: a key, and whether it is deleted.
    type Op = (u16, bool);

    /// Records of these changes, one a revision from 2 on.
    fn records(ops: &[Op]) -> Vec<(RecordKey, Vec<u8>, u16)> {
        let record = |(number, (key, deleted)): (i64, &Op)| {
            let at = RecordKey::first_of(Revision::new(number).unwrap());
            let name = key.to_be_bytes();
            let revision = if *deleted { 0 } else { number };
            let kv = KeyValue { key: &name, mod_revision: revision, ..KeyValue::default() };
            (RecordKey { tombstone: *deleted, ..at }, kv.to_bytes(), *key)
        };
        (2..).zip(ops).map(record).collect()
    }

    fn a_database(records: &[(RecordKey, Vec<u8>, u16)]) -> Vec<u8> {
        let layout = Layout::new(1024, 1024).unwrap();
        let writer = BulkWriter::new(Vec::new(), layout).unwrap();
        let mut bucket = writer.bucket(schema::KEY).unwrap();
        for (key, value, _) in records {
            bucket.put(&key.to_bytes(), value).unwrap();
        }
        let finished = bucket.finish().unwrap().bucket(schema::META).unwrap().finish().unwrap();
        let finished = finished.finish().unwrap();
        let mut bytes = finished.out;
        bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
        bytes
    }

    /// Records, the place of the next, and the key of the last.
    struct Elsewhere(Vec<(RecordKey, Vec<u8>, u16)>, usize, Vec<u8>);

    impl Records for Elsewhere {
        fn next_record(&mut self) -> Result<Option<Pair<'_>>, RecordsFault> {
            let Some((key, value, _)) = self.0.get(self.1) else { return Ok(None) };
            self.1 += 1;
            self.2 = key.to_bytes();
            Ok(Some(Pair { key: &self.2, value, is_bucket: false }))
        }
    }

    /// The rule, read aloud.
    fn model(records: &[(RecordKey, Vec<u8>, u16)], request: &HashRequest) -> u32 {
        let until = request.revision.unwrap();
        let records: Vec<_> = records.iter().filter(|(key, ..)| key.revision <= until).collect();
        let mut newest = HashMap::new();
        for (place, (key, _, name)) in records.iter().enumerate() {
            match key.tombstone {
                true => newest.remove(name),
                false => newest.insert(name, place),
            };
        }
        let compact = request.compact_revision.unwrap();
        let mut crc = Crc32c::new();
        crc.update(schema::KEY);
        for (place, (key, value, name)) in records.iter().enumerate() {
            let kept = newest.is_empty() || newest.get(name) == Some(&place);
            let skipped = key.tombstone
                && key.revision == compact
                && request.tombstones == TombstonesAtCompaction::Skipped;
            if (key.revision > compact || kept) && !skipped {
                crc.update(&key.to_bytes());
                crc.update(value);
            }
        }
        crc.value()
    }

    fn revision(ops: usize, part: f64) -> Option<Revision> {
        Revision::new(1 + (ops as f64 * part) as i64)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        /// Few keys make blocks of which little is kept, many keys such of which all is; between
        /// them lie neighbours of both kinds.
        #[test]
        fn what_compaction_leaves_is_hashed(
            keys in prop_oneof![1_u16..9, 300_u16..3000],
            deletes in prop_oneof![Just(0.0), Just(0.02), Just(0.5)],
            choices in proptest::collection::vec((any::<u16>(), 0.0..1.0), 1..2500),
            (until, compact) in (0.0..=1.0, 0.0..=1.0),
            hashed in any::<bool>(),
        ) {
            let op = |(key, chance): &(u16, f64)| (key % keys, *chance < deletes);
            let ops: Vec<Op> = choices.iter().map(op).collect();
            let records = records(&ops);
            let revision = revision(ops.len(), until);
            let request = HashRequest {
                revision,
                compact_revision: self::revision(ops.len(), until * compact),
                tombstones: match hashed {
                    true => TombstonesAtCompaction::Hashed,
                    false => TombstonesAtCompaction::Skipped,
                },
            };
            let backend = Backend::open(a_database(&records)).unwrap();
            let got = backend.hash_kv(&request).unwrap();
            prop_assert_eq!(got.hash, model(&records, &request));
            // Elsewhere, beside a database of the last record.
            let small = Backend::open(a_database(&records[records.len() - 1..])).unwrap();
            let mut elsewhere = Elsewhere(records, 0, Vec::new());
            prop_assert_eq!(small.hash_kv_of(&mut elsewhere, &request).unwrap(), got);
        }
    }
}
