//! What following a cluster costs, and what a disaster costs where it is followed.
//!
//! The load is `crates/client/examples/puts`: values of 1 KB that do not compress, at a steady rate.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Bench;
use super::data::{self, Server, Snapshot};
use super::measure;
use super::series::Verdict;
use crate::background::Background;
use crate::{checkout, etcd};

const BUSY: &str = "capture under load";
const STALLED: &str = "capture that stood still";
const COST: &str = "cost of a capture to etcd";
const LOSS: &str = "loss when etcd and capture are killed";
const LOG: &str = "log of a Kubernetes cluster";

/// Nodes, and minutes in which these make some 1,000,000 updates.
const LOG_NODES: u64 = 1000;
const LOG_MINUTES: u64 = 135;
/// Of the bytes of etcdbrctl's files.
const LOG_MAX: f64 = 0.25;

/// Writes a second that a capture keeps up with, and for how long. More than some thousands etcd does not
/// tell a watch of, on two cores that it shares with the load, whoever watches.
const BUSY_RATES: [u64; 2] = [4_000, 10_000];
const BUSY_SECONDS: u64 = 30;
const CORES_MAX: f64 = 0.3;
const MEMORY_MAX: u64 = 128 << 20;

/// It stands still until it is 300,000 revisions behind, and its next snapshot is due: they are a minute apart.
const STALL_RATE: u64 = 4_000;
const BEFORE_STALL: Duration = Duration::from_secs(5);
const STALL: Duration = Duration::from_secs(75);
const RESUMED_MAX: f64 = 1.5;

/// Writes a second while it is measured how long they take, and for how long.
const STEADY_RATE: u64 = 2000;
const STEADY_SECONDS: u64 = 15;
const TAIL_COST_MAX: f64 = 1.05;
const SNAPSHOT_COST_MAX: f64 = 1.25;

const LOSS_SECONDS_MAX: f64 = 2.0;
/// How long a capture may take, once it is there again, until the archive has what the cluster has.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(120);

/// Something that was measured, and what is to be said of it.
#[derive(Clone, Debug)]
pub struct Finding {
    pub work: String,
    pub found: String,
    pub verdicts: Vec<String>,
}

/// What came of a load.
#[derive(Clone, Copy, Debug)]
struct Load {
    per_second: f64,
    p99_ms: f64,
    revision: i64,
}

impl Load {
    fn parse(said: &str) -> Result<Self> {
        let said: Value =
            serde_json::from_str(said.trim()).with_context(|| format!("puts said: {said}"))?;
        let number = |name: &str| said[name].as_f64().with_context(|| format!("{name} of puts"));
        let revision = said["revision"].as_i64().context("revision of puts")?;
        Ok(Self { per_second: number("perSecond")?, p99_ms: number("p99Ms")?, revision })
    }
}

impl Bench<'_> {
    /// All that is asked for.
    pub fn following(&self, source: &Snapshot) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut found = |finding: Finding| {
            eprint!("{}", table(std::slice::from_ref(&finding)));
            findings.push(finding);
        };
        for rate in BUSY_RATES.into_iter().filter(|_| self.wants(BUSY)) {
            found(self.busy(rate)?);
        }
        if self.wants(STALLED) {
            found(self.stalled()?);
        }
        if self.wants(COST) {
            self.cost(source)?.into_iter().for_each(&mut found);
        }
        if self.wants(LOSS) {
            found(self.loss()?);
        }
        if self.wants(LOG) {
            found(self.kubernetes_log()?);
        }
        Ok(findings)
    }

    /// What a capture writes of a cluster's updates, beside gzipped JSON. Nothing waits.
    fn kubernetes_log(&self) -> Result<Finding> {
        eprintln!("{LOG}");
        let path = |part: &str| self.store.kept(part).display().to_string();
        let (archive, spool, records) = (path("log"), path("log-spool"), path("log-records"));
        self.init_anew("log")?;
        // An interrupted run leaves them.
        data::remove(Path::new(&records))?;
        fs::create_dir_all(&records)?;
        let mut words = vec![
            self.programs.a_log.clone(),
            archive.clone(),
            "--kubernetes".into(),
            spool.clone(),
        ];
        for minute in 1..=LOG_MINUTES {
            self.runner.interrupt.check()?;
            let file = format!("{records}/{minute}");
            let [nodes, minute] = [LOG_NODES, minute].map(|number| number.to_string());
            let load = [&self.programs.kubernetes, "-", &nodes, &minute, &file];
            checkout::run_quietly(&mut etcd::command(&load))?;
            words.push(file);
        }
        let said = checkout::run_quietly(&mut etcd::command(&words))?.stdout;
        let said: Value = serde_json::from_slice(&said)?;
        for path in [archive, spool, records] {
            data::remove(Path::new(&path))?;
        }
        let number = |name: &str| said[name].as_f64().with_context(|| format!("{name} of a_log"));
        let (updates, gzipped) = (number("updates")?, number("gzippedBytes")?);
        let megabytes = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
        let of_json = |share: f64| format!("{share:.2} of the gzipped JSON");
        let verdict = Verdict::amount(number("logBytes")? / gzipped, LOG_MAX, of_json);
        Ok(Finding {
            work: format!("{LOG} of {LOG_NODES} nodes, {updates} updates"),
            found: format!(
                "{} as flushed every 5 s, {} merged, of {} of records as JSON, which gzip makes {}",
                megabytes(number("flushedBytes")?),
                megabytes(number("logBytes")?),
                megabytes(number("jsonBytes")?),
                megabytes(gzipped)
            ),
            verdicts: vec![verdict.to_string()],
        })
    }

    fn busy(&self, rate: u64) -> Result<Finding> {
        eprintln!("{BUSY}");
        let server = self.store.empty_server()?;
        let follower = self.follow(&server, "busy", &[])?;
        let mut load = self.puts(&server, rate, BUSY_SECONDS)?;
        let used = measure::watch(follower.pid(), || load.has_ended())?;
        let load = Load::parse(&load.said()?)?;
        let given_up = follower.said()?.matches("the watch was ended").count();
        if given_up == 0 {
            follower.stop()?;
            let last = self.newest_of("busy")?;
            ensure!(last >= load.revision, "the log ends at {last} and not at {}", load.revision);
        }
        let kept_up = Verdict {
            text: format!("the watch was given up {given_up} times (0)"),
            reached: given_up == 0,
        };
        let behind = self.drained_behind(rate)?;
        let cores = Verdict::amount(used.cores, CORES_MAX, |cores| format!("{cores:.2} cores"));
        let mebibytes = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
        let memory = Verdict::amount(used.memory as f64, MEMORY_MAX as f64, mebibytes);
        Ok(Finding {
            work: format!("{BUSY}, {rate} writes/s of 1 KB, for {BUSY_SECONDS} s"),
            found: format!(
                "{:.0} writes/s were answered; a watch that throws all away is {behind} revisions behind at the end",
                load.per_second
            ),
            verdicts: [kept_up, cores, memory].map(|verdict| verdict.to_string()).into(),
        })
    }

    /// How far etcd is behind itself in what it tells a watch that throws all away, after the same load.
    fn drained_behind(&self, rate: u64) -> Result<u64> {
        let server = self.store.empty_server()?;
        let watch = self.drain(&server)?;
        let mut load = self.puts(&server, rate, BUSY_SECONDS)?;
        self.wait_until_over(&mut load)?;
        let said = watch.said()?;
        let last = said.lines().last().and_then(|line| line.strip_suffix(" revisions behind"));
        Ok(last.and_then(|count| count.parse().ok()).unwrap_or_default())
    }

    /// What throws away all that a watch says.
    fn drain(&self, server: &Server) -> Result<Background> {
        let words = [self.programs.drain_watch.as_str(), &server.endpoint()];
        let mut watch = Background::start(etcd::command(&words), &self.store.kept("watch.log"))?;
        watch.wait_for("watching", self.runner.interrupt)?;
        Ok(watch)
    }

    fn wait_until_over(&self, load: &mut Background) -> Result<()> {
        while !load.has_ended()? {
            self.runner.interrupt.check()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn stalled(&self) -> Result<Finding> {
        eprintln!("{STALLED}");
        let server = self.store.empty_server()?;
        let mut follower = self.follow(&server, "stalled", &[])?;
        let load = self.puts(&server, STALL_RATE, 300)?;
        thread::sleep(BEFORE_STALL);
        follower.signal("-STOP")?;
        let before = self.revision(&server)?;
        thread::sleep(STALL);
        let behind = self.revision(&server)? - before;
        let began = Instant::now();
        follower.signal("-CONT")?;
        // The first base was made before the stall.
        follower.wait_for("equal to what was there", self.runner.interrupt)?;
        let resumed = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let saved_to = self.store.kept("saved.db");
        let (file, endpoint) = (saved_to.display().to_string(), server.endpoint());
        let save = [&self.programs.rekindle, "save", &file, "--endpoints", &endpoint];
        checkout::run_quietly(&mut etcd::command(&save))?;
        let saved = began.elapsed().as_secs_f64();
        drop(load);
        follower.stop()?;
        data::remove(&saved_to)?;
        let verdict = Verdict::at_most(resumed / saved, RESUMED_MAX, "of a save to a file");
        Ok(Finding {
            work: format!(
                "{STALLED} for {} s under {STALL_RATE} writes/s, and goes on",
                STALL.as_secs()
            ),
            found: format!(
                "{behind} revisions behind; a base after {resumed:.1} s, and a save to a file takes {saved:.1} s"
            ),
            verdicts: vec![verdict.to_string()],
        })
    }

    /// The 99th percentile of puts: beside a watch whose events are thrown away, beside a capture, and
    /// while that takes a snapshot.
    fn cost(&self, source: &Snapshot) -> Result<Vec<Finding>> {
        eprintln!("{COST}");
        let server = self.store.server(source)?;
        let mut p99s = [const { Vec::new() }; 4];
        for round in 0..=self.runner.runs {
            self.runner.interrupt.check()?;
            let watch = self.drain(&server)?;
            let beside_watch = self.steady(&server)?;
            drop(watch);
            self.init_anew("cost")?;
            let mut follower = self.capture(&server, "cost", &[])?;
            let during_base = self.steady(&server)?;
            follower.wait_for("writing into", self.runner.interrupt)?;
            // The disk, which etcd writes to as well, has still work with that.
            let after_base = self.steady(&server)?;
            let of_tail = self.steady(&server)?;
            drop(follower);
            let found = [beside_watch, during_base, after_base, of_tail];
            eprintln!("  p99: a watch, during a first base, after it, the tail: {found:.2?} ms");
            if round > 0 {
                p99s.iter_mut().zip(found).for_each(|(all, found)| all.push(found));
            }
        }
        let [drained, during_base, after_base, of_tail] = p99s.map(median);
        let finding = |work: &str, ours: f64, most: f64| Finding {
            work: format!("{COST}, {STEADY_RATE} writes/s, all on one disk, {work}"),
            found: format!(
                "p99 of puts {ours:.2} ms; beside a watch that throws all away {drained:.2} ms"
            ),
            verdicts: vec![Verdict::at_most(ours / drained, most, "of it").to_string()],
        };
        Ok(vec![
            finding("during its first base", during_base, SNAPSHOT_COST_MAX),
            finding("in the seconds after that", after_base, TAIL_COST_MAX),
            finding("of the tail", of_tail, TAIL_COST_MAX),
        ])
    }

    /// The 99th percentile of puts, in milliseconds.
    fn steady(&self, server: &Server) -> Result<f64> {
        measure::settle()?;
        let mut load = self.puts(server, STEADY_RATE, STEADY_SECONDS)?;
        self.wait_until_over(&mut load)?;
        Ok(Load::parse(&load.said()?)?.p99_ms)
    }

    /// Kills both again and again; what was written last, and what the archive has of that.
    fn loss(&self) -> Result<Finding> {
        eprintln!("{LOSS}");
        let mut server = self.store.durable_server()?;
        self.init_anew("loss")?;
        let (mut worst, mut before) = (0, 0);
        for kill in 0..self.request.kills {
            self.runner.interrupt.check()?;
            let mut follower = self.capture(&server, "loss", &["--flush-interval", "1s"])?;
            follower.wait_for("writing into", self.runner.interrupt)?;
            self.wait_until_it_has("loss", self.revision(&server)?)?;
            let load = self.puts(&server, STEADY_RATE, 60)?;
            // Not always at the same place between two flushes.
            thread::sleep(Duration::from_millis(2000 + kill * 137 % 1000));
            drop((follower, load));
            server = self.store.killed(server)?;
            let (written, kept) = (self.revision(&server)?, self.newest_of("loss")?);
            ensure!(kept <= written, "the log ends at {kept}, and the cluster at {written}");
            ensure!(kept >= before, "the log ended at {before} and now ends at {kept}");
            (worst, before) = (worst.max(written - kept), kept);
        }
        let archive = self.store.kept("loss").display().to_string();
        let verify = [&self.programs.rekindle, "archive", "verify", &archive, "--level", "proven"];
        checkout::run_quietly(&mut etcd::command(&verify))?;
        let seconds = worst as f64 / STEADY_RATE as f64;
        let verdict = Verdict::amount(seconds, LOSS_SECONDS_MAX, |seconds| {
            format!("{seconds:.2} s of writes")
        });
        Ok(Finding {
            work: format!(
                "{LOSS} ({} times), {STEADY_RATE} writes/s, a flush a second",
                self.request.kills
            ),
            found: format!(
                "at most {worst} revisions; none that the archive had is missing, and verify --level proven is content"
            ),
            verdicts: vec![verdict.to_string()],
        })
    }

    /// A capture of a server into a new archive, once it writes.
    fn follow(&self, server: &Server, name: &str, flags: &[&str]) -> Result<Background> {
        self.init_anew(name)?;
        let mut follower = self.capture(server, name, flags)?;
        follower.wait_for("writing into", self.runner.interrupt)?;
        Ok(follower)
    }

    fn init_anew(&self, name: &str) -> Result<()> {
        for part in ["", "-spool"] {
            data::remove(&self.store.kept(&format!("{name}{part}")))?;
        }
        let archive = self.store.kept(name).display().to_string();
        let init = [&self.programs.rekindle, "archive", "init", &archive, "--unencrypted"];
        checkout::run_quietly(&mut etcd::command(&init)).map(drop)
    }

    fn capture(&self, server: &Server, name: &str, flags: &[&str]) -> Result<Background> {
        let path = |part: &str| self.store.kept(&format!("{name}{part}"));
        let mut command: Command = etcd::command(&[&self.programs.rekindle, "capture"]);
        command.args(["--endpoints", &server.endpoint()]).arg("--archive").arg(path(""));
        command.arg("--spool").arg(path("-spool")).args(["--witness-interval", "0s"]).args(flags);
        Background::start(command, &path(".log"))
    }

    fn puts(&self, server: &Server, rate: u64, seconds: u64) -> Result<Background> {
        let [rate, seconds] = [rate, seconds].map(|number| number.to_string());
        let words = [self.programs.puts.as_str(), &server.endpoint(), &rate, &seconds];
        Background::start(etcd::command(&words), &self.store.kept("puts.log"))
    }

    /// The revision that a server is at.
    fn revision(&self, server: &Server) -> Result<i64> {
        let words =
            [&self.programs.etcdctl, "--endpoints", &server.endpoint(), "get", "x", "-w=json"];
        let said = checkout::run_quietly(&mut etcd::command(&words))?.stdout;
        let said: Value = serde_json::from_slice(&said)?;
        said["header"]["revision"].as_i64().context("etcdctl prints a revision")
    }

    /// What the kill before has cost is there again.
    fn wait_until_it_has(&self, name: &str, revision: i64) -> Result<()> {
        let deadline = Instant::now() + CATCH_UP_WITHIN;
        while self.newest_of(name)? < revision {
            self.runner.interrupt.check()?;
            ensure!(Instant::now() < deadline, "the log does not come to revision {revision}");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The newest revision that an archive can bring back, by a base or its log.
    fn newest_of(&self, name: &str) -> Result<i64> {
        let archive = self.store.kept(name).display().to_string();
        let words = [&self.programs.rekindle, "archive", "list", "-w=json", &archive];
        let said = checkout::run_quietly(&mut etcd::command(&words))?.stdout;
        let said: Value = serde_json::from_slice(&said)?;
        let ends = |list: &str, end: &str| {
            let all = said[list].as_array().into_iter().flatten();
            all.filter_map(|it| it[end].as_i64()).max().unwrap_or_default()
        };
        Ok(ends("log", "last").max(ends("restorePoints", "revision")))
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// All of them, a line each.
pub fn table(findings: &[Finding]) -> String {
    let mut text = "| work | found | reached? |\n|---|---|---|\n".to_owned();
    for Finding { work, found, verdicts } in findings {
        text += &format!("| {work} | {found} | {} |\n", verdicts.join("; "));
    }
    text
}
