//! Long runs that look for what short ones cannot show.

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::Parser;

use crate::Command;

pub const COMMAND: Command = Command {
    name: "soak",
    summary: "Run for hours against real servers, with faults",
    help: "Usage: cargo xtask soak",
    run,
};

fn run(_args: Parser) -> Result<ExitCode> {
    bail!("`cargo xtask soak` is not built yet")
}
