//! What zstd's levels make of records: of a Kubernetes cluster's, and of those that are measured on.

use anyhow::{Context, Result};

use super::Bench;
use super::data;
use super::rows::Programs;
use crate::{checkout, etcd};

/// The name of this part.
pub const NAME: &str = "zstd's levels";

const LEVELS: [&str; 5] = ["-1", "1", "3", "9", "dense"];

/// The Kubernetes cluster: its nodes, and the minutes that are written down of it.
const NODES: &str = "300";
const MINUTES: u64 = 10;

impl Bench<'_> {
    /// A line for each level and load; none where they are not wanted.
    pub fn levels(&self) -> Result<String> {
        if !self.wants(NAME) {
            return Ok(String::new());
        }
        eprintln!("{NAME}");
        let records = self.store.kept("levels.records");
        let file = records.display().to_string();
        for minute in 0..=MINUTES {
            let words = [&self.programs.kubernetes, "-", NODES, &minute.to_string(), &file];
            checkout::run_quietly(&mut etcd::command(&words))?;
        }
        let kubernetes = lines(self.programs, &file, &LEVELS)?;
        data::remove(&records)?;
        let smallest = self.request.sizes.iter().copied().fold(f64::INFINITY, f64::min);
        let synthetic = self.store.plain(smallest)?.path.display().to_string();
        let synthetic = lines(self.programs, &synthetic, &LEVELS)?;
        Ok(format!("{}{}", list("Kubernetes", &kubernetes), list("random values", &synthetic)))
    }
}

fn list(load: &str, lines: &str) -> String {
    lines.lines().map(|line| format!("- {load}, {line}\n")).collect()
}

/// Bytes of the records in a file, in blocks of packs at level 1.
pub fn bytes_at_1(programs: &Programs, file: &str) -> Result<u64> {
    let said = lines(programs, file, &["1"])?;
    let bytes = said.trim_end().strip_suffix(" bytes").and_then(|rest| rest.rsplit(' ').next());
    bytes.and_then(|bytes| bytes.parse().ok()).with_context(|| format!("no bytes in: {said}"))
}

fn lines(programs: &Programs, file: &str, levels: &[&str]) -> Result<String> {
    let words = [&[programs.levels.as_str(), file], levels].concat();
    let said = checkout::run_quietly(&mut etcd::command(&words))?.stdout;
    String::from_utf8(said).context("not UTF-8")
}
