//! Bases after the first: they share what is the same, and notice what contradicts.

use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseRecords, BaseRequest, BaseWritten, Comparison, ContradictionKind, Error, Origin,
    Progress, Store, prepare_base, read_base,
};
use rekindle_bolt::{BulkWriter, Layout};
use rekindle_etcd::restore::Records;
use rekindle_etcd::{Backend, ClusterId, KeyValue, MemberId, RecordKey, Revision, schema};
use rekindle_testkit::content::noise;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// A clock that goes on by a second whenever it is looked at.
static NOW: AtomicI64 = AtomicI64::new(0);

fn now() -> Moment {
    Moment(NOW.fetch_add(1000, Ordering::Relaxed))
}

/// A member's keyspace: the records that it holds, and how far it has compacted.
#[derive(Clone, Default)]
struct Keyspace {
    records: BTreeMap<(i64, i64, bool), (String, Vec<u8>)>,
    revision: i64,
    scheduled: i64,
    index: u64,
}

impl Keyspace {
    fn new() -> Self {
        Self { revision: 1, index: 10, ..Self::default() }
    }

    /// A transaction that puts or deletes each of these keys.
    fn write(&mut self, changes: &[(&str, bool)], len: usize) {
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
    fn schedule(&mut self, compact: i64) {
        self.scheduled = compact;
        self.index += 1;
    }

    /// Removes what the scheduled compaction has no use for, among those that `picked` names.
    fn remove(&mut self, at_revision: bool, mut picked: impl FnMut(i64) -> bool) {
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

    fn compact(&mut self, compact: i64) {
        self.schedule(compact);
        self.remove(false, |_| true);
    }

    fn pairs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
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

    fn backend(&self) -> Backend<Vec<u8>> {
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

/// An archive and a spool beside it.
struct Saving {
    archive: Archive,
    spool: tempfile::TempDir,
}

impl Saving {
    fn new() -> Self {
        let archive = Archive::init_unencrypted(Store::memory().unwrap(), Moment(0)).unwrap();
        Self { archive, spool: tempfile::tempdir().unwrap() }
    }

    fn save(&self, keyspace: &Keyspace) -> BaseWritten {
        self.try_save(keyspace, Some(self.spool.path())).unwrap()
    }

    fn try_save(&self, keyspace: &Keyspace, tables: Option<&Path>) -> Result<BaseWritten, Error> {
        let origin = Origin {
            cluster: ClusterId(1),
            member: MemberId(2),
            etcd: "3.6.16".to_owned(),
            live_keys: None,
            state: now(),
            current: true,
        };
        let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
        let (archive, origin) = (&self.archive, &origin);
        let request = BaseRequest { archive, origin, tables, now: &now, progress };
        prepare_base(&request, &keyspace.backend())?.publish(now())
    }

    /// The records that the base of that name brings back.
    fn read(&self, written: &BaseWritten) -> Vec<(Vec<u8>, Vec<u8>)> {
        let listing = self.archive.list().unwrap();
        let entry = listing.bases.iter().find(|entry| entry.name == written.name).unwrap();
        let base = read_base(&self.archive, entry).unwrap();
        let mut records = BaseRecords::new(&self.archive, entry, &base).unwrap();
        let mut pairs = Vec::new();
        while let Some(pair) = records.next_record().map_err(|fault| fault.to_string()).unwrap() {
            pairs.push((pair.key.to_vec(), pair.value.to_vec()));
        }
        pairs
    }

    fn check_agrees(&self, keyspace: &Keyspace, want: &str) -> BaseWritten {
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

fn a_keyspace(records: usize) -> Keyspace {
    let mut keyspace = Keyspace::new();
    for number in 0..records {
        let name = format!("/registry/pods/{}", number % 40);
        keyspace.write(&[(&name, number % 11 == 10)], 50);
    }
    keyspace
}

#[test]
fn a_second_base_writes_what_is_new() {
    let saving = Saving::new();
    let mut keyspace = a_keyspace(1000);
    let first = saving.save(&keyspace);
    assert_eq!(first.comparison, Comparison::First);
    let same = saving.check_agrees(&keyspace, "1000 known, 0 new, 0 garbage, 0 unverified");
    assert_eq!((same.objects, same.facts.new_bytes), (0, 0));
    assert_eq!(same.facts.timeline, first.facts.timeline);

    keyspace.write(&[("/a", false), ("/b", false), ("/a", true)], 50);
    keyspace.write(&[("/c", false)], 50);
    let some = saving.check_agrees(&keyspace, "1000 known, 4 new, 0 garbage, 0 unverified");
    assert_eq!(some.objects, 1);
    assert!(some.facts.new_bytes * 10 < first.facts.new_bytes, "{}", some.facts.new_bytes);
    // The log of two bases, one behind the other.
    keyspace.write(&[("/c", true)], 50);
    saving.check_agrees(&keyspace, "1004 known, 1 new, 0 garbage, 0 unverified");
}

#[test]
fn what_compaction_removed_is_dead() {
    let saving = Saving::new();
    let mut keyspace = a_keyspace(1000);
    saving.save(&keyspace);
    let mut write = |n| keyspace.write(&[(&format!("/registry/pods/{n}"), false)], 50);
    (0..10).chain(40..80).for_each(&mut write);
    keyspace.compact(900);
    let living = keyspace.records.len();
    let want = format!("{} known, 50 new, 0 garbage, 0 unverified", living - 50);
    let written = saving.check_agrees(&keyspace, &want);
    assert_eq!(written.objects, 1);
    // The pack is mostly dead now: what lives of it is written anew.
    keyspace.compact(keyspace.revision);
    let living = keyspace.records.len();
    let want = format!("{living} known, 0 new, 0 garbage, 0 unverified");
    assert_eq!(saving.check_agrees(&keyspace, &want).objects, 1);
    assert_eq!(saving.check_agrees(&keyspace, &want).objects, 0);
}

#[test]
fn what_was_compacted_before_anybody_saw_it_is_counted() {
    let saving = Saving::new();
    let mut keyspace = a_keyspace(300);
    saving.save(&keyspace);
    let before = keyspace.clone();
    keyspace.write(&[("/registry/pods/3", true), ("/registry/pods/4", false)], 50);
    keyspace.write(&[("/new", false)], 50);
    keyspace.compact(keyspace.revision);
    keyspace.write(&[("/newer", false)], 50);
    let living = keyspace.records.len();
    let known = keyspace.records.keys().filter(|key| before.records.contains_key(key)).count();
    let new = living - known;
    let want = format!("{known} known, {new} new, 0 garbage, 1 unverified");
    // What is left of the gap is no log.
    assert_eq!(saving.check_agrees(&keyspace, &want).objects, 2);
    let want = format!("{living} known, 0 new, 0 garbage, 0 unverified");
    saving.check_agrees(&keyspace, &want);
}

/// Members compact at their own pace: what one has still to remove, another has not any more.
#[test]
fn compactions_that_are_half_done_are_no_alarm() {
    for seed in 0..30 {
        let saving = Saving::new();
        let mut keyspace = a_keyspace(200);
        // At the compact revision lies a delete; whether it stays depends on etcd's version.
        keyspace.write(&[("/registry/pods/7", true)], 0);
        // etcd removes from the front, and may have come anywhere.
        let come = |seed: u64| move |revision: i64| revision < i64::from(noise(seed, 2)[1]) * 2;
        for step in 0..6_u64 {
            if step % 2 == 1 {
                let compact = keyspace.revision - i64::try_from(seed % 5 * 10).unwrap();
                keyspace.schedule(compact.max(keyspace.scheduled));
            }
            let mut member = keyspace.clone();
            if keyspace.scheduled > 0 {
                member.remove(seed % 2 == 0, come(seed * 100 + step));
            }
            let written = saving.save(&member);
            let agreed = matches!(written.comparison, Comparison::Agreed { .. });
            assert!(agreed || step == 0, "seed {seed}, step {step}: {:?}", written.comparison);
            // Garbage may be left out, and nothing else.
            let (mut want, mut got) = (member.clone(), saving.read(&written));
            want.remove(false, |_| true);
            let all = member.pairs();
            assert!(got.iter().all(|pair| all.contains(pair)));
            let kept = want.pairs();
            got.retain(|pair| kept.contains(pair));
            assert!(got == kept, "seed {seed}, step {step}");
            for n in 0..20 {
                let name = format!("/registry/pods/{}", (n * 7 + step) % 45);
                keyspace.write(&[(&name, n % 5 == 4), ("/lease", false)], 30);
            }
        }
    }
}

/// One record changed, dropped, added or moved, anywhere: an alarm, and everything is saved all the
/// same, as a history of its own.
#[test]
fn one_record_that_differs_is_an_alarm() {
    let mut keyspace = a_keyspace(60);
    keyspace.compact(30);
    let mut later = keyspace.clone();
    for n in 0..10 {
        later.write(&[(&format!("/registry/pods/{n}"), n == 3)], 50);
    }
    later.compact(50);
    let places: Vec<_> = later.records.keys().copied().collect();
    for place in &places {
        let mut changed = later.clone();
        let (name, value) = changed.records.get_mut(place).unwrap();
        if place.2 {
            name.push('x');
        } else {
            value.push(1);
        }
        let want = (place.0 <= keyspace.revision).then_some(ContradictionKind::Changed);
        check_alarm(&keyspace, &changed, place.0, want);

        let mut dropped = later.clone();
        dropped.records.remove(place);
        let newest = place.0 == later.revision;
        let want = match place.0 > keyspace.revision {
            // The last one is not missed by anybody: the revision is one less.
            true => (!newest).then_some(ContradictionKind::Hole),
            false => Some(ContradictionKind::Missing),
        };
        check_alarm(&keyspace, &dropped, place.0, want);

        let mut moved = later.clone();
        let record = moved.records.remove(place).unwrap();
        moved.records.insert((place.0, place.1 + 1, place.2), record);
        let want = match place.0 > keyspace.revision {
            true => ContradictionKind::Hole,
            false if place.0 > 50 => ContradictionKind::Missing,
            // For its key it is newer than the one that is gone.
            false => ContradictionKind::Added,
        };
        check_alarm(&keyspace, &moved, place.0, Some(want));
    }
    for revision in 2..=keyspace.revision {
        let mut added = later.clone();
        added.records.insert((revision, 9, false), ("/strange".to_owned(), vec![7]));
        check_alarm(&keyspace, &added, revision, Some(ContradictionKind::Added));
    }
}

fn check_alarm(
    before: &Keyspace,
    after: &Keyspace,
    revision: i64,
    want: Option<ContradictionKind>,
) {
    let saving = Saving::new();
    let first = saving.save(before);
    let written = saving.save(after);
    let got = match written.comparison {
        Comparison::Contradicted { contradiction, .. } => Some(contradiction.kind),
        _ => None,
    };
    assert_eq!(got, want, "revision {revision}");
    if got.is_some() {
        assert_ne!(written.facts.timeline, first.facts.timeline);
    }
    assert!(saving.read(&written) == after.pairs());
    // What comes next goes on from there.
    let Comparison::Agreed { .. } = saving.save(after).comparison else { panic!("{revision}") };
}

#[test]
fn without_its_table_a_base_is_written_in_full() {
    let saving = Saving::new();
    let keyspace = a_keyspace(300);
    let first = saving.save(&keyspace);
    let table = std::fs::read_dir(saving.spool.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&table).unwrap();
    let check = |why: &str| {
        let written = saving.save(&keyspace);
        let Comparison::Unknown { reason } = &written.comparison else { panic!("{why}") };
        assert!(reason.contains(why), "{reason}");
        assert_eq!(written.facts.new_bytes, first.facts.new_bytes);
        assert_eq!(written.facts.timeline, first.facts.timeline);
        assert!(saving.read(&written) == keyspace.pairs());
    };
    std::fs::remove_file(&table).unwrap();
    check("this host has not saved this cluster yet");
    std::fs::write(&table, &whole[1..]).unwrap();
    check("the digest table was changed");
    // A base that is gone takes nothing with it that others are made of.
    saving.archive.store().remove(&first.name).unwrap();
    std::fs::write(&table, &whole).unwrap();
    check("is not in the archive");
}

#[test]
fn what_the_archive_has_lost_is_written_again() {
    let saving = Saving::new();
    let mut keyspace = a_keyspace(300);
    saving.save(&keyspace);
    keyspace.write(&[("/a", false)], 50);
    saving.save(&keyspace);
    let store = saving.archive.store().clone();
    for kind in [".seg", ".pack"] {
        let found = store.list("timelines").unwrap();
        found.iter().filter(|found| found.name.ends_with(kind)).for_each(|found| {
            store.remove(&found.name).unwrap();
        });
        let written = saving.save(&keyspace);
        let Comparison::Unknown { reason } = &written.comparison else { panic!("{kind}") };
        assert!(reason.contains("the archive has lost"), "{reason}");
        assert!(saving.read(&written) == keyspace.pairs());
        keyspace.write(&[("/a", false)], 50);
        saving.save(&keyspace);
    }
}

/// Sixty bases, one after the other, with compaction every five: what is dead goes, and few small
/// objects stay.
#[test]
fn many_bases_stay_small() {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    for n in 0..200 {
        keyspace.write(&[(&format!("/registry/leases/{n}"), false)], 100);
    }
    saving.save(&keyspace);
    for round in 0..60 {
        let before = keyspace.revision;
        for n in 0..200 {
            keyspace.write(&[(&format!("/registry/leases/{n}"), false)], 100);
        }
        if round % 5 == 4 {
            keyspace.compact(before);
        }
        let written = saving.save(&keyspace);
        assert!(matches!(written.comparison, Comparison::Agreed { .. }));
        assert!(saving.read(&written) == keyspace.pairs(), "round {round}");
        let listing = saving.archive.list().unwrap();
        let entry = listing.bases.iter().find(|entry| entry.name == written.name).unwrap();
        let base = read_base(&saving.archive, entry).unwrap();
        assert!(base.parts.len() <= 20, "round {round}: {} parts", base.parts.len());
        let stored: u64 = base.parts.iter().map(|part| part.records).sum();
        assert!(stored <= 3 * written.facts.records, "round {round}: {stored}");
    }
}
