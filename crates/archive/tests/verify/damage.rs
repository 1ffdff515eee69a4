//! What is wrong with an archive is found, and nothing else is.

use crate::fixture::{Fixture, Outcome, verify};
use crate::keyspaces::{Keyspace, Saving, now_is, read_back};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    BaseEntry, Error, Level, Verification, VerifyProgress, VerifyRequest, Word,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64};

const LEVELS: [Level; 3] = [Level::Listed, Level::Read, Level::Proven];

#[test]
fn what_is_whole_is_called_good() {
    let fixture = Fixture::new();
    for level in LEVELS {
        let verdict = fixture.verify(level).unwrap();
        assert_eq!(verdict.findings, [], "{level:?}");
        let levels: Vec<_> = verdict.points.iter().map(|point| point.level).collect();
        assert_eq!(levels, [Some(level); 2]);
    }
}

/// Every bit of every object; and what that takes away.
#[test]
fn no_bit_changes_unnoticed() {
    let fixture = Fixture::new();
    let (pack, segment) = (fixture.object(".pack"), fixture.object(".seg"));
    for (path, remains, level) in [
        (pack, &[][..], Level::Read),
        (segment, &[5], Level::Read),
        (fixture.base(5), &[9], Level::Listed),
        (fixture.base(9), &[5], Level::Listed),
    ] {
        let whole = fixture.read(&path);
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            match fixture.with(&path, Some(&changed), level) {
                Outcome::Remains(got) => assert_eq!(got, remains, "{path:?}, bit {bit}"),
                // Another version, which a newer program might read.
                Outcome::Refused(told) => assert!(told.contains("this rekindle knows"), "{told}"),
                Outcome::Good => panic!("{path:?}, bit {bit}"),
            }
        }
    }
    assert_eq!(Outcome::of(fixture.verify(Level::Proven)), Outcome::Good);
}

/// Of the JSON files, only what is told to people may be another.
#[test]
fn no_bit_of_what_counts_in_json_changes_unnoticed() {
    let fixture = Fixture::new();
    for (path, told_only) in [
        ("archive.json".to_owned(), &["created"][..]),
        (fixture.object("timeline.json"), &["began", "reason"]),
    ] {
        let whole = fixture.read(&path);
        let parsed = |bytes: &[u8]| -> Option<serde_json::Value> {
            let mut file: serde_json::Value = serde_json::from_slice(bytes).ok()?;
            told_only.iter().for_each(|field| _ = file[*field].take());
            Some(file)
        };
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let outcome = fixture.with(&path, Some(&changed), Level::Read);
            let harmless = parsed(&changed) == parsed(&whole);
            assert!(harmless || outcome != Outcome::Good, "{path:?}, bit {bit}");
        }
        for length in 0..whole.len() - 1 {
            let outcome = fixture.with(&path, Some(&whole[..length]), Level::Read);
            assert_ne!(outcome, Outcome::Good, "{path:?} cut to {length}");
        }
        assert_ne!(fixture.with(&path, None, Level::Listed), Outcome::Good, "{path:?} is gone");
    }
}

/// What shows by sizes and names is found without reading packs.
#[test]
fn what_is_cut_longer_or_gone_is_found_by_listing() {
    let fixture = Fixture::new();
    for name in fixture.objects().iter().filter(|name| !name.ends_with(".json")) {
        let whole = fixture.read(name);
        let longer = [&whole[..], &[0]].concat();
        let cuts = (0..whole.len()).map(|length| &whole[..length]);
        for bytes in cuts.chain([&longer[..]]) {
            let outcome = fixture.with(name, Some(bytes), Level::Listed);
            let lost = matches!(&outcome, Outcome::Remains(remains) if remains.len() < 2);
            assert!(lost, "{name}, {} bytes: {outcome:?}", bytes.len());
        }
        // A base that is gone is no restore point, and nobody misses it.
        for level in LEVELS.into_iter().filter(|_| !name.ends_with(".base")) {
            let outcome = fixture.with(name, None, level);
            assert!(matches!(&outcome, Outcome::Remains(remains) if remains.len() < 2), "{name}");
        }
    }
}

/// Good objects in the wrong places.
#[test]
fn what_was_swapped_or_put_back_is_found() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    let check = |name: &str, bytes: &[u8], remains: &[i64]| {
        let outcome = fixture.with(name, Some(bytes), Level::Read);
        assert_eq!(outcome, Outcome::Remains(remains.to_vec()), "{name}");
    };
    let (pack, segment) = (fixture.object(".pack"), fixture.object(".seg"));
    check(&fixture.base(9), &fixture.read(&fixture.base(5)), &[5]);
    check(&pack, &fixture.read(&segment), &[]);
    check(&segment, &fixture.read(&pack), &[5]);
    // Of the same content, and of another archive.
    check(&pack, &other.read(&other.object(".pack")), &[]);
    check(&fixture.base(9), &other.read(&other.base(9)), &[5]);
    // A segment that says by its name that it has more.
    let longer = segment.replace(&format!("-{:020}-", 9), &format!("-{:020}-", 99));
    let bytes = fixture.read(&segment);
    fixture.put(&segment, None);
    fixture.put(&longer, Some(&bytes));
    assert_eq!(Outcome::of(fixture.verify(Level::Read)), Outcome::Remains(vec![5]));
    fixture.put(&longer, None);
    fixture.put(&segment, Some(&bytes));
    assert_eq!(Outcome::of(fixture.verify(Level::Proven)), Outcome::Good);
}

/// Every object of another archive with the very same records, in the place of its counterpart.
#[test]
fn objects_of_another_archive_are_found() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    for (part, remains) in [(".pack", &[][..]), (".seg", &[5])] {
        let (own, foreign) = (fixture.object(part), other.read(&other.object(part)));
        let outcome = fixture.with(&own, Some(&foreign), Level::Read);
        assert_eq!(outcome, Outcome::Remains(remains.to_vec()), "{part}");
        check_refused(&fixture, &own, &foreign, remains);
    }
    for (revision, remains) in [(5, 9), (9, 5)] {
        let foreign = other.read(&other.base(revision));
        let outcome = fixture.with(&fixture.base(revision), Some(&foreign), Level::Listed);
        assert_eq!(outcome, Outcome::Remains(vec![remains]), "{revision}");
    }
    let foreign = other.read("archive.json");
    let outcome = fixture.with("archive.json", Some(&foreign), Level::Listed);
    assert_eq!(outcome, Outcome::Remains(Vec::new()), "all of it is of another archive then");
}

/// With an object of these bytes the bases of these revisions restore, and no others.
fn check_refused(fixture: &Fixture, name: &str, bytes: &[u8], remains: &[i64]) {
    let whole = fixture.read(name);
    fixture.put(name, Some(bytes));
    let bases = fixture.archive.list().unwrap().bases;
    let restores = |entry: &&BaseEntry| read_back(&fixture.archive, entry).is_ok();
    let restored: Vec<_> =
        bases.iter().filter(restores).map(|entry| entry.header.facts.last.get()).collect();
    assert_eq!(restored, remains, "{name}");
    fixture.put(name, Some(&whole));
}

/// Two histories of one cluster in one archive: what belongs to one counts for nothing in the other.
#[test]
fn objects_of_another_timeline_are_found() {
    let saving = two_timelines();
    let store = saving.archive.store();
    let bases = saving.archive.list().unwrap().bases;
    let timelines: BTreeSet<_> = bases.iter().map(|base| base.header.facts.timeline).collect();
    let [one, other] = &timelines.into_iter().collect::<Vec<_>>()[..] else { panic!("two") };
    let (one, other) = (format!("timelines/{one}"), format!("timelines/{other}"));
    let names = |folder: &str| store.list(folder).unwrap().into_iter().map(|found| found.name);
    for (from, to) in [(&one, &other), (&other, &one)] {
        // In the place of what is there, of its kind.
        for kind in ["packs", "log", "timeline.json"] {
            let is_so = |name: &String| name.contains(kind);
            let found = names(from).find(is_so).unwrap();
            for place in names(to).filter(is_so) {
                let whole = store.read(&place, 1 << 20).unwrap();
                let strange = store.read(&found, 1 << 20).unwrap();
                check_found(&saving, &place, &strange, &whole, Level::Read);
            }
        }
        // Under a name that says which it is, where nothing was.
        for kind in ["bases", "log"] {
            let found = names(&format!("{from}/{kind}")).next_back().unwrap();
            let place = found.replace(from.as_str(), to);
            let strange = store.read(&found, 1 << 20).unwrap();
            let level = if kind == "bases" { Level::Listed } else { Level::Read };
            store.create(&place, strange.to_vec()).unwrap();
            assert!(words(&saving, level).contains(&Word::Lost), "{place}");
            store.remove(&place).unwrap();
        }
    }
    assert_eq!(words(&saving, Level::Proven), []);
}

/// With these bytes in the place of others that is lost; afterwards it is as it was.
fn check_found(saving: &Saving, place: &str, strange: &[u8], whole: &[u8], level: Level) {
    let store = saving.archive.store();
    store.remove(place).unwrap();
    store.create(place, strange.to_vec()).unwrap();
    assert!(words(saving, level).contains(&Word::Lost), "{place}");
    let bases = saving.archive.list().unwrap().bases;
    let harmless = place.ends_with(".json");
    let restore = |entry: &BaseEntry| read_back(&saving.archive, entry);
    assert!(harmless || bases.iter().any(|entry| restore(entry).is_err()), "{place}");
    store.remove(place).unwrap();
    store.create(place, whole.to_vec()).unwrap();
}

fn words(saving: &Saving, level: Level) -> Vec<Word> {
    let request = VerifyRequest { level, only: None, now: now_is() };
    let verdict = verify(&saving.archive, request).unwrap();
    verdict.findings.iter().map(|found| found.word).collect()
}

/// Each with a pack, and a range of the log behind it.
fn two_timelines() -> Saving {
    let saving = Saving::new();
    let mut keyspace = Keyspace::new();
    (0..8).for_each(|n| keyspace.write(&[(&format!("/key/{n}"), false)], 30));
    for round in 0..4 {
        saving.save(&keyspace);
        if round == 1 {
            // The cluster has another past now.
            keyspace.records.values_mut().next().unwrap().1.push(1);
        }
        keyspace.write(&[(&format!("/later/{round}"), false)], 30);
    }
    saving
}

#[test]
fn what_no_base_names_is_told_and_harms_nothing() {
    let fixture = Fixture::new();
    fixture.put(&fixture.base(5), None);
    fixture.put(&fixture.base(9), None);
    let words = |now| {
        let verdict = fixture.verify_at(Level::Read, now).unwrap();
        let packs = verdict.findings.iter().filter(|found| found.object.ends_with(".pack"));
        packs.map(|found| found.word).collect::<Vec<_>>()
    };
    assert_eq!(words(Moment(10_000)), [Word::Uploading]);
    assert_eq!(words(Moment(10_000 + 24 * 3600 * 1000)), [Word::Orphan]);
}

#[test]
fn a_verification_can_be_stopped_and_one_point_can_be_named() {
    let fixture = Fixture::new();
    let archive = &fixture.archive;
    fixture.put(&fixture.object(".seg"), None);
    let listing = archive.list().unwrap();
    let only = |index: usize| Some(vec![listing.bases[index].name.clone()]);
    let verify = |only, stop| {
        let request = VerifyRequest { level: Level::Proven, only, now: Moment(10_000) };
        let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(stop) };
        Verification::begin(archive, &request).unwrap().run(progress)
    };
    let first = verify(only(0), false).unwrap();
    assert_eq!((first.points.len(), first.findings.len()), (1, 0));
    let second = verify(only(1), false).unwrap();
    let [found] = &second.findings[..] else { panic!("{second:?}") };
    let (from, to) = found.revisions.unwrap();
    assert_eq!((found.word, from.get(), to.get()), (Word::Lost, 6, 9));
    assert_eq!(found.reason, "no segment has revision 6 of the log");
    let stopped = verify(only(0), true).unwrap_err();
    assert!(matches!(stopped, Error::Stopped), "{stopped}");
}
