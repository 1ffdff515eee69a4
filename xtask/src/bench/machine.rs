//! What the figures were had on and with.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use crate::checkout;

/// Above this load, something else runs, and figures mean little.
const QUIET_LOAD_MAX: f64 = 0.7;

/// The machine, the versions and the day, a line each.
pub fn describe(etcd: &str) -> Result<Vec<String>> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name")?;
    let kibibytes = field("/proc/meminfo", "MemTotal")?;
    let kibibytes: f64 = kibibytes.trim_end_matches("kB").trim().parse()?;
    let kernel = read("/proc/sys/kernel/osrelease")?;
    Ok(vec![
        format!("{cores} cores of {processor}, {:.0} GiB of memory", kibibytes / 1_048_576.0),
        format!("Linux {}", kernel.trim()),
        format!("rekindle {}", commit()?),
        etcd.to_owned(),
        said_by(Command::new("date").args(["-u", "+%Y-%m-%d"]))?,
    ])
}

/// A warning where the machine is not quiet.
pub fn warning() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split(' ').next()?.parse().ok()?;
    (load > QUIET_LOAD_MAX)
        .then(|| format!("the load is {load}: something else runs here, so figures mean little"))
}

fn commit() -> Result<String> {
    let root = checkout::root();
    let mut log = Command::new("git");
    let commit = said_by(log.args(["rev-parse", "--short", "HEAD"]).current_dir(&root))?;
    let mut status = Command::new("git");
    status.args(["status", "--porcelain", "--", "crates", "Cargo.lock"]).current_dir(&root);
    let changed = !said_by(&mut status)?.is_empty();
    Ok(if changed { format!("{commit} with changes that are not committed") } else { commit })
}

fn said_by(command: &mut Command) -> Result<String> {
    let output = checkout::run_quietly(command)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn field(path: &str, name: &str) -> Result<String> {
    let text = read(path)?;
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    Ok(value.with_context(|| format!("{path} says no {name}"))?.trim().to_owned())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
