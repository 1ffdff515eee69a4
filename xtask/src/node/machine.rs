//! The node: what starts it, runs commands in it, and ends it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::interrupt::Interrupt;
use crate::{checkout, packages};

/// Debian's packages, each with a file by which it is known to be there.
const PACKAGES: [(&str, &str); 4] = [
    ("containerd", "/usr/bin/containerd"),
    ("runc", "/usr/sbin/runc"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iptables", "/usr/sbin/iptables"),
];
/// The scripts that make it.
const SCRIPTS: [(&str, &str); 2] =
    [("up.sh", include_str!("up.sh")), ("pki.sh", include_str!("pki.sh"))];
const END_WITHIN: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Installs what is missing.
pub fn install_packages() -> Result<()> {
    packages::require_root("a node of its own takes root")?;
    packages::install(&PACKAGES)
}

/// A node that runs. It ends with this at the latest.
pub struct Node {
    folder: TempDir,
}

impl Node {
    /// Begins one; its programs are in these folders.
    pub fn begin(programs: &[PathBuf], interrupt: &Interrupt) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rekindle-node-").tempdir()?;
        let node = Self { folder };
        let scripts = node.path("scripts");
        fs::create_dir(&scripts)?;
        for (name, text) in SCRIPTS {
            let path = scripts.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        let own = std::env::var_os("PATH").unwrap_or_default();
        let path = programs.iter().cloned().chain(std::env::split_paths(&own));
        let mut up = Command::new(scripts.join("up.sh"));
        up.arg(node.path("")).env("PATH", std::env::join_paths(path)?);
        up.stdin(Stdio::null()).process_group(0);
        let mut child = up.spawn().with_context(|| checkout::missing(&up))?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if let Err(interrupted) = interrupt.check() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(interrupted);
            }
            thread::sleep(POLL_INTERVAL);
        };
        ensure!(status.success(), "the node did not come up ({status})");
        Ok(node)
    }

    /// Where this host finds what the node keeps.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command in the node.
    pub fn enter(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(self.path("enter"));
        command.args(words).stdin(Stdio::null()).process_group(0);
        command
    }

    /// What kubectl prints; it must succeed.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(self.path("kubectl"));
        command.args(words).stdin(Stdio::null()).process_group(0);
        said(&mut command)
    }
}

/// What a command prints; it must succeed.
pub fn said(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().with_context(|| checkout::missing(command))?;
    if !status.success() {
        let error = String::from_utf8_lossy(&stderr);
        bail!("{} failed ({status}): {}", checkout::show(command), error.trim_end());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

impl Drop for Node {
    fn drop(&mut self) {
        let read = |name: &str| fs::read_to_string(self.path(name)).ok();
        if let Some(pid) = read("node.pid") {
            // Process 1 of its processes: the kernel ends the rest.
            let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
            let deadline = Instant::now() + END_WITHIN;
            let process = Path::new("/proc").join(pid.trim());
            while process.exists() && Instant::now() < deadline {
                thread::sleep(POLL_INTERVAL);
            }
        }
        let Some(cgroup) = read("cgroup") else { return };
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let path = hierarchy.path().join(cgroup.trim());
            let deadline = Instant::now() + END_WITHIN;
            while path.exists() && remove_cgroup(&path).is_err() && Instant::now() < deadline {
                thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

fn remove_cgroup(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
