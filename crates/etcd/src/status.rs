//! What `snapshot status` says of a database, and all that is wrong with it, in one walk.

use crate::backend::Backend;
use crate::crc::Crc32c;
use crate::error::{Error, RecordDamage, RecordFault};
use crate::keytable::KeyTable;
use crate::kv::KeyValue;
use crate::revision::{RecordKey, Revision};
use crate::schema;
use rekindle_bolt::{Halt, Pair, ReadAt, Report, Visit, check};

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
    /// Keys that exist: etcdutl 3.6's `TOTAL KEYS`.
    pub live_keys: u64,
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
    /// Keys that exist.
    pub live_keys: u64,
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

impl<S: ReadAt> Backend<S> {
    /// Walks the whole database. Needs some 22 bytes of memory a key.
    ///
    /// # Errors
    /// Only [`Error::Bolt`] where the medium fails, and [`Error::TooManyRecords`]: what is wrong
    /// with the database goes into the status.
    pub fn status(&self) -> Result<Status, Error> {
        let mut walk = Walk::new();
        let report = check(self.db(), &mut walk).map_err(|halt| match halt {
            Halt::Read(error) => error.into(),
            Halt::Stopped(error) => error,
        })?;
        let mut kubernetes = walk.kubernetes;
        kubernetes.live_keys = walk.kubernetes_keys.len();
        Ok(Status {
            hash: walk.hash.value(),
            revision: walk.revision,
            live_keys: walk.other_keys.len() + kubernetes.live_keys,
            total_size: self.db().size(),
            records: walk.records,
            tombstones: walk.tombstones,
            kubernetes,
            buckets: walk.buckets,
            report,
            record_damage: walk.damage,
            record_damage_total: walk.damage_total,
        })
    }
}

struct Walk {
    hash: Crc32c,
    in_key: bool,
    revision: Revision,
    records: u64,
    tombstones: u64,
    kubernetes: Share,
    kubernetes_keys: KeyTable,
    other_keys: KeyTable,
    buckets: Vec<BucketUse>,
    damage: Vec<RecordDamage>,
    damage_total: u64,
}

impl Walk {
    fn new() -> Self {
        Self {
            hash: Crc32c::new(),
            in_key: false,
            revision: Revision::default(),
            records: 0,
            tombstones: 0,
            kubernetes: Share::default(),
            kubernetes_keys: KeyTable::new(),
            other_keys: KeyTable::new(),
            buckets: Vec::new(),
            damage: Vec::new(),
            damage_total: 0,
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
        let keys = if schema::is_kubernetes(kv.key) {
            self.kubernetes.records += 1;
            self.kubernetes.bytes += (pair.key.len() + pair.value.len()) as u64;
            &mut self.kubernetes_keys
        } else {
            &mut self.other_keys
        };
        if key.tombstone {
            self.tombstones += 1;
            keys.remove(kv.key);
        } else {
            keys.insert(kv.key, 0).map_err(|_| Error::TooManyRecords)?;
        }
        Ok(())
    }
}

impl Visit for Walk {
    type Stop = Error;

    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.hash.update(name);
        self.in_key = name == schema::KEY;
        self.buckets.push(BucketUse { name: name.to_vec(), pairs: 0, bytes: 0 });
        Ok(())
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), Error> {
        self.hash.update(pair.key);
        // Of a bucket in a bucket Go sees a key without a value.
        if !pair.is_bucket {
            self.hash.update(pair.value);
        }
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.pairs += 1;
            bucket.bytes += (pair.key.len() + pair.value.len()) as u64;
        }
        if self.in_key { self.record(pair) } else { Ok(()) }
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
