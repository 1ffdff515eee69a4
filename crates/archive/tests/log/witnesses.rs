//! What members say of themselves.

use crate::following::Following;
use crate::keyspaces::{CLUSTER, revision};
use crate::keyspaces::{Keyspace, advance, now, now_is, verdict};
use rekindle_archive::format::witness::Testimony;
use rekindle_archive::{Error, MemberHash, Policy, PruneRequest, Word, plan_prune};
use rekindle_etcd::{HashRequest, MemberId, RaftTerm, Revision};

/// What a member says of its keyspace at a revision, as if compacted at another.
fn said(keyspace: &Keyspace, at: i64, compact: i64) -> MemberHash {
    let mut then = keyspace.clone();
    then.records.retain(|(it, ..), _| *it <= at);
    if compact > 0 {
        then.compact(compact);
    }
    let hash = then.backend().hash_kv(&HashRequest::default()).unwrap();
    assert_eq!(hash.revision.get(), at);
    MemberHash {
        cluster: CLUSTER,
        member: MemberId(2),
        term: RaftTerm(5),
        etcd: "3.6.16".to_owned(),
        revision: revision(at),
        compact: Revision::new(compact).filter(|it| it.get() > 0),
        at: now(),
        said: Testimony { hash: hash.hash, took_ms: 3 },
    }
}

/// What members say is compared with the archive at the same revision, compacted alike, merged or not;
/// what contradicts it is an alarm, and what cannot be compared is none.
#[test]
fn witnesses() {
    let mut following = Following::new();
    let archive = following.saving.archive.clone();
    let timeline = following.writer.timeline();
    for _ in 0..3 {
        following.write(5);
        following.follow();
    }
    let end = following.end;
    let keyspace = &following.keyspace;
    let prove = || verdict(&archive, now_is()).unwrap();
    for (at, compact) in [(end - 3, 0), (end - 3, end - 7), (end - 3, end - 3)] {
        archive.add_witness(timeline, &said(keyspace, at, compact), now()).unwrap();
    }
    let proven = prove();
    assert!(proven.findings.is_empty(), "{:?}", proven.findings);
    assert_eq!(proven.witnesses, 3);
    // One that is of what the archive does not have yet, or no more.
    let late = MemberHash { revision: revision(end + 9), ..said(keyspace, end, 0) };
    archive.add_witness(timeline, &late, now()).unwrap();
    let proven = prove();
    assert!(proven.findings.is_empty() && proven.witnesses == 0, "{proven:?}");
    let base = following.try_save(keyspace, Some(&following.view())).unwrap();
    assert_eq!(base.facts.last.get(), end);

    let other = Testimony { hash: 1, took_ms: 3 };
    let wrong = MemberHash { said: other, ..said(keyspace, end - 3, end - 7) };
    let name = archive.add_witness(timeline, &wrong, now()).unwrap();
    let proven = prove();
    let [found] = &proven.findings[..] else { panic!("{:?}", proven.findings) };
    assert_eq!((found.word, &found.object), (Word::Contradicts, &name));
    assert_eq!(proven.witnesses, 3, "the others agree still");

    // It is not wrong by chance: each bit counts.
    let entry = archive.witnesses().unwrap().into_iter().find(|it| it.name == name).unwrap();
    let bytes = archive.store().read(&name, entry.bytes).unwrap().to_vec();
    for at in 0..bytes.len() {
        archive.store().remove(&name).unwrap();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        archive.store().create(&name, flipped).unwrap();
        let found = match verdict(&archive, now_is()) {
            Err(Error::Damaged { fault, .. }) if fault.is_too_new() => continue,
            found => found.unwrap().findings,
        };
        let of_it = found.iter().filter(|it| it.object == name && it.word == Word::Lost);
        assert_eq!((of_it.count(), found.len()), (1, 1), "byte {at}: {found:?}");
    }
    archive.store().remove(&name).unwrap();

    // They go with the last restore point that they speak of.
    let policy = Policy { last: 1, ..Policy::default() };
    for _ in 0..2 {
        let policy = policy.clone();
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
        advance(1);
    }
    let left: Vec<_> = archive.witnesses().unwrap().iter().map(|it| it.facts.last.get()).collect();
    assert_eq!(left, [end + 9]);
    assert!(prove().findings.is_empty());
}
