//! What is measured on archives. Nothing runs here.

use super::rows::{Input, Job, Maker, Row, Who, line, row};
use super::series::Target;

pub const FIRST: &str = "first base";
pub const SECOND: &str = "second base, 1 % of keys changed";
pub const RESTORE: &str = "restore of a base";
pub const RESTORE_SEALED: &str = "restore of a base, encrypted";
pub const PROVE: &str = "archive verify --level proven";
pub const PROVE_SEALED: &str = "archive verify --level proven, encrypted";
pub const LIST: &str = "archive list of 10,000 bases";

/// Bases of which a listing is measured.
pub const BASES: u64 = 10_000;

/// Memory that never depends on the size of the db.
const MEMORY_MAX: u64 = 128 << 20;

/// The hundredth of the keys, and how often it is changed between two bases.
const CHANGED_PERCENT: &str = "1";

/// An archive that is there while rows are measured on it.
#[derive(Clone, Debug)]
pub struct Kept {
    pub place: String,
    /// Who saves into it has its spool there.
    pub spool: String,
    /// Opens it, where it is encrypted.
    pub identity: Option<String>,
}

impl Kept {
    fn reading<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let identity = self.identity.as_deref();
        words.iter().copied().chain(identity.map(|_| "--identity")).chain(identity).collect()
    }

    fn input(&self) -> Input {
        Input::InPageCache(self.place.clone().into())
    }
}

impl Maker<'_> {
    /// Makes an archive at a path.
    pub fn init(&self, place: &str, protection: &[&str]) -> Vec<String> {
        line(&self.programs.rekindle, &[&["archive", "init", place], protection].concat())
    }

    /// Saves a base of what an endpoint serves.
    pub fn save_base(&self, place: &str, spool: &str, endpoint: &str) -> Vec<String> {
        let from = ["--spool", spool, "--endpoints", endpoint];
        line(&self.programs.rekindle, &[&["save", place, "-w", "json"], &from[..]].concat())
    }

    /// An archive of its own for each run.
    pub fn first_base(&self, endpoint: &str) -> Row {
        let output = self.output();
        let [place, spool] = ["archive", "spool"].map(|name| format!("{output}/{name}"));
        let save = self.save_base(&place, &spool, endpoint);
        let mut ours = self.hot(Who::Us, vec![save]);
        ours.before = vec![self.init(&place, &["--unencrypted"])];
        Row {
            targets: vec![Target::TimesReference(1.8)],
            memory_max: Some(MEMORY_MAX),
            note: "The snapshot is spooled and checked as by a save to a file, walked once for HashKV \
                   and once for its records, each digested and compressed, and read once more for its \
                   SHA-256, on the two cores that the server has, too.",
            ..row(FIRST, self.beside_draining(ours, endpoint))
        }
    }

    /// Each run's last base is of before the churn: that of the run before.
    pub fn second_base(&self, kept: &Kept, endpoint: &str) -> Row {
        let mut ours = self.hot(Who::Us, vec![self.save_base(&kept.place, &kept.spool, endpoint)]);
        let keys = self.snapshot.keys.to_string();
        ours.before = vec![line(&self.programs.churn, &[endpoint, &keys, CHANGED_PERCENT])];
        Row {
            targets: vec![
                Target::TimesReference(1.3),
                Target::Percent { of: "size", part: "newBytes", most: 3.0 },
            ],
            note: "Nearly nothing is compressed and written; all of the snapshot is still spooled, \
                   checked, and walked to be compared, record by record.",
            ..row(SECOND, self.beside_draining(ours, endpoint))
        }
    }

    fn beside_draining(&self, ours: Job, endpoint: &str) -> Vec<Job> {
        let drained = line(&self.programs.drain, &[endpoint]);
        let mut jobs = vec![ours, self.hot(Who::Reference("stream drained"), vec![drained])];
        for job in &mut jobs {
            job.input = Input::None;
        }
        jobs
    }

    pub fn restore_base(&self, kept: &Kept) -> Row {
        let peer = self.restores(&[]).into_iter().find(|job| job.who == Who::Peer);
        Row {
            targets: vec![Target::FasterThanPeer(4.5)],
            memory_max: Some(MEMORY_MAX),
            note: "Every byte is compared with a BLAKE3 digest and decompressed, while the db is \
                   written; etcdutl digests the snapshot, copies it and edits the copy.",
            ..row(RESTORE, [self.restoring(Who::Us, kept)].into_iter().chain(peer).collect())
        }
    }

    pub fn restore_sealed(&self, sealed: &Kept, plain: &Kept) -> Row {
        let not_sealed = self.restoring(Who::Reference("not encrypted"), plain);
        Row {
            targets: vec![Target::TimesReference(1.35)],
            memory_max: Some(MEMORY_MAX),
            note: "ChaCha20-Poly1305 comes on top, over every byte.",
            ..row(RESTORE_SEALED, vec![self.restoring(Who::Us, sealed), not_sealed])
        }
    }

    fn restoring(&self, who: Who, kept: &Kept) -> Job {
        let output = self.output();
        let words = kept.reading(&["restore", &kept.place, "--data-dir", &output]);
        let mut job = self.hot(who, vec![line(&self.programs.rekindle, &words)]);
        job.input = kept.input();
        job
    }

    /// `bytes`: of the keyspace that is proven.
    pub fn prove(&self, kept: &Kept, bytes: u64) -> Row {
        let words = kept.reading(&["archive", "verify", &kept.place, "--level", "proven"]);
        let mut job = self.hot(Who::Us, vec![line(&self.programs.rekindle, &words)]);
        job.input = kept.input();
        let (name, least) = match kept.identity {
            None => (PROVE, 2.0),
            Some(_) => (PROVE_SEALED, 1.2),
        };
        Row {
            targets: vec![Target::Rate { bytes, least }],
            note: "All objects are read, digested and decompressed, and HashKV is computed of the \
                   records.",
            ..row(name, vec![job])
        }
    }

    /// `place`: an archive of so many bases.
    pub fn list(&self, place: &str) -> Row {
        let mut job =
            self.hot(Who::Us, vec![line(&self.programs.rekindle, &["archive", "list", place])]);
        job.input = Input::InPageCache(place.into());
        Row {
            targets: vec![Target::Seconds(2.0)],
            note: "Each base is opened for its header.",
            ..row(LIST, vec![job])
        }
    }
}
