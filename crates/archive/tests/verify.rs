//! What is wrong with an archive is found, and nothing else is.

use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseRequest, Error, Level, Origin, Progress, Store, Verdict, Verification,
    VerifyProgress, VerifyRequest, Word, prepare_base,
};
use rekindle_bolt::{BulkWriter, Layout};
use rekindle_etcd::{Backend, ClusterId, KeyValue, MemberId, RecordKey, Revision, schema};
use rekindle_testkit::content::{files, noise};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};

/// A database of a record a revision up to this one, each of another key.
fn a_backend(revision: i64) -> Backend<Vec<u8>> {
    let layout = Layout::new(4096, 4096).unwrap();
    let mut bucket = BulkWriter::new(Vec::new(), layout).unwrap().bucket(schema::KEY).unwrap();
    for number in 2..=revision {
        let at = RecordKey::first_of(Revision::new(number).unwrap());
        let (key, value) = (format!("key-{number}"), noise(number.unsigned_abs(), 20));
        let (key, value) = (key.as_bytes(), value.as_slice());
        let kv = KeyValue { key, value, mod_revision: number, ..KeyValue::default() };
        bucket.put(&at.to_bytes(), &kv.to_bytes()).unwrap();
    }
    let mut bucket = bucket.finish().unwrap().bucket(schema::META).unwrap();
    let index = revision.unsigned_abs().to_be_bytes();
    bucket.put(schema::meta::CONSISTENT_INDEX, &index).unwrap();
    bucket.put(schema::meta::TERM, &5_u64.to_be_bytes()).unwrap();
    let finished = bucket.finish().unwrap().finish().unwrap();
    let mut bytes = finished.out;
    bytes[..finished.metas.len()].copy_from_slice(&finished.metas);
    Backend::open(bytes).unwrap()
}

/// An archive of two bases: the first has a pack, which the second shares and adds a segment to.
struct Fixture {
    directory: tempfile::TempDir,
    archive: Archive,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("archive");
        fs::create_dir(&root).unwrap();
        let archive = Archive::init_unencrypted(Store::directory(&root).unwrap(), Moment(0));
        let fixture = Self { directory, archive: archive.unwrap() };
        fixture.save(5);
        fixture.save(9);
        fixture
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    fn save(&self, revision: i64) {
        let archive = &self.archive;
        let origin = Origin {
            cluster: ClusterId(1),
            member: MemberId(2),
            etcd: "3.6.16".to_owned(),
            live_keys: None,
            state: Moment(revision * 1000),
            current: true,
        };
        let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
        let now = || Moment(revision * 1000);
        let tables = Some(self.directory.path());
        let request = BaseRequest { archive, origin: &origin, tables, now: &now, progress };
        prepare_base(&request, &a_backend(revision)).unwrap().publish(now()).unwrap();
    }

    fn verify(&self, level: Level) -> Result<Verdict, Error> {
        self.verify_at(level, Moment(10_000))
    }

    fn verify_at(&self, level: Level, now: Moment) -> Result<Verdict, Error> {
        verify(&self.archive, VerifyRequest { level, only: None, now })
    }

    /// The same by somebody who opens it first.
    fn open_and_verify(&self) -> Result<Verdict, Error> {
        let archive = Archive::open(self.archive.store().clone())?;
        verify(&archive, VerifyRequest { level: Level::Read, only: None, now: Moment(10_000) })
    }

    /// The one object whose name ends so and holds this.
    fn object(&self, part: &str) -> PathBuf {
        let found: Vec<_> = files(&self.root())
            .into_iter()
            .filter(|path| path.to_str().unwrap().contains(part))
            .collect();
        let [one] = &found[..] else { panic!("{part}: {found:?}") };
        one.clone()
    }

    fn base(&self, revision: i64) -> PathBuf {
        self.object(&format!("{revision:020}-{revision:020}-"))
    }

    /// Verifies with an object of these bytes, and puts it back.
    fn with(&self, path: &Path, bytes: Option<&[u8]>, level: Level) -> Outcome {
        let whole = fs::read(path).unwrap();
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let outcome = match path.ends_with("archive.json") {
            true => Outcome::of(self.open_and_verify()),
            false => Outcome::of(self.verify(level)),
        };
        fs::write(path, whole).unwrap();
        outcome
    }
}

fn verify(archive: &Archive, request: VerifyRequest) -> Result<Verdict, Error> {
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    Verification::begin(archive, &request)?.run(progress)
}

/// Revisions of the points that remain, and whether anything is lost.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Good,
    Remains(Vec<i64>),
    Refused(String),
}

impl Outcome {
    fn of(verdict: Result<Verdict, Error>) -> Self {
        match verdict {
            Err(error) => Self::Refused(error.to_string()),
            Ok(verdict) if verdict.findings.is_empty() => Self::Good,
            Ok(verdict) => {
                assert!(verdict.has(Word::Lost), "{verdict:?}");
                let remaining = verdict.points.iter().filter(|point| point.level.is_some());
                Self::Remains(remaining.map(|point| point.entry.header.facts.last.get()).collect())
            }
        }
    }
}

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
        let whole = fs::read(&path).unwrap();
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
        (fixture.object("archive.json"), &["created"][..]),
        (fixture.object("timeline.json"), &["began", "reason"]),
    ] {
        let whole = fs::read(&path).unwrap();
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
    let objects = files(&fixture.root());
    let objects = objects.iter().filter(|path| path.extension().unwrap() != "json");
    for path in objects {
        let whole = fs::read(path).unwrap();
        let longer = [&whole[..], &[0]].concat();
        let changes = [None, Some(&longer[..])];
        let cuts = (0..whole.len()).map(|length| Some(&whole[..length]));
        for bytes in changes.into_iter().chain(cuts) {
            for level in LEVELS.into_iter().take(if bytes.is_none() { 3 } else { 1 }) {
                let outcome = fixture.with(path, bytes, level);
                let lost = matches!(&outcome, Outcome::Remains(remains) if remains.len() < 2);
                let gone = bytes.is_none() && path.extension().unwrap() == "base";
                let length = bytes.map(<[u8]>::len);
                assert!(lost || gone, "{path:?}, {length:?} bytes, {level:?}: {outcome:?}");
            }
        }
    }
}

/// Good objects in the wrong places.
#[test]
fn what_was_swapped_or_put_back_is_found() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    let check = |path: &Path, bytes: &[u8], remains: &[i64]| {
        let outcome = fixture.with(path, Some(bytes), Level::Read);
        assert_eq!(outcome, Outcome::Remains(remains.to_vec()), "{path:?}");
    };
    let read = |path: PathBuf| fs::read(path).unwrap();
    check(&fixture.base(9), &read(fixture.base(5)), &[5]);
    check(&fixture.object(".pack"), &read(fixture.object(".seg")), &[]);
    check(&fixture.object(".seg"), &read(fixture.object(".pack")), &[5]);
    // Of the same content, and of another archive.
    check(&fixture.object(".pack"), &read(other.object(".pack")), &[]);
    check(&fixture.base(9), &read(other.base(9)), &[5]);
    // A segment that says by its name that it has more.
    let segment = fixture.object(".seg");
    let name = segment.file_name().unwrap().to_str().unwrap();
    let longer =
        segment.with_file_name(name.replace(&format!("-{:020}-", 9), &format!("-{:020}-", 99)));
    fs::rename(&segment, &longer).unwrap();
    let outcome = Outcome::of(fixture.verify(Level::Read));
    assert_eq!(outcome, Outcome::Remains(vec![5]));
    fs::rename(&longer, &segment).unwrap();
    assert_eq!(Outcome::of(fixture.verify(Level::Proven)), Outcome::Good);
}

#[test]
fn what_no_base_names_is_told_and_harms_nothing() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.base(5)).unwrap();
    fs::remove_file(fixture.base(9)).unwrap();
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
    fs::remove_file(fixture.object(".seg")).unwrap();
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
