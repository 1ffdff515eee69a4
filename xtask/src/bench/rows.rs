//! What is measured: for each line of the table, who does it and with which commands. Nothing runs
//! here.

use std::path::{Path, PathBuf};

use super::data::Snapshot;
use super::series::Target;
use crate::etcd::{self, Site};

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    /// The first is ours.
    pub jobs: Vec<Job>,
    pub targets: Vec<Target>,
    /// The most anonymous memory that ours may take. Without a limit, none is measured.
    pub memory_max: Option<u64>,
    /// What ours and the peer's print must be the same.
    pub same_output: bool,
    /// Why it is as far from the limit as it is, in BENCHMARKS.md.
    pub note: &'static str,
}

/// Whose work a job is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Who {
    Us,
    Peer,
    /// Something that ours is held against, by its name.
    Reference(&'static str),
}

/// Commands that run one after the other and are timed together.
#[derive(Clone, Debug)]
pub struct Job {
    pub who: Who,
    /// Commands that run before, and are not timed.
    pub before: Vec<Vec<String>>,
    pub lines: Vec<Vec<String>>,
    pub input: Input,
    /// An etcd that is then started on what they made, and waited for.
    pub boots: Option<Site>,
    /// One run is enough, as the figure is no more than a hint.
    pub once: bool,
}

/// Where the file (or the folder of files) that a job reads must be when it begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    None,
    InPageCache(PathBuf),
    NotInPageCache(PathBuf),
}

/// The programs by their paths.
#[derive(Clone, Debug)]
pub struct Programs {
    pub rekindle: String,
    pub etcd: String,
    pub etcdctl: String,
    pub etcdutl: String,
    pub limits: String,
    pub drain: String,
    pub fill: String,
    pub churn: String,
    pub kubernetes: String,
    pub levels: String,
    pub many_bases: String,
    pub a_log: String,
    pub puts: String,
    pub drain_watch: String,
}

/// Memory that never depends on the size of the db.
const MEMORY_MAX: u64 = 64 << 20;
/// And what a key that must be remembered may take besides.
const MEMORY_PER_KEY: u64 = 24;

/// Makes rows of one snapshot, with what is written at one path.
pub struct Maker<'a> {
    pub programs: &'a Programs,
    pub snapshot: &'a Snapshot,
    /// What a job makes: a folder or a file. It is removed after each.
    pub output: PathBuf,
}

impl Maker<'_> {
    fn file(&self) -> String {
        self.snapshot.path.display().to_string()
    }

    pub(super) fn output(&self) -> String {
        self.output.display().to_string()
    }

    pub(super) fn hot(&self, who: Who, lines: Vec<Vec<String>>) -> Job {
        let input = Input::InPageCache(self.snapshot.path.clone());
        Job { who, before: Vec::new(), lines, input, boots: None, once: false }
    }

    fn ours(&self, words: &[&str]) -> Job {
        self.hot(Who::Us, vec![line(&self.programs.rekindle, words)])
    }

    fn peers(&self, words: &[&str]) -> Job {
        self.hot(Who::Peer, vec![line(&self.programs.etcdutl, words)])
    }

    fn limit(&self, name: &'static str, words: &[&str]) -> Job {
        self.hot(Who::Reference(name), vec![line(&self.programs.limits, words)])
    }

    fn memory_of_a_scan(&self) -> Option<u64> {
        Some(MEMORY_MAX + MEMORY_PER_KEY * self.snapshot.keys)
    }

    pub(super) fn restores(&self, options: &[&str]) -> Vec<Job> {
        let (file, output) = (self.file(), self.output());
        let words = |verbs: &[&str]| {
            let mut words: Vec<String> = verbs.iter().map(|&verb| verb.to_owned()).collect();
            words.extend([file.clone(), "--data-dir".into(), output.clone()]);
            words.extend(options.iter().map(|&option| option.to_owned()));
            words
        };
        let (ours, peers) = (words(&["restore"]), words(&["snapshot", "restore"]));
        vec![self.ours(&strs(&ours)), self.peers(&strs(&peers))]
    }

    pub fn restore(&self) -> Row {
        let mut jobs = self.restores(&[]);
        jobs.push(self.limit("SHA-256 alone", &["sha256", &self.file()]));
        Row {
            targets: vec![Target::FasterThanPeer(2.6), Target::TimesReference(1.1)],
            memory_max: Some(MEMORY_MAX),
            note: "The digest over all bytes runs on one core while the other reads, builds and \
                   writes; it is the longer of the two.",
            ..row("restore, one member, file in page cache", jobs)
        }
    }

    pub fn restore_cold(&self) -> Row {
        let mut row = self.restore();
        for job in &mut row.jobs {
            job.input = Input::NotInPageCache(self.snapshot.path.clone());
        }
        Row {
            name: "restore, one member, file not in page cache".into(),
            targets: vec![Target::FasterThanPeer(4.0)],
            memory_max: None,
            note: "Reading comes from the disk, once and from front to back, while the output goes \
                   to the same disk.",
            ..row
        }
    }

    /// `restored`: bytes of the db that a restore makes.
    pub fn restore_unhashed(&self, restored: u64) -> Row {
        let mut jobs = self.restores(&["--skip-hash-check"]);
        let written = restored.to_string();
        jobs.push(self.limit("write + fsync of as much", &["write", &self.output(), &written]));
        Row {
            targets: vec![Target::FasterThanPeer(5.0)],
            note: "What is left without the digest is reading, copying and writing the output.",
            ..row("restore --skip-hash-check", jobs)
        }
    }

    pub fn restore_members(&self, members: &[Site]) -> Row {
        let (file, output) = (self.file(), self.output());
        let cluster = etcd::initial_cluster(members);
        let words = ["restore", &file, "--members", &output, "--initial-cluster", &cluster];
        let each = members.iter().map(|site| {
            let (data_dir, peer_url) = (format!("{output}/{}", site.name), site.peer_url());
            let words = ["snapshot", "restore", &file, "--name", &site.name];
            let place = ["--data-dir", &data_dir, "--initial-cluster", &cluster];
            let url = ["--initial-advertise-peer-urls", &peer_url];
            line(&self.programs.etcdutl, &[&words[..], &place, &url].concat())
        });
        let mut one = self.restores(&[]).swap_remove(0);
        one.who = Who::Reference("our one member");
        Row {
            targets: vec![Target::TimesReference(2.5)],
            note: "Read, digested and built once; three files are written and synced.",
            ..row(
                "restore of three members",
                vec![self.ours(&words), self.hot(Who::Peer, each.collect()), one],
            )
        }
    }

    pub fn restore_and_boot(&self, site: &Site) -> Row {
        let mut jobs = self.restores(&[]);
        for job in &mut jobs {
            job.boots = Some(site.clone());
        }
        Row {
            targets: vec![Target::FasterThanPeer(2.0)],
            note: "etcd's own start is in both: it reads the whole db to index the keys.",
            ..row("restore, then etcd until it answers", jobs)
        }
    }

    pub fn status(&self) -> Row {
        let file = self.file();
        let jobs = vec![
            self.ours(&["status", &file]),
            self.peers(&["snapshot", "status", &file]),
            self.limit("memory scan", &["scan", &file]),
        ];
        Row {
            targets: vec![Target::FasterThanPeer(3.0)],
            memory_max: self.memory_of_a_scan(),
            note: "Beside etcdutl's CRC over all keys and values it checks every page and record.",
            ..row("status", jobs)
        }
    }

    /// `copy`: the same file for the peer, which modifies it.
    pub fn hashkv(&self, copy: &Path, kind: &str, faster: f64) -> Row {
        let (file, copied) = (self.file(), copy.display().to_string());
        let mut peers = self.peers(&["hashkv", &copied, "-w", "simple"]);
        peers.input = Input::InPageCache(copy.to_path_buf());
        let jobs = vec![
            self.ours(&["hashkv", &file, "-w", "simple"]),
            peers,
            self.limit("memory scan", &["scan", &file]),
        ];
        Row {
            targets: vec![Target::FasterThanPeer(faster)],
            memory_max: self.memory_of_a_scan(),
            same_output: true,
            note: "A CRC over all keys and values; compacted, the newest version of each key must be \
                   known first.",
            ..row(&format!("hashkv, {kind}"), jobs)
        }
    }

    /// `endpoint`: of a server that has the snapshot's keys.
    pub fn save(&self, endpoint: &str) -> Row {
        let output = self.output();
        let etcdctl = ["snapshot", "save", &output, "--endpoints", endpoint];
        let mut jobs = vec![
            self.ours(&["save", &output, "--endpoints", endpoint]),
            self.hot(Who::Peer, vec![line(&self.programs.etcdctl, &etcdctl)]),
            self.hot(
                Who::Reference("stream drained"),
                vec![line(&self.programs.drain, &[endpoint])],
            ),
        ];
        for job in &mut jobs {
            job.input = Input::None;
        }
        Row {
            targets: vec![Target::FasterThanPeer(1.5), Target::TimesReference(1.15)],
            memory_max: Some(MEMORY_MAX),
            note: "Two cores are full with the server and the draining alone: SHA-256, writing and the \
                   check (the limits and the status of this table) come on top, half of their sum.",
            ..row("save to a file", jobs)
        }
    }
}

impl Row {
    /// The same work as one point of a line over sizes: without targets, the peer once.
    pub fn into_point(mut self, size: &str) -> Self {
        self.name = format!("linear {size} GB: {}", self.name);
        self.jobs.retain(|job| matches!(job.who, Who::Us | Who::Peer));
        for job in &mut self.jobs {
            job.once = job.who == Who::Peer;
        }
        self.targets.clear();
        self
    }
}

pub(super) fn row(name: &str, jobs: Vec<Job>) -> Row {
    let name = name.to_owned();
    Row { name, jobs, targets: Vec::new(), memory_max: None, same_output: false, note: "" }
}

pub(super) fn line(program: &str, words: &[&str]) -> Vec<String> {
    [program].iter().chain(words).map(|&word| word.to_owned()).collect()
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
