//! What is measured on archives. Nothing runs here.

use std::path::PathBuf;

use super::rows::{Input, Job, Maker, Row, Who, line, row};
use super::series::Target;

pub const FIRST: &str = "first base";
pub const SECOND: &str = "second base, 1 % of keys changed";
pub const RESTORE: &str = "restore of a base";
pub const RESTORE_SEALED: &str = "restore of a base, encrypted";
pub const RESTORE_S3: &str = "restore of a base, from MinIO";
pub const PROVE: &str = "archive verify --level proven";
pub const PROVE_SEALED: &str = "archive verify --level proven, encrypted";
pub const RESTORE_LOG: &str = "restore of 300,000 updates of 1 KB from the log";
pub const RESTORE_LOG_SEALED: &str = "restore of 300,000 updates of 1 KB from the log, encrypted";
pub const RESTORE_LONG_LOG: &str = "restore of 3,000,000 updates of 1 KB from the log";
pub const LIST: &str = "archive list of 10,000 bases";

/// Bases of which a listing is measured.
pub const BASES: u64 = 10_000;

/// Memory that never depends on the size of the db.
const MEMORY_MAX: u64 = 128 << 20;

/// The hundredth of the keys, and how often it is changed between two bases.
const CHANGED_PERCENT: &str = "1";

/// An archive that is there while rows are measured on it.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// A path, or a URL.
    pub place: String,
    /// Who saves into it has its spool there.
    pub spool: String,
    /// Opens it, where it is encrypted.
    pub identity: Option<String>,
    /// What each command about its place needs, where that is no path.
    pub options: Vec<String>,
    /// All of the environment that commands about it see; where there is none, that of others.
    pub variables: Vec<String>,
    /// Where its objects lie.
    pub files: PathBuf,
}

impl Kept {
    /// A command about it.
    pub fn command(&self, rekindle: &str, words: &[&str]) -> Vec<String> {
        let mut command = Vec::new();
        if !self.variables.is_empty() {
            command = line("env", &["--ignore-environment"]);
            command.extend_from_slice(&self.variables);
        }
        command.extend(line(rekindle, words));
        command.extend_from_slice(&self.options);
        command
    }

    /// A command that reads its content.
    fn reading(&self, rekindle: &str, words: &[&str]) -> Vec<String> {
        let identity = self.identity.iter().flat_map(|file| ["--identity", file]);
        self.command(rekindle, &words.iter().copied().chain(identity).collect::<Vec<_>>())
    }

    pub fn save(&self, rekindle: &str, endpoint: &str) -> Vec<String> {
        let from = ["--spool", &self.spool, "--endpoints", endpoint];
        self.command(rekindle, &[&["save", &self.place, "-w", "json"], &from[..]].concat())
    }

    fn input(&self) -> Input {
        Input::InPageCache(self.files.clone())
    }
}

impl Maker<'_> {
    /// An archive of its own for each run.
    pub fn first_base(&self, endpoint: &str) -> Row {
        let output = self.output();
        let [place, spool] = ["archive", "spool"].map(|name| format!("{output}/{name}"));
        let init = ["archive", "init", &place, "--unencrypted"];
        let kept = Kept { place: place.clone(), spool, ..Kept::default() };
        let mut ours = self.hot(Who::Us, vec![kept.save(&self.programs.rekindle, endpoint)]);
        ours.before = vec![line(&self.programs.rekindle, &init)];
        Row {
            targets: vec![Target::TimesReference(1.8)],
            memory_max: Some(MEMORY_MAX),
            note: "The snapshot is spooled and checked as by a save to a file, walked once for \
                   HashKV and its records, each digested and compressed, and read once more to be compared \
                   with what came, on the two cores that the server has, too.",
            ..row(FIRST, self.beside_draining(ours, endpoint))
        }
    }

    /// Each run's last base is of before the churn: that of the run before.
    pub fn second_base(&self, kept: &Kept, endpoint: &str) -> Row {
        let mut ours = self.hot(Who::Us, vec![kept.save(&self.programs.rekindle, endpoint)]);
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

    /// Of a base with 20,000 keys, and so many updates behind it.
    pub fn restore_log(&self, name: &str, kept: &Kept, updates: u64) -> Row {
        Row {
            targets: vec![Target::Revisions { count: updates, least: 500_000.0 }],
            memory_max: Some(MEMORY_MAX),
            note: "Segments are read, compared with their digests and decompressed, and their records \
                   written as they are. etcdbrctl 0.44 was measured with 7,500 revisions a second and 793 MB \
                   on the same work; it is not run here.",
            ..row(name, vec![self.restoring(Who::Us, kept)])
        }
    }

    /// From a store that speaks S3, on this machine.
    pub fn restore_s3(&self, kept: &Kept) -> Row {
        let peer = self.restores(&[]).into_iter().find(|job| job.who == Who::Peer);
        Row {
            targets: vec![Target::FasterThanPeer(2.5)],
            memory_max: Some(MEMORY_MAX),
            note: "MinIO has the same two cores, and etcdutl its file at hand.",
            ..row(RESTORE_S3, [self.restoring(Who::Us, kept)].into_iter().chain(peer).collect())
        }
    }

    fn restoring(&self, who: Who, kept: &Kept) -> Job {
        let output = self.output();
        let words = ["restore", &kept.place, "--data-dir", &output];
        let command = kept.reading(&self.programs.rekindle, &words);
        let mut job = self.hot(who, vec![command]);
        job.input = kept.input();
        job
    }

    /// `bytes`: of the keyspace that is proven.
    pub fn prove(&self, kept: &Kept, bytes: u64) -> Row {
        let words = ["archive", "verify", &kept.place, "--level", "proven"];
        let command = kept.reading(&self.programs.rekindle, &words);
        let mut job = self.hot(Who::Us, vec![command]);
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
