//! What a damaged object takes away, and what it does not; and what prunes and erasures do beside it.

use crate::following::{Following, a_place, follow_and_merge, save, segments};
use crate::keyspaces::HOST;
use crate::keyspaces::{Keyspace, Pairs, a_spool, advance, all_of, forget, forget_in, now, now_is};
use crate::keyspaces::{cut, revision};
use rekindle_archive::{
    Archive, BaseEntry, BaseRecords, Error, Policy, PruneRequest, Tail, plan_prune, read_base,
};
use rekindle_etcd::restore::Records;
use std::path::Path;

const HOUR: i64 = 3_600_000;
const SECRET: &str = "/secret";

fn planned(
    archive: &Archive,
    entry: &BaseEntry,
    number: i64,
) -> Result<(rekindle_archive::format::base::Base, Tail), Error> {
    archive.following(entry)?.up_to(read_base(archive, entry)?, revision(number))
}

/// What a base and the log bring back at a revision.
fn at(archive: &Archive, entry: &BaseEntry, number: i64) -> Result<Pairs, Error> {
    let (base, tail) = planned(archive, entry, number)?;
    read(archive, entry, &base, &tail)
}

fn read(
    archive: &Archive,
    entry: &BaseEntry,
    base: &rekindle_archive::format::base::Base,
    tail: &Tail,
) -> Result<Pairs, Error> {
    let mut records = BaseRecords::with_tail(archive, entry, base, Some(tail))?;
    let mut pairs = Vec::new();
    while let Some(pair) = records.next_record().map_err(|_| Error::Panicked)? {
        pairs.push((pair.key.to_vec(), pair.value.to_vec()));
    }
    Ok(pairs)
}

/// A base that has a secret, and a log behind it in which it is deleted; with the end of that.
fn a_secret_that_was_deleted() -> (Following, BaseEntry, i64) {
    let mut following = Following::new();
    following.keyspace.write(&[(SECRET, false)], 40);
    following.follow();
    following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    following.keyspace.write(&[(SECRET, true)], 40);
    following.keyspace.write(&[("/key/3", false)], 40);
    following.follow();
    let entry = following.saving.archive.list().unwrap().bases.pop().unwrap();
    let to = following.keyspace.revision;
    (following, entry, to)
}

/// A restore is planned, somebody is asked, and meanwhile something is erased: it was once read of the base from
/// before and of the log from after that, in which the secret is not deleted.
#[test]
fn what_was_planned_before_an_erasure_is_not_read_after_it() {
    let (following, entry, to) = a_secret_that_was_deleted();
    let archive = &following.saving.archive;
    let (base, tail) = planned(archive, &entry, to).unwrap();
    assert!(archive.has_tail(&tail).unwrap());
    forget(archive, &all_of(SECRET), &now).unwrap();
    assert!(!archive.has_tail(&tail).unwrap());
    let refused = read(archive, &entry, &base, &tail).unwrap_err();
    assert!(matches!(refused, Error::LogMissing { .. }), "{refused}");
    let entry = archive.list().unwrap().bases.pop().unwrap();
    let mut want = following.keyspace.pairs();
    forget_in(&mut want, SECRET);
    let got = at(archive, &entry, to).unwrap();
    // The base's own last record was the secret: it was empty there, and once stayed so amid the others.
    assert!(got == want, "{} records, and {} are wanted", got.len(), want.len());
}

/// The store does not let a base go from which something was erased: together with the log it would be what the cluster
/// never was.
#[test]
fn a_base_for_which_another_stands_goes_with_no_log_that_has_less() {
    let (following, entry, to) = a_secret_that_was_deleted();
    let archive = &following.saving.archive;
    let bytes = archive.store().read(&entry.name, entry.bytes).unwrap().to_vec();
    forget(archive, &all_of(SECRET), &now).unwrap();
    archive.store().create(&entry.name, bytes).unwrap();
    let bases = archive.list().unwrap().bases;
    let held = bases.iter().find(|it| it.name == entry.name).unwrap();
    let refused = at(archive, held, to).unwrap_err();
    assert!(matches!(refused, Error::Replaced { .. }), "{refused}");
    let other = bases.iter().rev().find(|it| it.name != entry.name).unwrap();
    let mut want = following.keyspace.pairs();
    forget_in(&mut want, SECRET);
    assert!(at(archive, other, to).unwrap() == want);
}

/// Damages what is behind the header of every merged segment.
fn damage_merged(archive: &Archive, place: &Path) {
    for name in segments(archive).iter().filter(|name| !name.contains("/log/0/")) {
        let path = place.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0);
        std::fs::write(&path, bytes).unwrap();
    }
}

/// What a damaged segment was merged of is whole, and went with it when something was erased.
#[test]
fn what_a_damaged_segment_was_merged_of_is_written_anew() {
    let (_directory, place, saving) = a_place();
    let mut following = Following::into(saving);
    let archive = following.saving.archive.clone();
    following.keyspace.write(&[(SECRET, false)], 40);
    follow_and_merge(&mut following, 1);
    let entry = archive.list().unwrap().bases.remove(0);
    let before = archive.log().unwrap();
    damage_merged(&archive, &place);
    forget(&archive, &all_of(SECRET), &now).unwrap();
    assert_eq!(archive.log().unwrap(), before);
    let mut want = following.keyspace.pairs();
    forget_in(&mut want, SECRET);
    assert!(at(&archive, &entry, following.end).unwrap() == want);
}

/// A gap within the kept log: the base behind it once went, and the log from there on could not be brought back.
#[test]
fn the_base_behind_a_gap_stays_with_the_log_that_is_kept() {
    let mut following = Following::new();
    let archive = following.saving.archive.clone();
    advance(HOUR);
    following.write(5);
    following.follow();
    advance(HOUR);
    // Nobody followed, and all of it was compacted.
    following.write(20);
    following.keyspace.compact(following.keyspace.revision - 1);
    save(&archive, &following.keyspace, a_spool().path(), None).unwrap();
    let behind_gap = following.keyspace.revision;
    following.end = behind_gap;
    advance(HOUR);
    following.write(5);
    following.follow();
    let (to, want) = (following.end, following.keyspace.pairs());
    advance(HOUR);
    following.write(5);
    following.keyspace.compact(following.keyspace.revision - 1);
    following.follow();
    save(&archive, &following.keyspace, a_spool().path(), None).unwrap();
    let prune = |log| {
        let policy = Policy { log: Some(log), ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap()
    };
    // Of a plan that takes it away it is said.
    let policy = Policy { last: 1, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
    let told = plan_prune(&archive, &request).unwrap().log;
    assert!(told.iter().any(|range| range.last.get() >= to), "{told:?}");
    let plan = prune(24 * HOUR);
    assert_eq!(plan.log, []);
    plan.carry_out(&archive).unwrap();
    let bases = archive.list().unwrap().bases;
    let entry = bases.iter().find(|it| it.header.facts.last.get() == behind_gap).unwrap();
    assert!(at(&archive, entry, to).unwrap() == want);
}

/// Log older than what is kept leads from the base to it: it once went, and with it all up to the next base.
#[test]
fn log_that_leads_from_the_base_to_what_is_kept_stays() {
    let mut following = Following::new();
    let archive = following.saving.archive.clone();
    let mut states = Vec::new();
    for _ in 0..6 {
        advance(HOUR);
        following.write(3);
        following.follow();
        states.push((following.end, following.keyspace.pairs()));
    }
    advance(HOUR);
    save(&archive, &following.keyspace, a_spool().path(), Some(&following.view())).unwrap();
    let policy = Policy { log: Some(3 * HOUR), ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
    for _ in 0..2 {
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
    }
    let entry = archive.list().unwrap().bases.remove(0);
    for (to, want) in &states[3..] {
        assert!(at(&archive, &entry, *to).unwrap() == *want, "revision {to}");
    }
}

/// Two have written a fork; that something else was erased from one of both hides nothing.
#[test]
fn a_fork_is_seen_behind_an_erasure() {
    let mut following = Following::new();
    let (start, before) = (following.end, following.keyspace.clone());
    let begin = |following: &mut Following, len| {
        following.keyspace.write(&[(SECRET, false)], 30);
        following.write(1);
        following.keyspace.write(&[("/key/2", false)], len);
    };
    begin(&mut following, 300);
    following.follow();
    let ours: Keyspace = std::mem::replace(&mut following.keyspace, before);
    begin(&mut following, 301);
    following.write(1);
    let theirs = std::mem::replace(&mut following.keyspace, ours);
    let archive = following.saving.archive.clone();
    let timeline = following.writer.timeline();
    let mut writer = archive.claim(timeline, HOST, "there", now()).unwrap();
    writer.append(&cut(&theirs, start + 1, start + 4), now()).unwrap();
    let entry = archive.list().unwrap().bases.remove(0);
    let is_forked = |number| matches!(at(&archive, &entry, number), Err(Error::Forked { .. }));
    assert!(is_forked(start + 3) && !is_forked(start + 2));
    forget(&archive, &all_of(SECRET), &now).unwrap();
    assert!(is_forked(start + 3), "one of both was picked");
    assert!(!is_forked(start + 2), "what was erased is no difference");
}

/// A time before a damaged segment is found all the same.
#[test]
fn a_time_before_a_damaged_segment() {
    let (_directory, place, saving) = a_place();
    let mut following = Following::into(saving);
    let archive = following.saving.archive.clone();
    let mut ends = Vec::new();
    for _ in 0..4 {
        advance(60_000);
        following.write(2);
        following.follow();
        ends.push((now_is(), following.end));
    }
    let entry = archive.list().unwrap().bases.remove(0);
    let mut all: Vec<_> = segments(&archive).into_iter().collect();
    all.sort();
    let time = |place: usize| archive.following(&entry).unwrap().at(ends[place].0);
    let (first, last) = (place.join(&all[0]), place.join(all.last().unwrap()));
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, b"x").unwrap();
    assert_eq!(time(0).unwrap().unwrap().revision.get(), ends[0].1);
    assert_eq!(time(1).unwrap().unwrap().revision.get(), ends[1].1);
    assert!(time(3).is_err(), "it may be in the one that is damaged");
    // One from long before says nothing of it.
    std::fs::write(&last, bytes).unwrap();
    std::fs::write(&first, b"x").unwrap();
    assert_eq!(time(2).unwrap().unwrap().revision.get(), ends[2].1);
    assert!(time(0).is_err());
}
