//! A machine of its own: Debian's files, and a real systemd as process 1.
//!
//! It has a cgroup and namespaces of its own, and what it writes is in memory: the files that are kept for the
//! next time never change, and no process and no mount outlives it. The network is this host's.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::interrupt::Interrupt;
use crate::{checkout, packages, tools};

/// Debian's release, and what is installed besides what every Debian has.
const RELEASE: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,procps,util-linux,curl";

/// How long systemd may take until all is started, and until its last process is gone.
const BOOT_WITHIN: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The files of a fresh Debian, which are had once and kept. Only root may have them, and boot them.
pub fn root() -> Result<PathBuf> {
    packages::require_root("a machine of its own takes root")?;
    let folder = tools::place("machines")?;
    let root = folder.join(RELEASE);
    if root.is_dir() {
        return Ok(root);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    packages::install(&[("mmdebstrap", "/usr/bin/mmdebstrap")])?;
    eprintln!("making {} (a minute, 210 MB)", root.display());
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(&folder)?;
    let made = partial.path().join(RELEASE);
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), RELEASE]).arg(&made);
    checkout::run_quietly(&mut mmdebstrap)?;
    fs::rename(&made, &root).with_context(|| format!("cannot make {}", root.display()))?;
    Ok(root)
}

/// A machine that runs. It ends with this at the latest.
pub struct Machine {
    /// What made the namespaces, and waits for process 1.
    child: Child,
    /// Process 1, as this host numbers it.
    init: u32,
    cgroup: PathBuf,
    interrupt: Interrupt,
    _world: TempDir,
}

impl Machine {
    /// Boots systemd on these files.
    pub fn boot(root: &Path, interrupt: &Interrupt) -> Result<Self> {
        let world = tempfile::Builder::new().prefix("rekindle-machine-").tempdir()?;
        let script = world.path().join("boot.sh");
        fs::write(&script, include_str!("boot.sh"))?;
        let place = world.path().join("world");
        fs::create_dir(&place)?;
        let cgroup = cgroups()?.join(format!("rekindle-machine-{}", std::process::id()));
        fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        // It is killed with us, and process 1 with it; Ctrl-C reaches neither by itself.
        let mut unshare = Command::new("setpriv");
        unshare.args(["--pdeathsig", "KILL", "unshare", "--kill-child=KILL"]);
        unshare.args(["--mount", "--pid", "--fork", "--ipc", "--uts", "sh"]);
        unshare.arg(&script).args([root, &place, &cgroup]).stdin(Stdio::null()).process_group(0);
        let child = unshare.spawn().with_context(|| checkout::missing(&unshare));
        let child = child.inspect_err(|_| _ = fs::remove_dir(&cgroup))?;
        let interrupt = interrupt.clone();
        let mut machine = Self { child, init: 0, cgroup, interrupt, _world: world };
        machine.wait_until_booted()?;
        Ok(machine)
    }

    fn wait_until_booted(&mut self) -> Result<()> {
        let pid = self.child.id();
        self.init = self.interrupt.clone().until("process 1 is systemd", BOOT_WITHIN, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the machine ended ({status})");
            }
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            let Ok(init) = children.trim().parse() else { return Ok(None) };
            let name = fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default();
            Ok((name.trim() == "systemd").then_some(init))
        })?;
        self.wait_for("all is started", BOOT_WITHIN, |machine| {
            let state = machine.output(&["systemctl", "is-system-running"])?;
            Ok((state.trim() == "running").then_some(()))
        })
    }

    /// Where this host finds a file of the machine.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Writes a file of the machine, and the folder that it lies in.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(&path, text).with_context(|| format!("cannot write {inside}"))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string()]);
        command.args(["--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root", "--wd=/", "--"]);
        command.args(words).env_clear().env("PATH", PATH).stdin(Stdio::null()).process_group(0);
        command
    }

    /// What a command of the machine prints; it must succeed.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("cannot run `nsenter`")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            bail!("`{}` failed ({}):\n{said}{}", words.join(" "), output.status, error.trim_end());
        }
        Ok(said)
    }

    /// What a command of the machine prints, however it ends.
    pub fn output(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("cannot run `nsenter`")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until there is something to see.
    pub fn wait_for<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        self.interrupt.until(what, within, || look(self))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All that was started in it is in its cgroup, whatever became of namespaces and parents.
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.child.kill();
        let _ = self.child.wait();
        let deadline = Instant::now() + END_WITHIN;
        while let Err(error) = remove_cgroup(&self.cgroup) {
            if Instant::now() > deadline {
                eprintln!("cannot remove {}: {error}", self.cgroup.display());
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Where this host has its cgroups of version 2.
fn cgroups() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    cgroup2_in(&mounts).context("no cgroup2 is mounted here, which systemd needs")
}

fn cgroup2_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, place, "cgroup2", ..] => Some(place.into()),
        _ => None,
    })
}

fn remove_cgroup(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_cgroup2_is_found() {
        let old = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw 0 0\n";
        let both = format!("{old}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
        assert_eq!(cgroup2_in(&both), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_in(old), None);
    }
}
