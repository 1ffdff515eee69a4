//! Pruning: what nobody needs goes, late, and nothing else ever.

mod keyspaces;

use keyspaces::{Keyspace, Saving, advance, now_is};
use rekindle_archive::{GRACE, Level, Policy, PruneRequest, Pruned, VerifyProgress, plan_prune};
use rekindle_archive::{Verification, VerifyRequest, Word};
use std::sync::atomic::{AtomicBool, AtomicU64};

const HOUR: i64 = 3_600_000;

fn request(policy: Policy) -> PruneRequest {
    // The store's clock is the machine's, so the grace is none where time is to pass.
    PruneRequest { policy, bases_max: 1000, grace: 0, now: now_is() }
}

fn last(last: usize) -> Policy {
    Policy { last, ..Policy::default() }
}

fn prune(saving: &Saving, request: &PruneRequest) -> Pruned {
    plan_prune(&saving.archive, request).unwrap().carry_out(&saving.archive).unwrap()
}

/// How many objects of that kind there are.
fn count(saving: &Saving, kind: &str) -> usize {
    let found = saving.archive.store().list("timelines").unwrap();
    found.iter().filter(|found| found.name.ends_with(kind)).count()
}

/// Every base is proven. Tells how many packs no base names.
fn check_sound(saving: &Saving) -> usize {
    let request = VerifyRequest { level: Level::Proven, only: None, now: now_is() };
    let verification = Verification::begin(&saving.archive, &request).unwrap();
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let verdict = verification.run(progress).unwrap();
    assert!(verdict.points.iter().all(|point| point.level == Some(Level::Proven)), "{verdict:?}");
    let left = |word: &Word| matches!(word, Word::Uploading | Word::Orphan);
    assert!(verdict.findings.iter().all(|found| left(&found.word)), "{:?}", verdict.findings);
    verdict.findings.len()
}

/// Bases of a keyspace that changes all the time.
fn some_history(saving: &Saving, rounds: i64) -> Keyspace {
    let mut keyspace = Keyspace::new();
    for round in 0..rounds {
        let before = keyspace.revision;
        (0..30).for_each(|n| keyspace.write(&[(&format!("/key/{n}"), false)], 100));
        if round % 3 == 2 {
            keyspace.compact(before);
        }
        saving.save(&keyspace);
        advance(HOUR);
    }
    keyspace
}

#[test]
fn what_nobody_needs_goes_in_two_steps() {
    let saving = Saving::new();
    let mut keyspace = some_history(&saving, 12);
    let before = (count(&saving, ".pack"), count(&saving, ".seg"));
    let request = request(last(2));
    let plan = plan_prune(&saving.archive, &request).unwrap();
    assert_eq!((plan.going().count(), plan.collected.len()), (10, 0));
    assert!(!plan.marked.is_empty());
    let marked = plan.marked.len();
    let packs = plan.marked.iter().filter(|found| found.name.ends_with(".pack")).count();
    assert!(0 < packs && packs < marked, "segments, too");
    assert_eq!(count(&saving, ".base"), 12, "a plan touches nothing");

    // Time has not passed: the grace is a day.
    let done = prune(&saving, &PruneRequest { grace: GRACE, ..request.clone() });
    let want = Pruned { bases: 10, marked, ..Pruned::default() };
    assert_eq!(done, want);
    assert_eq!((count(&saving, ".pack"), count(&saving, ".seg")), before);
    assert_eq!(check_sound(&saving), packs);
    let done = prune(&saving, &PruneRequest { grace: GRACE, ..request.clone() });
    assert_eq!(done, Pruned::default(), "nothing more to do");

    let done = prune(&saving, &request);
    assert_eq!((done.bases, done.marked, done.collected), (0, 0, marked));
    assert_eq!(check_sound(&saving), 0);
    assert!(saving.archive.store().list("prune").unwrap().is_empty(), "marks are gone, too");
    assert_eq!(prune(&saving, &request), Pruned::default());

    // And the next base goes on from what is left.
    keyspace.write(&[("/key/1", true)], 0);
    saving.save_agrees(&keyspace);
    check_sound(&saving);
}

/// A writer that was asleep for days publishes its base while a prune is about to take what that needs: the prune looks
/// again before it takes anything.
#[test]
fn what_a_base_needs_that_comes_at_the_last_moment_stays() {
    let saving = Saving::new();
    some_history(&saving, 6);
    let request = request(last(1));
    let store = saving.archive.store();
    let bases = saving.archive.list().unwrap().bases;
    let late = (bases[0].name.clone(), store.read(&bases[0].name, 1 << 20).unwrap());
    prune(&saving, &PruneRequest { grace: GRACE, ..request.clone() });
    let plan = plan_prune(&saving.archive, &request).unwrap();
    assert!(!plan.collected.is_empty());
    store.create(&late.0, late.1.to_vec()).unwrap();
    plan.carry_out(&saving.archive).unwrap();
    assert!(saving.archive.list().unwrap().bases.iter().any(|base| base.name == late.0));
    check_sound(&saving);
}

/// What was kept of a host stays as long as a restore point may want it, and the newest always.
#[test]
fn files_of_hosts_go_with_the_restore_points() {
    let saving = Saving::new();
    let begun = now_is().0;
    some_history(&saving, 6);
    let store = saving.archive.store();
    let name = |host: &str, hours: i64| {
        let id = format!("{:032x}", hours.unsigned_abs());
        format!("host/{host}/{:020}-{id}.files", begun + hours * HOUR)
    };
    let kept = [name("a", 0), name("a", 2), name("a", 5), name("b", 1)];
    kept.iter().for_each(|name| store.create(name, b"sealed".to_vec()).unwrap());
    let there = || -> Vec<String> {
        store.list("host").unwrap().into_iter().map(|found| found.name).collect()
    };
    // The oldest restore point is of the fifth hour.
    let plan = plan_prune(&saving.archive, &request(last(2))).unwrap();
    let going: Vec<_> = plan.files.iter().map(|found| found.name.clone()).collect();
    assert_eq!(going, kept[..1]);
    assert_eq!(there().len(), 4, "a plan touches nothing");
    prune(&saving, &request(last(2)));
    assert_eq!(there(), kept[1..]);
    assert!(prune(&saving, &request(last(2))).held.is_empty());
    assert_eq!(there(), kept[1..]);
}

/// A base came from an older one after the mark was made: what it uses stays.
#[test]
fn what_is_needed_again_stays() {
    let saving = Saving::new();
    let mut keyspace = some_history(&saving, 4);
    let table = saving.table();
    let old = std::fs::read(&table).unwrap();
    // Bases that share nothing with the older ones.
    for _ in 0..2 {
        std::fs::remove_file(&table).unwrap();
        saving.save(&keyspace);
    }
    let with_grace = PruneRequest { grace: GRACE, ..request(last(1)) };
    // A writer that has listed before everything went, and publishes afterwards.
    std::fs::write(&table, old).unwrap();
    keyspace.write(&[("/late", false)], 10);
    let prepared = saving.prepare_between(&keyspace, || drop(prune(&saving, &with_grace)));
    assert!(prepared.is_ok(), "its data are there: {:?}", prepared.err());
    check_sound(&saving);
    // The mark is old enough now, but a base needs what it names.
    prune(&saving, &request(last(5)));
    check_sound(&saving);
}

#[test]
fn the_newest_base_and_what_cannot_be_read_are_left_alone() {
    let saving = Saving::new();
    some_history(&saving, 3);
    let none = Policy { max_bases: Some(0), ttl: Some(0), ..Policy::default() };
    prune(&saving, &request(none));
    assert_eq!(count(&saving, ".base"), 1);
    check_sound(&saving);

    let name = saving.archive.list().unwrap().bases[0].name.clone();
    let unreadable = name.replace("-", "-1");
    saving.archive.store().create(&unreadable, b"rekindle".to_vec()).unwrap();
    let refused = plan_prune(&saving.archive, &request(last(1))).unwrap_err();
    assert!(refused.to_string().contains("it ends within its header"), "{refused}");
}

#[test]
fn no_more_go_at_once_than_may() {
    let saving = Saving::new();
    some_history(&saving, 6);
    let request = PruneRequest { bases_max: 2, ..request(last(1)) };
    let plan = plan_prune(&saving.archive, &request).unwrap();
    assert_eq!((plan.going().count(), plan.postponed), (2, 3));
    let oldest: Vec<_> = plan.going().map(|base| base.header.facts.last.get()).collect();
    assert_eq!(oldest, [31, 61]);
    plan.carry_out(&saving.archive).unwrap();
    assert_eq!(count(&saving, ".base"), 4);
    check_sound(&saving);
}

#[test]
fn the_kept_log_stays() {
    let saving = Saving::new();
    some_history(&saving, 12);
    let segments = count(&saving, ".seg");
    let policy = Policy { log: Some(6 * HOUR), last: 1, ..Policy::default() };
    for _ in 0..2 {
        prune(&saving, &request(policy.clone()));
    }
    // The newest, and the one that the log stands on.
    assert_eq!(count(&saving, ".base"), 2);
    assert!((5..segments).contains(&count(&saving, ".seg")), "{segments}");
    check_sound(&saving);
}

/// A process that was killed leaves files that are no objects.
#[test]
fn what_was_begun_and_never_finished_goes_after_the_grace() {
    let directory = tempfile::tempdir().unwrap();
    let store = rekindle_archive::Store::directory(directory.path()).unwrap();
    let archive = rekindle_archive::Archive::init_unencrypted(store, now_is()).unwrap();
    let saving = Saving { archive, ..Saving::new() };
    some_history(&saving, 1);
    let packs = directory.path().join("timelines");
    let packs = packs.read_dir().unwrap().next().unwrap().unwrap().path().join("packs");
    let begun = ["old.pack#1", "young.pack#2"].map(|name| packs.join(name));
    begun.iter().for_each(|path| std::fs::write(path, "half of it").unwrap());
    let hours =
        |hours: u64| std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
    std::fs::File::open(&begun[0]).unwrap().set_modified(hours(25)).unwrap();
    std::fs::File::open(&begun[1]).unwrap().set_modified(hours(23)).unwrap();
    let request = PruneRequest { grace: GRACE, ..request(last(1)) };
    let plan = plan_prune(&saving.archive, &request).unwrap();
    assert_eq!((plan.staged, plan.is_empty()), (1, false));
    let done = plan.carry_out(&saving.archive).unwrap();
    assert_eq!(done, Pruned { staged: 1, ..Pruned::default() });
    assert_eq!(begun.map(|path| path.exists()), [false, true]);
    check_sound(&saving);
}

/// By the clock of whoever prunes the grace is over, and by the store's it has not begun; or the other
/// way round: nothing goes.
#[test]
fn the_grace_is_over_by_both_clocks_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let store = rekindle_archive::Store::directory(directory.path()).unwrap();
    let archive = rekindle_archive::Archive::init_unencrypted(store, now_is()).unwrap();
    let saving = Saving { archive, ..Saving::new() };
    some_history(&saving, 12);
    let with_grace = |now| PruneRequest { grace: GRACE, now, ..request(last(1)) };
    let marked = prune(&saving, &with_grace(now_is())).marked;
    assert!(marked > 0);
    let later = rekindle_archive::format::header::Moment(now_is().0 + 2 * GRACE);
    // The file of the mark is a moment old.
    assert_eq!(prune(&saving, &with_grace(later)).collected, 0, "by the store's clock");
    let mark = directory.path().join("prune").read_dir().unwrap().next().unwrap().unwrap().path();
    let days = std::time::Duration::from_millis(2 * GRACE.unsigned_abs());
    let old = std::time::SystemTime::now() - days;
    std::fs::File::open(&mark).unwrap().set_modified(old).unwrap();
    assert_eq!(prune(&saving, &with_grace(now_is())).collected, 0, "by our own clock");
    assert_eq!(prune(&saving, &with_grace(later)).collected, marked);
    check_sound(&saving);
}

/// A mark of somebody else takes nothing away but data of this archive.
#[test]
fn a_mark_names_data_or_nothing() {
    let saving = Saving::new();
    some_history(&saving, 2);
    let store = saving.archive.store();
    for name in ["keys/1.pack", "other/1.seg", "timelines/x/1.txt"] {
        store.create(name, b"theirs".to_vec()).unwrap();
    }
    let mark = r#"{"format": 1, "requires": [], "marked": "2001-01-01T00:00:00Z", "objects":
        ["archive.json", "keys/1.pack", "other/1.seg", "timelines/x/1.txt", "timelines/../keys/1.pack"]}"#;
    store.create("prune/11111111111111111111111111111111.json", mark.into()).unwrap();
    prune(&saving, &request(last(1000)));
    for name in ["archive.json", "keys/1.pack", "other/1.seg", "timelines/x/1.txt"] {
        assert!(store.read(name, 1 << 20).is_ok(), "{name} is gone");
    }
}
