//! Many segments become one.

use crate::following::{Following, a_place, agreed, follow_and_merge, of_level, save, segments};
use crate::keyspaces::{CLUSTER, cut, revision};
use crate::keyspaces::{a_spool, advance, now, now_is, verdict};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    BaseRecords, Error, ForgetRequest, Forgotten, Journal, Level, Merging, Policy, PruneRequest,
    VerifyProgress, plan_forget, plan_prune, read_base,
};
use rekindle_etcd::Records as _;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};

/// The newest of all that can be brought back once went, for no base needed it: what was followed behind
/// the last base, before the disaster.
#[test]
fn what_follows_the_last_base_is_not_pruned() {
    let mut following = Following::new();
    following.write(5);
    following.follow();
    following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    following.write(5);
    following.follow();
    let archive = following.saving.archive.clone();
    let end = || archive.log_end(CLUSTER).unwrap().unwrap().last.get();
    let last = following.keyspace.revision;
    assert_eq!(end(), last);
    for _ in 0..3 {
        advance(72 * 3_600_000);
        let policy = Policy { last: 1, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
        assert_eq!(end(), last);
    }
    // A later base that was made in full needs it no more.
    following.keyspace.compact(last);
    following.write(1);
    save(&archive, &following.keyspace, a_spool().path(), None).unwrap();
    let policy = Policy { last: 1, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
    assert!(!plan_prune(&archive, &request).unwrap().marked.is_empty());
}

/// Brings back some of all revisions, and compares them with what the cluster was then.
fn compare(following: &Following, came: &BTreeMap<i64, Moment>) {
    let archive = &following.saving.archive;
    let entry = archive.list().unwrap().bases.remove(0);
    let behind = archive.following(&entry).unwrap();
    assert_eq!(behind.last().get(), following.end);
    for (number, at) in came.iter().step_by(97).chain(came.last_key_value()) {
        let base = read_base(archive, &entry).unwrap();
        let (base, tail) = behind.up_to(base, revision(*number)).unwrap();
        assert_eq!((tail.at, tail.reckoned), (*at, false), "{number}");
        let mut records = BaseRecords::with_tail(archive, &entry, &base, Some(&tail)).unwrap();
        let mut then = following.keyspace.clone();
        then.records.retain(|(revision, ..), _| revision <= number);
        for (key, value) in then.pairs() {
            let pair = records.next_record().unwrap().unwrap();
            assert_eq!((pair.key, pair.value), (&key[..], &value[..]), "{number}");
        }
        assert!(records.next_record().unwrap().is_none(), "{number}");
        let found = behind.at(*at).unwrap().unwrap();
        assert_eq!((found.revision.get(), found.at), (*number, *at));
    }
}

/// A day of segments becomes a few, and a prune takes away what they were made of: every revision comes
/// back with its time, and so do bases that were made meanwhile.
#[test]
fn a_log_is_merged() {
    let mut following = Following::new();
    let mut came = follow_and_merge(&mut following, 20);
    let middle = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    assert_eq!((agreed(&middle).new, middle.objects), (0, 0));
    came.append(&mut follow_and_merge(&mut following, 6));
    let archive = following.saving.archive.clone();
    let before = segments(&archive);
    assert_eq!(of_level(&before, 0), came.len());
    assert!(of_level(&before, 1) > 26 * 12 - 5, "{}", of_level(&before, 1));
    assert!(of_level(&before, 2) >= 24 && of_level(&before, 3) == 1);
    compare(&following, &came);
    for log in [Some(30 * 24 * 3_600_000), None] {
        for _ in 0..2 {
            let policy = Policy { log, last: 10, ..Policy::default() };
            let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
            plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
            advance(2000);
        }
        let left = segments(&archive);
        // Of a day, an hour and five minutes, each at both ends of what was followed in two runs.
        assert!(left.len() < 2 * (24 + 12 + 5), "{} of {}", left.len(), before.len());
        compare(&following, &came);
        for entry in archive.list().unwrap().bases {
            let mut then = following.keyspace.clone();
            then.records.retain(|(it, ..), _| *it <= entry.header.facts.last.get());
            assert!(crate::keyspaces::read_back(&archive, &entry).unwrap() == then.pairs());
        }
        let verdict = verdict(&archive, now_is()).unwrap();
        assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
        assert!(verdict.points.iter().all(|point| point.level == Some(Level::Proven)));
    }
}

/// Where the journal has it no more, it stays as it was written.
#[test]
fn what_the_journal_has_lost_is_not_merged() {
    let mut following = Following::new();
    let directory = following.saving.spool.path().join("small");
    following.journal = Journal::open(&directory, 2000, now_is()).unwrap();
    follow_and_merge(&mut following, 2);
    let segments = segments(&following.saving.archive);
    assert_eq!(of_level(&segments, 0), 120);
    assert_eq!(of_level(&segments, 2), 0, "an hour of it is more than the journal keeps");
    let archive = &following.saving.archive;
    assert_eq!(archive.log_end(CLUSTER).unwrap().unwrap().last.get(), following.end);
}

/// What was erased from a log comes back by none of: a merge of what the journal has, the next base, whoever
/// begins to write anew.
#[test]
fn what_was_erased_does_not_come_back_from_the_journal() {
    let mut following = Following::new();
    let mut merging = Merging::default();
    for number in 0..4 {
        let key = if number == 1 { "/secret" } else { "/other" };
        following.keyspace.write(&[(key, false)], 300);
        let written = following.follow();
        merging.wrote(following.journal.newest().unwrap().clone(), written);
    }
    let archive = following.saving.archive.clone();
    assert!(!archive.log_end(CLUSTER).unwrap().unwrap().has_hole);
    let what = Forgotten { key: b"/secret".to_vec(), prefix: false, to: None };
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let request = ForgetRequest { what: &what, now: &now, progress };
    let plan = || plan_forget(&archive, &request).unwrap();
    plan().carry_out(&archive, &request).unwrap();
    assert!(archive.log_end(CLUSTER).unwrap().unwrap().has_hole);

    let before = segments(&archive);
    assert_eq!(of_level(&before, 0), 4);
    advance(600_000);
    let merge = merging.due(now_is()).unwrap();
    let refused = following.writer.merger().merge(&merge, now).unwrap_err();
    assert!(matches!(refused, Error::Vanished { .. }), "{refused}");
    merging.done(&merge, Err(refused), now_is());
    assert_eq!(segments(&archive), before);
    assert!(merging.due(now_is()).is_none(), "it is not tried again and again");

    // The cluster has forgotten it, too.
    following.keyspace.write(&[("/secret", true)], 1);
    following.keyspace.write(&[("/other", false)], 10);
    following.journal.add(&cut(&following.keyspace, following.end + 1, following.end + 2)).unwrap();
    following.end += 2;
    following.keyspace.compact(following.keyspace.revision);
    let base = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    let entry = archive.list().unwrap().bases.into_iter().find(|it| it.name == base.name).unwrap();
    let back = crate::keyspaces::read_back(&archive, &entry).unwrap();
    assert!(back == following.keyspace.pairs());
    let plan = plan();
    let points: Vec<_> = plan.points().collect();
    assert!(plan.is_empty(), "{points:?}");
    assert!(!archive.log_end(CLUSTER).unwrap().unwrap().has_hole, "the base stands behind it");
    for _ in 0..2 {
        let policy = Policy { log: Some(1 << 40), last: 10, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
        advance(1);
    }
    let gone: Vec<_> = before.difference(&segments(&archive)).cloned().collect();
    assert_eq!(gone.len(), 1, "what has the secret goes: {gone:?}");
}

/// What a damaged segment was merged of is all that there is.
#[test]
fn a_prune_keeps_what_a_damaged_merge_was_made_of() {
    let (_directory, place, saving) = a_place();
    let mut following = Following::into(saving);
    follow_and_merge(&mut following, 1);
    let archive = following.saving.archive.clone();
    let before = segments(&archive);
    for name in before.iter().filter(|name| !name.contains("/log/0/")) {
        let path = place.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0);
        std::fs::write(&path, bytes).unwrap();
    }
    for _ in 0..2 {
        let policy = Policy { last: 10, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
        advance(2000);
    }
    assert_eq!(of_level(&segments(&archive), 0), of_level(&before, 0));
}

/// A segment of which two merged ones had a part each stayed for ever.
#[test]
fn what_is_merged_goes_into_one_as_a_whole() {
    let (mut following, mut merging) = (Following::new(), Merging::default());
    let merge_due = |following: &Following, merging: &mut Merging| {
        while let Some(merge) = merging.due(now_is()) {
            let merged = following.writer.merger().merge(&merge, now);
            merging.done(&merge, merged, now_is());
        }
    };
    for number in 0..6 {
        let mut write = |name: &str, bytes| {
            following.keyspace.write(&[(name, false)], bytes);
            let written = following.follow();
            merging.wrote(following.journal.newest().unwrap().clone(), written);
        };
        // Two of these are more than is merged into one.
        write(&format!("/large/{number}"), 7 << 20);
        (0..8).for_each(|_| write("/small", 9));
        advance(300_000);
        merge_due(&following, &mut merging);
    }
    advance(2 * 3_600_000);
    merge_due(&following, &mut merging);
    let archive = &following.saving.archive;
    for _ in 0..3 {
        let policy = Policy { log: Some(i64::MAX), last: 1, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(archive, &request).unwrap().carry_out(archive).unwrap();
    }
    let left = segments(archive);
    assert_eq!([0, 1].map(|level| of_level(&left, level)), [0, 0]);
    let entry = archive.list().unwrap().bases.remove(0);
    assert_eq!(archive.following(&entry).unwrap().last(), revision(following.end));
}
