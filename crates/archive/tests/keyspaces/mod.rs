//! Keyspaces of a member, and an archive that they are saved into.

#![allow(dead_code, reason = "not every test needs all of it")]

use rekindle_archive::format::ObjectId;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseEntry, BaseRecords, BaseRequest, BaseWritten, Change, Comparison, Cut, Cutter,
    Error, ForgetRequest, Forgot, Forgotten, Level, Origin, PreparedBase, Progress, Store, Verdict,
    Verification, VerifyProgress, VerifyRequest, Witness, plan_forget, prepare_base, read_base,
};
use rekindle_bolt::{BulkWriter, Layout};
use rekindle_etcd::restore::Records;
use rekindle_etcd::{
    Backend, ClusterId, KeyValue, MemberId, RaftTerm, RecordKey, Revision, schema,
};
use rekindle_testkit::content::noise;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};

pub const CLUSTER: ClusterId = ClusterId(1);

pub const HOST: ObjectId = ObjectId([7; 16]);

pub fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

pub fn witness() -> Witness {
    Witness { cluster: CLUSTER, member: MemberId(2), term: RaftTerm(5) }
}

/// What came of a keyspace from one revision to another, as it was told.
pub fn cut(keyspace: &Keyspace, first: i64, last: i64) -> Cut {
    cut_at(keyspace, first, last, |_| now())
}

/// The same, where each revision came at its moment.
pub fn cut_at(
    keyspace: &Keyspace,
    first: i64,
    last: i64,
    mut at: impl FnMut(i64) -> Moment,
) -> Cut {
    let mut cutter = Cutter::new(revision(first));
    for number in first..=last {
        let records = keyspace.records.range((number, 0, false)..(number + 1, 0, false));
        let changes: Vec<_> = records
            .map(|((_, _, is_delete), (name, value))| {
                let key = name.as_bytes();
                let kv = match is_delete {
                    true => KeyValue { key, mod_revision: number, ..KeyValue::default() },
                    false => KeyValue { key, value, mod_revision: number, ..KeyValue::default() },
                };
                Change { kv, is_delete: *is_delete }
            })
            .collect();
        cutter.add(&changes, at(number)).unwrap();
    }
    let end = at(last);
    cutter.cut(witness(), end).unwrap()
}

thread_local! {
    /// The test's clock: tests run beside each other.
    static NOW: Cell<i64> = const { Cell::new(1_790_000_000_000) };
}

/// The clock, which goes on by a second whenever it is looked at.
pub fn now() -> Moment {
    advance(1000);
    now_is()
}

/// The clock, which does not go on.
pub fn now_is() -> Moment {
    Moment(NOW.get())
}

/// Lets so many milliseconds pass.
pub fn advance(ms: i64) {
    NOW.set(NOW.get() + ms);
}

/// Records as etcd keeps them.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A member's keyspace: the records that it holds, and how far it has compacted.
#[derive(Clone, Default)]
pub struct Keyspace {
    pub records: BTreeMap<(i64, i64, bool), (String, Vec<u8>)>,
    pub revision: i64,
    pub scheduled: i64,
    index: u64,
}

impl Keyspace {
    pub fn new() -> Self {
        Self { revision: 1, index: 10, ..Self::default() }
    }

    /// A transaction that puts or deletes each of these keys.
    pub fn write(&mut self, changes: &[(&str, bool)], len: usize) {
        self.revision += 1;
        self.index += 1;
        for ((name, delete), sub) in changes.iter().zip(0..) {
            let value = match delete {
                true => Vec::new(),
                false => noise(self.revision.unsigned_abs() * 100 + sub, len),
            };
            let key = (self.revision, sub.cast_signed(), *delete);
            self.records.insert(key, ((*name).to_owned(), value));
        }
    }

    /// What a compaction is asked for, without its work.
    pub fn schedule(&mut self, compact: i64) {
        self.scheduled = compact;
        self.index += 1;
    }

    /// Removes what the scheduled compaction has no use for, among those that `picked` names.
    pub fn remove(&mut self, at_revision: bool, mut picked: impl FnMut(i64) -> bool) {
        let compact = self.scheduled;
        let mut newest: BTreeMap<String, (i64, i64, bool)> = BTreeMap::new();
        for (key, (name, _)) in self.records.range(..(compact + 1, 0, false)) {
            newest.insert(name.clone(), *key);
        }
        self.records.retain(|key, (name, _)| {
            let (revision, _, tombstone) = *key;
            let kept_tombstone = at_revision && revision == compact;
            revision > compact
                || newest.get(name) == Some(key) && (!tombstone || kept_tombstone)
                || !picked(revision)
        });
    }

    pub fn compact(&mut self, compact: i64) {
        self.schedule(compact);
        self.remove(false, |_| true);
    }

    pub fn pairs(&self) -> Pairs {
        let pair = |((revision, sub, tombstone), (name, value)): (
            &(i64, i64, bool),
            &(String, Vec<u8>),
        )| {
            let (sub, tombstone) = (*sub, *tombstone);
            let key = RecordKey { revision: Revision::new(*revision).unwrap(), sub, tombstone };
            let name = name.as_bytes();
            let kv = match tombstone {
                true => KeyValue { key: name, ..KeyValue::default() },
                false => {
                    KeyValue { key: name, value, mod_revision: *revision, ..KeyValue::default() }
                }
            };
            (key.to_bytes(), kv.to_bytes())
        };
        self.records.iter().map(pair).collect()
    }

    pub fn backend(&self) -> Backend<Vec<u8>> {
        let at = |revision| RecordKey::first_of(Revision::new(revision).unwrap()).to_bytes();
        let mut writer = BulkWriter::new(Vec::new(), Layout::new(4096, 4096).unwrap()).unwrap();
        let mut bucket = writer.bucket(schema::KEY).unwrap();
        for (key, value) in self.pairs() {
            bucket.put(&key, &value).unwrap();
        }
        writer = bucket.finish().unwrap();
        let mut meta = BTreeMap::from([
            (schema::meta::CONSISTENT_INDEX, self.index.to_be_bytes().to_vec()),
            (schema::meta::TERM, 5_u64.to_be_bytes().to_vec()),
        ]);
        if self.scheduled > 0 {
            meta.insert(schema::meta::SCHEDULED_COMPACTION, at(self.scheduled));
        }
        let mut bucket = writer.bucket(schema::META).unwrap();
        meta.iter().for_each(|(key, value)| bucket.put(key, value).unwrap());
        let finished = bucket.finish().unwrap().finish().unwrap();
        let mut bytes = finished.out;
        bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
        Backend::open(bytes).unwrap()
    }
}

/// Prepares a base by this clock, and does with it what is wanted.
pub fn prepare<T>(
    archive: &Archive,
    keyspace: &Keyspace,
    tables: Option<&Path>,
    now: &(dyn Fn() -> Moment + Sync),
    then: impl FnOnce(PreparedBase<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let origin = Origin {
        cluster: ClusterId(1),
        member: MemberId(2),
        etcd: "3.6.16".to_owned(),
        state: now(),
        current: true,
    };
    let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let request = BaseRequest { tables, ..BaseRequest::new(archive, &origin, now, progress) };
    then(prepare_base(&request, &keyspace.backend())?)
}

/// The records that a base brings back.
pub fn read_back(archive: &Archive, entry: &BaseEntry) -> Result<Pairs, Error> {
    let base = read_base(archive, entry)?;
    let mut records = BaseRecords::new(archive, entry, &base)?;
    let mut pairs = Vec::new();
    loop {
        match records.next_record() {
            Ok(Some(pair)) => pairs.push((pair.key.to_vec(), pair.value.to_vec())),
            Ok(None) => return Ok(pairs),
            Err(fault) => return Err(*fault.downcast().expect("an error of the archive's")),
        }
    }
}

/// What all bases bring back, as the golden archives have it written down: a line a base with its
/// HashKV, and a line a record with its place and a digest.
pub fn told(archive: &Archive) -> Result<String, Error> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut told = Vec::new();
    for entry in archive.list()?.bases {
        let hash = read_base(archive, &entry)?.hash;
        told.push(format!("base {} hashkv {hash}", entry.header.facts.last));
        for (key, value) in read_back(archive, &entry)? {
            let digest = blake3::hash(&value);
            told.push(format!("{} {}", hex(&key), hex(&digest.as_bytes()[..16])));
        }
    }
    Ok(told.join("\n") + "\n")
}

/// What a verification of everything, to the last record, says.
pub fn verdict(archive: &Archive, now: Moment) -> Result<Verdict, Error> {
    let request = VerifyRequest { level: Level::Proven, only: None, now };
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    Verification::begin(archive, &request)?.run(progress)
}

/// All keys that begin so.
pub fn all_of(prefix: &str) -> Forgotten {
    Forgotten { key: prefix.as_bytes().to_vec(), prefix: true, to: None }
}

/// What is left of records when all keys that begin so are forgotten: of the last record that it was
/// there.
pub fn forget_in(pairs: &mut Pairs, prefix: &str) {
    let last = pairs.last().map(|(key, _)| key.clone());
    let is_gone = |value: &[u8]| KeyValue::parse(value).unwrap().key.starts_with(prefix.as_bytes());
    pairs.retain_mut(|(key, value)| {
        let gone = is_gone(value);
        if gone && Some(&*key) == last.as_ref() {
            value.clear();
        }
        !gone || value.is_empty()
    });
}

/// Erases records from an archive.
pub fn forget(
    archive: &Archive,
    what: &Forgotten,
    now: &dyn Fn() -> Moment,
) -> Result<Forgot, Error> {
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let request = ForgetRequest { what, now, progress };
    plan_forget(archive, &request)?.carry_out(archive, &request)
}

/// A directory for a spool, in memory where the machine has such a one: tables are synced.
pub fn a_spool() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).unwrap()
}

/// How much a test tries: so much, or what `REKINDLE_SEEDS` says.
pub fn seeds(few: u64) -> std::ops::Range<u64> {
    let seeds = std::env::var("REKINDLE_SEEDS").ok();
    0..seeds.map_or(few, |seeds| seeds.parse().unwrap())
}

/// An archive and a spool beside it.
pub struct Saving {
    pub archive: Archive,
    pub spool: tempfile::TempDir,
}

impl Saving {
    pub fn new() -> Self {
        let archive = Archive::init_unencrypted(Store::memory().unwrap(), Moment(0)).unwrap();
        Self { archive, spool: a_spool() }
    }

    pub fn save(&self, keyspace: &Keyspace) -> BaseWritten {
        self.try_save(keyspace, Some(self.spool.path())).unwrap()
    }

    pub fn try_save(
        &self,
        keyspace: &Keyspace,
        tables: Option<&Path>,
    ) -> Result<BaseWritten, Error> {
        self.prepare(keyspace, tables, |prepared| prepared.publish(now()))
    }

    /// Does something else between preparing and publishing.
    pub fn prepare_between(
        &self,
        keyspace: &Keyspace,
        meanwhile: impl FnOnce(),
    ) -> Result<BaseWritten, Error> {
        self.prepare(keyspace, Some(self.spool.path()), |prepared| {
            meanwhile();
            prepared.publish(now())
        })
    }

    fn prepare<T>(
        &self,
        keyspace: &Keyspace,
        tables: Option<&Path>,
        then: impl FnOnce(PreparedBase<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Other threads have no clock of this test.
        let began = now();
        prepare(&self.archive, keyspace, tables, &move || began, then)
    }

    /// The digest table in the spool.
    pub fn table(&self) -> PathBuf {
        std::fs::read_dir(self.spool.path()).unwrap().next().unwrap().unwrap().path()
    }

    pub fn save_agrees(&self, keyspace: &Keyspace) -> BaseWritten {
        let written = self.save(keyspace);
        let agreed = matches!(written.comparison, Comparison::Agreed { .. });
        assert!(agreed, "{:?}", written.comparison);
        written
    }

    /// The records that the base of that name brings back.
    pub fn read(&self, written: &BaseWritten) -> Pairs {
        let listing = self.archive.list().unwrap();
        let entry = listing.bases.iter().find(|entry| entry.name == written.name).unwrap();
        read_back(&self.archive, entry).unwrap()
    }

    pub fn check_agrees(&self, keyspace: &Keyspace, want: &str) -> BaseWritten {
        let written = self.save(keyspace);
        let Comparison::Agreed { counts, .. } = written.comparison else {
            panic!("{:?}", written.comparison)
        };
        let got = format!(
            "{} known, {} new, {} garbage, {} unverified",
            counts.known, counts.new, counts.garbage, counts.unverified
        );
        assert_eq!(got, want);
        assert!(self.read(&written) == keyspace.pairs(), "{want}");
        written
    }
}
