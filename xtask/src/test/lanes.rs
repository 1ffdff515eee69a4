//! The lanes: what each runs, and how long it may take.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::libtest::{self, Count};
use crate::{checkout, tools};

/// One lane. It gets the filters of the command line.
pub struct Lane {
    pub name: &'static str,
    pub budget: Duration,
    pub run: fn(&[String]) -> Result<Count>,
}

const fn lane(name: &'static str, seconds: u64, run: fn(&[String]) -> Result<Count>) -> Lane {
    Lane { name, budget: Duration::from_secs(seconds), run }
}

/// In the order in which they run.
pub const LANES: &[Lane] = &[
    lane("setup", 1200, setup),
    lane("fmt", 20, fmt),
    lane("clippy", 240, clippy),
    lane("unit", 300, unit),
    lane("doc", 40, doc),
    lane("real", 600, real),
];

/// The fuzz targets are a workspace of their own, which would rot if nothing looked at it.
const FUZZ: &str = "fuzz/Cargo.toml";

fn setup(_: &[String]) -> Result<Count> {
    tools::install_for_tests()?;
    must_succeed(cargo_test(&["--no-run", "--lib", "--bins", "--tests"]))
}

fn fmt(_: &[String]) -> Result<Count> {
    let mut cargo = checkout::cargo();
    cargo.args(["fmt", "--all", "--check"]);
    must_succeed(cargo)?;
    let mut cargo = checkout::cargo();
    cargo.args(["fmt", "--manifest-path", FUZZ, "--check"]);
    must_succeed(cargo)?;
    let mut gofmt = Command::new("gofmt");
    gofmt.args(["-l", "tools/go"]).current_dir(checkout::root());
    let output = checkout::run_quietly(&mut gofmt)?;
    if !output.stdout.is_empty() {
        let files = String::from_utf8_lossy(&output.stdout).into_owned();
        bail!("not formatted; run `gofmt -w` on\n{}", files.trim_end());
    }
    Ok(Count::default())
}

fn clippy(_: &[String]) -> Result<Count> {
    let mut cargo = checkout::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]);
    must_succeed(cargo)?;
    let mut cargo = checkout::cargo();
    cargo
        .args(["clippy", "--manifest-path", FUZZ, "--locked", "--", "-D", "warnings"])
        // Nothing is linked here, and building libFuzzer would take a C++ compiler.
        .env("CUSTOM_LIBFUZZER_PATH", "/unused/libfuzzer.a");
    must_succeed(cargo)?;
    let mut vet = Command::new("go");
    vet.args(["vet", "."])
        .current_dir(checkout::root().join("tools/go/oracle"))
        .envs([("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=readonly")]);
    must_succeed(vet)
}

fn unit(filters: &[String]) -> Result<Count> {
    let targets = integration_tests()?.into_iter().filter(|name| !runs_real_servers(name));
    let mut cargo = cargo_test(&["--lib", "--bins"]);
    for target in targets {
        cargo.args(["--test", &target]);
    }
    count_tests(cargo.arg("--").args(filters))
}

fn doc(_: &[String]) -> Result<Count> {
    count_tests(&mut cargo_test(&["--doc"]))
}

fn real(filters: &[String]) -> Result<Count> {
    let targets: Vec<String> =
        integration_tests()?.into_iter().filter(|name| runs_real_servers(name)).collect();
    if targets.is_empty() {
        return Ok(Count::default()); // Without a target, cargo would run all tests there are.
    }
    let mut cargo = cargo_test(&[]);
    for target in targets {
        cargo.args(["--test", &target]);
    }
    count_tests(cargo.arg("--").args(filters))
}

/// The convention by which an integration test says that it needs `cargo xtask tools`.
fn runs_real_servers(target: &str) -> bool {
    target.starts_with("real")
}

fn cargo_test(args: &[&str]) -> Command {
    let mut cargo = checkout::cargo();
    cargo.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(args);
    cargo
}

/// The names of all tests/*.rs of the workspace, each once.
fn integration_tests() -> Result<Vec<String>> {
    let mut cargo = checkout::cargo();
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
    let output = checkout::run_quietly(&mut cargo)?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("cannot read what `cargo metadata` says")?;
    let mut names: Vec<String> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Runs a command whose output is for the reader, not for us.
fn must_succeed(mut command: Command) -> Result<Count> {
    let status = command.status().with_context(|| checkout::missing(&command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", checkout::show(&command));
    }
    Ok(Count::default())
}

/// Runs `cargo test`, passes on what it prints, and adds up the results.
fn count_tests(cargo: &mut Command) -> Result<Count> {
    let mut child =
        cargo.stdout(Stdio::piped()).spawn().with_context(|| checkout::missing(cargo))?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what the tests print")?;
            println!("{line}");
            count = [count].into_iter().chain(libtest::parse(&line)).sum();
        }
    }
    let status = child.wait()?;
    if !status.success() && count.failed == 0 {
        // It did not compile, or a test binary died before it could say how its tests went.
        eprintln!("error: `{}` failed ({status})", checkout::show(cargo));
        count.failed = 1;
    }
    Ok(count)
}
