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
        let mut crc = begin();
        self.records(bucket, revision, |pair, _, _| {
            crc.update(pair.key);
            crc.update(pair.value);
            Ok(())
        })?;
        Ok(crc.value())
    }

    /// Up to the compact revision only the newest record of each living key counts.
    fn hash_kept(
        &self,
        bucket: &Bucket,
        revision: Revision,
        compact: Revision,
        tombstones: TombstonesAtCompaction,
    ) -> Result<u32, Error> {
        let keep = self.kept_records(bucket, revision)?;
        let mut crc = begin();
        let mut ordinal = 0;
        self.records(bucket, revision, |pair, key, _| {
            let kept = keep.as_ref().is_none_or(|keep| keep.contains(ordinal));
            ordinal += 1;
            let skipped_tombstone = tombstones == TombstonesAtCompaction::Skipped
                && key.tombstone
                && key.revision == compact;
            if (key.revision > compact || kept) && !skipped_tombstone {
                crc.update(pair.key);
                crc.update(pair.value);
            }
            Ok(())
        })?;
        Ok(crc.value())
    }

    /// Which records are the newest of their keys at `revision`, by their place in the bucket.
    /// `None` where no key lives: servers then leave nothing out.
    fn kept_records(&self, bucket: &Bucket, revision: Revision) -> Result<Option<Bits>, Error> {
        let mut newest = KeyTable::new();
        let mut records = 0;
        self.records(bucket, revision, |_, key, kv| {
            if key.tombstone {
                newest.remove(kv.key);
            } else {
                newest.insert(kv.key, records).map_err(|_| Error::TooManyRecords)?;
            }
            records += 1;
            Ok(())
        })?;
        if newest.len() == 0 {
            return Ok(None);
        }
        let mut keep = Bits::default();
        newest.ordinals().for_each(|ordinal| keep.set(ordinal, records));
        Ok(Some(keep))
    }

    /// Calls `each` for every record up to `revision`.
    fn records(
        &self,
        bucket: &Bucket,
        revision: Revision,
        mut each: impl FnMut(Pair<'_>, RecordKey, KeyValue<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut scan = Scan::new(self.db(), bucket);
        while let Some(leaf) = scan.next_leaf()? {
            for pair in leaf.pairs() {
                let (key, kv) = read_record(pair)
                    .map_err(|fault| RecordDamage { key: pair.key.to_vec(), fault })?;
                if key.revision > revision {
                    return Ok(());
                }
                each(pair, key, kv)?;
            }
        }
        Ok(())
    }
}

fn begin() -> Crc32c {
    let mut crc = Crc32c::new();
    crc.update(crate::schema::KEY);
    crc
}

/// A set of small numbers, one bit each.
#[derive(Default)]
struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Adds `at`, which is below `len`.
    fn set(&mut self, at: u64, len: u64) {
        if self.words.is_empty() {
            self.words = vec![0; usize::try_from(len / 64 + 1).unwrap_or_default()];
        }
        let word = usize::try_from(at / 64).ok().and_then(|word| self.words.get_mut(word));
        if let Some(word) = word {
            *word |= 1 << (at % 64);
        }
    }

    fn contains(&self, at: u64) -> bool {
        let word = usize::try_from(at / 64).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}
