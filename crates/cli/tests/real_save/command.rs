//! The binary under test, and where it saves to.

use rekindle_testkit::etcd::Cluster;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// `rekindle` with nothing in its environment and nobody at its terminal.
pub fn rekindle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A directory to save to.
pub struct Target(TempDir);

impl Target {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self) -> PathBuf {
        self.dir().join("snap.db")
    }

    /// `save snap.db` from these endpoints.
    pub fn save(&self, endpoints: &str) -> Command {
        let mut command = rekindle();
        command.arg("save").arg(self.file()).arg(format!("--endpoints={endpoints}"));
        command
    }

    /// Names of what is in the directory.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Every endpoint of a cluster, as etcdctl takes them.
pub fn endpoints(cluster: &Cluster) -> String {
    cluster.client_urls().join(",")
}

/// What a command printed on its two streams, which must have gone well.
#[track_caller]
pub fn done(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    (text(&output.stdout), text(&output.stderr))
}

/// What a command complained of, which must have ended with this exit code.
#[track_caller]
pub fn failed(code: i32, command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", told(&output));
    text(&output.stderr)
}

fn told(output: &Output) -> String {
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
