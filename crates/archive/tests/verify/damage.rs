//! What is wrong with an archive is found, and nothing else is.

use crate::fixture::{Fixture, Outcome};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Error, Level, Verification, VerifyProgress, VerifyRequest, Word};
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
