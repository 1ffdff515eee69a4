//! A capture that runs, and what a member says of revisions.

use rekindle_testkit::etcd::Cluster;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Far more than anything takes here, for a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(90);

/// `rekindle` with nothing in its environment and nobody at its terminal.
pub fn rekindle<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.env_clear().args(args).stdin(Stdio::null());
    command
}

/// Runs it; what it printed.
pub fn done<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> String {
    let output = rekindle(args).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A directory with an archive, and spools of hosts.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self::with(&["--unencrypted"])
    }

    /// With an archive that was made with these flags.
    pub fn with(flags: &[&str]) -> Self {
        let this = Self { directory: tempfile::tempdir().unwrap() };
        let archive = this.archive();
        let init = ["archive", "init", archive.to_str().unwrap()];
        done(init.iter().chain(flags));
        this
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn archive(&self) -> PathBuf {
        self.path().join("archive")
    }

    pub fn at(&self, point: impl std::fmt::Display) -> String {
        format!("{}@{point}", self.archive().display())
    }

    /// Waits until the archive's log has come to a revision.
    pub fn wait_until_it_has(&self, revision: i64) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let told = done(["archive", "list", "-w=json", self.archive().to_str().unwrap()]);
            let told: Value = serde_json::from_str(&told).unwrap();
            let mut ranges = told["log"].as_array().unwrap().iter();
            if ranges.any(|range| range["last"].as_i64().unwrap() >= revision) {
                return;
            }
            assert!(Instant::now() < deadline, "{told}");
        }
    }

    /// Follows the cluster into the archive, from the host of that name.
    pub fn capture(&self, cluster: &Cluster, host: &str, more: &[&str]) -> Capturing {
        let archive = self.archive();
        self.capture_into(cluster, host, &[&archive], more)
    }

    pub fn capture_into(
        &self,
        cluster: &Cluster,
        host: &str,
        archives: &[&Path],
        more: &[&str],
    ) -> Capturing {
        let (spool, endpoints) = (self.path().join(host), cluster.client_urls().join(","));
        let mut command = rekindle(["capture", "--flush-interval", "1s", "--endpoints"]);
        command.arg(&endpoints).arg("--spool").arg(spool).args(more);
        for archive in archives {
            command.arg("--archive").arg(archive);
        }
        Capturing::start(command)
    }
}

/// A capture, and what it has said.
pub struct Capturing {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    /// What was said up to here was waited for.
    heard: usize,
}

impl Capturing {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, lines) = channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|it| line.send(it))
        });
        Self { child, lines, said: Vec::new(), heard: 0 }
    }

    /// Waits until it says this, behind what was waited for before; the line.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_all(&[text])
    }

    /// The same of all of these, in whatever order; the last line.
    pub fn wait_for_all(&mut self, texts: &[&str]) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut texts = texts.to_vec();
        loop {
            while let Some(line) = self.said.get(self.heard) {
                self.heard += 1;
                texts.retain(|text| !line.contains(text));
                if texts.is_empty() {
                    return line.clone();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(_) => panic!("it did not say {texts:?}: {:#?}", self.said),
            }
        }
    }

    /// Stops it amid whatever it does, until it is thawed.
    pub fn freeze(&self) {
        signal("-STOP", self.child.id());
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        signal("-CONT", self.child.id());
    }

    /// Kills it, as nobody can guard against.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Interrupts it, and waits until it has written everything; what it said.
    pub fn stop(self) -> Vec<String> {
        self.stop_with(0)
    }

    /// The same where it ends with another code.
    pub fn stop_with(mut self, code: i32) -> Vec<String> {
        signal("-INT", self.child.id());
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        assert_eq!(status.code(), Some(code), "{:#?}", self.said);
        std::mem::take(&mut self.said)
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.said.extend(self.lines.try_iter());
            eprintln!("capture said: {:#?}", self.said);
        }
    }
}

fn signal(signal: &str, pid: u32) {
    let done = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(done.success());
}

/// A HashKV: comparable with another of the same revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u64,
    pub compact_revision: i64,
}

/// What the first member says of a revision.
pub fn hash(cluster: &Cluster, revision: i64) -> KvHash {
    let mut command = cluster.etcdctl_for(cluster.member(0));
    let revision = format!("--rev={revision}");
    let output = command.args(["endpoint", "hashkv", &revision, "-w", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let answer = &answer[0]["HashKV"];
    KvHash {
        hash: answer["hash"].as_u64().unwrap(),
        compact_revision: answer["compact_revision"].as_i64().unwrap(),
    }
}

/// What the archive gives for it.
pub fn archived_hash(point: &str) -> KvHash {
    opened_hash(point, &[])
}

/// The same of a sealed archive, with what opens it.
pub fn opened_hash(point: &str, keys: &[&str]) -> KvHash {
    let told = done(["hashkv", "-w=json", point].iter().chain(keys));
    let told: Value = serde_json::from_str(&told).unwrap();
    let hash = told["hash"].as_i64().unwrap().unsigned_abs();
    KvHash { hash, compact_revision: told["compactRevision"].as_i64().unwrap() }
}

/// The revision that an answer of etcdctl has.
pub fn revision_of(response: &Value) -> i64 {
    response["header"]["revision"].as_i64().unwrap()
}

/// Puts a key at one of the members, which may have to elect a leader first: what it gives up then is
/// asked of it again.
pub fn put_at(cluster: &Cluster, member: usize, key: &str, value: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut command = cluster.etcdctl_for(cluster.member(member));
        let output = command.args(["put", "--", key, value]).output().unwrap();
        if output.status.success() {
            return;
        }
        assert!(Instant::now() < deadline, "{}", told(&output));
    }
}

/// Puts a key; the revision.
pub fn put(cluster: &Cluster, key: &str, value: &str) -> i64 {
    revision_of(&cluster.etcdctl_json(["put", "--", key, value]))
}

/// Changes several keys at once.
pub fn transaction(cluster: &Cluster, changes: &str) {
    let mut command = cluster.etcdctl_command();
    let mut child = command.arg("txn").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // No conditions; the changes; nothing else to be done.
    write!(child.stdin.take().unwrap(), "\n{changes}\n\n").unwrap();
    assert!(child.wait().unwrap().success());
}
