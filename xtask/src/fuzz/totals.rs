//! FUZZ.md: how long and how often each target was run, in all.

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use crate::checkout;
use anyhow::{Context, Result};

const FUZZ: &str = "FUZZ.md";

/// What one run of one target adds.
#[derive(Clone, Copy)]
pub struct Run {
    pub took: Duration,
    pub executions: u64,
}

/// Adds a run to the file. Runs of several targets may end at once: one after the other has it.
pub fn add(target: &str, run: Run) -> Result<()> {
    let path = checkout::root().join(FUZZ);
    let locked = File::open(&path).with_context(|| format!("cannot open {FUZZ}"))?;
    locked.lock().with_context(|| format!("cannot lock {FUZZ}"))?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {FUZZ}"))?;
    let mut git = Command::new("git");
    git.args(["rev-parse", "--short", "HEAD"]).current_dir(checkout::root());
    let commit = checkout::run_quietly(&mut git)?.stdout;
    let commit = String::from_utf8_lossy(&commit).trim().to_owned();
    fs::write(&path, with_run(&text, target, run, &commit))
        .with_context(|| format!("cannot write {FUZZ}"))
}

/// The text with its table's row for the target raised, or added at the table's end.
fn with_run(text: &str, target: &str, run: Run, commit: &str) -> String {
    let row = |seconds: u64, executions: u64| {
        let seconds = seconds + run.took.as_secs();
        let executions = executions + run.executions;
        format!("| {target} | {seconds} | {executions} | {commit} |")
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut after_table = lines.len();
    for (index, line) in lines.iter_mut().enumerate() {
        if !line.starts_with('|') {
            continue;
        }
        after_table = index + 1;
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [name, seconds, executions, _] = cells[..]
            && name == target
        {
            *line = row(seconds.parse().unwrap_or(0), executions.parse().unwrap_or(0));
            return lines.join("\n") + "\n";
        }
    }
    lines.insert(after_table, row(0, 0));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_raises_its_row_or_adds_one() {
        let table = "# Fuzzing\n\n| target | s | n | commit |\n|---|---|---|---|\n";
        let run = |seconds| Run { took: Duration::from_secs(seconds), executions: 1000 };
        let once = with_run(&format!("{table}\nMore.\n"), "wal", run(60), "abc");
        assert_eq!(once, format!("{table}| wal | 60 | 1000 | abc |\n\nMore.\n"));
        let twice = with_run(&once, "wal", run(30), "def");
        assert_eq!(twice, format!("{table}| wal | 90 | 2000 | def |\n\nMore.\n"));
        let other = with_run(&twice, "snap", run(1), "def");
        assert_eq!(
            other,
            format!("{table}| wal | 90 | 2000 | def |\n| snap | 1 | 1000 | def |\n\nMore.\n")
        );
    }
}
