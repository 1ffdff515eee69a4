//! What is done to the units, and what must come of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::machine::Machine;
use crate::checkout;
use crate::etcd::{self, Etcd, Site};
use crate::interrupt::Interrupt;

const AGENT: &str = "rekindle.service";
const DROP_IN: &str = "/etc/systemd/system/rekindle.service.d/test.conf";
const CONFIG: &str = "/etc/rekindle/config.yaml";
const ARCHIVE: &str = "/backup/etcd";
/// The revision of an etcd with ten keys.
const REVISION: i64 = 11;
/// What the agent saves once it has read its configuration anew.
const SNAPSHOT: &str = "/backup/agent.db";
const SAVE: &str = "rekindle-save@.service";
const TIMER: &str = "rekindle-save@one.timer";

/// The folder that backups go to, as the unit says.
const SETTINGS: &str = "[Service]\nReadWritePaths=/backup\nRestartSec=1\n";
/// No minute of waiting.
const WATCHDOG: &str = "WatchdogSec=3\n";

/// How long anything may take that is not a unit's own timeout.
pub(super) const WITHIN: Duration = Duration::from_secs(60);
/// The unit's `TimeoutStopSec`.
const STOP_WITHIN: Duration = Duration::from_secs(120);
/// How much of the journal a failure shows.
const JOURNAL_LINES: usize = 60;
/// What `systemd-analyze security` may say of the units, from 0 to 10: a save without an agent is root's, in little else.
const EXPOSURE_MAX: [(&str, f64); 2] = [(AGENT, 2.0), (SAVE, 2.2)];

/// The machine, and an etcd outside of it.
pub struct Trial {
    pub(super) machine: Machine,
    pub(super) programs: PathBuf,
    site: Site,
    _etcd: Etcd,
    rekindle: PathBuf,
    _folder: TempDir,
}

impl Trial {
    /// Starts etcd, with some keys.
    pub fn begin(
        machine: Machine,
        programs: &Path,
        rekindle: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rekindle-systemd-").tempdir()?;
        let [site] = Site::find(["one"])?;
        let program = programs.join("etcd").display().to_string();
        let mut words = vec![program];
        words.extend(site.arguments(&folder.path().join("data").display().to_string()));
        words.extend(etcd::founding_arguments(&site, std::slice::from_ref(&site)));
        let mut etcd = Etcd::start(&site, etcd::command(&words), &folder.path().join("log"))?;
        etcd.wait_until_healthy(WITHIN, interrupt)?;
        let (rekindle, programs) = (rekindle.to_path_buf(), programs.to_path_buf());
        let trial = Self { machine, programs, site, _etcd: etcd, rekindle, _folder: folder };
        for key in 1..REVISION {
            trial.etcdctl(&trial.site, &["put", &format!("/key/{key}"), "value"])?;
        }
        Ok(trial)
    }

    /// What etcdctl says of a member.
    pub(super) fn etcdctl(&self, site: &Site, words: &[&str]) -> Result<String> {
        let etcdctl = self.programs.join("etcdctl").display().to_string();
        let endpoint = site.endpoint();
        let words = [&[&*etcdctl, "--endpoints", &endpoint], words].concat();
        let output = checkout::run_quietly(&mut etcd::command(&words))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The end of what the machine's journal says.
    pub fn journal_end(&self) -> Result<String> {
        let lines = format!("--lines={JOURNAL_LINES}");
        self.machine.output(&["journalctl", "--no-pager", "--unit=rekindle*", &lines])
    }

    /// Takes all steps, and prints of each what was seen.
    pub fn run(&self) -> Result<()> {
        type Step = fn(&Trial) -> Result<String>;
        const STEPS: &[(&str, Step)] = &[
            ("installed", Trial::install),
            ("exposure", Trial::is_little_exposed),
            ("deaf", Trial::is_not_active_while_nobody_hears_it),
            ("ready", Trial::is_active_once_it_says_so),
            ("status", Trial::says_how_it_is),
            ("killed", Trial::is_restarted_when_killed),
            ("frozen", Trial::is_restarted_when_frozen),
            ("backup", Trial::makes_a_backup),
            ("reload", Trial::reads_its_configuration_anew),
            ("stop", Trial::stops_with_all_it_started),
            ("timer", Trial::timer_saves_a_snapshot),
            ("confined", Trial::saves_write_where_they_may),
            ("recovered", Trial::brings_a_member_back),
        ];
        for (name, step) in STEPS {
            println!("{name:<10} {}", step(self).with_context(|| format!("step `{name}`"))?);
        }
        Ok(())
    }

    /// As the README tells a user.
    fn install(&self) -> Result<String> {
        let machine = &self.machine;
        machine.run(&["useradd", "--system", "rekindle"])?;
        let binary = machine.path("/usr/local/bin/rekindle");
        fs::copy(&self.rekindle, &binary).context("cannot install rekindle")?;
        let units = checkout::root().join("dist/systemd");
        for unit in fs::read_dir(&units).context("cannot list dist/systemd")? {
            let unit = unit?;
            let name = unit.file_name().to_string_lossy().into_owned();
            machine
                .write(&format!("/etc/systemd/system/{name}"), &fs::read_to_string(unit.path())?)?;
        }
        self.configure("")?;
        machine
            .run(&["install", "-d", "-o", "rekindle", "-g", "rekindle", "-m", "0700", "/backup"])?;
        self.as_user(&["rekindle", "archive", "init", ARCHIVE, "--unencrypted"])?;
        let verify = "systemd-analyze verify --man=no /etc/systemd/system/rekindle* 2>&1";
        let complaints = machine.run(&["sh", "-c", verify])?;
        ensure!(complaints.is_empty(), "systemd-analyze verify: {complaints}");
        Ok("systemd-analyze verify has nothing to say of the units".to_owned())
    }

    fn configure(&self, snapshots: &str) -> Result<()> {
        let endpoint = self.site.endpoint();
        let config = format!(
            "listen: off\nclusters:\n- name: one\n  endpoints: ['{endpoint}']\n  \
             archives: [{{place: {ARCHIVE}}}]\n{snapshots}"
        );
        self.machine.write(CONFIG, &config)
    }

    fn is_little_exposed(&self) -> Result<String> {
        let mut levels = Vec::new();
        for (name, most) in EXPOSURE_MAX {
            let unit = format!("/etc/systemd/system/{name}");
            let analyze = ["systemd-analyze", "security", "--offline=true", "--no-pager", &unit];
            let report = self.machine.run(&analyze)?;
            let level = exposure(&report).with_context(|| format!("no exposure in: {report}"))?;
            ensure!(level <= most, "{name}: {level} is more than {most}:\n{report}");
            levels.push(format!("{name} {level} of 10"));
        }
        Ok(levels.join(", "))
    }

    /// Type=notify: without READY it is not active.
    fn is_not_active_while_nobody_hears_it(&self) -> Result<String> {
        self.set(&format!(
            "{SETTINGS}UnsetEnvironment=NOTIFY_SOCKET\nTimeoutStartSec=3\nRestart=no\n"
        ))?;
        let started = self.machine.run(&["systemctl", "start", AGENT]);
        ensure!(started.is_err(), "the agent became active although nobody heard its READY");
        let result = self.property("Result")?;
        ensure!(result == "timeout", "without READY the start ended with {result}");
        Ok("where its READY is not heard it does not become active".to_owned())
    }

    fn is_active_once_it_says_so(&self) -> Result<String> {
        self.set(SETTINGS)?;
        self.machine.run(&["systemctl", "reset-failed", AGENT])?;
        self.machine.run(&["systemctl", "enable", "--now", AGENT])?;
        let state = self.property("ActiveState")?;
        ensure!(state == "active", "the agent is {state}");
        let [began, active] = ["ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic"]
            .map(|name| self.property(name));
        let took = active?.parse::<u64>()?.saturating_sub(began?.parse()?);
        let watchdog = self.property("WatchdogUSec")?;
        ensure!(watchdog != "0" && watchdog != "infinity", "{AGENT} has no watchdog");
        Ok(format!("active {} ms after it was started; the watchdog waits {watchdog}", took / 1000))
    }

    fn says_how_it_is(&self) -> Result<String> {
        self.machine.wait_for("a status of the agent", WITHIN, |_| {
            Ok(Some(self.property("StatusText")?).filter(|text| !text.is_empty()))
        })
    }

    fn is_restarted_when_killed(&self) -> Result<String> {
        self.is_restarted_after("KILL", "signal")
    }

    fn is_restarted_when_frozen(&self) -> Result<String> {
        self.set(&[SETTINGS, WATCHDOG].concat())?;
        self.machine.run(&["systemctl", "restart", AGENT])?;
        self.is_restarted_after("STOP", "watchdog")
    }

    fn is_restarted_after(&self, signal: &str, result: &str) -> Result<String> {
        let (pid, restarts) = (self.property("MainPID")?, self.property("NRestarts")?);
        let began = Instant::now();
        let signal = format!("--signal={signal}");
        self.machine.run(&["systemctl", "kill", "--kill-whom=main", &signal, AGENT])?;
        let line = format!("Failed with result '{result}'");
        self.machine.wait_for(&format!("the journal says {line}"), WITHIN, |_| {
            Ok(self.journal()?.contains(&line).then_some(()))
        })?;
        let new = self.machine.wait_for("the agent is active again", WITHIN, |_| {
            let new = self.property("MainPID")?;
            let is_other = new != pid && self.property("NRestarts")? != restarts;
            Ok((is_other && self.property("ActiveState")? == "active").then_some(new))
        })?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(format!("{line}; process {pid}, after {seconds:.1} s {new}"))
    }

    fn makes_a_backup(&self) -> Result<String> {
        self.machine.wait_for("a base in the archive", WITHIN, |_| {
            let listed = self.as_user(&["rekindle", "archive", "list", ARCHIVE, "-w", "json"])?;
            let listed: Value = serde_json::from_str(&listed).context("rekindle archive list")?;
            let Some(base) = listed["restorePoints"].get(0) else { return Ok(None) };
            ensure!(base["revision"] == REVISION, "the base is not all that etcd has: {base}");
            Ok(Some(format!("a base of revision {REVISION} in {ARCHIVE}")))
        })
    }

    fn reads_its_configuration_anew(&self) -> Result<String> {
        let pid = self.property("MainPID")?;
        let to =
            format!("  snapshots: [{{name: often, schedule: '@every 2s', to: [{SNAPSHOT}]}}]\n");
        self.configure(&to)?;
        self.machine.run(&["systemctl", "reload", AGENT])?;
        self.machine.wait_for(
            "the snapshot that the new configuration wants",
            WITHIN,
            |machine| Ok(machine.path(SNAPSHOT).is_file().then_some(())),
        )?;
        let line = "the configuration was read anew";
        ensure!(self.journal()?.contains(line), "the journal does not say \"{line}\"");
        let now = self.property("MainPID")?;
        ensure!(now == pid, "the agent was process {pid}, and is {now}");
        Ok(format!("{line}; {SNAPSHOT} is there, of the same process"))
    }

    fn stops_with_all_it_started(&self) -> Result<String> {
        let group = self.property("ControlGroup")?;
        let processes = self.machine.path(&format!("/sys/fs/cgroup{group}/cgroup.procs"));
        let count = || fs::read_to_string(&processes).unwrap_or_default().lines().count();
        let before = self.machine.wait_for("a process besides the agent's own", WITHIN, |_| {
            Ok(Some(count()).filter(|count| *count > 1))
        })?;
        let began = Instant::now();
        self.machine.run(&["systemctl", "stop", AGENT])?;
        let took = began.elapsed();
        ensure!(took < STOP_WITHIN, "it took {} s to stop", took.as_secs());
        let (state, result) = (self.property("ActiveState")?, self.property("Result")?);
        ensure!((&*state, &*result) == ("inactive", "success"), "stopped it is {state}: {result}");
        ensure!(count() == 0, "{} of its processes are left", count());
        let seconds = took.as_secs_f64();
        Ok(format!("{before} processes before, none after {seconds:.1} s; {result}"))
    }

    fn timer_saves_a_snapshot(&self) -> Result<String> {
        let machine = &self.machine;
        let endpoint = self.site.endpoint();
        let target = "/backup/etcd-%Y%m%dT%H%M%SZ.db";
        let settings = format!("TARGET={target}\nETCDCTL_ENDPOINTS={endpoint}\n");
        machine.write("/etc/rekindle/save-one.env", &settings)?;
        machine.run(&["chmod", "600", "/etc/rekindle/save-one.env"])?;
        // The first line takes away the unit's own time.
        let soon =
            "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/5\nRandomizedDelaySec=0\nAccuracySec=100ms\n";
        machine.write(&format!("/etc/systemd/system/{TIMER}.d/test.conf"), soon)?;
        machine.run(&["systemctl", "daemon-reload"])?;
        machine.run(&["systemctl", "enable", "--now", TIMER])?;
        let file = machine.wait_for("the timer's snapshot", WITHIN, |machine| {
            let names = machine.run(&["ls", "/backup"])?;
            Ok(names
                .lines()
                .find(|name| name.starts_with("etcd-") && name.ends_with(".db"))
                .map(|it| format!("/backup/{it}")))
        })?;
        machine.run(&["systemctl", "stop", TIMER])?;
        let status = machine.run(&["rekindle", "status", &file, "--write-out=json"])?;
        let status: Value = serde_json::from_str(&status).context("rekindle status")?;
        let is_good = status["revision"] == REVISION && status["sound"] == true;
        ensure!(is_good, "{file} is not what etcd has: {status}");
        Ok(format!("{file}: sound, of revision {REVISION}"))
    }

    /// A directory is written to once a drop-in names it.
    fn saves_write_where_they_may(&self) -> Result<String> {
        let (machine, unit, file) = (&self.machine, "rekindle-save@two.service", "/srv/etcd.db");
        let settings = format!("TARGET={file}\nETCDCTL_ENDPOINTS={}\n", self.site.endpoint());
        machine.write("/etc/rekindle/save-two.env", &settings)?;
        let started = machine.run(&["systemctl", "start", unit]);
        let is_there = || machine.path(file).exists();
        ensure!(started.is_err() && !is_there(), "{unit} has written {file}, where it may not");
        let drop_in = format!("/etc/systemd/system/{unit}.d/test.conf");
        machine.write(&drop_in, "[Service]\nReadWritePaths=/srv\n")?;
        machine.run(&["systemctl", "daemon-reload"])?;
        machine.run(&["systemctl", "start", unit])?;
        ensure!(is_there(), "{unit} has not written {file}, which its drop-in allows");
        Ok(format!("{file} is written once a drop-in allows it, and not before"))
    }

    /// Takes such a drop-in for the agent.
    fn set(&self, settings: &str) -> Result<()> {
        self.machine.write(DROP_IN, settings)?;
        self.machine.run(&["systemctl", "daemon-reload"]).map(drop)
    }

    /// As the user whom the agent runs as.
    fn as_user(&self, words: &[&str]) -> Result<String> {
        let user = ["setpriv", "--reuid=rekindle", "--regid=rekindle", "--init-groups"];
        self.machine.run(&[&user, words].concat())
    }

    fn property(&self, name: &str) -> Result<String> {
        let value =
            self.machine.run(&["systemctl", "show", "--value", "--property", name, AGENT])?;
        Ok(value.trim().to_owned())
    }

    fn journal(&self) -> Result<String> {
        self.machine.run(&["journalctl", "--no-pager", "--unit", AGENT])
    }
}

/// The number at the end of what `systemd-analyze security` says.
fn exposure(report: &str) -> Option<f64> {
    let line = report.lines().find(|line| line.contains("Overall exposure level"))?;
    line.rsplit(": ").next()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A save without an agent may do what the agent may, but for what root needs.
    #[test]
    fn saves_are_confined_as_the_agent_is() {
        let settings = |unit: &str| {
            let settings = unit.lines().skip_while(|line| *line != "[Service]");
            let confines = |line: &&str| {
                let names = [
                    "Lock", "Memory", "NoNew", "Private", "Proc", "Protect", "Restrict", "System",
                    "UMask",
                ];
                names.iter().any(|name| line.starts_with(name)) && !line.starts_with("Restart")
            };
            settings.filter(confines).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let agent = settings(include_str!("../../../dist/systemd/rekindle.service"));
        let save = settings(include_str!("../../../dist/systemd/rekindle-save@.service"));
        let missing: Vec<_> = agent.difference(&save).collect();
        // Root in a namespace of its own users reads nobody's certificates; and nothing is drilled.
        assert_eq!(missing, ["PrivateUsers=yes", "SystemCallFilter=capset"]);
        assert!(agent.len() > 20 && save.is_subset(&agent));
    }

    #[test]
    fn the_exposure_is_read() {
        let report = "✓ PrivateUsers=  0.1\n\n→ Overall exposure level for a.service: 1.4 OK :-)\n";
        assert_eq!(exposure(report), Some(1.4));
        assert_eq!(exposure("Failed to load a.service: 1.4"), None);
    }
}
