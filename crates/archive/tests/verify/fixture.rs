//! A small archive that has one of each kind of object, to be damaged and verified.

use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseRequest, Error, Level, Origin, Progress, Store, Verdict, Verification,
    VerifyProgress, VerifyRequest, Word, prepare_base,
};
use rekindle_bolt::{BulkWriter, Layout};
use rekindle_etcd::{Backend, ClusterId, KeyValue, MemberId, RecordKey, Revision, schema};
use rekindle_testkit::content::noise;
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
pub struct Fixture {
    spool: tempfile::TempDir,
    pub archive: Archive,
}

impl Fixture {
    pub fn new() -> Self {
        let archive = Archive::init_unencrypted(Store::memory().unwrap(), Moment(0)).unwrap();
        let fixture = Self { spool: tempfile::tempdir().unwrap(), archive };
        fixture.save(5);
        fixture.save(9);
        fixture
    }

    pub fn save(&self, revision: i64) {
        let archive = &self.archive;
        let origin = Origin {
            cluster: ClusterId(1),
            member: MemberId(2),
            etcd: "3.6.16".to_owned(),
            state: Moment(revision * 1000),
            current: true,
        };
        let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
        let now = || Moment(revision * 1000);
        let tables = Some(self.spool.path());
        let request = BaseRequest { tables, ..BaseRequest::new(archive, &origin, &now, progress) };
        prepare_base(&request, &a_backend(revision)).unwrap().publish(now()).unwrap();
    }

    pub fn verify(&self, level: Level) -> Result<Verdict, Error> {
        self.verify_at(level, Moment(10_000))
    }

    pub fn verify_at(&self, level: Level, now: Moment) -> Result<Verdict, Error> {
        verify(&self.archive, VerifyRequest { level, only: None, now })
    }

    /// The same by somebody who opens it first.
    pub fn open_and_verify(&self) -> Result<Verdict, Error> {
        let archive = Archive::open(self.archive.store().clone())?;
        verify(&archive, VerifyRequest { level: Level::Read, only: None, now: Moment(10_000) })
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        self.archive.store().read(name, 1 << 20).unwrap().to_vec()
    }

    /// Puts other bytes into the place of an object.
    pub fn put(&self, name: &str, bytes: Option<&[u8]>) {
        self.archive.store().remove(name).unwrap();
        if let Some(bytes) = bytes {
            self.archive.store().create(name, bytes.to_vec()).unwrap();
        }
    }

    pub fn objects(&self) -> Vec<String> {
        self.archive.store().list("timelines").unwrap().into_iter().map(|it| it.name).collect()
    }

    /// The one object of whose name this is a part.
    pub fn object(&self, part: &str) -> String {
        let found: Vec<_> = self.objects().into_iter().filter(|name| name.contains(part)).collect();
        let [one] = &found[..] else { panic!("{part}: {found:?}") };
        one.clone()
    }

    pub fn base(&self, revision: i64) -> String {
        self.object(&format!("{revision:020}-{revision:020}-"))
    }

    /// Verifies with an object of these bytes, and puts it back.
    pub fn with(&self, name: &str, bytes: Option<&[u8]>, level: Level) -> Outcome {
        let whole = self.read(name);
        self.put(name, bytes);
        let outcome = match name {
            "archive.json" => Outcome::of(self.open_and_verify()),
            _ => Outcome::of(self.verify(level)),
        };
        self.put(name, Some(&whole));
        outcome
    }
}

pub fn verify(archive: &Archive, request: VerifyRequest) -> Result<Verdict, Error> {
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    Verification::begin(archive, &request)?.run(progress)
}

/// Revisions of the points that remain, and whether anything is lost.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Remains(Vec<i64>),
    Refused(String),
}

impl Outcome {
    pub fn of(verdict: Result<Verdict, Error>) -> Self {
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
