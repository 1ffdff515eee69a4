//! What `snapshot status` says of a database, and all that is wrong with it, in one walk.

use crate::backend::{Backend, Compaction};
use crate::crc::Crc32c;
use crate::error::{Error, RecordDamage, RecordFault};
use crate::keytable::KeyTable;
use crate::kv::KeyValue;
use crate::records::{Records, RecordsError};
use crate::revision::{RecordKey, Revision};
use crate::schema;
use rekindle_bolt::{Damage, Halt, Pair, Part, ReadAt, Report, Visit, check};

/// Record faults that are kept; those beyond are only counted.
const FAULTS_MAX: usize = 1000;

/// What a database holds, and whether it is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C over every bucket's name, keys and values: etcdutl's `HASH`. It changes with
    /// things that are no data (raft index, members), so it proves the file, not the keyspace.
    pub hash: u32,
    /// The last record's revision: etcdutl's `REVISION`. 0 where there is none.
    pub revision: Revision,
    /// Keys that exist: etcdutl 3.6's `TOTAL KEYS`. `None` where [`KeyCount::Reckoned`] cannot tell.
    pub live_keys: Option<u64>,
    /// Logical size in bytes: etcdutl's `TOTAL SIZE`.
    pub total_size: u64,
    /// Records of bucket `key`, tombstones among them.
    pub records: u64,
    /// Records that are deletes.
    pub tombstones: u64,
    /// What of this is Kubernetes'.
    pub kubernetes: Share,
    /// Every bucket by name.
    pub buckets: Vec<BucketUse>,
    /// The checker's verdict on the file.
    pub report: Report,
    /// Records that etcd could not read; at most 1,000 are kept.
    pub record_damage: Vec<RecordDamage>,
    /// How many of them there are in all.
    pub record_damage_total: u64,
}

impl Status {
    /// Pairs in all buckets: what etcdutl up to 3.5 prints as `TOTAL KEYS`.
    #[must_use]
    pub fn pairs(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.pairs).sum()
    }

    /// Nothing is wrong with the file nor with its records.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.report.is_sound() && self.record_damage_total == 0
    }
}

/// A part of the keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Keys that exist; `None` where [`KeyCount::Reckoned`] cannot tell.
    pub live_keys: Option<u64>,
    /// Records, old versions and tombstones among them.
    pub records: u64,
    /// Bytes of those records.
    pub bytes: u64,
}

/// What a bucket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUse {
    /// Its name.
    pub name: Vec<u8>,
    /// Its pairs.
    pub pairs: u64,
    /// Bytes of its keys and values.
    pub bytes: u64,
}

/// How the keys that exist are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCount {
    /// By remembering them: some 22 bytes of memory a key.
    Remembered,
    /// From what records say of themselves, in no memory: beyond the compaction a first version is
    /// a key more and a delete is one less; what compaction has left is a key each. Cannot tell
    /// while a compaction is under way.
    Reckoned,
}

impl<S: ReadAt> Backend<S> {
    /// Walks the whole database.
    ///
    /// # Errors
    /// Only [`Error::Bolt`] where the medium fails, and [`Error::TooManyRecords`]: what is wrong
    /// with the database goes into the status.
    pub fn status(&self, count: KeyCount) -> Result<Status, Error> {
        self.walk(count, None).map_err(|halt| match halt {
            RecordsError::Database(error) => error,
            // There were none elsewhere.
            RecordsError::Records(_) => Error::NotEtcd,
        })
    }

    /// The same of a database whose records lie elsewhere. Report and size are those of the database
    /// beside them; all else is as if it held them.
    ///
    /// # Errors
    /// Those of [`Self::status`]; [`Error::NotEtcd`] where the database has no bucket for records;
    /// [`RecordsError::Records`].
    pub fn status_of(
        &self,
        records: &mut dyn Records,
        count: KeyCount,
    ) -> Result<Status, RecordsError> {
        self.walk(count, Some(records))
    }

    /// The same as [`Self::status`], with somebody who walks along.
    ///
    /// # Errors
    /// Those of [`Self::status`], and what whoever walks along ends it with.
    pub fn status_along<V: Visit>(
        &self,
        count: KeyCount,
        along: &mut V,
    ) -> Result<Status, Ended<V::Stop>> {
        let walk = self.begin(count, None);
        let mut both = Both { walk, along };
        let report = check(self.db(), &mut both).map_err(|halt| match halt {
            Halt::Read(error) => Ended::Status(error.into()),
            Halt::Stopped(ended) => ended,
        })?;
        Ok(both.walk.finish(self.db().size(), report))
    }

    fn walk(
        &self,
        count: KeyCount,
        elsewhere: Option<&mut dyn Records>,
    ) -> Result<Status, RecordsError> {
        let mut walk = self.begin(count, elsewhere);
        let report = check(self.db(), &mut walk).map_err(|halt| match halt {
            Halt::Read(error) => Error::from(error).into(),
            Halt::Stopped(error) => error,
        })?;
        // Records that found no bucket were not counted.
        if walk.elsewhere.is_some() {
            return Err(Error::NotEtcd.into());
        }
        Ok(walk.finish(self.db().size(), report))
    }

    fn begin<'r>(&self, count: KeyCount, elsewhere: Option<&'r mut dyn Records>) -> Walk<'r> {
        // Of a database whose facts cannot be read, keys are not reckoned; the walk says why.
        let compaction = self.facts().ok().map(|facts| facts.compaction);
        Walk::new([Keys::new(count, compaction), Keys::new(count, compaction)], elsewhere)
    }
}

/// What ended a walk that somebody walked along.
#[derive(Debug)]
pub enum Ended<E> {
    /// The status cannot be told.
    Status(Error),
    /// Whoever walked along has ended it.
    Along(E),
}

/// A walk, and somebody who walks along.
struct Both<'r, 'v, V> {
    walk: Walk<'r>,
    along: &'v mut V,
}

impl<V: Visit> Both<'_, '_, V> {
    fn own(walked: Result<(), RecordsError>) -> Result<(), Ended<V::Stop>> {
        walked.map_err(|error| match error {
            RecordsError::Database(error) => Ended::Status(error),
            // There were none elsewhere.
            RecordsError::Records(_) => Ended::Status(Error::NotEtcd),
        })
    }
}

impl<V: Visit> Visit for Both<'_, '_, V> {
    type Stop = Ended<V::Stop>;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Self::Stop> {
        Self::own(self.walk.bucket(name))?;
        self.along.bucket(name).map_err(Ended::Along)
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Self::Stop> {
        Self::own(self.walk.pair(pair))?;
        self.along.pair(pair).map_err(Ended::Along)
    }

    fn damage(&mut self, part: Part, damage: &Damage) -> Result<(), Self::Stop> {
        self.along.damage(part, damage).map_err(Ended::Along)
    }
}

/// Keys that exist, as far as the walk has come.
enum Keys {
    Remembered(KeyTable),
    Reckoned {
        /// Up to here only living keys are left, one record each.
        compacted: Revision,
        count: i64,
    },
    Unknown,
}

impl Keys {
    fn new(count: KeyCount, compaction: Option<Compaction>) -> Self {
        match (count, compaction) {
            (KeyCount::Remembered, _) => Self::Remembered(KeyTable::new()),
            (KeyCount::Reckoned, Some(Compaction { scheduled, finished }))
                if scheduled <= finished =>
            {
                Self::Reckoned { compacted: finished.unwrap_or_default(), count: 0 }
            }
            (KeyCount::Reckoned, _) => Self::Unknown,
        }
    }

    fn add(&mut self, key: RecordKey, kv: &KeyValue<'_>) -> Result<(), Error> {
        match self {
            Self::Remembered(keys) if key.tombstone => _ = keys.remove(kv.key),
            Self::Remembered(keys) => {
                keys.insert(kv.key, 0).map_err(|_| Error::TooManyRecords)?;
            }
            Self::Reckoned { compacted, count } => {
                let is_left = key.revision <= *compacted;
                *count += match (key.tombstone, is_left) {
                    (true, true) => 0,
                    (true, false) => -1,
                    (false, _) => i64::from(is_left || kv.version == 1),
                };
            }
            Self::Unknown => {}
        }
        Ok(())
    }

    fn count(self) -> Option<u64> {
        match self {
            Self::Remembered(keys) => Some(keys.len()),
            // Less than none are only in records that contradict each other.
            Self::Reckoned { count, .. } => u64::try_from(count).ok(),
            Self::Unknown => None,
        }
    }
}

struct Walk<'r> {
    hash: Crc32c,
    /// The records, where they lie elsewhere and have not come yet.
    elsewhere: Option<&'r mut dyn Records>,
    part: Walking,
    revision: Revision,
    records: u64,
    tombstones: u64,
    kubernetes: Share,
    /// Kubernetes' and others.
    keys: [Keys; 2],
    buckets: Vec<BucketUse>,
    damage: Vec<RecordDamage>,
    damage_total: u64,
}

/// Where in the database a walk is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walking {
    Records,
    /// Records that stand for those elsewhere, which have come.
    Stand,
    Others,
}

impl<'r> Walk<'r> {
    fn new(keys: [Keys; 2], elsewhere: Option<&'r mut dyn Records>) -> Self {
        Self {
            hash: Crc32c::new(),
            elsewhere,
            part: Walking::Others,
            revision: Revision::default(),
            records: 0,
            tombstones: 0,
            kubernetes: Share::default(),
            keys,
            buckets: Vec::new(),
            damage: Vec::new(),
            damage_total: 0,
        }
    }

    fn finish(self, total_size: u64, report: Report) -> Status {
        let [kubernetes_keys, other_keys] = self.keys.map(Keys::count);
        let kubernetes = Share { live_keys: kubernetes_keys, ..self.kubernetes };
        Status {
            hash: self.hash.value(),
            revision: self.revision,
            live_keys: kubernetes_keys.zip(other_keys).map(|(one, other)| one + other),
            total_size,
            records: self.records,
            tombstones: self.tombstones,
            kubernetes,
            buckets: self.buckets,
            report,
            record_damage: self.damage,
            record_damage_total: self.damage_total,
        }
    }

    fn record(&mut self, pair: Pair<'_>) -> Result<(), Error> {
        let (key, kv) = match read_record(pair) {
            Ok(record) => record,
            Err(fault) => {
                self.damage_total += 1;
                if self.damage.len() < FAULTS_MAX {
                    self.damage.push(RecordDamage { key: pair.key.to_vec(), fault });
                }
                return Ok(());
            }
        };
        self.records += 1;
        self.revision = key.revision;
        self.tombstones += u64::from(key.tombstone);
        let [kubernetes_keys, other_keys] = &mut self.keys;
        if schema::is_kubernetes(kv.key) {
            self.kubernetes.records += 1;
            self.kubernetes.bytes += (pair.key.len() + pair.value.len()) as u64;
            kubernetes_keys.add(key, &kv)
        } else {
            other_keys.add(key, &kv)
        }
    }
}

impl Visit for Walk<'_> {
    type Stop = RecordsError;

    fn bucket(&mut self, name: &[u8]) -> Result<(), RecordsError> {
        self.hash.update(name);
        let is_key = name == schema::KEY;
        self.part = if is_key { Walking::Records } else { Walking::Others };
        self.buckets.push(BucketUse { name: name.to_vec(), pairs: 0, bytes: 0 });
        if let Some(records) = self.elsewhere.take_if(|_| is_key) {
            while let Some(pair) = records.next_record().map_err(RecordsError::Records)? {
                self.pair(pair)?;
            }
            self.part = Walking::Stand;
        }
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), RecordsError> {
        if self.part == Walking::Stand {
            return Ok(());
        }
        self.hash.update(pair.key);
        // Of a bucket in a bucket Go sees a key without a value.
        if !pair.is_bucket {
            self.hash.update(pair.value);
        }
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.pairs += 1;
            bucket.bytes += (pair.key.len() + pair.value.len()) as u64;
        }
        match self.part {
            Walking::Records => Ok(self.record(pair)?),
            Walking::Stand | Walking::Others => Ok(()),
        }
    }
}

/// Reads a pair of the `key` bucket, and checks that key and value speak of the same revision.
///
/// # Errors
/// [`RecordFault`].
pub fn read_record(pair: Pair<'_>) -> Result<(RecordKey, KeyValue<'_>), RecordFault> {
    let key = RecordKey::parse(pair.key)?;
    if pair.is_bucket {
        return Err(RecordFault::Bucket);
    }
    let kv = KeyValue::parse(pair.value)?;
    // Tombstones and bump records say nothing of their revision.
    let silent = key.tombstone || pair.value.is_empty();
    if !silent && kv.mod_revision != key.revision.get() {
        return Err(RecordFault::ModRevision { got: kv.mod_revision });
    }
    Ok((key, kv))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64) -> Option<Revision> {
        Revision::new(number)
    }

    /// Counts records of (revision, deleted, version).
    fn reckoned(compaction: Compaction, records: &[(i64, bool, i64)]) -> Option<u64> {
        let mut keys = Keys::new(KeyCount::Reckoned, Some(compaction));
        for (number, tombstone, version) in records {
            let key = RecordKey::first_of(revision(*number).unwrap());
            let kv = KeyValue { version: *version, ..KeyValue::default() };
            keys.add(RecordKey { tombstone: *tombstone, ..key }, &kv).unwrap();
        }
        keys.count()
    }

    #[test]
    fn keys_are_reckoned_from_versions_and_deletes() {
        let never = Compaction::default();
        let history = [(2, false, 1), (3, false, 1), (4, false, 2), (5, true, 0), (6, false, 1)];
        assert_eq!(reckoned(never, &[]), Some(0));
        assert_eq!(reckoned(never, &history), Some(2));
        // Compacted at 4: the first key's second version is left, and the other one.
        let at_4 = Compaction { scheduled: revision(4), finished: revision(4) };
        assert_eq!(reckoned(at_4, &history[1..]), Some(2));
        // A delete right at the compaction says nothing of what is left.
        let at_5 = Compaction { scheduled: revision(5), finished: revision(5) };
        assert_eq!(reckoned(at_5, &history[3..]), Some(1));
        let under_way = Compaction { scheduled: revision(5), finished: revision(4) };
        assert_eq!(reckoned(under_way, &history), None);
        assert_eq!(reckoned(never, &[(2, true, 0)]), None);
    }
}
