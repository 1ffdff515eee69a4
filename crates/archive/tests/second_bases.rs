//! Bases after the first: they share what is the same, and notice what contradicts.

mod keyspaces;

use keyspaces::{Keyspace, Saving, now};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    BaseRequest, Comparison, ContradictionKind, Error, Origin, Progress, prepare_base, read_base,
};
use rekindle_etcd::{ClusterId, MemberId};
use rekindle_testkit::content::noise;
use std::sync::atomic::{AtomicBool, AtomicU64};

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
    let table = saving.table();
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

fn a_member() -> Origin {
    let (cluster, member) = (ClusterId(1), MemberId(2));
    Origin { cluster, member, etcd: String::new(), state: now(), current: true }
}

/// A save that was interrupted once found its cluster guilty of what had not been looked at yet.
#[test]
fn what_was_cut_off_contradicts_nothing() {
    let saving = Saving::new();
    let mut keyspace = a_keyspace(1000);
    saving.save(&keyspace);
    keyspace.write(&[("/new", false)], 50);
    let origin = a_member();
    let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(true) };
    let (archive, tables, now) = (&saving.archive, Some(saving.spool.path()), now());
    let now = || now;
    let request = BaseRequest { tables, ..BaseRequest::new(archive, &origin, &now, progress) };
    let stopped = prepare_base(&request, &keyspace.backend()).err().expect("it was stopped");
    assert!(matches!(stopped, Error::Stopped), "{stopped}");
    let found = archive.store().list("timelines").unwrap();
    let timelines = found.iter().filter(|it| it.name.ends_with("timeline.json")).count();
    assert_eq!(timelines, 1, "{found:?}");
    saving.save_agrees(&keyspace);
}

/// A prune does not know of a base that is being made: what that shares may be gone when it is published. And who took so
/// long that a prune could have begun and ended meanwhile publishes nothing.
#[test]
fn a_base_is_published_only_with_all_that_it_shares_and_in_time() {
    let saving = Saving::new();
    let mut keyspace = a_keyspace(300);
    saving.save(&keyspace);
    keyspace.write(&[("/new", false)], 50);
    let origin = a_member();
    let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let (archive, tables, began) = (&saving.archive, Some(saving.spool.path()), now());
    let clock = || began;
    let request = BaseRequest { tables, ..BaseRequest::new(archive, &origin, &clock, progress) };
    let bases = || archive.list().unwrap().bases.len();

    let prepared = prepare_base(&request, &keyspace.backend()).unwrap();
    let late = Moment(began.0 + 12 * 60 * 60 * 1000 + 1);
    let late = prepared.publish(late).unwrap_err();
    assert!(matches!(late, Error::TooLate), "{late}");
    assert_eq!(bases(), 1);

    let prepared = prepare_base(&request, &keyspace.backend()).unwrap();
    let packs = archive.store().list("timelines").unwrap().into_iter();
    let pack = packs.map(|found| found.name).find(|name| name.ends_with(".pack")).unwrap();
    archive.store().remove(&pack).unwrap();
    let vanished = prepared.publish(now()).unwrap_err();
    assert!(matches!(vanished, Error::Vanished { .. }), "{vanished}");
    assert_eq!(bases(), 1, "it is withdrawn");
}

/// Older bases that are damaged keep nobody from saving, and what they lack is not built upon.
#[test]
fn a_damaged_archive_gets_whole_bases() {
    let saving = Saving::new();
    let mut keyspace = a_keyspace(300);
    saving.save(&keyspace);
    keyspace.write(&[("/new", false)], 50);
    saving.save_agrees(&keyspace);
    let store = saving.archive.store().clone();
    let bases = saving.archive.list().unwrap().bases;
    store.remove(&bases[0].name).unwrap();
    store.create(&bases[0].name, b"rekindle".to_vec()).unwrap();
    keyspace.write(&[("/newer", false)], 50);
    // The oldest is none of its business.
    let written = saving.save(&keyspace);
    assert!(matches!(written.comparison, Comparison::Agreed { .. }), "{:?}", written.comparison);
    assert!(saving.read(&written) == keyspace.pairs());
    let segments: Vec<_> = store.list("timelines").unwrap();
    let segment = segments.iter().find(|it| it.name.ends_with(".seg")).unwrap();
    let bytes = store.read(&segment.name, segment.bytes).unwrap();
    let table = std::fs::read(saving.table()).unwrap();
    for changed in [bytes.slice(..bytes.len() - 1).to_vec(), [&bytes[..], b"x"].concat()] {
        std::fs::write(saving.table(), &table).unwrap();
        store.remove(&segment.name).unwrap();
        store.create(&segment.name, changed).unwrap();
        let written = saving.save(&keyspace);
        let Comparison::Unknown { reason } = &written.comparison else {
            panic!("{:?}", written.comparison)
        };
        assert!(reason.contains(&segment.name), "{reason}");
        assert!(saving.read(&written) == keyspace.pairs());
    }
}
