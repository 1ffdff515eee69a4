//! The real bbolt as a judge: the program in `tools/go/oracle`, asked about many files at once.

use crate::tool;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What it says of one job.
#[derive(Clone, Debug)]
pub struct Answer {
    /// It was done, or found good; else why not.
    pub verdict: Result<(), String>,
    /// What else there is to say.
    pub detail: Value,
}

/// A change of a file before it is checked.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Byte offset.
    pub at: u64,
    /// The bytes that go there.
    pub bytes: Vec<u8>,
}

/// Makes databases shaped as etcd's, one for each path and seed; `more` states fields of the shape.
///
/// # Panics
/// Where the oracle cannot be run, or cannot make one.
pub fn generate<'a>(jobs: impl IntoIterator<Item = (&'a Path, u64)>, more: &Value) -> Vec<Value> {
    let jobs = jobs.into_iter().map(|(path, seed)| {
        let mut job = json!({ "path": path, "seed": seed });
        for (name, value) in more.as_object().into_iter().flatten() {
            job[name] = value.clone();
        }
        job
    });
    let answers = ask("generate", &[], jobs);
    answers.into_iter().map(|answer| answer.verdict.map(|()| answer.detail).unwrap()).collect()
}

/// bbolt's own check of whole files.
///
/// # Panics
/// Where the oracle cannot be run.
#[must_use]
pub fn check<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<Answer> {
    ask("check", &[], paths.into_iter().map(|path| json!({ "path": path })))
}

/// bbolt's own check of changed copies of one file. Damage may keep bbolt busy for ever: what takes
/// longer than `timeout` is rejected with a reason that begins with `timeout`.
///
/// # Panics
/// Where the oracle cannot be run.
#[must_use]
pub fn check_changed(
    path: &Path,
    changes: &[(Vec<Patch>, Option<u64>)],
    timeout: Duration,
) -> Vec<Answer> {
    let jobs = changes.iter().map(|(patches, truncate)| {
        let patches: Vec<_> = patches
            .iter()
            .map(|patch| {
                let hex: String = patch.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                json!({ "at": patch.at, "hex": hex })
            })
            .collect();
        let mut job = json!({ "path": path, "patches": patches });
        if let Some(length) = truncate {
            job["truncate"] = json!(length);
        }
        job
    });
    ask("check", &["-timeout", &format!("{}ms", timeout.as_millis())], jobs)
}

/// Every bucket of a file: number of pairs, digest of them, and of all but `key` the pairs.
///
/// # Panics
/// Where the oracle cannot be run, or cannot read a file.
#[must_use]
pub fn dump<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<BTreeMap<String, Value>> {
    let jobs = paths.into_iter().map(|path| json!({ "path": path, "pairs": true }));
    let buckets = |answer: Answer| {
        answer.verdict.unwrap();
        let buckets = answer.detail["buckets"].as_array().cloned().unwrap_or_default();
        let named = buckets
            .into_iter()
            .map(|bucket| (bucket["name"].as_str().unwrap_or_default().to_owned(), bucket));
        named.collect()
    };
    ask("dump", &[], jobs).into_iter().map(buckets).collect()
}

/// Hands over jobs and collects answers, one for each.
fn ask(verb: &str, flags: &[&str], jobs: impl Iterator<Item = Value>) -> Vec<Answer> {
    let lines: String = jobs.map(|job| format!("{job}\n")).collect();
    let count = lines.lines().count();
    let mut oracle = Command::new(tool("oracle", "oracle"))
        .arg(verb)
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = oracle.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let stdout = BufReader::new(oracle.stdout.take().unwrap());
    let answers: Vec<_> = stdout.lines().map(|line| answer(&line.unwrap())).collect();
    feeder.join().unwrap().unwrap();
    assert!(oracle.wait().unwrap().success(), "the oracle failed");
    assert_eq!(answers.len(), count, "an answer for each job");
    answers
}

fn answer(line: &str) -> Answer {
    let answer: Value = serde_json::from_str(line).unwrap();
    let error = || answer["error"].as_str().unwrap_or("no reason given").to_owned();
    let verdict = if answer["ok"] == true { Ok(()) } else { Err(error()) };
    Answer { verdict, detail: answer["detail"].clone() }
}
