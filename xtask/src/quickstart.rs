//! The whole story in one command: a cluster, its snapshot, and three members from it.

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::Parser;

use crate::Command;

pub const COMMAND: Command = Command {
    name: "quickstart",
    summary: "Start an etcd, save it, restore it as three members, and compare",
    help: "Usage: cargo xtask quickstart",
    run,
};

fn run(_args: Parser) -> Result<ExitCode> {
    bail!("`cargo xtask quickstart` is not built yet")
}
