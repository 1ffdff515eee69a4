//! The database of a restored member, written from front to back while the source is walked.
//!
//! Every page of the source is checked on the way and every record read; at the first one that
//! would cost keys or values the rebuild stops. What it leaves is the source's content, but for:
//!
//! - `members`: those of the new cluster; `members_removed`: none;
//! - `meta`: raft index and term of the new log, its voters (etcdutl leaves those of the old cluster
//!   standing), and with a raised revision the compaction that goes with it;
//! - `cluster`: no downgrade;
//! - `alarm`: without those that the plan clears;
//! - `lease`: as the plan says;
//! - `key`: with a raised revision one more record, empty, as etcdutl writes it.

use super::plan::{AlarmFate, LeaseFate, Plan};
use crate::backend::Alarm;
use crate::error::{Error, RecordDamage, RecordFault};
use crate::lease::Lease;
use crate::records::{Records, RecordsFault};
use crate::revision::RecordKey;
use crate::schema;
use crate::status::read_record;
use rekindle_bolt::{
    BucketWriter, BulkError, BulkWriter, Damage, Db, Finished, Halt, Layout, Pair, Part, ReadAt,
    Visit, check,
};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;

/// Why a database could not be rebuilt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The source is damaged or cannot be read.
    #[error(transparent)]
    Source(#[from] Error),
    /// The output failed.
    #[error("writing the database: {0}")]
    Write(#[from] BulkError),
    /// A small bucket of the source has grown out of all proportion.
    #[error("bucket {bucket} holds more than {max} bytes, which no etcd writes")]
    BucketTooLarge {
        /// The bucket.
        bucket: String,
        /// The most that is kept in memory.
        max: usize,
    },
    /// The records, which lie elsewhere than the small buckets, cannot be read.
    #[error("{0}")]
    Records(RecordsFault),
    /// Keys of Kubernetes came up in a source in which the plan had seen none.
    #[error(
        "the source holds keys of Kubernetes after all; say whether its revision is to be raised"
    )]
    KubernetesAfterAll,
}

/// What is restored.
pub struct Source<'a, S> {
    /// The database, with all small buckets.
    pub db: &'a Db<S>,
    /// Its records, where they lie elsewhere: those in `db` do not count then.
    pub records: Option<&'a mut dyn Records>,
}

impl<'a, S> From<&'a Db<S>> for Source<'a, S> {
    fn from(db: &'a Db<S>) -> Self {
        Self { db, records: None }
    }
}

/// A rebuilt database.
#[derive(Debug)]
pub struct Rebuilt<W> {
    /// The file, which lacks only its metas.
    pub file: Finished<W>,
    /// Records in it.
    pub records: u64,
    /// What was wrong with the source without costing content; the rebuilt file is free of it.
    pub mended: Vec<Damage>,
}

/// Most bytes of a bucket that is changed in memory before it is written.
const EDITED_BUCKET_MAX: usize = 16 << 20;

/// Buckets that are written even where the source lacks them: etcd does not start without.
const NEEDED: [&[u8]; 5] =
    [schema::CLUSTER, schema::KEY, schema::MEMBERS, schema::MEMBERS_REMOVED, schema::META];

/// Writes the database that `plan` describes from `source` into `out`.
///
/// # Errors
/// [`RebuildError`]. What was written until then is no database.
pub fn rebuild<S: ReadAt, W: Write>(
    source: Source<'_, S>,
    plan: &Plan,
    layout: Layout,
    out: W,
) -> Result<Rebuilt<W>, RebuildError> {
    write(source, Some(plan), layout, out)
}

/// Writes a database with the very buckets and pairs of `source` into `out`.
///
/// # Errors
/// [`RebuildError`]. What was written until then is no database.
pub fn copy<S: ReadAt, W: Write>(
    source: Source<'_, S>,
    layout: Layout,
    out: W,
) -> Result<Rebuilt<W>, RebuildError> {
    write(source, None, layout, out)
}

fn write<S: ReadAt, W: Write>(
    source: Source<'_, S>,
    plan: Option<&Plan>,
    layout: Layout,
    out: W,
) -> Result<Rebuilt<W>, RebuildError> {
    let mut rebuild = Rebuild {
        plan,
        elsewhere: source.records,
        writer: Writer::Between(BulkWriter::new(out, layout)?),
        bucket: Vec::new(),
        treatment: Treatment::Copy,
        edited: BTreeMap::new(),
        edited_bytes: 0,
        needed: if plan.is_some() { &NEEDED } else { &[] },
        records: 0,
    };
    let report = check(source.db, &mut rebuild).map_err(|halt| match halt {
        Halt::Read(error) => Error::from(error).into(),
        Halt::Stopped(error) => error,
    })?;
    rebuild.end_bucket()?;
    rebuild.write_needed(None)?;
    let records = rebuild.records;
    // Records that found no bucket to go into are records that are lost.
    let (Writer::Between(writer), None) = (rebuild.writer, rebuild.elsewhere) else {
        return Err(Error::NotEtcd.into());
    };
    Ok(Rebuilt { file: writer.finish()?, records, mended: report.findings })
}

struct Rebuild<'a, 'r, W> {
    /// Without one nothing changes.
    plan: Option<&'a Plan>,
    /// The records, where they lie elsewhere and have not come yet.
    elsewhere: Option<&'r mut dyn Records>,
    writer: Writer<W>,
    /// The bucket that is being written.
    bucket: Vec<u8>,
    treatment: Treatment,
    /// The pairs of a bucket that is changed.
    edited: BTreeMap<Vec<u8>, Vec<u8>>,
    edited_bytes: usize,
    /// Needed buckets that have not come yet.
    needed: &'a [&'a [u8]],
    records: u64,
}

/// The output, of which one bucket at most is open.
enum Writer<W> {
    Between(BulkWriter<W>),
    In(BucketWriter<W>),
    /// Only while one becomes the other.
    Moving,
}

/// How a bucket comes over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// Pair by pair.
    Copy,
    /// Pair by pair, each record read.
    Records,
    /// Collected, changed, written at its end.
    Edit,
    /// Pair by pair, each lease with the shortest time.
    Expire,
    /// Not at all; written anew at its end.
    Replace,
}

impl Treatment {
    fn of(bucket: &[u8], plan: Option<&Plan>) -> Self {
        let Some(plan) = plan else {
            return if bucket == schema::KEY { Self::Records } else { Self::Copy };
        };
        match bucket {
            schema::KEY => Self::Records,
            schema::LEASE => match plan.leases {
                LeaseFate::Restore => Self::Copy,
                LeaseFate::Expire => Self::Expire,
                LeaseFate::Detach => Self::Replace,
            },
            schema::META | schema::CLUSTER | schema::ALARM => Self::Edit,
            schema::MEMBERS | schema::MEMBERS_REMOVED => Self::Replace,
            _ => Self::Copy,
        }
    }
}

impl<W: Write> Visit for Rebuild<'_, '_, W> {
    type Stop = RebuildError;

    fn bucket(&mut self, name: &[u8]) -> Result<(), RebuildError> {
        self.end_bucket()?;
        self.write_needed(Some(name))?;
        self.begin_bucket(name)?;
        match self.elsewhere.take_if(|_| name == schema::KEY) {
            Some(records) => self.all_of(records),
            None => Ok(()),
        }
    }

    fn pair(&mut self, pair: Pair<'_>) -> Result<(), RebuildError> {
        if pair.is_bucket {
            let damage = RecordDamage { key: pair.key.to_vec(), fault: RecordFault::Bucket };
            return Err(Error::from(damage).into());
        }
        match self.treatment {
            Treatment::Replace => Ok(()),
            Treatment::Copy => self.put(pair.key, pair.value),
            Treatment::Records => self.record(pair),
            Treatment::Expire => match pair.key.try_into().map(i64::from_be_bytes) {
                // etcd lets it live for the shortest time that it grants, some seconds.
                Ok(id) => self.put(pair.key, &Lease { id, ttl_s: 1 }.to_bytes()),
                Err(_) => self.put(pair.key, pair.value),
            },
            Treatment::Edit => {
                self.edited_bytes += pair.key.len() + pair.value.len();
                if self.edited_bytes > EDITED_BUCKET_MAX {
                    let bucket = String::from_utf8_lossy(&self.bucket).into_owned();
                    return Err(RebuildError::BucketTooLarge { bucket, max: EDITED_BUCKET_MAX });
                }
                self.edited.insert(pair.key.to_vec(), pair.value.to_vec());
                Ok(())
            }
        }
    }

    fn damage(&mut self, part: Part, damage: &Damage) -> Result<(), RebuildError> {
        match part {
            Part::Bookkeeping => Ok(()),
            Part::Content => Err(Error::from(rekindle_bolt::Error::from(damage.clone())).into()),
        }
    }
}

impl<W: Write> Rebuild<'_, '_, W> {
    fn begin_bucket(&mut self, name: &[u8]) -> Result<(), RebuildError> {
        if let Writer::Between(writer) = std::mem::replace(&mut self.writer, Writer::Moving) {
            self.writer = Writer::In(writer.bucket(name)?);
        }
        self.bucket = name.to_vec();
        self.treatment = Treatment::of(name, self.plan);
        self.edited.clear();
        self.edited_bytes = 0;
        Ok(())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), RebuildError> {
        if let Writer::In(bucket) = &mut self.writer {
            bucket.put(key, value)?;
        }
        Ok(())
    }

    /// These are the records; those of the database that is walked are left out.
    fn all_of(&mut self, records: &mut dyn Records) -> Result<(), RebuildError> {
        while let Some(pair) = records.next_record().map_err(RebuildError::Records)? {
            self.record(pair)?;
        }
        self.treatment = Treatment::Replace;
        Ok(())
    }

    fn record(&mut self, pair: Pair<'_>) -> Result<(), RebuildError> {
        let (_, kv) = read_record(pair)
            .map_err(|fault| Error::from(RecordDamage { key: pair.key.to_vec(), fault }))?;
        let unexpected = self.plan.is_some_and(|plan| plan.kubernetes_unexpected);
        if unexpected && schema::is_kubernetes(kv.key) {
            return Err(RebuildError::KubernetesAfterAll);
        }
        self.records += 1;
        self.put(pair.key, pair.value)
    }

    /// Ends the open bucket, if one is, with what the plan adds to it.
    fn end_bucket(&mut self) -> Result<(), RebuildError> {
        if let Some(plan) = self.plan {
            match self.bucket.as_slice() {
                schema::KEY => self.add_bump_record(plan)?,
                schema::META => self.edit_meta(plan),
                schema::CLUSTER => drop(self.edited.remove(schema::cluster::DOWNGRADE)),
                schema::ALARM => self.clear_alarms(plan),
                schema::MEMBERS => self.replace_members(plan),
                _ => {}
            }
        }
        self.bucket.clear();
        for (key, value) in std::mem::take(&mut self.edited) {
            self.put(&key, &value)?;
        }
        match std::mem::replace(&mut self.writer, Writer::Moving) {
            Writer::In(bucket) => self.writer = Writer::Between(bucket.finish()?),
            between => self.writer = between,
        }
        Ok(())
    }

    /// Writes the needed buckets that the source lacks and that come before `next`.
    fn write_needed(&mut self, next: Option<&[u8]>) -> Result<(), RebuildError> {
        while let Some((first, rest)) = self.needed.split_first() {
            match next {
                Some(next) if *first == next => {
                    self.needed = rest;
                    return Ok(());
                }
                Some(next) if *first > next => return Ok(()),
                _ => {
                    self.needed = rest;
                    self.begin_bucket(first)?;
                    self.end_bucket()?;
                }
            }
        }
        Ok(())
    }

    fn add_bump_record(&mut self, plan: &Plan) -> Result<(), RebuildError> {
        let Some(bump) = plan.bump else { return Ok(()) };
        self.records += 1;
        self.put(&RecordKey::first_of(bump.to).to_bytes(), &[])
    }

    fn edit_meta(&mut self, plan: &Plan) {
        let state = plan.hard_state();
        let mut set = |key: &[u8], value: Vec<u8>| self.edited.insert(key.to_vec(), value);
        set(schema::meta::CONSISTENT_INDEX, state.commit.0.to_be_bytes().to_vec());
        set(schema::meta::TERM, state.term.0.to_be_bytes().to_vec());
        set(schema::meta::CONF_STATE, plan.conf_state().to_json().into_bytes());
        if let Some(bump) = plan.bump {
            let compaction = RecordKey::first_of(bump.to).to_bytes();
            set(schema::meta::SCHEDULED_COMPACTION, compaction);
        }
    }

    fn clear_alarms(&mut self, plan: &Plan) {
        let cleared = |fate: &AlarmFate| match fate {
            AlarmFate::Cleared(alarm) => Some(*alarm),
            AlarmFate::Kept(_) => None,
        };
        let cleared: HashSet<_> = plan.alarms.iter().filter_map(cleared).collect();
        // Found by what it says: one alarm can be written in several ways.
        self.edited.retain(|key, _| !Alarm::parse(key).is_ok_and(|alarm| cleared.contains(&alarm)));
    }

    fn replace_members(&mut self, plan: &Plan) {
        for member in &plan.cluster.members {
            self.edited.insert(member.id.to_string().into_bytes(), member.to_json().into_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::kv::KeyValue;
    use crate::membership::InitialCluster;
    use crate::restore::{BumpRequest, DEFAULT_QUOTA, Request, SourceFacts, plan};
    use crate::revision::Revision;
    use crate::status::KeyCount;

    /// A database whose buckets hold these keys, with empty values.
    fn a_database(buckets: &[(&[u8], &[&[u8]])]) -> Vec<u8> {
        let mut writer = BulkWriter::new(Vec::new(), layout()).unwrap();
        for (name, keys) in buckets {
            let mut bucket = writer.bucket(name).unwrap();
            keys.iter().for_each(|key| bucket.put(key, &[]).unwrap());
            writer = bucket.finish().unwrap();
        }
        whole(writer.finish().unwrap())
    }

    /// Records that lie elsewhere: so many, and then a fault or not.
    struct Elsewhere(Vec<Vec<u8>>, bool, Vec<u8>);

    impl Records for Elsewhere {
        fn next_record(&mut self) -> Result<Option<Pair<'_>>, RecordsFault> {
            match self.0.pop() {
                Some(key) => {
                    self.2 = key;
                    Ok(Some(Pair { key: &self.2, value: &[], is_bucket: false }))
                }
                None if self.1 => Err("cut off".into()),
                None => Ok(None),
            }
        }
    }

    /// The source's own record 7 does not count; without a bucket for them, records would be lost.
    #[test]
    fn records_from_elsewhere_are_all_there_is_or_nothing_is() {
        let key = |number| RecordKey::first_of(Revision::new(number).unwrap()).to_bytes();
        let own = key(7);
        let check = |buckets: &[(&[u8], &[&[u8]])], cut_off| {
            let source = a_database(buckets);
            let db = Db::open(source).unwrap();
            let whole_source = a_database(&[(schema::KEY, &[&own])]);
            let plan = a_plan(&Backend::open(whole_source).unwrap(), false, BumpRequest::Never);
            let mut records = Elsewhere((2..=6).rev().map(key).collect(), cut_off, Vec::new());
            let source = Source { db: &db, records: Some(&mut records) };
            rebuild(source, &plan, layout(), Vec::new()).map(|rebuilt| rebuilt.records)
        };
        assert_eq!(check(&[(schema::KEY, &[&own])], false).unwrap(), 5);
        let cut_off = check(&[(schema::KEY, &[&own])], true).unwrap_err();
        assert_eq!(cut_off.to_string(), "cut off");
        let lost = check(&[(schema::META, &[])], false).unwrap_err();
        assert!(matches!(lost, RebuildError::Source(Error::NotEtcd)), "{lost}");
    }

    /// No bucket comes and none goes, and none of them changes: not even those of the raft log.
    #[test]
    fn a_copy_has_what_the_source_has() {
        let key = |number| RecordKey::first_of(Revision::new(number).unwrap()).to_bytes();
        let buckets = |records: &[&[u8]]| {
            let voters = schema::meta::CONF_STATE;
            a_database(&[
                (schema::ALARM, &[&[8, 1, 16, 1]]),
                (schema::KEY, records),
                (schema::META, &[voters]),
            ])
        };
        let db = Db::open(buckets(&[&key(7)])).unwrap();
        let mut records = Elsewhere((2..=6).rev().map(key).collect(), false, Vec::new());
        let source = Source { db: &db, records: Some(&mut records) };
        let copied = copy(source, layout(), Vec::new()).unwrap();
        assert_eq!(copied.records, 5);
        let records: Vec<_> = (2..=6).map(key).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        assert_eq!(whole(copied.file), buckets(&records));
    }

    fn whole(finished: Finished<Vec<u8>>) -> Vec<u8> {
        let mut bytes = finished.out;
        bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
        bytes
    }

    fn layout() -> Layout {
        Layout::new(1024, 4096).unwrap()
    }

    /// The plan said that the alarm would go, and etcd's way of writing it was looked for: one
    /// with a field that etcd does not have stayed.
    #[test]
    fn a_cleared_alarm_is_gone_however_it_is_written() {
        let no_space: [&[u8]; 3] =
            [b"\x08\x07\x10\x01", b"\x08\x07\x10\x81\x00", b"\x10\x01\x18\x05"];
        let source = a_database(&[(schema::ALARM, &no_space), (schema::KEY, &[])]);
        let source = Backend::open(source).unwrap();
        let facts = source.facts().unwrap();
        let cluster = InitialCluster::parse("a=http://h:1").unwrap().with_token("t").unwrap();
        let leases = LeaseFate::Restore;
        let request = Request { cluster, bump: BumpRequest::Never, quota: DEFAULT_QUOTA, leases };
        let said = SourceFacts { facts: &facts, kubernetes: false, size_at_most: 0 };
        let plan = plan(&said, &request).unwrap();
        assert_eq!(plan.alarms.len(), 3);
        let rebuilt = rebuild(source.db().into(), &plan, layout(), Vec::new()).unwrap();
        let restored = Backend::open(whole(rebuilt.file)).unwrap();
        assert!(restored.status(KeyCount::Reckoned).unwrap().is_sound());
        assert_eq!(restored.facts().unwrap().alarms, []);
    }

    /// A key and its value.
    type KeyAndValue<'a> = (&'a [u8], &'a [u8]);

    /// A database of these pairs by bucket, all in order.
    fn pairs(buckets: &[(&[u8], &[KeyAndValue<'_>])]) -> Vec<u8> {
        let mut writer = BulkWriter::new(Vec::new(), layout()).unwrap();
        for (name, pairs) in buckets {
            let mut bucket = writer.bucket(name).unwrap();
            pairs.iter().for_each(|(key, value)| bucket.put(key, value).unwrap());
            writer = bucket.finish().unwrap();
        }
        whole(writer.finish().unwrap())
    }

    fn a_plan(source: &Backend<Vec<u8>>, kubernetes: bool, bump: BumpRequest) -> Plan {
        let facts = source.facts().unwrap();
        let cluster = InitialCluster::parse("a=http://h:1,b=http://i:1").unwrap();
        let cluster = cluster.with_token("t").unwrap();
        let leases = LeaseFate::Restore;
        let request = Request { cluster, bump, quota: DEFAULT_QUOTA, leases };
        plan(&SourceFacts { facts: &facts, kubernetes, size_at_most: 0 }, &request).unwrap()
    }

    #[test]
    fn voters_are_the_new_ones_and_a_downgrade_is_over() {
        let old_voters = br#"{"voters":[7],"auto_leave":false}"#;
        let downgrade = br#"{"target-version":"3.5.0","enabled":true}"#;
        let source = pairs(&[
            (schema::CLUSTER, &[(schema::cluster::DOWNGRADE, downgrade)]),
            (schema::KEY, &[]),
            (schema::META, &[(schema::meta::CONF_STATE, old_voters)]),
        ]);
        let source = Backend::open(source).unwrap();
        assert!(source.facts().unwrap().downgrade.is_some());
        let plan = a_plan(&source, false, BumpRequest::Never);
        let rebuilt = rebuild(source.db().into(), &plan, layout(), Vec::new()).unwrap();
        let restored = Backend::open(whole(rebuilt.file)).unwrap();
        assert_eq!(restored.facts().unwrap().downgrade, None);
        let meta = restored.bucket(schema::META).unwrap().unwrap();
        let voters = restored.db().get(&meta, schema::meta::CONF_STATE).unwrap().unwrap();
        assert_eq!(voters, plan.conf_state().to_json().into_bytes());
    }

    /// Some two hundred records, Kubernetes' from one on.
    fn a_keyspace(kubernetes_from: i64) -> Backend<Vec<u8>> {
        let record = |number: i64| {
            let key = RecordKey::first_of(Revision::new(number).unwrap());
            let is_plain = number < kubernetes_from;
            let name = if is_plain { &b"plain"[..] } else { b"/registry/pods/default/p" };
            let kv = KeyValue { key: name, mod_revision: number, ..KeyValue::default() };
            (key.to_bytes(), kv.to_bytes())
        };
        let records: Vec<_> = (2..=200).map(record).collect();
        let records: Vec<_> = records.iter().map(|(key, kv)| (&key[..], &kv[..])).collect();
        Backend::open(pairs(&[(schema::KEY, &records)])).unwrap()
    }

    #[test]
    fn kubernetes_that_nobody_saw_coming_stops_it() {
        // Not only the beginning is looked at, but not every leaf either.
        assert!(a_keyspace(120).holds_kubernetes().unwrap());
        let source = a_keyspace(200);
        assert!(!source.holds_kubernetes().unwrap());
        let unseen = a_plan(&source, false, BumpRequest::IfKubernetes);
        let stopped = rebuild(source.db().into(), &unseen, layout(), Vec::new());
        assert!(matches!(stopped, Err(RebuildError::KubernetesAfterAll)));
        let wanted = a_plan(&source, false, BumpRequest::Never);
        assert_eq!(
            rebuild(source.db().into(), &wanted, layout(), Vec::new()).unwrap().records,
            199
        );
    }
}
