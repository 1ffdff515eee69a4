//! Every decoder against bytes that no one wrote on purpose.
//!
//! Runs cargo-fuzz on the pinned stable toolchain. FUZZ.md keeps what was run, in total: this
//! command alone writes there.

mod totals;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser, ValueExt};

use crate::{Command, checkout, tools};
use totals::Run;

pub const COMMAND: Command = Command {
    name: "fuzz",
    summary: "Fuzz every decoder, or one, and add it to the totals in FUZZ.md",
    help: "
Usage: cargo xtask fuzz [TARGET] [--seconds N] [--asan]

Runs each target of fuzz/fuzz_targets, or the one named, for N seconds (60). It begins with the
committed inputs in fuzz/seeds/TARGET and with what earlier runs found, which is kept in
fuzz/corpus/TARGET. An input that takes more than 10 s or 512 MiB is a finding like a panic is.

--asan adds the address sanitizer. Our own code has nothing for it to find, as it has no `unsafe`;
use it for targets that reach C libraries. It is some seven times slower.",
    run,
};

/// A panic's backtrace and the place of the input fit in as much.
const LINES_SHOWN: usize = 60;

fn run(mut args: Parser) -> Result<ExitCode> {
    let (mut target, mut seconds, mut asan) = (None, 60, false);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("seconds") => seconds = args.value()?.parse()?,
            Arg::Long("asan") => asan = true,
            Arg::Value(name) if target.is_none() => {
                target = Some(name.to_string_lossy().into_owned());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let targets = choose(&targets()?, target)?;
    let fuzzer = Fuzzer { program: tools::folder("cargo-fuzz")?.join("cargo-fuzz"), asan };
    let mut code = ExitCode::SUCCESS;
    for target in &targets {
        if !fuzzer.run(target, seconds)? {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn targets() -> Result<Vec<String>> {
    let folder = checkout::root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(folder).context("cannot list fuzz/fuzz_targets")?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(stem) = path.file_stem().filter(|_| path.extension().is_some_and(|e| e == "rs"))
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn choose(known: &[String], wanted: Option<String>) -> Result<Vec<String>> {
    match wanted {
        None => Ok(known.to_vec()),
        Some(name) if known.contains(&name) => Ok(vec![name]),
        Some(name) => bail!("there is no fuzz target `{name}`; there are {}", known.join(", ")),
    }
}

struct Fuzzer {
    program: PathBuf,
    asan: bool,
}

impl Fuzzer {
    /// Fuzzes one target, adds the run to the totals, and says whether it found nothing.
    fn run(&self, target: &str, seconds: u64) -> Result<bool> {
        self.build(target)?;
        eprintln!("{target}: fuzzing for {seconds} s");
        let began = Instant::now();
        let mut child = self
            .command("run", target)
            .args(folders(target)?)
            .args(["--", "-rss_limit_mb=512", "-timeout=10", "-print_final_stats=1"])
            .arg(format!("-max_total_time={seconds}"))
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start cargo-fuzz")?;
        let mut lines = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            // What the fuzzer says is shown only if it finds something.
            lines.extend(BufReader::new(stderr).lines().map_while(Result::ok));
        }
        let clean = child.wait()?.success();
        let executions = executions(&lines);
        if !clean && executions.is_none() {
            bail!("cannot run the target:\n{}", tail(&lines));
        }
        let run = Run { took: began.elapsed(), executions: executions.unwrap_or(0) };
        totals::add(target, run)?;
        report(target, run, clean, &lines);
        Ok(clean)
    }

    fn build(&self, target: &str) -> Result<()> {
        let status = self.command("build", target).status().context("cannot start cargo-fuzz")?;
        if !status.success() {
            bail!("the fuzz target `{target}` does not compile");
        }
        Ok(())
    }

    fn command(&self, verb: &str, target: &str) -> Process {
        let mut command = Process::new(&self.program);
        command.current_dir(checkout::root()).args([verb, "--fuzz-dir", "fuzz", "--sanitizer"]);
        if self.asan {
            // Sanitizers are behind an unstable flag; this opens it on the pinned toolchain.
            command.arg("address").env("RUSTC_BOOTSTRAP", "1");
        } else {
            command.arg("none");
        }
        command.arg(target);
        command
    }
}

/// Where new inputs go, and then where the committed ones are.
fn folders(target: &str) -> Result<[String; 2]> {
    let [corpus, seeds] = ["corpus", "seeds"].map(|kind| format!("fuzz/{kind}/{target}"));
    fs::create_dir_all(checkout::root().join(&corpus))
        .with_context(|| format!("cannot make {corpus}"))?;
    if !checkout::root().join(&seeds).is_dir() {
        bail!("`{target}` has no seeds: commit some inputs that it accepts to {seeds}");
    }
    Ok([corpus, seeds])
}

fn report(target: &str, run: Run, clean: bool, lines: &[String]) {
    let Run { took, executions } = run;
    let seconds = took.as_secs();
    if clean {
        println!("{target}: nothing found in {executions} executions, {seconds} s");
    } else {
        println!("{}\n{target}: a finding after {executions} executions, {seconds} s", tail(lines));
    }
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

/// How often libFuzzer ran the target, by what it prints at its end, findings or not.
fn executions(lines: &[String]) -> Option<u64> {
    let last = lines.iter().rev();
    last.filter_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .find_map(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_the_final_statistics() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let said = "Done 5 runs in 1 second(s)\nstat::number_of_executed_units: 563455\nstat::peak";
        assert_eq!(executions(&lines(said)), Some(563_455));
        assert_eq!(executions(&lines("error: could not compile")), None);
    }

    #[test]
    fn a_target_is_chosen_by_name() {
        let known = ["bolt_check".to_owned(), "wal".to_owned()];
        assert_eq!(choose(&known, None).unwrap(), known);
        assert_eq!(choose(&known, Some("wal".into())).unwrap(), ["wal"]);
        let error = choose(&known, Some("snap".into())).unwrap_err().to_string();
        assert_eq!(error, "there is no fuzz target `snap`; there are bolt_check, wal");
    }

    #[test]
    fn every_target_has_seeds() {
        for target in targets().unwrap() {
            let seeds = checkout::root().join("fuzz/seeds").join(&target);
            assert!(fs::read_dir(seeds).is_ok_and(|mut files| files.next().is_some()), "{target}");
        }
    }
}
