//! Erasing records: they are gone everywhere, the rest is as it was, and nothing says that it is whole.

mod again;
#[path = "../keyspaces/mod.rs"]
mod keyspaces;
mod refused;

use keyspaces::{
    Keyspace, Pairs, Saving, advance, all_of, forget, forget_in, now, now_is, read_back, verdict,
};
use rekindle_archive::{
    Archive, Comparison, ForgetRequest, Forgot, Forgotten, GRACE, Identity, Level, Policy,
    Protection, PruneRequest, Sealing, Store, Transfer, VerifyProgress, VerifyRequest, Word,
    plan_forget, plan_prune, read_base,
};
use rekindle_etcd::{KeyValue, Revision};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};

const HOUR: i64 = 3_600_000;
/// In a block of noise, which does not compress, it stands as it is.
const CANARY: &str = "/secret/4711-a-canary";

/// Bases of a keyspace with secrets: packs, ranges of the log, dead records, small packs.
fn some_history(saving: &Saving) -> (Keyspace, BTreeMap<i64, Pairs>) {
    let (mut keyspace, mut points) = (Keyspace::new(), BTreeMap::new());
    for round in 0..9 {
        let before = keyspace.revision;
        for n in 0..20 {
            keyspace.write(&[(&format!("/key/{n}"), n == 7)], 300);
        }
        if round % 4 != 3 {
            keyspace.write(&[("/key/0", false), (CANARY, round == 6), ("/secret/2", false)], 50);
            keyspace.write(&[("/secretly", false)], 50);
        }
        if round % 3 == 2 {
            keyspace.compact(before);
        }
        saving.save(&keyspace);
        points.insert(keyspace.revision, keyspace.pairs());
        advance(HOUR);
    }
    (keyspace, points)
}

/// Every restore point gives what it gave, but for what was forgotten, and is proven.
fn check_points(archive: &Archive, points: &BTreeMap<i64, Pairs>, forgotten: &str) {
    let bases = archive.list().unwrap().bases;
    assert_eq!(bases.len(), points.len());
    for entry in &bases {
        let facts = &entry.header.facts;
        let whole = &points[&facts.last.get()];
        let mut want = whole.clone();
        forget_in(&mut want, forgotten);
        assert!(read_back(archive, entry).unwrap() == want, "revision {}", facts.last);
        let is_erased = |(_, value): &&(Vec<u8>, Vec<u8>)| {
            KeyValue::parse(value).unwrap().key.starts_with(forgotten.as_bytes())
        };
        let erased = whole.iter().filter(is_erased).count() as u64;
        assert_eq!(read_base(archive, entry).unwrap().erased, erased);
        assert_eq!(facts.erased, erased > 0);
        assert_eq!(facts.records, want.len() as u64);
        let bytes: usize = want.iter().map(|(_, value)| value.len()).sum();
        assert!(facts.logical_bytes >= bytes as u64);
    }
    let verdict = verdict(archive, now_is()).unwrap();
    let harmless = |word: &Word| matches!(word, Word::Uploading | Word::Orphan);
    assert!(verdict.findings.iter().all(|it| harmless(&it.word)), "{:?}", verdict.findings);
    let proven = |level: &Option<Level>| *level == Some(Level::Proven);
    assert!(verdict.points.iter().all(|point| proven(&point.level)), "{:?}", verdict.points);
}

/// Lets everything go that nobody needs.
fn prune(archive: &Archive) {
    let policy = Policy { last: 1000, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 1000, grace: 0, now: now_is() };
    for _ in 0..2 {
        assert_eq!(plan_prune(archive, &request).unwrap().carry_out(archive).unwrap().held, []);
    }
}

/// Whether any object has these bytes, as they are.
fn is_anywhere(archive: &Archive, bytes: &[u8]) -> bool {
    let store = archive.store();
    let found = store.list("timelines").unwrap();
    let mut objects = found.iter().map(|it| store.read(&it.name, it.bytes).unwrap());
    objects.any(|object| object.windows(bytes.len()).any(|window| window == bytes))
}

fn plan_points(archive: &Archive, what: &Forgotten) -> Vec<(i64, u64, u64)> {
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let plan = plan_forget(archive, &ForgetRequest { what, now: &now, progress }).unwrap();
    let point = |it: &rekindle_archive::ForgetPoint| {
        (it.entry.header.facts.last.get(), it.records, it.keys)
    };
    plan.points().map(point).collect()
}

#[test]
fn what_is_forgotten_is_gone_everywhere() {
    let saving = Saving::new();
    let (mut keyspace, points) = some_history(&saving);
    assert!(is_anywhere(&saving.archive, CANARY.as_bytes()), "the test sees what is there");
    let what = all_of("/secret/");
    let done = forget(&saving.archive, &what, &now).unwrap();
    assert_eq!((done.bases, done.held.len()), (9, 0));
    assert!(done.packs > 0 && done.marked > 4, "{done:?}");
    check_points(&saving.archive, &points, "/secret/");
    assert!(is_anywhere(&saving.archive, CANARY.as_bytes()), "until the grace is over");
    prune(&saving.archive);
    assert!(!is_anywhere(&saving.archive, CANARY.as_bytes()));
    check_points(&saving.archive, &points, "/secret/");
    assert_eq!(verdict(&saving.archive, now_is()).unwrap().findings, [], "nothing is left over");

    // Once more there is nothing to do.
    assert_eq!(plan_points(&saving.archive, &what), []);
    assert_eq!(forget(&saving.archive, &what, &now).unwrap(), Forgot::default());

    // The host's table is of a base that is gone. What the cluster still has comes back with the next.
    keyspace.write(&[("/late", false)], 10);
    let full = saving.save(&keyspace);
    assert!(matches!(full.comparison, Comparison::Unknown { .. }), "{:?}", full.comparison);
    assert!(saving.read(&full) == keyspace.pairs());
    keyspace.write(&[("/later", false)], 10);
    saving.save_agrees(&keyspace);
    assert_eq!(forget(&saving.archive, &what, &now).unwrap().bases, 2);
}

/// One thing after another, and what is left of the first is not brought back by the second.
#[test]
fn forgetting_again() {
    let saving = Saving::new();
    let (_, mut points) = some_history(&saving);
    for (prefix, objects) in [("/key/1", true), ("/secretly", true), ("/nothing", false)] {
        let done = forget(&saving.archive, &all_of(prefix), &now).unwrap();
        assert_eq!(done.packs > 0, objects, "{prefix}: {done:?}");
        points.values_mut().for_each(|pairs| forget_in(pairs, prefix));
    }
    for pruned in [false, true] {
        for entry in saving.archive.list().unwrap().bases {
            let want = &points[&entry.header.facts.last.get()];
            let read = read_back(&saving.archive, &entry).unwrap();
            assert!(read == *want, "revision {}, pruned {pruned}", entry.header.facts.last);
        }
        prune(&saving.archive);
    }
}

/// Old versions of a key may go, and the one that is in use stay.
#[test]
fn versions_up_to_a_revision() {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    for value in 0..4 {
        keyspace.write(&[("/password", false), ("/password2", false)], 40 + value);
        saving.save(&keyspace);
        advance(HOUR);
    }
    // Revisions 2 to 5, one a base.
    let to = Revision::new(3);
    let what = Forgotten { key: b"/password".to_vec(), prefix: false, to };
    assert_eq!(plan_points(&saving.archive, &what), [(2, 1, 1), (3, 2, 1), (4, 2, 0), (5, 2, 0)]);
    forget(&saving.archive, &what, &now).unwrap();
    let keys = |pairs: Pairs| -> Vec<(Vec<u8>, i64)> {
        let kv = |(_, value): &(Vec<u8>, Vec<u8>)| {
            let kv = KeyValue::parse(value).unwrap();
            (kv.key.to_vec(), kv.mod_revision)
        };
        pairs.iter().map(kv).collect()
    };
    let bases = saving.archive.list().unwrap().bases;
    let last = keys(read_back(&saving.archive, &bases[3]).unwrap());
    let want = [("/password2", 2), ("/password2", 3), ("/password", 4), ("/password2", 4)];
    let want = want.into_iter().chain([("/password", 5), ("/password2", 5)]);
    assert_eq!(last, want.map(|(key, at)| (key.into(), at)).collect::<Vec<_>>());
}

/// A restored etcd would begin at an earlier revision if the last record were none.
#[test]
fn the_last_record_keeps_its_revision() {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    keyspace.write(&[("/kept", false)], 40);
    keyspace.write(&[("/kept", false), ("/secret/", false), ("/secret/", true)], 40);
    saving.save(&keyspace);
    let points = BTreeMap::from([(keyspace.revision, keyspace.pairs())]);
    forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    check_points(&saving.archive, &points, "/secret/");
    let entry = saving.archive.list().unwrap().bases.remove(0);
    let pairs = read_back(&saving.archive, &entry).unwrap();
    assert_eq!(pairs.last().unwrap(), &(points[&3].last().unwrap().0.clone(), Vec::new()));
    let base = read_base(&saving.archive, &entry).unwrap();
    assert!(!base.frame.windows(8).any(|window| window == b"/secret/"), "the frame has it, too");
}

/// All of it.
#[test]
fn nothing_is_left_but_the_last_record() {
    let saving = Saving::new();
    let (_, points) = some_history(&saving);
    forget(&saving.archive, &all_of("/"), &now).unwrap();
    prune(&saving.archive);
    check_points(&saving.archive, &points, "/");
}

#[test]
fn somebody_saves_meanwhile() {
    let saving = Saving::new();
    let (mut keyspace, _) = some_history(&saving);
    keyspace.write(&[("/late", false)], 10);
    let what = all_of("/secret/");
    // It shares data that are forgotten while it is being made: they are there still, and it is whole.
    let late = saving.prepare_between(&keyspace, || drop(forget(&saving.archive, &what, &now)));
    let late = late.unwrap();
    assert!(saving.read(&late) == keyspace.pairs());
    // A prune whose grace is over does not take them from it.
    prune(&saving.archive);
    assert!(saving.read(&late) == keyspace.pairs());
    assert_eq!(forget(&saving.archive, &what, &now).unwrap().bases, 1);
    prune(&saving.archive);
    assert!(!is_anywhere(&saving.archive, CANARY.as_bytes()));
    assert_eq!(verdict(&saving.archive, now_is()).unwrap().findings, []);
}

#[test]
fn what_is_sealed_is_forgotten_by_its_owners() {
    let owner = Identity::generate();
    let protection = Protection { sealing: Sealing::To(vec![owner.public()]), signers: Vec::new() };
    let archive = Archive::init(Store::memory().unwrap(), now_is(), &protection).unwrap();
    let mut saving = Saving::new();
    saving.archive = archive;
    let mut keyspace = Keyspace::new();
    keyspace.write(&[("/secret/1", false), ("/kept", false)], 100);
    saving.save(&keyspace);
    let what = all_of("/secret/");
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let request = ForgetRequest { what: &what, now: &now, progress };
    let refused = plan_forget(&saving.archive, &request).unwrap_err();
    assert!(refused.to_string().contains("sealed"), "{refused}");
    let archive = saving.archive.clone().with_identities(&[owner]).unwrap();
    forget(&archive, &what, &now).unwrap();
    check_points(&archive, &BTreeMap::from([(2, keyspace.pairs())]), "/secret/");
}

/// A copy that comes every night does not bring back what was erased in the place of the copy.
#[test]
fn a_copy_does_not_bring_back_what_was_forgotten() {
    let saving = Saving::new();
    let (mut keyspace, _) = some_history(&saving);
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let copied = saving.archive.begin_copy(Store::memory().unwrap()).unwrap();
    let copy = || {
        let request = VerifyRequest { level: Level::Listed, only: None, now: now_is() };
        let transfer = Transfer::copy(&saving.archive, copied.store(), &request).unwrap();
        transfer.run(progress).unwrap()
    };
    assert_eq!(copy().left, []);
    forget(&copied, &all_of("/secret/"), &now).unwrap();
    prune(&copied);
    let left = copy().left;
    assert_eq!(left.len(), 9, "{left:?}");
    assert!(left.iter().all(|it| it.reason.contains("erased there")), "{left:?}");
    assert!(!is_anywhere(&copied, CANARY.as_bytes()));
    // What is new comes over, if it has none of it.
    forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    keyspace.records.retain(|_, (name, _)| !name.starts_with("/secret/"));
    keyspace.write(&[("/new", false)], 10);
    saving.save(&keyspace);
    let last = saving.archive.list().unwrap().bases.pop().unwrap();
    let done = copy();
    assert!(done.objects > 0, "{done:?}");
    assert!(copied.list().unwrap().bases.contains(&last));
    assert!(!is_anywhere(&copied, CANARY.as_bytes()));
}

fn names(archive: &Archive, end: &str) -> Vec<String> {
    let found = archive.store().list("timelines").unwrap();
    found.into_iter().map(|it| it.name).filter(|name| name.ends_with(end)).collect()
}

fn check_sound(archive: &Archive) {
    let verdict = verdict(archive, now_is()).unwrap();
    assert!(verdict.points.iter().all(|it| it.level == Some(Level::Proven)), "{verdict:?}");
    assert!(!verdict.has(Word::Lost), "{verdict:?}");
}

/// Two hosts: a segment of one reaches over those of the other, and a base that takes none of the
/// secret takes part of that segment.
#[test]
fn segments_that_reach_over_others() {
    let (saving, other) = (Saving::new(), keyspaces::a_spool());
    let mut keyspace = Keyspace::new();
    keyspace.write(&[("/key", false)], 50);
    for spool in [saving.spool.path(), other.path()] {
        saving.try_save(&keyspace, Some(spool)).unwrap();
        advance(HOUR);
    }
    for changes in [&[(CANARY, false)][..], &[(CANARY, true)]] {
        keyspace.write(changes, 200);
        (0..3).for_each(|_| keyspace.write(&[("/key", false)], 50));
        saving.save(&keyspace);
        advance(HOUR);
    }
    saving.try_save(&keyspace, Some(other.path())).unwrap();
    advance(HOUR);
    keyspace.compact(keyspace.revision - 1);
    keyspace.write(&[("/key", false)], 50);
    saving.save(&keyspace);
    advance(HOUR);
    let done = forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    assert!(done.held.is_empty());
    check_sound(&saving.archive);
    prune(&saving.archive);
    check_sound(&saving.archive);
    assert!(!is_anywhere(&saving.archive, CANARY.as_bytes()));
    assert_eq!(forget(&saving.archive, &all_of("/secret/"), &now).unwrap(), Forgot::default());
}

/// A range of the log in several segments, and the secret at both ends of each.
#[test]
fn a_range_of_several_segments() {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    keyspace.write(&[("/key", false)], 50);
    saving.save(&keyspace);
    advance(HOUR);
    for n in 0..40 {
        let names = [format!("/secret/{n}"), format!("/key/{}", n % 7)];
        keyspace.write(&[(&names[0], n % 9 == 8), (&names[1], false)], 1 << 19);
    }
    saving.save_agrees(&keyspace);
    assert!(names(&saving.archive, ".seg").len() > 2);
    let before = keyspace.pairs();
    advance(HOUR);
    keyspace.compact(20);
    saving.save_agrees(&keyspace);
    let points = [(before.len(), before), (keyspace.pairs().len(), keyspace.pairs())];
    forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    prune(&saving.archive);
    check_sound(&saving.archive);
    let bases = saving.archive.list().unwrap().bases;
    for (entry, (_, mut want)) in bases[1..].iter().zip(points) {
        forget_in(&mut want, "/secret/");
        assert!(read_back(&saving.archive, entry).unwrap() == want);
        // What is gone counts no more: half of it was the secret's.
        let bytes: usize = want.iter().map(|(_, value)| value.len()).sum();
        let logical = entry.header.facts.logical_bytes;
        assert!(
            (bytes as u64..bytes as u64 + (1 << 17)).contains(&logical),
            "{logical} of {bytes}"
        );
    }
    assert_eq!(names(&saving.archive, ".seg"), Vec::<String>::new());
}

/// Whoever came too late needs what was marked; it waits for its whole grace again.
#[test]
fn marks_begin_anew_when_somebody_needed_what_they_name() {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    (0..20).for_each(|n| keyspace.write(&[(&*format!("/key/{n}"), false), (CANARY, false)], 100));
    saving.save(&keyspace);
    advance(HOUR);
    keyspace.write(&[("/late", false)], 10);
    let what = all_of("/secret/");
    let late = saving.prepare_between(&keyspace, || {
        drop(forget(&saving.archive, &what, &now));
        advance(HOUR);
    });
    advance(22 * HOUR);
    assert!(saving.read(&late.unwrap()) == keyspace.pairs());
    forget(&saving.archive, &what, &now).unwrap();
    advance(2 * HOUR);
    let policy = Policy { last: 1000, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 1000, grace: GRACE, now: now_is() };
    let plan = plan_prune(&saving.archive, &request).unwrap();
    assert_eq!(plan.collected, [], "two hours after a base needed it");
    advance(23 * HOUR);
    let request = PruneRequest { now: now_is(), ..request };
    assert!(!plan_prune(&saving.archive, &request).unwrap().collected.is_empty());
}

/// What a prune has still to take has it, too, and so has what a killed save has left.
#[test]
fn what_no_base_needs_is_looked_through() {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    (0..20).for_each(|n| keyspace.write(&[(&*format!("/key/{n}"), false), (CANARY, false)], 100));
    saving.save(&keyspace);
    advance(HOUR);
    let mut other = Keyspace::new();
    (0..50).for_each(|n| other.write(&[(&format!("/key/{n}"), false)], 100));
    saving.try_save(&other, None).unwrap();
    let policy = Policy { last: 1, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 1000, grace: GRACE, now: now_is() };
    plan_prune(&saving.archive, &request).unwrap().carry_out(&saving.archive).unwrap();
    let truncated = names(&saving.archive, ".pack")[0].replace(".pack", "0.pack");
    saving.archive.store().create(&truncated, b"rekindle".to_vec()).unwrap();
    let done = forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    assert_eq!((done.bases, done.marked), (0, 2), "{done:?}");
    prune(&saving.archive);
    assert!(!is_anywhere(&saving.archive, CANARY.as_bytes()));
    check_sound(&saving.archive);
}

/// A base whose HashKV is not that of its records does not become a good one.
#[test]
fn what_was_wrong_is_not_made_to_seem_right() {
    use rekindle_archive::format::{Domain, header};
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    keyspace.write(&[("/key", false), (CANARY, false)], 50);
    keyspace.write(&[("/key", false)], 50);
    saving.save(&keyspace);
    let entry = saving.archive.list().unwrap().bases.remove(0);
    let mut base = read_base(&saving.archive, &entry).unwrap();
    base.hash ^= 1;
    let (facts, generation) = (&entry.header.facts, entry.header.generation);
    let body = [&facts.digest(0, generation)[..], &base.encode().unwrap()].concat();
    let digest = Domain::Body.digest(&[&body]);
    let mut bytes = header::encode(facts, 0, generation, body.len() as u64, &digest);
    bytes.extend_from_slice(&body);
    saving.archive.store().remove(&entry.name).unwrap();
    saving.archive.store().create(&entry.name, bytes).unwrap();
    let refused = forget(&saving.archive, &all_of("/secret/"), &now).unwrap_err();
    assert!(refused.to_string().contains(&entry.name), "{refused}");
    assert_eq!(names(&saving.archive, ".base"), [entry.name]);
    assert!(verdict(&saving.archive, now_is()).unwrap().has(Word::Lost));
}

/// Two at once: none of what either was to erase is left, and nothing else is gone.
#[test]
fn two_who_forget_at_once() {
    let saving = Saving::new();
    let (_, points) = some_history(&saving);
    let calls = std::cell::Cell::new(0);
    let meanwhile = || {
        calls.set(calls.get() + 1);
        if calls.get() == 4 {
            forget(&saving.archive, &all_of("/key/1"), &now).unwrap();
        }
        now()
    };
    // Of what it has still to read some is gone: it says so, and goes on when it is called again.
    let first = forget(&saving.archive, &all_of("/secret/"), &meanwhile);
    assert!(calls.get() >= 4);
    if first.is_err() {
        check_sound(&saving.archive);
        forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    }
    check_sound(&saving.archive);
    for entry in saving.archive.list().unwrap().bases {
        let mut want = points[&entry.header.facts.last.get()].clone();
        forget_in(&mut want, "/secret/");
        forget_in(&mut want, "/key/1");
        assert!(read_back(&saving.archive, &entry).unwrap() == want);
    }
    prune(&saving.archive);
    assert!(!is_anywhere(&saving.archive, CANARY.as_bytes()));
}

/// One who erases has made another base of it, and has still to remove the old one: a prune that keeps
/// one base must not keep the old one and remove the other.
#[test]
fn a_prune_keeps_what_stands_for_another() {
    // In one case only the last record is erased, which stays in its place.
    for prefix in ["/secret/2", "/secret/4"] {
        let saving = Saving::new();
        let mut keyspace = Keyspace::new();
        keyspace.write(&[("/key", false), (CANARY, false), ("/secret/2", false)], 50);
        saving.save(&keyspace);
        let store = saving.archive.store();
        let old = names(&saving.archive, ".base").remove(0);
        let bytes = store.read(&old, 1 << 20).unwrap();
        forget(&saving.archive, &all_of(prefix), &now).unwrap();
        let erased = names(&saving.archive, ".base");
        store.create(&old, bytes.to_vec()).unwrap();
        let prune = |archive: &Archive| {
            let policy = Policy { last: 1, ..Policy::default() };
            let request = PruneRequest { policy, bases_max: 10, grace: GRACE, now: now_is() };
            plan_prune(archive, &request).unwrap().carry_out(archive).unwrap().bases
        };
        // Nor may it remove the old one: then whoever erases takes the new one away again.
        assert_eq!(prune(&saving.archive), 0);
        assert_eq!(names(&saving.archive, ".base").len(), 2);
        forget(&saving.archive, &all_of(prefix), &now).unwrap();
        assert!(!names(&saving.archive, ".base").contains(&old));
        assert!(names(&saving.archive, ".base").contains(&erased[0]));
        check_sound(&saving.archive);
        crate::prune(&saving.archive);
        assert_eq!(names(&saving.archive, ".base").len(), 1, "the same twice");
        check_sound(&saving.archive);
    }
}

/// One key in several blocks of a pack, old versions of it beside those that stay; and where it was, no
/// filter knows it any more.
#[test]
fn some_versions_in_a_pack_of_several_blocks() {
    use rekindle_archive::format::filter::{KeyHash, may_hold};
    use rekindle_archive::format::{DIGEST, Header, run::Run};
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    for n in 0..12 {
        keyspace.write(&[("/password", false), (&format!("/key/{n}"), false)], 1 << 18);
    }
    keyspace.write(&[("/last", false)], 10);
    saving.save(&keyspace);
    let mut want = keyspace.pairs();
    let to = Revision::new(8);
    forget(&saving.archive, &Forgotten { key: b"/password".to_vec(), prefix: false, to }, &now)
        .unwrap();
    want.retain(|(_, value)| {
        let kv = KeyValue::parse(value).unwrap();
        kv.key != b"/password" || kv.mod_revision > 8
    });
    let entry = saving.archive.list().unwrap().bases.remove(0);
    assert!(read_back(&saving.archive, &entry).unwrap() == want);
    prune(&saving.archive);

    let name = names(&saving.archive, ".pack").remove(0);
    let bytes = saving.archive.store().read(&name, 64 << 20).unwrap();
    let header = Header::parse(&bytes).unwrap();
    let content = &header.body(&bytes).unwrap()[DIGEST..];
    let run = Run::parse(content, &header.facts).unwrap();
    let last = |entry: &rekindle_archive::format::block::Entry| entry.last.revision.get();
    let holds = |entry: &rekindle_archive::format::block::Entry| {
        may_hold(&entry.filter, KeyHash::of(b"/password"))
    };
    let blocks: Vec<_> = run.blocks().map(|(_, entry)| (last(entry), holds(entry))).collect();
    assert!(blocks.len() > 4, "{blocks:?}");
    assert!(blocks.iter().any(|(last, holds)| *last <= 8 && !holds), "{blocks:?}");
    assert!(blocks.iter().all(|(last, holds)| *last > 8 || !holds), "{blocks:?}");
}
