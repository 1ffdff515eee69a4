//! Erasing from the log of a cluster that is followed.

use crate::following::Following;
use crate::keyspaces::revision;
use crate::keyspaces::{Keyspace, Pairs, advance, all_of, forget, forget_in, now, now_is, verdict};
use rekindle_archive::{Archive, BaseRecords, Policy, PruneRequest, Word, plan_prune, read_base};
use rekindle_etcd::restore::Records;

const HOUR: i64 = 3_600_000;
const SECRET: &str = "/secret";

/// What an archive brings back at a revision, of its first base and the log.
fn at(archive: &Archive, number: i64) -> Pairs {
    let entry = archive.list().unwrap().bases.remove(0);
    let behind = archive.following(&entry).unwrap();
    let base = read_base(archive, &entry).unwrap();
    let (base, tail) = behind.up_to(base, revision(number)).unwrap();
    let mut records = BaseRecords::with_tail(archive, &entry, &base, Some(&tail)).unwrap();
    let mut pairs = Vec::new();
    while let Some(pair) = records.next_record().unwrap() {
        pairs.push((pair.key.to_vec(), pair.value.to_vec()));
    }
    pairs
}

fn prune(archive: &Archive) {
    let policy = Policy { log: Some(30 * 24 * HOUR), last: 10, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
    plan_prune(archive, &request).unwrap().carry_out(archive).unwrap();
}

/// Every segment that had any of it was dropped, and all that came behind it was no restore point any more.
#[test]
fn what_was_forgotten_takes_no_restore_point_of_the_log_away() {
    let mut following = Following::new();
    let archive = following.saving.archive.clone();
    let mut states: Vec<Keyspace> = Vec::new();
    let mut write = |following: &mut Following, changes: &[(&str, bool)]| {
        following.keyspace.write(changes, 40);
        states.push(following.keyspace.clone());
    };
    for round in 0..4 {
        write(&mut following, &[("/key/1", false), (SECRET, false)]);
        // A revision that has nothing else.
        write(&mut following, &[(SECRET, round == 2)]);
        write(&mut following, &[(SECRET, false), ("/key/2", false)]);
        write(&mut following, &[("/key/3", false)]);
        following.follow();
    }
    let check = |archive: &Archive| {
        for keyspace in &states {
            let mut want = keyspace.pairs();
            forget_in(&mut want, SECRET);
            assert!(at(archive, keyspace.revision) == want, "revision {}", keyspace.revision);
        }
        let harmless = |word: &Word| matches!(word, Word::Uploading | Word::Orphan);
        let found = verdict(archive, now_is()).unwrap().findings;
        assert!(found.iter().all(|it| harmless(&it.word)), "{found:?}");
    };
    let ranges = archive.log().unwrap();
    let forgot = forget(&archive, &all_of(SECRET), &now).unwrap();
    assert_eq!((forgot.bases, forgot.segments, forgot.marked), (0, 4, 4));
    assert_eq!(archive.log().unwrap(), ranges);
    check(&archive);
    assert_eq!(forget(&archive, &all_of(SECRET), &now).unwrap().segments, 0, "once is enough");

    for _ in 0..2 {
        advance(2 * HOUR);
        prune(&archive);
    }
    check(&archive);
    let listed = archive.store().list("timelines").unwrap();
    assert!(!listed.iter().any(|it| it.name.contains("/log/0/")), "what was written anew is left");

    // The capture goes on, and so does its next base, which takes nothing of that.
    following.write(3);
    following.follow();
    let base = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    assert_eq!(base.facts.last, revision(following.end));
    check(&archive);
    assert_eq!(verdict(&archive, now_is()).unwrap().findings, []);
}
