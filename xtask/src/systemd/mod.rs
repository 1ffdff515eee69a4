//! The units of dist/systemd under a real systemd, installed as the README says.
//!
//! Every line that is printed is of something that was seen. The first thing that does not come out as it must ends
//! it, with the end of the machine's journal.

mod machine;
mod recover;
mod steps;

use std::process::ExitCode;

use anyhow::Result;
use lexopt::Parser;

use crate::interrupt::Interrupt;
use crate::{Command, checkout, tools};
use machine::Machine;
use steps::Trial;

pub const COMMAND: Command = Command {
    name: "systemd",
    summary: "Try the units of dist/systemd under a real systemd, as process 1 of a machine of its own",
    help: "
Usage: cargo xtask systemd

Takes root, and Debian's packages: makes the files of a machine with mmdebstrap (once; they are kept in
$REKINDLE_MACHINES, else beside the tools of `cargo xtask tools`), boots systemd on them in namespaces
and a cgroup of its own, and installs rekindle there as the README says. Then the agent is started,
killed, frozen, reloaded and stopped, a timer saves a snapshot, and an etcd of a unit is fenced and brought back. Of etcd it takes the newest that is
pinned; that runs beside the machine, on a free port of 127.0.0.1.",
    run,
};

const ETCD: &str = "etcd-3.7";

fn run(mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    let interrupt = Interrupt::listen()?;
    let root = machine::root()?;
    let etcd = tools::folder(ETCD)?;
    let rekindle = checkout::build_workspace("rekindle")?;
    interrupt.check()?;
    let machine = Machine::boot(&root, &interrupt)?;
    let trial = Trial::begin(machine, &etcd, &rekindle, &interrupt)?;
    let Err(error) = trial.run() else { return Ok(ExitCode::SUCCESS) };
    eprintln!("{}\nerror: {error:#}", trial.journal_end()?.trim_end());
    Ok(ExitCode::FAILURE)
}
