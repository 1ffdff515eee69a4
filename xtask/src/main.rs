//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! Nothing here is part of the product, and nothing here needs more than the checkout, Rust, Go and
//! the package registries.

mod alerts;
mod background;
mod bench;
mod checkout;
mod etcd;
mod fuzz;
mod interrupt;
mod node;
mod packages;
mod partitions;
mod planted;
mod quickstart;
mod recovery_times;
mod soak;
mod systemd;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::{Arg, Parser};

/// One `cargo xtask` command.
struct Command {
    name: &'static str,
    /// What it does, in the list of commands.
    summary: &'static str,
    /// What follows the name and summary under `--help`.
    help: &'static str,
    run: fn(Parser) -> Result<ExitCode>,
}

const COMMANDS: &[Command] = &[
    quickstart::COMMAND,
    test::COMMAND,
    bench::COMMAND,
    soak::COMMAND,
    fuzz::COMMAND,
    planted::COMMAND,
    partitions::COMMAND,
    recovery_times::COMMAND,
    alerts::COMMAND,
    systemd::COMMAND,
    node::COMMAND,
    tools::COMMAND,
    tidy::COMMAND,
];

fn main() -> ExitCode {
    match run(Parser::from_env()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Parser) -> Result<ExitCode> {
    let name = match args.next()? {
        None | Some(Arg::Short('h') | Arg::Long("help")) => {
            print!("{}", overview());
            return Ok(ExitCode::SUCCESS);
        }
        Some(Arg::Value(name)) => name.to_string_lossy().into_owned(),
        Some(other) => return Err(other.unexpected().into()),
    };
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        bail!("there is no command `{name}`\n\n{}", overview());
    };
    // Before the command reads its arguments, so that help can be had whatever else is there.
    if std::env::args().skip(2).any(|arg| arg == "-h" || arg == "--help") {
        println!("{}\n\n{}", command.summary, command.help.trim());
        return Ok(ExitCode::SUCCESS);
    }
    (command.run)(args)
}

fn overview() -> String {
    let mut text = String::from("Usage: cargo xtask COMMAND [ARGUMENTS]\n\nCommands:\n");
    for command in COMMANDS {
        text += &format!("  {:<14} {}\n", command.name, command.summary);
    }
    text + "\n`cargo xtask COMMAND --help` says more.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_listed_and_explained() {
        for command in COMMANDS {
            assert!(overview().contains(command.summary));
            assert!(command.help.trim().starts_with("Usage: cargo xtask "), "{}", command.name);
        }
    }
}
