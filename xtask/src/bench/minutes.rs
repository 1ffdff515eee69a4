//! A base each minute of a Kubernetes cluster's load, beside a gzipped snapshot each minute.
//!
//! Nothing waits: a minute's load is done as fast as etcd takes it. Each minute the archive gets a
//! base, and etcdctl a snapshot of the very same state, which gzip compresses (all of a small
//! cluster's, of a larger one's each tenth, whose sum is scaled).

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::data::{self, Server};
use super::levels;
use super::series::{Series, Verdict};
use crate::{checkout, etcd};

/// Sixty gzipped snapshots have so many times the archive's bytes, or more.
const TIMES_SMALLER: f64 = 15.0;
/// Of more nodes than these, not every snapshot is compressed: that would take most of the time.
const NODES_GZIPPED: u64 = 100;
const GZIPPED_EACH: u64 = 10;

/// What came of some minutes.
#[derive(Clone, Debug)]
pub struct Minutes {
    nodes: u64,
    minutes: u64,
    /// Of the last snapshot.
    snapshot_bytes: u64,
    /// All of the archive's objects.
    archive_bytes: u64,
    /// The archive's objects after the first base.
    first_bytes: u64,
    /// Snapshots that were compressed, and their bytes then.
    gzipped: (u64, u64),
    /// Every record once, compressed.
    floor_bytes: u64,
    saves: Series,
}

/// The name of such a row.
pub fn name(nodes: u64) -> String {
    format!("a base a minute, {nodes} nodes")
}

impl Bench<'_> {
    /// One for each cluster that is asked for.
    pub fn minutes(&self) -> Result<Vec<Minutes>> {
        let wanted = self.request.nodes.iter().filter(|&&nodes| self.wants(&name(nodes)));
        wanted.map(|&nodes| self.minutes_of(nodes)).collect()
    }

    fn minutes_of(&self, nodes: u64) -> Result<Minutes> {
        eprintln!("{}", name(nodes));
        let path = |part| self.store.kept(part).display().to_string();
        let (archive, spool) = (path("minutes"), path("minutes-spool"));
        let records = path("minutes.records");
        let server = self.store.empty_server()?;
        let load = Load { bench: self, server: &server, nodes, records: &records };
        self.quietly(&[&self.programs.rekindle, "archive", "init", &archive, "--unencrypted"])?;
        load.minute(0)?;
        let (mut saves, mut gzipped, mut first_bytes) = (Vec::new(), (0, 0), 0);
        for minute in 1..=self.request.minutes {
            self.runner.interrupt.check()?;
            load.minute(minute)?;
            let began = Instant::now();
            let endpoint = server.endpoint();
            let save = ["save", &archive, "--spool", &spool, "--endpoints", &endpoint];
            self.quietly(&[&[self.programs.rekindle.as_str()], &save[..]].concat())?;
            saves.push(began.elapsed().as_secs_f64());
            if minute == 1 {
                first_bytes = bytes_in(Path::new(&archive))?;
            }
            if nodes <= NODES_GZIPPED || minute % GZIPPED_EACH == 1 {
                gzipped = (gzipped.0 + 1, gzipped.1 + load.gzipped_snapshot()?);
            }
        }
        let minutes = Minutes {
            nodes,
            minutes: self.request.minutes,
            snapshot_bytes: load.snapshot()?,
            archive_bytes: bytes_in(Path::new(&archive))?,
            first_bytes,
            gzipped,
            floor_bytes: levels::bytes_at_1(self.programs, &records)?,
            saves: Series::of(saves),
        };
        for path in [archive, spool, records] {
            data::remove(Path::new(&path))?;
        }
        eprint!("{}", table(std::slice::from_ref(&minutes)));
        Ok(minutes)
    }

    fn quietly(&self, words: &[&str]) -> Result<()> {
        checkout::run_quietly(&mut etcd::command(words)).map(drop)
    }
}

/// A cluster at work.
struct Load<'a> {
    bench: &'a Bench<'a>,
    server: &'a Server,
    nodes: u64,
    /// Where all records are written down.
    records: &'a str,
}

impl Load<'_> {
    fn minute(&self, minute: u64) -> Result<()> {
        let [nodes, minute] = [self.nodes, minute].map(|number| number.to_string());
        let (program, endpoint) = (&self.bench.programs.kubernetes, self.server.endpoint());
        self.bench.quietly(&[program, &endpoint, &nodes, &minute, self.records])
    }

    /// Bytes of a snapshot, which stays until the next one.
    fn snapshot(&self) -> Result<u64> {
        let output = self.bench.store.output();
        data::remove(&output)?;
        let (file, endpoint) = (output.display().to_string(), self.server.endpoint());
        let save = ["snapshot", "save", &file, "--endpoints", &endpoint];
        self.bench.quietly(&[&[self.bench.programs.etcdctl.as_str()], &save[..]].concat())?;
        Ok(fs::metadata(&output)?.len())
    }

    /// Bytes of a snapshot after gzip, at its own level.
    fn gzipped_snapshot(&self) -> Result<u64> {
        self.snapshot()?;
        let mut gzip = etcd::command(&["gzip", "--stdout"]);
        gzip.stdin(File::open(self.bench.store.output())?).stdout(Stdio::piped());
        let mut child = gzip.spawn().with_context(|| checkout::missing(&gzip))?;
        let mut packed = child.stdout.take().context("gzip has an output")?;
        let bytes = io::copy(&mut packed, &mut io::sink())?;
        ensure!(child.wait()?.success(), "gzip failed");
        Ok(bytes)
    }
}

/// Bytes of all files in a folder.
fn bytes_in(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_in(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

/// All of them, a line each.
pub fn table(all: &[Minutes]) -> String {
    let mut text = String::from(
        "| nodes, bases | the last snapshot | archive: first base, all | as many snapshots, gzipped \
         | the floor: each record once | a save | reached? |\n|---|---|---|---|---|---|---|\n",
    );
    for minutes in all {
        let (gzipped, bytes) = minutes.gzipped;
        let all_gzipped = bytes as f64 / gzipped as f64 * minutes.minutes as f64;
        let of = match gzipped == minutes.minutes {
            true => String::new(),
            false => format!(" (by {gzipped} of them)"),
        };
        let verdict = Verdict::at_least(
            all_gzipped / minutes.archive_bytes as f64,
            TIMES_SMALLER,
            "smaller than gzipped snapshots",
        );
        let above = minutes.archive_bytes as f64 / minutes.floor_bytes as f64;
        text += &format!(
            "| {}, {} | {} | {}, {} | {}{of} | {}: the archive has {above:.2}x of it | {} | {verdict} |\n",
            minutes.nodes,
            minutes.minutes,
            megabytes(minutes.snapshot_bytes as f64),
            megabytes(minutes.first_bytes as f64),
            megabytes(minutes.archive_bytes as f64),
            megabytes(all_gzipped),
            megabytes(minutes.floor_bytes as f64),
            minutes.saves,
        );
    }
    text
}

fn megabytes(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_held_against_gzip_and_the_floor() {
        let minutes = Minutes {
            nodes: 1000,
            minutes: 60,
            snapshot_bytes: 200_000_000,
            archive_bytes: 100_000_000,
            first_bytes: 20_000_000,
            gzipped: (6, 180_000_000),
            floor_bytes: 80_000_000,
            saves: Series::of(vec![1.0]),
        };
        let row = "| 1000, 60 | 200.0 MB | 20.0 MB, 100.0 MB | 1800.0 MB (by 6 of them) \
                   | 80.0 MB: the archive has 1.25x of it | 1.00 s \
                   | 18.00x smaller than gzipped snapshots (≥ 15x): reached |";
        assert_eq!(table(&[minutes]).lines().nth(2), Some(row));
    }
}
