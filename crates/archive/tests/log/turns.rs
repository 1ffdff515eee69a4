//! Whose turn it is to write the log, and what is written in it.

use crate::following::{Following, a_place, save, save_first, segments};
use crate::keyspaces::{CLUSTER, HOST, cut, revision, witness};
use crate::keyspaces::{Keyspace, a_spool, advance, now, now_is, verdict};
use object_store::memory::InMemory;
use rekindle_archive::StoreFaultKind;
use rekindle_archive::format::ObjectId;
use rekindle_archive::format::segment::LeaseGrant;
use rekindle_archive::{
    Archive, Change, Cutter, Error, Merging, Policy, PruneRequest, Store, plan_prune, read_base,
};
use rekindle_bolt::Db;
use rekindle_etcd::{KeyValue, Lease, schema};
use rekindle_testkit::fault_store::{Fault, FaultStore, When};
use std::sync::Arc;

#[test]
fn the_turn_is_one_writers_at_a_time() {
    let mut following = Following::new();
    let archive = following.saving.archive.clone();
    let timeline = following.writer.timeline();
    let seen = archive.activity(timeline).unwrap();
    assert_eq!(seen.claim.as_ref().unwrap().host, "here");
    following.write(3);
    let first = cut(&following.keyspace, following.end + 1, following.end + 2);
    following.writer.append(&first, now()).unwrap();
    let later = archive.activity(timeline).unwrap();
    assert_ne!(later, seen, "who writes is not silent");
    assert_eq!(archive.activity(timeline).unwrap(), later);

    // Another one claims the turn while this one has something on its way.
    let other = ObjectId([8; 16]);
    let mut theirs = archive.claim(timeline, other, "there", now()).unwrap();
    let second = cut(&following.keyspace, following.end + 3, following.end + 3);
    for _ in 0..2 {
        let refused = following.writer.append(&second, now()).unwrap_err();
        assert!(matches!(&refused, Error::Overtaken { host, .. } if host == "there"), "{refused}");
    }
    let end = archive.log_end(CLUSTER).unwrap().unwrap();
    assert!(end.last.get() >= following.end + 2, "what was called written is there");
    theirs.append(&second, now()).unwrap();
    assert_eq!(archive.log_end(CLUSTER).unwrap().unwrap().last.get(), following.end + 3);
    let claim = archive.activity(timeline).unwrap().claim.unwrap();
    assert_eq!((claim.writer, claim.epoch.0), (other, 2));
    let verdict = verdict(&archive, now_is()).unwrap();
    assert!(verdict.findings.is_empty(), "claims are no rubbish: {:?}", verdict.findings);
}

/// Two agents that begin at once: the second one's snapshot was taken while the first one's base and log came. It knew
/// nothing of them, and once began a history of its own.
#[test]
fn two_that_begin_at_once_begin_one_history() {
    let mut following = Following::new();
    let archive = following.saving.archive.clone();
    let mut theirs = following.keyspace.clone();
    theirs.write(&[("/key/1", false)], 200);
    following.keyspace = theirs.clone();
    following.write(5);
    following.follow();
    let tables = a_spool();
    let refused = save_first(&archive, &theirs, tables.path()).unwrap_err();
    assert!(matches!(&refused, Error::Overtaken { host, .. } if host == "here"), "{refused}");
    let timelines = archive.store().list("timelines").unwrap();
    let timelines = timelines.iter().filter(|it| it.name.ends_with("/timeline.json"));
    assert_eq!(timelines.count(), 1);
    // Where there is nothing yet, it is the one that begins.
    let empty = Archive::init_unencrypted(Store::memory().unwrap(), now()).unwrap();
    save_first(&empty, &theirs, tables.path()).unwrap();
}

#[test]
fn claims_of_which_one_cannot_be_read() {
    let following = Following::new();
    let (archive, timeline) = (&following.saving.archive, following.writer.timeline());
    let name = format!("timelines/{timeline}/writers/{:020}.json", 2);
    archive.store().create(&name, b"{}".to_vec()).unwrap();
    // Whoever it is: somebody has the turn.
    let refused = following.writer.check_turn().unwrap_err();
    assert!(matches!(refused, Error::Overtaken { .. }), "{refused}");
    assert!(matches!(archive.activity(timeline), Err(Error::Json { .. })));
    let writer = archive.claim(timeline, HOST, "here", now()).unwrap();
    writer.check_turn().unwrap();
}

/// What tells that nothing had come is kept as long as the log is, and is in nobody's way.
#[test]
fn heartbeats() {
    let mut following = Following::new();
    following.write(5);
    following.follow();
    let archive = following.saving.archive.clone();
    let mut idle = Cutter::new(revision(following.end + 1));
    for _ in 0..3 {
        let beat = idle.cut(witness(), now()).unwrap();
        following.writer.append(&beat, now()).unwrap();
    }
    let end = archive.log_end(CLUSTER).unwrap().unwrap();
    assert_eq!(end.last.get(), following.end);
    let verdict = verdict(&archive, now_is()).unwrap();
    assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
    let segments = |archive: &Archive| {
        let listed = archive.store().list("timelines").unwrap();
        listed.into_iter().filter(|it| it.name.ends_with(".seg")).count()
    };
    assert_eq!(segments(&archive), 2, "only the last one says anything");
    let grace = 1000;
    let prune = |log| {
        let policy = Policy { log: Some(log), last: 1, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap()
    };
    prune(3_600_000);
    assert_eq!(segments(&archive), 2, "the log is kept");
    following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    advance(7_200_000);
    assert_eq!(prune(3_600_000).marked, 1, "the base needs what has records");
}

#[test]
fn leases_of_the_log_come_back() {
    let mut following = Following::new();
    following.write(2);
    let mut cutter = Cutter::new(revision(following.end + 1));
    let kv = KeyValue { key: b"leased", lease: 77, ..KeyValue::default() };
    cutter.add(&[Change { kv, is_delete: false }], now()).unwrap();
    cutter.add_lease(LeaseGrant { id: 77, ttl_s: 600 });
    let mut merging = Merging::default();
    let archive = following.saving.archive.clone();
    for cut in [cutter.cut(witness(), now()).unwrap(), {
        let kv = KeyValue { key: b"leased", lease: 77, ..KeyValue::default() };
        cutter.add(&[Change { kv, is_delete: false }], now()).unwrap();
        cutter.cut(witness(), now()).unwrap()
    }] {
        following.journal.add(&cut).unwrap();
        let written = following.writer.append(&cut, now()).unwrap();
        merging.wrote(following.journal.newest().unwrap().clone(), written);
    }
    let check = |archive: &Archive| {
        let entry = archive.list().unwrap().bases.pop().unwrap();
        let base = read_base(archive, &entry).unwrap();
        let behind = archive.following(&entry).unwrap();
        let (base, _) = behind.up_to(base, revision(following.end + 1)).unwrap();
        let frame = Db::open(base.frame.as_slice()).unwrap();
        let bucket = frame.bucket(&frame.root(), schema::LEASE).unwrap().unwrap();
        let lease = Lease { id: 77, ttl_s: 600 };
        assert_eq!(frame.get(&bucket, &lease.key()).unwrap(), Some(lease.to_bytes()));
    };
    check(&archive);
    advance(600_000);
    let merge = merging.due(now_is()).unwrap();
    assert_eq!(following.writer.merger().merge(&merge, now).unwrap().objects(), 1);
    let small: Vec<_> = segments(&archive).into_iter().filter(|it| it.contains("/0/")).collect();
    assert_eq!(small.len(), 2);
    small.iter().for_each(|name| archive.store().remove(name).unwrap());
    check(&archive);
}

/// It was created, and whether it was still this one's turn could not be asked: once it is asked again, it is that segment,
/// and no second one.
#[test]
fn what_was_created_is_not_created_again() {
    let mut following = Following::new();
    let faulty = FaultStore::new(Arc::new(InMemory::new()));
    let store = Store::from_objects(faulty.clone(), "place").unwrap();
    following.saving.archive = Archive::init_unencrypted(store, now()).unwrap();
    let base = following.saving.save(&following.keyspace);
    let archive = following.saving.archive.clone();
    let mut writer = archive.claim(base.facts.timeline, HOST, "here", now()).unwrap();
    following.write(1);
    let cut = cut(&following.keyspace, following.end + 1, following.end + 1);
    // The first operation creates it.
    faulty.fail(Fault::Error, When::From(faulty.operations() + 2));
    writer.append(&cut, now()).unwrap_err();
    faulty.heal();
    writer.append(&cut, now()).unwrap();
    let listed = archive.store().list("timelines").unwrap();
    assert_eq!(listed.iter().filter(|it| it.name.ends_with(".seg")).count(), 1, "{listed:?}");
}

/// A segment went into a directory that had the name of the archive while that was away; when it was back,
/// the segment was called written, for it had been created.
#[test]
fn a_segment_that_went_elsewhere_is_not_called_written() {
    let directory = a_spool();
    let place = directory.path().join("archive");
    std::fs::create_dir(&place).unwrap();
    let store = Store::directory(&place).unwrap();
    let archive = Archive::init_unencrypted(store, now()).unwrap();
    let mut keyspace = Keyspace::new();
    (0..9).for_each(|_| keyspace.write(&[("k", false)], 10));
    let base = save(&archive, &keyspace, directory.path(), None).unwrap();
    let mut writer = archive.claim(base.facts.timeline, HOST, "here", now()).unwrap();
    let away = directory.path().join("away");
    std::fs::rename(&place, &away).unwrap();
    keyspace.write(&[("k", false)], 10);
    let cut = cut(&keyspace, 11, 11);
    let refused = writer.append(&cut, now()).unwrap_err();
    let is_unmounted =
        matches!(&refused, Error::Store(fault) if fault.kind == StoreFaultKind::Unmounted);
    assert!(is_unmounted && !place.exists(), "{refused}");
    // One that has the name of the archive, and is not it.
    std::fs::create_dir(&place).unwrap();
    writer.append(&cut, now()).unwrap_err();
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    std::fs::remove_dir(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    writer.append(&cut, now()).unwrap();
    assert_eq!(archive.log_end(CLUSTER).unwrap().unwrap().last.get(), 11);
}

/// Where a mount is gone, a directory takes its name, and once took bases, which were called written.
#[test]
fn a_base_that_went_elsewhere_is_not_called_written() {
    let (directory, place, saving) = a_place();
    let mut following = Following::into(saving);
    let away = directory.path().join("away");
    std::fs::rename(&place, &away).unwrap();
    following.write(3);
    let archive = following.saving.archive.clone();
    for _ in 0..2 {
        let refused = following.try_save(&following.keyspace, None).unwrap_err();
        assert!(matches!(refused, Error::NoArchive { .. }), "{refused}");
        assert!(matches!(archive.log_end(CLUSTER), Err(Error::NoArchive { .. })));
        let timeline = following.writer.timeline();
        assert!(matches!(
            archive.claim(timeline, HOST, "here", now()),
            Err(Error::NoArchive { .. })
        ));
        assert!(matches!(following.writer.check_turn(), Err(Error::ClaimGone { .. })));
        std::fs::create_dir_all(&place).unwrap();
    }
    // Another archive's directory is no better.
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir(&place).unwrap();
    Archive::init_unencrypted(Store::directory(&place).unwrap(), now()).unwrap();
    let refused = following.try_save(&following.keyspace, None).unwrap_err();
    assert!(matches!(refused, Error::Stranger { .. }), "{refused}");
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    following.writer.check_turn().unwrap();
    following.try_save(&following.keyspace, None).unwrap();
}

/// Whoever has the turn and nothing to write is not taken for silent, and leaves nothing behind.
#[test]
fn signs_of_life() {
    let mut following = Following::new();
    let (archive, timeline) = (following.saving.archive.clone(), following.writer.timeline());
    let mut seen = archive.activity(timeline).unwrap();
    for _ in 0..3 {
        following.writer.show_life().unwrap();
        let now = archive.activity(timeline).unwrap();
        assert_ne!(now, seen);
        seen = now;
    }
    let listed = archive.store().list("timelines").unwrap().into_iter();
    assert_eq!(listed.filter(|it| it.name.ends_with(".alive")).count(), 1);
    let verdict = verdict(&archive, now_is()).unwrap();
    assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
    archive.claim(timeline, ObjectId([8; 16]), "there", now()).unwrap();
    assert!(matches!(following.writer.show_life(), Err(Error::Overtaken { .. })));
}
