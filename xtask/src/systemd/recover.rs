//! An etcd that is a unit of systemd: fenced, brought back, replaced by nobody else meanwhile.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::steps::{Trial, WITHIN};
use crate::etcd::{Site, founding_arguments};

const UNIT: &str = "etcd.service";
const DATA_DIR: &str = "/var/lib/etcd";
const BACKUP: &str = "/backup/member.db";
const SETTINGS: &str = "/etc/systemd/system/etcd.service.d/80-rekindle.conf";
/// Keys that the backup has, and those that come after it.
const KEPT: usize = 5;
const LOST: usize = 2;

impl Trial {
    /// Its data are removed; it comes back from a snapshot, and is what it was told to be.
    pub(super) fn brings_a_member_back(&self) -> Result<String> {
        let [site] = Site::find(["one"])?;
        self.install_member(&site)?;
        self.put(&site, 0..KEPT)?;
        let endpoint = site.endpoint();
        self.machine.run(&["rekindle", "save", BACKUP, "--endpoints", &endpoint])?;
        self.put(&site, KEPT..KEPT + LOST)?;
        self.nobody_starts_what_is_fenced(&site)?;
        ensure!(self.count(&site)? == KEPT + LOST, "taking a fence back has lost keys");
        self.machine.run(&["systemctl", "kill", "--signal=KILL", UNIT])?;
        fs::remove_dir_all(self.machine.path(DATA_DIR).join("member"))?;
        let printed =
            self.on_member(&site, &["recover", BACKUP, "--yes", "--although-it-serves"])?;
        ensure!(printed.contains("1 of 1 endpoints answer with this HashKV"), "{printed}");
        ensure!(self.count(&site)? == KEPT, "it has not what the backup has");
        let shown =
            self.machine.run(&["systemctl", "show", "--property=ExecStart", "--value", UNIT])?;
        ensure!(shown.contains("--initial-cluster-state=existing"), "{shown}");
        self.machine.run(&["systemctl", "restart", UNIT])?;
        self.wait_for_member(&site)?;
        let settings = fs::read_to_string(self.machine.path(SETTINGS)).context("its drop-in")?;
        let lines = settings.lines().filter(|line| line.starts_with("ExecStart=/")).count();
        ensure!(lines == 1, "{settings}");
        Ok(format!("a unit's etcd came back from {BACKUP} with {KEPT} keys, and starts again so"))
    }

    /// Neither its unit nor the program itself.
    fn nobody_starts_what_is_fenced(&self, site: &Site) -> Result<()> {
        self.on_member(site, &["on-host", "fence", "--id", "f1"])?;
        let started = self.machine.run(&["systemctl", "start", UNIT]);
        ensure!(started.is_err(), "{UNIT} can be started while it is fenced");
        let behind = self.machine.output(&[
            "sh",
            "-c",
            &format!("timeout 20 /usr/local/bin/etcd --data-dir {DATA_DIR}/member 2>&1; echo $?"),
        ])?;
        ensure!(!behind.trim_end().ends_with("124"), "an etcd started behind our back runs");
        self.on_member(site, &["on-host", "undo", "--id", "f1"])?;
        self.wait_for_member(site)?;
        ensure!(!self.machine.path(SETTINGS).exists(), "what was taken back has left settings");
        Ok(())
    }

    fn install_member(&self, site: &Site) -> Result<()> {
        let binary = self.machine.path("/usr/local/bin/etcd");
        fs::copy(self.programs.join("etcd"), &binary).context("cannot install etcd")?;
        let words =
            [site.arguments(DATA_DIR), founding_arguments(site, std::slice::from_ref(site))];
        let unit = format!(
            "[Service]\nType=notify\nRestart=always\nRestartSec=1\nExecStart=/usr/local/bin/etcd {}\n",
            words.concat().join(" ")
        );
        self.machine.write(&format!("/etc/systemd/system/{UNIT}"), &unit)?;
        self.machine.run(&["systemctl", "daemon-reload"])?;
        self.machine.run(&["systemctl", "start", UNIT])?;
        self.wait_for_member(site)
    }

    fn on_member(&self, site: &Site, words: &[&str]) -> Result<String> {
        let flags = [
            format!("--unit={UNIT}"),
            format!("--name={}", site.name),
            format!("--data-dir={DATA_DIR}"),
            format!("--initial-advertise-peer-urls={}", site.peer_url()),
            format!("--endpoints={}", site.endpoint()),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let (verb, rest) = words.split_at(1);
        self.machine.run(&[&["rekindle"], verb, &flags, rest].concat())
    }

    fn wait_for_member(&self, site: &Site) -> Result<()> {
        let endpoint = site.endpoint();
        self.machine.wait_for("etcd serves", WITHIN, |machine| {
            Ok(machine.run(&["rekindle", "check", "--endpoints", &endpoint]).ok().map(drop))
        })
    }

    fn put(&self, site: &Site, numbers: std::ops::Range<usize>) -> Result<()> {
        for number in numbers {
            self.etcdctl(site, &["put", &format!("/member/{number}"), "value"])?;
        }
        Ok(())
    }

    fn count(&self, site: &Site) -> Result<usize> {
        let keys = self.etcdctl(site, &["get", "--prefix", "/member/", "--keys-only"])?;
        Ok(keys.lines().filter(|line| !line.is_empty()).count())
    }
}
