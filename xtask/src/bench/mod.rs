//! Us and the peer in turn, on the same files.
//!
//! A figure is the time of whole processes, from start to end. Between two runs everything is
//! written out and the output removed; the first run of each is not counted.

mod archive_rows;
mod archives;
mod data;
mod follow;
mod levels;
mod machine;
mod measure;
mod minio;
mod minutes;
mod report;
mod rows;
mod runner;
mod series;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use lexopt::{Arg, Parser, ValueExt};

use crate::etcd::Site;
use crate::interrupt::Interrupt;
use crate::{Command, checkout, tools};
use data::{Snapshot, Store};
use follow::Finding;
use minutes::Minutes;
use rows::{Maker, Programs, Row};
use runner::{Outcome, Runner};

pub const COMMAND: Command = Command {
    name: "bench",
    summary: "Measure us and the peer in turn, and print medians, spread and ratios",
    help: "
Usage: cargo xtask bench [--sizes GB,...] [--nodes N,...] [--minutes N] [--runs N]
                         [--kills N] [--only PART]... [--write]

Runs rekindle and etcd's own etcdutl and etcdctl in turn, N times each (5) after one run that does
not count, and prints medians with the least and the most, and what that says against each target.
  --sizes   db sizes in GB (0.1,0.4,1.6,6): at each, what a GB costs us. The peer is met at 1.6, or
            at the largest where that is not among them.
  --nodes   sizes of the Kubernetes clusters (100,1000,5000) of which an archive gets a base a minute
  --minutes of which so many pass (60), without waiting
  --kills   so often a capture is killed together with its etcd (100)
  --only    rows whose name contains this
  --write   write all of it to BENCHMARKS.md

The data is written by a real etcd once and kept in $REKINDLE_BENCH, else
$XDG_CACHE_HOME/rekindle/bench, else ~/.cache/rekindle/bench; outputs go there too. It takes some 10
GB there, up to 30 GB while it runs, and about an hour and a half. Nothing else should run meanwhile.",
    run,
};

/// The pin of the peer, and of the servers.
const PEER: &str = "etcd-3.6";

/// The size at which the peer is met.
const TABLE_SIZE: f64 = 1.6;

const BENCHMARKS: &str = "BENCHMARKS.md";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
struct Request {
    sizes: Vec<f64>,
    nodes: Vec<u64>,
    minutes: u64,
    runs: usize,
    kills: u64,
    only: Vec<String>,
    write: bool,
}

fn run(args: Parser) -> Result<ExitCode> {
    let request = parse(args)?;
    let interrupt = Interrupt::listen()?;
    let programs = programs()?;
    let store = Store::open(&programs, &interrupt)?;
    let runner = Runner {
        store: &store,
        interrupt: &interrupt,
        runs: request.runs,
        etcd: programs.etcd.clone().into(),
    };
    if let Some(warning) = machine::warning() {
        eprintln!("warning: {warning}");
    }
    let bench = Bench { request: &request, programs: &programs, store: &store, runner };
    let text = bench.run()?;
    println!("{text}");
    if request.write {
        fs::write(checkout::root().join(BENCHMARKS), text)
            .with_context(|| format!("cannot write {BENCHMARKS}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(mut args: Parser) -> Result<Request> {
    let sizes = vec![0.1, 0.4, TABLE_SIZE, 6.0];
    let nodes = vec![100, 1000, 5000];
    let only = Vec::new();
    let mut request =
        Request { sizes, nodes, minutes: 60, runs: 5, kills: 100, only, write: false };
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("sizes") => request.sizes = sizes_of(&args.value()?.string()?)?,
            Arg::Long("nodes") => request.nodes = nodes_of(&args.value()?.string()?)?,
            Arg::Long("minutes") => request.minutes = args.value()?.parse()?,
            Arg::Long("runs") => request.runs = args.value()?.parse()?,
            Arg::Long("kills") => request.kills = args.value()?.parse()?,
            Arg::Long("only") => request.only.push(args.value()?.string()?),
            Arg::Long("write") => request.write = true,
            other => return Err(other.unexpected().into()),
        }
    }
    ensure!(request.runs > 0, "--runs takes a number from 1");
    ensure!(request.minutes > 0, "--minutes takes a number from 1");
    if request.write && !request.only.is_empty() {
        bail!("--write takes everything: leave --only out");
    }
    Ok(request)
}

fn sizes_of(text: &str) -> Result<Vec<f64>> {
    let size = |part: &str| -> Option<f64> {
        part.trim().parse().ok().filter(|size| (0.01..=10.0).contains(size))
    };
    let sizes = text.split(',').map(size).collect::<Option<Vec<f64>>>();
    sizes.with_context(|| format!("--sizes {text}: expected numbers from 0.01 to 10, in GB"))
}

fn nodes_of(text: &str) -> Result<Vec<u64>> {
    let number = |part: &str| part.trim().parse().ok().filter(|nodes| (1..=10_000).contains(nodes));
    let nodes = text.split(',').map(number).collect::<Option<Vec<u64>>>();
    nodes.with_context(|| format!("--nodes {text}: expected numbers from 1 to 10000"))
}

fn programs() -> Result<Programs> {
    let tools = tools::folder(PEER)?;
    let example = |package, name| -> Result<String> {
        Ok(checkout::build_example(package, name)?.display().to_string())
    };
    let tool = |name| tools.join(name).display().to_string();
    Ok(Programs {
        limits: example("rekindle-datadir", "limits")?,
        drain: example("rekindle-client", "drain")?,
        fill: example("rekindle-client", "fill")?,
        churn: example("rekindle-client", "churn")?,
        kubernetes: example("rekindle-client", "kubernetes")?,
        levels: example("rekindle-archive", "levels")?,
        many_bases: example("rekindle-archive", "many_bases")?,
        a_log: example("rekindle-archive", "a_log")?,
        puts: example("rekindle-client", "puts")?,
        drain_watch: example("rekindle-client", "drain_watch")?,
        etcd: tool("etcd"),
        etcdctl: tool("etcdctl"),
        etcdutl: tool("etcdutl"),
        rekindle: checkout::build_rekindle()?.display().to_string(),
    })
}

struct Bench<'a> {
    request: &'a Request,
    programs: &'a Programs,
    store: &'a Store<'a>,
    runner: Runner<'a>,
}

impl Bench<'_> {
    fn run(&self) -> Result<String> {
        let size = table_size(&self.request.sizes);
        let source = self.store.plain(size)?;
        let restored = self.runner.restored_bytes(&self.maker(&source).restore())?;
        let mut outcomes = self.table(&source, size, restored)?;
        let archives = self.archives(&source)?;
        outcomes.extend(archives.outcomes);
        let followed = self.following(&source)?;
        let (minutes, levels) = (self.minutes()?, self.levels()?);
        let requests = archives.requests;
        let table = Table { source, restored, outcomes, requests, followed, minutes, levels };
        let mut points = Vec::new();
        for size in &self.request.sizes {
            points.extend(self.points(*size)?);
        }
        let peer = format!("etcd, etcdctl and etcdutl {}", tools::version(PEER)?);
        Ok(self.text(&table, &mut points, &machine::describe(&peer)?))
    }

    fn maker<'b>(&'b self, snapshot: &'b Snapshot) -> Maker<'b> {
        Maker { programs: self.programs, snapshot, output: self.store.output() }
    }

    /// Everything against the peer, at one size.
    fn table(&self, snapshot: &Snapshot, size: f64, restored: u64) -> Result<Vec<Outcome>> {
        let maker = self.maker(snapshot);
        let members = Site::find(["a", "b", "c"])?;
        let [site] = Site::find(["default"])?;
        let mut outcomes = self.measure([
            maker.restore(),
            maker.restore_cold(),
            maker.restore_unhashed(restored),
            maker.restore_members(&members),
            maker.restore_and_boot(&site),
            maker.status(),
        ])?;
        outcomes.extend(self.hashkv(snapshot, "never compacted", 5.0)?);
        if self.wants("hashkv, compacted") {
            let compacted = self.store.compacted(size)?;
            outcomes.extend(self.hashkv(&compacted, "compacted", 4.0)?);
        }
        if self.wants(&maker.save("").name) {
            let server = self.store.server(snapshot)?;
            outcomes.extend(self.measure([maker.save(&server.endpoint())])?);
        }
        Ok(outcomes)
    }

    fn hashkv(&self, snapshot: &Snapshot, kind: &str, faster: f64) -> Result<Vec<Outcome>> {
        let row = |copy: &_| self.maker(snapshot).hashkv(copy, kind, faster);
        if !self.wants(&row(&snapshot.path).name) {
            return Ok(Vec::new());
        }
        let copy = self.store.copy(snapshot)?;
        let outcomes = self.measure([row(&copy)]);
        data::remove(&copy)?;
        outcomes
    }

    /// One size of the table that shows how cost grows.
    fn points(&self, size: f64) -> Result<Vec<(f64, Outcome)>> {
        let only = &self.request.only;
        if !only.is_empty() && !only.iter().any(|part| part.contains("linear")) {
            return Ok(Vec::new());
        }
        let label = size.to_string();
        let snapshot = self.store.plain(size)?;
        let maker = self.maker(&snapshot);
        let rows = [maker.restore(), maker.status()];
        let mut outcomes = self.measure(rows.map(|row| row.into_point(&label)))?;
        // A copy that is there only while it is needed leaves the page cache to the others.
        let copy = self.store.copy(&snapshot)?;
        let row = maker.hashkv(&copy, "never compacted", 0.0);
        outcomes.extend(self.measure([row.into_point(&label)])?);
        data::remove(&copy)?;
        let server = self.store.server(&snapshot)?;
        outcomes.extend(self.measure([maker.save(&server.endpoint()).into_point(&label)])?);
        let gigabytes = snapshot.bytes as f64 / 1e9;
        Ok(outcomes.into_iter().map(|outcome| (gigabytes, outcome)).collect())
    }

    fn measure<const N: usize>(&self, rows: [Row; N]) -> Result<Vec<Outcome>> {
        let wanted = rows.into_iter().filter(|row| self.wants(&row.name));
        wanted.map(|row| self.runner.run(row)).collect()
    }

    fn wants(&self, name: &str) -> bool {
        let only = &self.request.only;
        only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
    }

    fn text(&self, table: &Table, points: &mut [(f64, Outcome)], setting: &[String]) -> String {
        let work = |outcome: &Outcome| outcome.row.name.split_once(": ").map(|(_, w)| w.to_owned());
        points.sort_by_key(|(_, outcome)| work(outcome));
        let gigabytes = table.source.bytes as f64 / 1e9;
        let sections = [
            "# Benchmarks".to_owned(),
            format!(
                "Made by `cargo xtask bench --write`; median (least–most) of {} runs of each, in turn, \
                 after one that does not count. Times are of whole processes.",
                self.request.runs
            ),
            setting.iter().map(|line| format!("- {line}\n")).collect::<String>(),
            format!("## {} keys of 2 KB, a db of {gigabytes:.2} GB", table.source.keys),
            report::against_the_peer(&table.outcomes),
            report::memory(&table.outcomes),
            report::size(table.restored, table.source.bytes),
            table.requests.clone(),
            "## How far from the limits, and why".to_owned(),
            report::limits(&table.outcomes),
            "## A cluster that is followed".to_owned(),
            follow::table(&table.followed),
            "## An archive with a base a minute, of a Kubernetes cluster's load".to_owned(),
            MINUTES.to_owned(),
            minutes::table(&table.minutes),
            "## What zstd's levels make of records".to_owned(),
            table.levels.clone(),
            "## What a GB costs".to_owned(),
            report::linear(points),
        ];
        sections.map(|section| section.trim_end().to_owned() + "\n").join("\n")
    }
}

/// What was measured at the one size at which the peer is met.
struct Table {
    source: Snapshot,
    /// Bytes of the db that a restore makes.
    restored: u64,
    outcomes: Vec<Outcome>,
    requests: String,
    followed: Vec<Finding>,
    minutes: Vec<Minutes>,
    levels: String,
}

/// What the table of minutes is of.
const MINUTES: &str = "\
The load is that of `crates/client/examples/kubernetes`, with a compaction every 5 minutes, a minute at \
a time without waiting. The floor is every record ever written, once, in the archive's own blocks at \
zstd's level 1. Of larger clusters each tenth snapshot was gzipped, and the sum scaled.";

/// The size at which the peer is met.
fn table_size(sizes: &[f64]) -> f64 {
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    if sizes.contains(&TABLE_SIZE) { TABLE_SIZE } else { largest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_request(args: &[&str], expected: Result<Request, &str>) {
        match (parse(Parser::from_args(args)), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, _) => panic!("{args:?}: {found:?}"),
        }
    }

    #[test]
    fn requests_are_read() {
        let request = |sizes: &[f64], runs, only: &[&str], write| Request {
            sizes: sizes.to_vec(),
            nodes: vec![100, 1000, 5000],
            minutes: 60,
            runs,
            kills: 100,
            only: only.iter().map(|&part| part.to_owned()).collect(),
            write,
        };
        check_request(&[], Ok(request(&[0.1, 0.4, 1.6, 6.0], 5, &[], false)));
        check_request(
            &["--sizes", "0.1,2", "--runs", "2", "--only", "save", "--only=boot"],
            Ok(request(&[0.1, 2.0], 2, &["save", "boot"], false)),
        );
        let clusters = Request { nodes: vec![20, 3], minutes: 6, ..request(&[1.6], 5, &[], false) };
        check_request(&["--sizes", "1.6", "--nodes", "20,3", "--minutes", "6"], Ok(clusters));
        check_request(&["--nodes", "0"], Err("from 1 to 10000"));
        check_request(&["--minutes", "0"], Err("from 1"));
        check_request(&["--sizes", "x"], Err("--sizes x: expected numbers"));
        check_request(&["--sizes", "100"], Err("from 0.01 to 10"));
        check_request(&["--runs", "0"], Err("from 1"));
        check_request(&["--write", "--only", "save"], Err("leave --only out"));
    }

    #[test]
    fn the_peer_is_met_at_one_size() {
        assert_eq!(table_size(&[0.1, 1.6, 6.0]), 1.6);
        assert_eq!(table_size(&[0.1, 0.4]), 0.4);
    }
}
