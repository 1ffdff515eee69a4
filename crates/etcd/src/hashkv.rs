//! HashKV: the hash of the keyspace by which members are compared.
//!
//! CRC-32C over `key` and then, in the order of the bucket, key and value of every record up to the
//! revision that compaction at the compact revision would have left. Two hashes may be compared
//! only if both numbers are equal. Source: etcd `server/storage/mvcc/hash.go`, `kvstore.go`; checked
//! against 3.4, 3.5, 3.6 and 3.7.

use crate::backend::Backend;
use crate::crc::Crc32c;
use crate::error::{Error, RecordDamage};
use crate::keytable::KeyTable;
use crate::kv::KeyValue;
use crate::revision::{RecordKey, Revision};
use crate::status::read_record;
use rekindle_bolt::{Bucket, Pair, ReadAt, Scan};
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
    /// 22 bytes of memory a live key where something was compacted, and next to none otherwise.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`], [`Error::CompactRevision`] for a request
    /// that cannot be met; [`Error::Bolt`] and [`Error::Record`] for a damaged database.
    pub fn hash_kv(&self, request: &HashRequest) -> Result<HashKv, Error> {
        let facts = self.facts()?;
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
        let bucket = self.key_bucket()?;
        let hash = match compact_revision {
            None => self.hash_all(&bucket, revision)?,
            Some(compact) => self.hash_kept(&bucket, revision, compact, request.tombstones)?,
        };
        Ok(HashKv { hash, revision, compact_revision })
    }

    /// Nothing was compacted: every record counts.
    fn hash_all(&self, bucket: &Bucket, revision: Revision) -> Result<u32, Error> {
        let mut all = Sum::default();
        self.records(Scan::new(self.db(), bucket), revision, |pair, _, _| {
            all.add(pair);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(total([&all]))
    }

    /// Up to the compact revision only the newest record of each living key counts.
    ///
    /// Which one that is shows only at the end. A finished compaction has left hardly any other: so
    /// all are hashed on the way, in blocks, and blocks in which others are found are read again.
    fn hash_kept(
        &self,
        bucket: &Bucket,
        revision: Revision,
        compact: Revision,
        tombstones: TombstonesAtCompaction,
    ) -> Result<u32, Error> {
        let counts = |key: RecordKey| {
            let hashed = tombstones == TombstonesAtCompaction::Hashed;
            hashed || !key.tombstone || key.revision != compact
        };
        let mut newest = KeyTable::new();
        let mut blocks: Vec<Block> = Vec::new();
        let mut tail = Sum::default();
        // Records up to the compact revision, and all so far.
        let (mut compacted, mut ordinal) = (0, 0);
        self.records(Scan::new(self.db(), bucket), revision, |pair, key, kv| {
            if key.tombstone {
                newest.remove(kv.key);
            } else {
                newest.insert(kv.key, ordinal).map_err(|_| Error::TooManyRecords)?;
            }
            if key.revision > compact {
                tail.add(pair);
            } else {
                if ordinal.is_multiple_of(BLOCK) {
                    blocks.push(Block { first: ordinal, start: key, sum: Sum::default() });
                }
                if let Some(block) = blocks.last_mut().filter(|_| counts(key)) {
                    block.sum.add(pair);
                }
                compacted = ordinal + 1;
            }
            ordinal += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        // Where no key lives, servers leave nothing else out.
        if newest.len() > 0 {
            let keep = newest.ordinals().filter(|ordinal| *ordinal < compacted);
            let keep = Bits::of(keep, blocks.len() as u64 * BLOCK);
            self.hash_again(bucket, &mut blocks, &keep, compact, counts)?;
        }
        Ok(total(blocks.iter().map(|block| &block.sum).chain([&tail])))
    }

    /// Hashes what is kept of the blocks of which not everything is; the first of neighbours stands
    /// for all of them then.
    fn hash_again(
        &self,
        bucket: &Bucket,
        blocks: &mut [Block],
        keep: &Bits,
        compact: Revision,
        counts: impl Fn(RecordKey) -> bool,
    ) -> Result<(), Error> {
        for run in blocks.chunk_by_mut(|one, next| one.is_kept(keep) == next.is_kept(keep)) {
            let end = run.last().map_or(0, |block| block.first + BLOCK);
            let Some((block, others)) = run.split_first_mut() else { continue };
            if block.is_kept(keep) {
                continue;
            }
            let (start, mut ordinal) = (block.start.to_bytes(), block.first);
            let mut sum = Sum::default();
            let scan = Scan::starting_at(self.db(), bucket, &start);
            self.records(scan, compact, |pair, key, _| {
                if ordinal == end {
                    return Ok(ControlFlow::Break(()));
                }
                if *pair.key >= *start {
                    if keep.contains(ordinal) && counts(key) {
                        sum.add(pair);
                    }
                    ordinal += 1;
                }
                Ok(ControlFlow::Continue(()))
            })?;
            block.sum = sum;
            others.iter_mut().for_each(|other| other.sum = Sum::default());
        }
        Ok(())
    }

    /// Calls `each` for the records of a scan up to `revision`, until it has enough.
    fn records(
        &self,
        mut scan: Scan<'_, S>,
        revision: Revision,
        mut each: impl FnMut(Pair<'_>, RecordKey, KeyValue<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        while let Some(leaf) = scan.next_leaf()? {
            for pair in leaf.pairs() {
                let (key, kv) = read_record(pair)
                    .map_err(|fault| RecordDamage { key: pair.key.to_vec(), fault })?;
                if key.revision > revision || each(pair, key, kv)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The hash of these parts, one behind the other.
fn total<'a>(parts: impl IntoIterator<Item = &'a Sum>) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(crate::schema::KEY);
    parts.into_iter().for_each(|part| crc.append(part.crc.value(), part.bytes));
    crc.value()
}

/// Records in a block: with so many, a block that has to be read again costs little.
const BLOCK: u64 = 256;

/// Neighbours among the records up to the compact revision.
struct Block {
    /// The place of its first record in the bucket.
    first: u64,
    /// That record.
    start: RecordKey,
    /// Of all its records that may count.
    sum: Sum,
}

impl Block {
    /// All that was hashed is kept. What is kept was hashed, so comparing numbers is enough.
    fn is_kept(&self, keep: &Bits) -> bool {
        keep.count(self.first, BLOCK) == self.sum.records
    }
}

/// The CRC of some records.
#[derive(Default)]
struct Sum {
    crc: Crc32c,
    records: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, pair: Pair<'_>) {
        self.crc.update(pair.key);
        self.crc.update(pair.value);
        self.records += 1;
        self.bytes += (pair.key.len() + pair.value.len()) as u64;
    }
}

/// A set of small numbers, one bit each.
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// These numbers, all of them below `end`, a multiple of 64.
    fn of(numbers: impl Iterator<Item = u64>, end: u64) -> Self {
        let mut words = vec![0; usize::try_from(end / 64).unwrap_or_default()];
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

    /// How many there are from `first` on, of `count` numbers; both multiples of 64.
    fn count(&self, first: u64, count: u64) -> u64 {
        let words = self.words.get(word_of(first)..word_of(first + count));
        words.unwrap_or_default().iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

fn word_of(number: u64) -> usize {
    usize::try_from(number / 64).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;
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
        }
    }
}
