//! Us and the peer in turn, on the same files.

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::Parser;

use crate::Command;

pub const COMMAND: Command = Command {
    name: "bench",
    summary: "Measure us and the peer in turn, and print medians, spread and ratios",
    help: "Usage: cargo xtask bench",
    run,
};

fn run(_args: Parser) -> Result<ExitCode> {
    bail!("`cargo xtask bench` is not built yet")
}
