//! Bases beside the log: compared with it, and made of it only where it is theirs.

use crate::following::{Following, again, agreed, save, save_as, segments};
use crate::keyspaces::{CLUSTER, cut, cut_at, now, revision, witness};
use crate::keyspaces::{Saving, a_spool, advance, now_is, seeds, verdict};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, Comparison, Cut, Identity, Journal, Level, Protection, Sealing, Store, Witness,
};
use rekindle_etcd::RaftTerm;

#[test]
fn a_base_is_compared_with_what_was_followed_and_writes_nothing_of_it() {
    for seed in seeds(20) {
        let mut following = Following::new();
        following.write(10 + seed.cast_signed() % 7);
        following.follow();
        following.write(9);
        following.follow();
        // Of what the snapshot is of, the log may have more.
        let at = following.keyspace.clone();
        following.write(5);
        following.follow();
        for (keyspace, compacted) in
            [(at, 0), (following.keyspace.clone(), seed.cast_signed() % 30)]
        {
            let mut keyspace = keyspace;
            if compacted > 0 {
                keyspace.compact(compacted + 5);
            }
            let base = following.try_save(&keyspace, Some(&following.view())).unwrap();
            let counts = agreed(&base);
            assert_eq!((counts.new, base.objects), (0, 0), "seed {seed}: all of it was there");
            let saved = following.saving.archive.list().unwrap().bases;
            let entry = saved.iter().find(|it| it.name == base.name).unwrap();
            let back = crate::keyspaces::read_back(&following.saving.archive, entry).unwrap();
            assert!(back == keyspace.pairs(), "seed {seed}");
        }
        let verdict = verdict(&following.saving.archive, now_is()).unwrap();
        assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
        assert!(verdict.points.iter().all(|point| point.level == Some(Level::Proven)));
    }
}

/// Where the snapshot is ahead of what was written, the rest comes from the snapshot.
#[test]
fn what_was_not_followed_yet_comes_from_the_snapshot() {
    let mut following = Following::new();
    following.write(10);
    following.follow();
    following.write(4);
    let base = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    assert!(agreed(&base).new > 0);
    let entry = following.saving.archive.list().unwrap().bases.pop().unwrap();
    let back = crate::keyspaces::read_back(&following.saving.archive, &entry).unwrap();
    assert!(back == following.keyspace.pairs());
    // And the next one goes on from both.
    following.end = following.keyspace.revision;
    following.write(3);
    following.follow();
    let base = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    assert_eq!(agreed(&base).new, 0);
}

/// Any record of the log that the snapshot has otherwise, or not at all, is an alarm.
#[test]
fn a_log_that_differs_from_the_snapshot_is_an_alarm() {
    let mut following = Following::new();
    following.write(12);
    following.follow();
    let whole = following.keyspace.clone();
    let places: Vec<_> = whole.records.keys().copied().filter(|key| key.0 > 21).collect();
    for place in places {
        let mut changed = whole.clone();
        let (name, mut value) = changed.records.remove(&place).unwrap();
        let is_last_of_all = *whole.records.keys().next_back().unwrap() == place;
        if !is_last_of_all {
            let base = following.try_save(&changed, Some(&following.view())).unwrap();
            let contradicted = matches!(base.comparison, Comparison::Contradicted { .. });
            assert!(contradicted, "{place:?} is gone: {:?}", base.comparison);
            following = again(&whole);
        }
        value.push(b'!');
        changed.records.insert(place, (name + "?", value));
        let base = following.try_save(&changed, Some(&following.view())).unwrap();
        let contradicted = matches!(base.comparison, Comparison::Contradicted { .. });
        assert!(contradicted, "{place:?} is changed: {:?}", base.comparison);
        following = again(&whole);
    }
}

/// A machine whose disk went back has written other revisions under the same numbers into the journal than
/// the archive's log has. Once a base was made of the journal that named the archive's: it could not be
/// brought back.
#[test]
fn a_base_names_no_log_that_is_not_its_own() {
    let owner = Identity::generate();
    let sealing = Sealing::To(vec![owner.public()]);
    let sealed = Protection { sealing, signers: Vec::new() };
    let open = Protection { sealing: Sealing::Unencrypted, signers: Vec::new() };
    for (protection, followed) in [(&open, false), (&open, true), (&sealed, false), (&sealed, true)]
    {
        let mut saving = Saving::new();
        saving.archive = Archive::init(Store::memory().unwrap(), now_is(), protection).unwrap();
        let mut following = Following::into(saving);
        following.write(2);
        following.follow();
        let case = format!("sealed {}, followed {followed}", following.saving.archive.is_sealed());
        // What the journal was fed from is what it goes on from, be it sealed or not.
        let (archive, spool) = (&following.saving.archive, following.saving.spool.path());
        let view = following.view();
        let base = save_as(archive, &following.keyspace, spool, (Some(&view), false)).unwrap();
        assert_eq!((agreed(&base).new, base.objects), (0, 0), "{case}");
        assert_eq!(base.facts.timeline, following.writer.timeline(), "{case}");
        let mut other = following.keyspace.clone();
        following.write(3);
        following.follow();
        let timeline = following.writer.timeline();
        // As many revisions, and as many records.
        for (number, records) in [(0, 3), (1, 1), (2, 2)] {
            let names = ["a", "b", "c"].map(|name| format!("/new/{number}/{name}"));
            let changes: Vec<_> = names.iter().map(|name| (&**name, false)).collect();
            other.write(&changes[..records], 100);
        }
        let path = following.saving.spool.path().join("another");
        let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
        let first = base.facts.last.get() + 1;
        journal.add(&cut(&other, first, other.revision)).unwrap();
        let view = journal.view(timeline, revision(other.revision));
        let (archive, spool) = (&following.saving.archive, following.saving.spool.path());
        let base = save_as(archive, &other, spool, (Some(&view), followed)).unwrap();
        let goes_on = archive.is_sealed() && followed;
        assert_eq!(base.facts.timeline == timeline, goes_on, "{case}");
        let archive = archive.clone().with_identities(std::slice::from_ref(&owner)).unwrap();
        let entry = archive.list().unwrap().bases.into_iter().find(|it| it.name == base.name);
        let back = crate::keyspaces::read_back(&archive, &entry.unwrap()).unwrap();
        assert!(back == other.pairs(), "{case}");
        let found = verdict(&archive, now_is()).unwrap().findings;
        assert!(found.is_empty(), "{case}: {found:?}");
    }
}

/// The archive's log goes on beyond the snapshot: it came while that was taken, or the cluster went back.
#[test]
fn a_snapshot_that_is_behind_the_log() {
    for followed in [true, false] {
        let mut following = Following::new();
        following.write(1);
        let at = following.keyspace.clone();
        following.write(2);
        following.follow();
        let (archive, spool) = (&following.saving.archive, following.saving.spool.path());
        let view = following.view();
        let base = save_as(archive, &at, spool, (Some(&view), followed)).unwrap();
        assert_eq!(base.facts.timeline == following.writer.timeline(), followed);
        let entry = archive.list().unwrap().bases.into_iter().find(|it| it.name == base.name);
        assert!(crate::keyspaces::read_back(archive, &entry.unwrap()).unwrap() == at.pairs());
    }
}

/// Whoever takes over on another host has no digests of the last base. What he can read shows whether the
/// cluster is the same; otherwise a history begins.
#[test]
fn whoever_takes_over_looks_at_the_log() {
    let owner = Identity::generate();
    let sealing = Sealing::To(vec![owner.public()]);
    let sealed = Protection { sealing, signers: Vec::new() };
    let open = Protection { sealing: Sealing::Unencrypted, signers: Vec::new() };
    for (protection, is_same) in [(&open, true), (&open, false), (&sealed, true), (&sealed, false)]
    {
        let mut saving = Saving::new();
        saving.archive = Archive::init(Store::memory().unwrap(), now_is(), protection).unwrap();
        let mut following = Following::into(saving);
        following.write(2);
        following.follow();
        let mut other = following.keyspace.clone();
        following.write(3);
        following.follow();
        let now = match is_same {
            true => {
                following.write(2);
                &mut following.keyspace
            }
            false => {
                // It differs in the last record only.
                other.records = following.keyspace.records.clone();
                let mut last = other.records.last_entry().unwrap();
                last.get_mut().1.push(b'!');
                other.revision = following.keyspace.revision;
                &mut other
            }
        };
        let (archive, elsewhere) = (&following.saving.archive, a_spool());
        for compacted in [0, following.end - 1, following.end] {
            if compacted > 0 {
                now.compact(compacted);
            }
            let before = archive.list().unwrap().bases.len();
            let base = save_as(archive, now, elsewhere.path(), (None, false)).unwrap();
            let goes_on = is_same && !archive.is_sealed() && compacted < following.end;
            let timeline = following.writer.timeline();
            let case = format!("{}, {is_same}, {compacted}", archive.is_sealed());
            assert_eq!(base.facts.timeline == timeline, goes_on, "{case}");
            assert_eq!(archive.list().unwrap().bases.len(), before + 1);
            archive.store().remove(&base.name).unwrap();
            std::fs::remove_dir_all(elsewhere.path()).unwrap();
        }
    }
}

/// What cannot be read of the log is said, and the base needs none of it.
#[test]
fn a_damaged_log_ends_no_base() {
    let mut following = Following::new();
    following.write(4);
    following.follow();
    let archive = following.saving.archive.clone();
    let [name] = &segments(&archive).into_iter().collect::<Vec<_>>()[..] else { panic!() };
    let mut bytes = archive.store().read(name, 1 << 20).unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last - 40] ^= 1;
    archive.store().remove(name).unwrap();
    archive.store().create(name, bytes).unwrap();
    for view in [None, Some(following.view())] {
        following.write(1);
        let base = following.try_save(&following.keyspace, view.as_ref()).unwrap();
        let entry = archive.list().unwrap().bases.into_iter().find(|it| it.name == base.name);
        let back = crate::keyspaces::read_back(&archive, &entry.unwrap());
        match view {
            None => assert!(back.unwrap() == following.keyspace.pairs()),
            // Nobody has looked at what the journal was fed to.
            Some(_) => _ = back,
        }
    }
}

/// The clock of whoever began the newest history may be behind: it is the newest nevertheless.
#[test]
fn a_clock_that_went_back_does_not_bring_the_old_history_back() {
    let following = Following::new();
    let (archive, spool) = (following.saving.archive.clone(), following.saving.spool.path());
    let first = following.writer.timeline();
    advance(-3_600_000);
    let mut other = following.keyspace.clone();
    other.records.last_entry().unwrap().get_mut().1.push(b'!');
    other.write(&[("/a", false)], 10);
    let second = save(&archive, &other, spool, None).unwrap().facts.timeline;
    assert_ne!(second, first);
    assert_eq!(archive.log_end(CLUSTER).unwrap().unwrap().timeline, second);
    other.write(&[("/a", false)], 10);
    let third = save(&archive, &other, spool, None).unwrap();
    assert_eq!(third.facts.timeline, second, "{:?}", third.comparison);
}

fn sealed_for(owner: &Identity) -> Following {
    let sealing = Sealing::To(vec![owner.public()]);
    let sealed = Protection { sealing, signers: Vec::new() };
    let mut saving = Saving::new();
    saving.archive = Archive::init(Store::memory().unwrap(), now_is(), &sealed).unwrap();
    Following::into(saving)
}

/// Whoever takes over a sealed log cannot read it. Where his journal has the same revisions, told of at the same moments, he
/// goes on in it; once each take-over began a history and wrote everything anew.
#[test]
fn who_has_seen_the_same_together_goes_on() {
    let check = |case: &str, want: bool, step: i64, change: fn(Cut, usize) -> Cut, shift: i64| {
        let owner = Identity::generate();
        let mut following = sealed_for(&owner);
        let first = following.end + 1;
        following.write(6);
        let began = now_is().0;
        let at = |ahead: i64| move |number: i64| Moment(began + ahead + number * step);
        for from in [first, first + 2, first + 4] {
            let cut = cut_at(&following.keyspace, from, from + 1, at(0));
            following.writer.append(&cut, now()).unwrap();
        }
        following.write(3);
        let timeline = following.writer.timeline();
        let elsewhere = a_spool();
        let mut journal =
            Journal::open(&elsewhere.path().join("journal"), 1 << 30, now_is()).unwrap();
        // Theirs is cut elsewhere, and begins later.
        for (number, (from, to)) in
            [(first + 1, first + 2), (first + 3, first + 7)].iter().enumerate()
        {
            let cut = cut_at(&following.keyspace, *from, *to, at(shift));
            journal.add(&change(cut, number)).unwrap();
        }
        let view = journal.view(timeline, revision(first + 5));
        let (archive, known) = (&following.saving.archive, (Some(&view), false));
        let base = save_as(archive, &following.keyspace, elsewhere.path(), known).unwrap();
        assert_eq!(base.facts.timeline == timeline, want, "{case}");
        let opened = archive.clone().with_identities(std::slice::from_ref(&owner)).unwrap();
        let found = verdict(&opened, now_is()).unwrap().findings;
        assert!(found.is_empty(), "{case}: {found:?}");
    };
    let same = |cut, _| cut;
    check("told of together", true, 3000, same, 400);
    check("clocks apart", true, 3000, same, -1900);
    check("told of later", false, 3000, same, 2100);
    check("all within a blink", false, 400, same, 0);
    let term = |cut: Cut, number| match number {
        0 => cut,
        _ => Cut { witness: Witness { term: RaftTerm(6), ..witness() }, ..cut },
    };
    check("in another term", false, 3000, term, 0);
}

/// As many revisions at the same moments, but not as many records.
#[test]
fn who_has_seen_something_else_begins_a_history() {
    let owner = Identity::generate();
    let mut following = sealed_for(&owner);
    let (first, mut other) = (following.end + 1, following.keyspace.clone());
    let began = now_is().0;
    let at = |number: i64| Moment(began + number * 3000);
    for number in 0..4 {
        following.keyspace.write(&[("/a", false)], 10);
        let two = [("/a", false), ("/b", false)];
        other.write(if number == 2 { &two } else { &two[..1] }, 10);
        let at_once = cut_at(&following.keyspace, first + number, first + number, at);
        following.writer.append(&at_once, now()).unwrap();
    }
    let elsewhere = a_spool();
    let mut journal = Journal::open(&elsewhere.path().join("journal"), 1 << 30, now_is()).unwrap();
    journal.add(&cut_at(&other, first, first + 3, at)).unwrap();
    let timeline = following.writer.timeline();
    let view = journal.view(timeline, revision(first + 3));
    let archive = &following.saving.archive;
    let base = save_as(archive, &other, elsewhere.path(), (Some(&view), false)).unwrap();
    assert_ne!(base.facts.timeline, timeline);
}
