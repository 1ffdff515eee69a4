//! How long bringing members and clusters back takes, on real etcds.

use std::process::{Command as Process, ExitCode};

use anyhow::{Context, Result};
use lexopt::Parser;

use crate::{Command, checkout, tools};

pub const COMMAND: Command = Command {
    name: "recovery-times",
    summary: "Measure check, replace and recover on real clusters with 1 GB",
    help: "
Usage: cargo xtask recovery-times

Builds rekindle for release, starts clusters of 3 and 5 real etcds on this machine, writes a gigabyte into
one, and prints how long it takes to look at them, to replace a member (beside the same by hand with
etcdctl, in turn), and to bring all three back from an archive. It takes about ten minutes and 10 GB.
Nothing else should run meanwhile.",
    run,
};

fn run(mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    tools::folder("etcd-3.7")?;
    let build = ["build", "--release", "--package=rekindle", "--bin=rekindle"];
    let rekindle = checkout::root().join("target/release/rekindle").display().to_string();
    let measure =
        ["run", "--quiet", "--package=rekindle", "--example=recovery_times", "--", &rekindle];
    for words in [&build[..], &measure[..]] {
        let mut command = Process::new(env!("CARGO"));
        command.args(words).current_dir(checkout::root());
        let status = command.status().with_context(|| checkout::missing(&command))?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
