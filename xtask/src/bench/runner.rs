//! Runs the jobs of a row in turn, so that whatever the machine is doing meets all of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::data::{self, Store};
use super::measure;
use super::rows::{Input, Job, Row, Who};
use super::series::Series;
use crate::etcd::Etcd;
use crate::interrupt::Interrupt;
use crate::{checkout, etcd};

/// How long an etcd may take to read a restored db.
const BOOT_WITHIN: Duration = Duration::from_secs(120);

/// What came of one row.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub row: Row,
    /// For each job, in the order of the row.
    pub times: Vec<Series>,
    /// The peaks of anonymous memory in bytes, of ours and of the peer.
    pub memory: Vec<(Who, u64)>,
    /// What ours printed in its last run.
    pub said: String,
}

impl Outcome {
    pub fn time(&self, wanted: impl Fn(Who) -> bool) -> Option<&Series> {
        let at = self.row.jobs.iter().position(|job| wanted(job.who))?;
        self.times.get(at)
    }

    pub fn memory(&self, wanted: Who) -> Option<u64> {
        self.memory.iter().find(|(who, _)| *who == wanted).map(|(_, peak)| *peak)
    }
}

/// Runs rows.
pub struct Runner<'a> {
    pub store: &'a Store<'a>,
    pub interrupt: &'a Interrupt,
    /// Timed runs of each job, after one that only warms up.
    pub runs: usize,
    pub etcd: PathBuf,
}

impl Runner<'_> {
    pub fn run(&self, row: Row) -> Result<Outcome> {
        eprintln!("{}", row.name);
        let mut said = String::new();
        let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); row.jobs.len()];
        for round in 0..=self.runs {
            let mut outputs = Vec::new();
            for (job, seconds) in row.jobs.iter().zip(&mut seconds) {
                if job.once && round != self.runs {
                    continue;
                }
                let (took, output) = self.time(job)?;
                eprintln!("  {:<24} {took:>7.3} s{}", label(job.who), warmed_up(round));
                if round > 0 {
                    seconds.push(took);
                }
                if job.who == Who::Us {
                    said.clone_from(&output);
                }
                if job.who == Who::Us || job.who == Who::Peer {
                    outputs.push(output);
                }
            }
            ensure!(
                !row.same_output || outputs.iter().all(|output| *output == outputs[0]),
                "{}: we and the peer differ: {outputs:?}",
                row.name
            );
        }
        let memory = self.memory(&row)?;
        Ok(Outcome { times: seconds.into_iter().map(Series::of).collect(), memory, row, said })
    }

    /// Seconds of one run, and what its last command printed.
    fn time(&self, job: &Job) -> Result<(f64, String)> {
        self.prepare(job)?;
        let began = Instant::now();
        let mut output = String::new();
        for line in &job.lines {
            let said = checkout::run_quietly(&mut etcd::command(line))?.stdout;
            output = String::from_utf8(said).context("not UTF-8")?.trim().to_owned();
        }
        if let Some(site) = &job.boots {
            let out = self.store.output();
            let mut words = vec![self.etcd.display().to_string()];
            words.extend(site.arguments(&out.display().to_string()));
            let log = out.with_extension("log");
            let mut server = Etcd::start(site, etcd::command(&words), &log)?;
            server.wait_until_healthy(BOOT_WITHIN, self.interrupt)?;
            return Ok((began.elapsed().as_secs_f64(), output));
        }
        Ok((began.elapsed().as_secs_f64(), output))
    }

    fn prepare(&self, job: &Job) -> Result<()> {
        self.interrupt.check()?;
        data::remove(&self.store.output())?;
        for line in &job.before {
            checkout::run_quietly(&mut etcd::command(line))?;
        }
        measure::settle()?;
        match &job.input {
            Input::None => Ok(()),
            Input::InPageCache(path) => measure::warm(path),
            Input::NotInPageCache(path) => measure::cool(path),
        }
    }

    /// The peaks of ours and the peer's, in runs of their own: looking costs time.
    fn memory(&self, row: &Row) -> Result<Vec<(Who, u64)>> {
        let mut peaks = Vec::new();
        for job in row.jobs.iter().filter(|_| row.memory_max.is_some()) {
            let line = job.lines.first().context("a job has a command")?;
            if matches!(job.who, Who::Us | Who::Peer) {
                self.prepare(job)?;
                let peak = measure::peak_memory(etcd::command(line))?;
                eprintln!("  {:<24} {:>7.1} MiB", label(job.who), peak as f64 / 1_048_576.0);
                peaks.push((job.who, peak));
            }
        }
        Ok(peaks)
    }

    /// Runs what is ours in a row, once.
    pub fn once(&self, row: &Row) -> Result<()> {
        let job = row.jobs.first().context("a row has a job")?;
        self.time(job).map(drop)
    }

    /// Bytes of the db that our restore makes.
    pub fn restored_bytes(&self, restore: &Row) -> Result<u64> {
        self.once(restore)?;
        let db: &Path = &self.store.output().join("member/snap/db");
        Ok(db.metadata().with_context(|| format!("no {}", db.display()))?.len())
    }
}

fn label(who: Who) -> &'static str {
    match who {
        Who::Us => "rekindle",
        Who::Peer => "etcd's own tool",
        Who::Reference(name) => name,
    }
}

fn warmed_up(round: usize) -> &'static str {
    if round == 0 { " (warming up)" } else { "" }
}
