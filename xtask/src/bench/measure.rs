//! One run of something: how long it took, how much memory it had, and where its input was before.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::checkout;

/// Between two looks at a process's memory.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Of a file that is said to be out of the page cache, the part that may still be in it.
const RESIDENT_SHARE_MAX: f64 = 0.01;

/// Runs a command and returns the most anonymous memory that it was seen with, in bytes.
pub fn peak_memory(mut command: Command) -> Result<u64> {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| checkout::missing(&command))?;
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(&path).unwrap_or_default();
        peak = peak.max(anonymous_memory(&status).unwrap_or(0));
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "`{}` failed ({status})", checkout::show(&command));
            return Ok(peak);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// `RssAnon` of a `/proc/PID/status`, in bytes. A process that ends has none.
fn anonymous_memory(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// What a process that goes on has needed, while something else ran.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// Cores, on average.
    pub cores: f64,
    /// The most anonymous memory, in bytes.
    pub memory: u64,
}

/// Looks at a process until `is_over`.
pub fn watch(pid: u32, mut is_over: impl FnMut() -> Result<bool>) -> Result<Use> {
    let ticks = checkout::run_quietly(Command::new("getconf").arg("CLK_TCK"))?.stdout;
    let ticks: f64 = String::from_utf8_lossy(&ticks).trim().parse().context("getconf CLK_TCK")?;
    let spent = || -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Ok(cpu_ticks(&stat).context("no times in /proc")? / ticks)
    };
    let (began, before, mut memory) = (Instant::now(), spent()?, 0);
    while !is_over()? {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        memory = memory.max(anonymous_memory(&status).unwrap_or(0));
        thread::sleep(Duration::from_millis(20));
    }
    Ok(Use { cores: (spent()? - before) / began.elapsed().as_secs_f64(), memory })
}

/// Of a `/proc/PID/stat`, what the process has run in user and kernel mode (fields 14 and 15, proc(5)).
fn cpu_ticks(stat: &str) -> Option<f64> {
    let (_, behind_the_name) = stat.rsplit_once(')')?;
    let mut fields = behind_the_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

/// Brings a file, or all files of a folder, into the page cache.
pub fn warm(path: &Path) -> Result<()> {
    if path.is_dir() {
        let found = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        return found.iter().try_for_each(|entry| warm(&entry.path()));
    }
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    io::copy(&mut file, &mut io::sink())?;
    Ok(())
}

/// Takes a file out of the page cache, and makes sure that it is.
pub fn cool(path: &Path) -> Result<()> {
    let mut dd = Command::new("dd");
    dd.arg(format!("of={}", path.display()))
        // Only with fdatasync does dd give the cache up for all of the file.
        .args(["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
    checkout::run_quietly(&mut dd)?;
    let mut fincore = Command::new("fincore");
    fincore.args(["--bytes", "--noheadings", "--output", "RES"]).arg(path);
    let output = checkout::run_quietly(&mut fincore)?;
    let resident = String::from_utf8_lossy(&output.stdout);
    let resident: f64 = resident.trim().parse().context("fincore (util-linux) gives no number")?;
    if resident > RESIDENT_SHARE_MAX * fs::metadata(path)?.len() as f64 {
        bail!("{resident} bytes of {} stay in the page cache", path.display());
    }
    Ok(())
}

/// Lets nothing of one run be written during the next.
pub fn settle() -> Result<()> {
    checkout::run_quietly(&mut Command::new("sync")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::command;

    #[test]
    fn anonymous_memory_is_read_from_a_status() {
        let status = "Name:\tx\nVmRSS:\t    9000 kB\nRssAnon:\t    1234 kB\nRssFile:\t 5 kB\n";
        assert_eq!(anonymous_memory(status), Some(1234 * 1024));
        assert_eq!(anonymous_memory("Name:\tx\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn the_time_of_a_process_is_read_from_a_stat() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 120 34 7 7 20 0 1";
        assert_eq!(cpu_ticks(stat), Some(154.0));
        assert_eq!(cpu_ticks("42 (x) S 1"), None);
    }

    #[test]
    fn the_memory_of_a_process_is_seen() {
        let peak = peak_memory(command(&["sh", "-c", "read x < /proc/uptime"])).unwrap();
        assert!(peak < 64 << 20, "{peak}");
        assert!(peak_memory(command(&["false"])).is_err());
    }
}
