//! Several who forget, one after the other or at once, and one who was cut off: no restore point is lost,
//! and nothing goes that was not to go.

use crate::keyspaces::{
    Keyspace, Saving, advance, all_of, forget, now, now_is, read_back, verdict,
};
use crate::{CANARY, HOUR, check_sound, is_anywhere, names, plan_points, prune, some_history};
use rekindle_archive::{
    Archive, ForgetPlan, ForgetRequest, Forgotten, GRACE, Policy, PruneRequest, Pruned,
    VerifyProgress, plan_forget, plan_prune, read_base,
};
use rekindle_etcd::Revision;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// One who is killed when he has created the new base: the old one is there still. Their names.
fn cut_off(archive: &Archive, what: &Forgotten) -> (String, String) {
    let old = names(archive, ".base").remove(0);
    let bytes = archive.store().read(&old, 1 << 20).unwrap();
    forget(archive, what, &now).unwrap();
    let new = names(archive, ".base").remove(0);
    archive.store().create(&old, bytes.to_vec()).unwrap();
    (old, new)
}

/// What two have made of one base at once: one has erased `/a`, the other `/b`, and it is gone.
fn of_two() -> Saving {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    keyspace.write(&[("/a", false), ("/b", false), ("/kept", false)], 40);
    saving.save(&keyspace);
    let store = saving.archive.store();
    let (_, of_a) = cut_off(&saving.archive, &all_of("/a"));
    let bytes = store.read(&of_a, 1 << 20).unwrap();
    store.remove(&of_a).unwrap();
    forget(&saving.archive, &all_of("/b"), &now).unwrap();
    store.create(&of_a, bytes.to_vec()).unwrap();
    saving
}

/// A base of secrets and one key that is none.
fn saved(secrets: u64) -> Saving {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    for n in 0..secrets {
        keyspace.write(&[(&format!("/secret/{n}"), false), ("/secret/x", false)], 40);
    }
    keyspace.write(&[("/kept", false)], 40);
    saving.save(&keyspace);
    saving
}

/// How many records each restore point has.
fn records(archive: &Archive) -> Vec<usize> {
    let bases = archive.list().unwrap().bases;
    bases.iter().map(|it| read_back(archive, it).unwrap().len()).collect()
}

fn prune_after(archive: &Archive, grace: i64) -> Pruned {
    let policy = Policy { last: 1, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 10, grace, now: now_is() };
    plan_prune(archive, &request).unwrap().carry_out(archive).unwrap()
}

/// What one who was cut off had made once took the place of the base: more was gone than was to go.
#[test]
fn no_more_goes_than_the_plan_says() {
    let key = |key: &str, to| Forgotten { key: key.into(), prefix: false, to };
    for (what, planned, left) in [
        (key("/secret/4", None), (11, 1, 1), 18),
        (key("/secret/x", Revision::new(5)), (11, 4, 0), 15),
    ] {
        let saving = saved(9);
        cut_off(&saving.archive, &all_of("/secret/"));
        assert_eq!(plan_points(&saving.archive, &what), [planned]);
        forget(&saving.archive, &what, &now).unwrap();
        let mut records = records(&saving.archive);
        records.sort_unstable();
        assert_eq!(records, [1, left], "of one that was cut off, and of this one");
        check_sound(&saving.archive);
    }
}

/// Two have made of one base what each was to erase, and each base was once taken for what stands for
/// the other: none was left.
#[test]
fn two_bases_do_not_stand_for_each_other() {
    let saving = of_two();
    let archive = &saving.archive;
    assert_eq!(records(archive), [2, 2]);
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let whats = [all_of("/a"), all_of("/b")];
    let requests = whats.each_ref().map(|what| ForgetRequest { what, now: &now, progress });
    let plans: [ForgetPlan; 2] = requests.each_ref().map(|it| plan_forget(archive, it).unwrap());
    for (plan, request) in plans.into_iter().zip(&requests) {
        plan.carry_out(archive, request).unwrap();
    }
    check_sound(archive);
    assert!(records(archive).iter().all(|records| *records == 1), "{:?}", records(archive));
    prune_after(archive, 0);
    assert_eq!(records(archive), [1], "of those that are the same");
}

/// The whole base once went for one whose pack was gone.
#[test]
fn what_is_not_whole_stands_for_nothing() {
    let saving = saved(1);
    let before = names(&saving.archive, ".pack");
    cut_off(&saving.archive, &all_of("/secret/"));
    let mut packs = names(&saving.archive, ".pack");
    packs.retain(|pack| !before.contains(pack));
    saving.archive.store().remove(&packs[0]).unwrap();
    forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    let points = verdict(&saving.archive, now_is()).unwrap().points;
    assert_eq!(points.iter().filter(|point| point.level.is_some()).count(), 1);
}

/// Whoever was slow may take his base away again as long as the grace is not over: until then no prune
/// takes the other one that is the same.
#[test]
fn one_of_two_that_are_the_same_goes_later() {
    let saving = saved(3);
    cut_off(&saving.archive, &all_of("/secret/"));
    forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    assert_eq!(records(&saving.archive), [1, 1]);
    assert_eq!(prune_after(&saving.archive, GRACE).bases, 0);
    // Here the store's clock is not the test's.
    let request = PruneRequest {
        policy: Policy { last: 1, ..Policy::default() },
        bases_max: 10,
        grace: GRACE,
        now: rekindle_archive::format::header::Moment(i64::MAX),
    };
    let plan = plan_prune(&saving.archive, &request).unwrap();
    assert_eq!(plan.going().count(), 1);
    assert_eq!(plan.carry_out(&saving.archive).unwrap().bases, 0);
    assert_eq!(prune_after(&saving.archive, 0).bases, 1);
    assert_eq!(records(&saving.archive), [1]);
    check_sound(&saving.archive);
}

/// Bases of the same moment, as long, of as many records and keys; but not the same.
#[test]
fn what_only_looks_the_same_stays() {
    let saving = of_two();
    assert_eq!(prune_after(&saving.archive, 0).bases, 0);
    assert_eq!(records(&saving.archive), [2, 2]);
}

/// A save that was slow needs one object of a mark. Once that mark was written anew without what made it
/// one of erased data, and the kept log kept these.
#[test]
fn marks_of_erased_data_stay_what_they_are() {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    let key = |n: u64| format!("/key/{n}");
    (0..20).for_each(|n| keyspace.write(&[(&key(n), false), ("/secret/0", false)], 100));
    saving.save(&keyspace);
    advance(HOUR);
    (0..4).for_each(|_| keyspace.write(&[("/key/1", false), (CANARY, false)], 200));
    saving.save_agrees(&keyspace);
    advance(HOUR);
    keyspace.write(&[(CANARY, true)], 0);
    keyspace.write(&[("/key/1", false)], 200);
    keyspace.compact(keyspace.revision);
    let late = saving.prepare_between(&keyspace, || {
        forget(&saving.archive, &all_of("/secret/"), &now).unwrap();
    });
    late.unwrap();
    let policy = Policy { log: Some(30 * 24 * HOUR), last: 1, ..Policy::default() };
    for _ in 0..3 {
        advance(25 * HOUR);
        let request =
            PruneRequest { policy: policy.clone(), bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&saving.archive, &request).unwrap().carry_out(&saving.archive).unwrap();
    }
    assert!(!is_anywhere(&saving.archive, CANARY.as_bytes()), "three days later it is in the log");
    check_sound(&saving.archive);
}

/// What was erased from a base is counted, however often.
#[test]
fn what_was_erased_adds_up() {
    let saving = Saving::new();
    let (_, points) = some_history(&saving);
    let prefixes = ["/key/1", "/secretly", "/secret/"];
    prefixes.iter().for_each(|prefix| drop(forget(&saving.archive, &all_of(prefix), &now)));
    for entry in saving.archive.list().unwrap().bases {
        let whole = &points[&entry.header.facts.last.get()];
        let erased = whole.iter().filter(|(_, value)| {
            let key = rekindle_etcd::KeyValue::parse(value).unwrap().key;
            prefixes.iter().any(|prefix| key.starts_with(prefix.as_bytes()))
        });
        assert_eq!(read_base(&saving.archive, &entry).unwrap().erased, erased.count() as u64);
    }
    prune(&saving.archive);
    check_sound(&saving.archive);
}
