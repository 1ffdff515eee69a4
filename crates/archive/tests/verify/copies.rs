//! Copies of an archive, and repairs from one.

use crate::fixture::{Fixture, Outcome, verify};
use rekindle_archive::format::Kind;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, Error, Item, Level, Store, Transfer, Transferred, VerifyProgress, VerifyRequest, stats,
};
use std::sync::atomic::{AtomicBool, AtomicU64};

fn request(only: Option<Vec<String>>) -> VerifyRequest {
    VerifyRequest { level: Level::Proven, only, now: Moment(10_000) }
}

fn run(transfer: Transfer<'_>, stop: bool) -> Result<Transferred, Error> {
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(stop) };
    transfer.run(progress)
}

fn copy(fixture: &Fixture, to: &Archive, only: Option<Vec<String>>) -> Transferred {
    run(Transfer::copy(&fixture.archive, to.store(), &request(only)).unwrap(), false).unwrap()
}

fn begin(fixture: &Fixture) -> Archive {
    fixture.archive.begin_copy(Store::memory().unwrap()).unwrap()
}

fn objects(archive: &Archive) -> Vec<(String, Vec<u8>)> {
    let listed = archive.store().list("timelines").unwrap().into_iter();
    let read =
        |name: String| (name.clone(), archive.store().read(&name, 1 << 20).unwrap().to_vec());
    listed.map(|found| read(found.name)).collect()
}

/// What would be brought back from another archive.
fn repair<'a>(fixture: &Fixture, from: &'a Archive) -> (Vec<Item>, Transfer<'a>) {
    let verdict = fixture.verify(Level::Read).unwrap();
    let transfer = Transfer::repair(&fixture.archive, &verdict, from, &request(None)).unwrap();
    (transfer.items().to_vec(), transfer)
}

#[test]
fn a_copy_has_everything_and_is_proven() {
    let fixture = Fixture::new();
    let to = begin(&fixture);
    let only_first = Some(vec![fixture.base(5)]);
    let first = copy(&fixture, &to, only_first);
    assert_eq!((first.objects, first.left.len()), (3, 0), "a timeline, a pack, a base");
    let verdict = verify(&to, request(None)).unwrap();
    assert_eq!((verdict.points.len(), verdict.findings.len()), (1, 0));

    let rest = copy(&fixture, &to, None);
    assert_eq!((rest.objects, rest.left.len()), (2, 0), "a segment, a base");
    assert_eq!(copy(&fixture, &to, None).objects, 0, "all is there");
    assert_eq!(objects(&to), objects(&fixture.archive));
    assert_eq!(verify(&to, request(None)).unwrap().findings, []);
    assert_eq!(to.id(), fixture.archive.id());
    let again = fixture.archive.begin_copy(to.store().clone()).unwrap();
    assert_eq!(again.id(), to.id());
}

#[test]
fn places_that_are_no_copy_are_refused() {
    let fixture = Fixture::new();
    let other = Fixture::new();
    let stranger = fixture.archive.begin_copy(other.archive.store().clone()).unwrap_err();
    assert!(matches!(stranger, Error::Stranger { .. }), "{stranger}");
    let store = Store::memory().unwrap();
    store.create("something", Vec::new()).unwrap();
    let full = fixture.archive.begin_copy(store).unwrap_err();
    assert!(matches!(full, Error::NotEmpty { .. }), "{full}");
    let verdict = fixture.verify(Level::Read).unwrap();
    let strange = Transfer::repair(&fixture.archive, &verdict, &other.archive, &request(None));
    assert!(matches!(strange.err().unwrap(), Error::Stranger { .. }));
}

/// What is damaged does not come over, and no base that needs it.
#[test]
fn damage_is_not_copied() {
    let fixture = Fixture::new();
    let segment = fixture.object(".seg");
    let mut bytes = fixture.read(&segment);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fixture.put(&segment, Some(&bytes));
    let to = begin(&fixture);
    let done = copy(&fixture, &to, None);
    let left: Vec<_> = done.left.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(left, [segment.as_str(), &fixture.base(9)]);
    assert!(done.left[0].reason.contains("its body was changed"), "{:?}", done.left);
    let verdict = verify(&to, request(None)).unwrap();
    assert_eq!((verdict.points.len(), verdict.findings.len()), (1, 0));
}

#[test]
fn a_copy_that_was_stopped_goes_on() {
    let fixture = Fixture::new();
    let to = begin(&fixture);
    let transfer = Transfer::copy(&fixture.archive, to.store(), &request(None)).unwrap();
    let stopped = run(transfer, true).unwrap_err();
    assert!(matches!(stopped, Error::Stopped), "{stopped}");
    assert_eq!(verify(&to, request(None)).unwrap().findings, []);
    copy(&fixture, &to, None);
    assert_eq!(objects(&to), objects(&fixture.archive));
}

/// Every object damaged or gone comes back from a copy, unless the copy's own is damaged, too.
#[test]
fn what_was_lost_comes_back() {
    let fixture = Fixture::new();
    let to = begin(&fixture);
    copy(&fixture, &to, None);
    let whole = objects(&to);
    for (name, bytes) in &whole {
        let mut changed = bytes.clone();
        changed[200] ^= 1;
        let cut = &bytes[..bytes.len() / 2];
        let is_base = name.ends_with(".base");
        for (bytes, replaces) in [(Some(&changed[..]), true), (Some(cut), true), (None, false)] {
            if is_base && bytes.is_none() {
                // Nobody misses it: that is for a copy the other way.
                continue;
            }
            fixture.put(name, bytes);
            let (items, transfer) = repair(&fixture, &to);
            let items: Vec<_> =
                items.iter().map(|item| (item.name.as_str(), item.replaces)).collect();
            let is_harmless = items.is_empty() && name.ends_with(".json");
            assert!(is_harmless || items == [(name.as_str(), replaces)], "{name}: {items:?}");
            assert_eq!(run(transfer, false).unwrap().left, [], "{name}");
            if is_harmless {
                fixture.put(name, whole.iter().find(|it| it.0 == *name).map(|it| &it.1[..]));
            }
        }
    }
    assert_eq!(objects(&fixture.archive), whole);
    assert_eq!(Outcome::of(fixture.verify(Level::Proven)), Outcome::Good);
    let (items, _) = repair(&fixture, &to);
    assert_eq!(items, []);

    let pack = fixture.object(".pack");
    let bytes = fixture.read(&pack);
    fixture.put(&pack, Some(&bytes[..300]));
    let bad = [&bytes[..400], &[0; 100], &bytes[500..]].concat();
    to.store().remove(&pack).unwrap();
    to.store().create(&pack, bad).unwrap();
    let (_, transfer) = repair(&fixture, &to);
    let done = run(transfer, false).unwrap();
    assert_eq!((done.objects, done.left.len()), (0, 1), "{done:?}");
    assert_eq!(fixture.read(&pack).len(), 300, "nothing was taken away");
}

#[test]
fn what_an_archive_holds_is_counted() {
    let fixture = Fixture::new();
    let stats = stats(&fixture.archive, Moment(9000 + 3 * 24 * 3600 * 1000)).unwrap();
    let listed = fixture.archive.store().list("timelines").unwrap();
    let stored = |end: &str| -> u64 {
        listed.iter().filter(|found| found.name.ends_with(end)).map(|found| found.bytes).sum()
    };
    let kinds: Vec<_> = stats.kinds.iter().map(|it| (it.kind, it.objects, it.stored)).collect();
    let want = [
        (Kind::Pack, 1, stored(".pack")),
        (Kind::Segment, 1, stored(".seg")),
        (Kind::Base, 2, stored(".base")),
        (Kind::Witness, 0, 0),
        (Kind::Files, 0, 0),
    ];
    assert_eq!(kinds, want);
    assert_eq!(stats.dead(), 0);
    assert_eq!(stats.stored(), want.iter().map(|it| it.2).sum::<u64>());
    let ages: Vec<_> = stats.ages.iter().map(|age| (age.days_max, age.bases)).collect();
    assert_eq!(ages, [(Some(1), 0), (Some(7), 2), (Some(30), 0), (None, 0)]);
    let bases = fixture.archive.list().unwrap().bases;
    let logical: u64 = bases.iter().map(|base| base.header.facts.logical_bytes).sum();
    assert_eq!((stats.bases_bytes, stats.unreadable), (logical, 0));
    assert!(stats.logical() < logical, "the second shares what the first has");
}
