//! The `rekindle` command: flags in, the crates below do the work, words and an exit code out.
//!
//! Everything that is said to a user is said from here. Errors come up as [`failure::Failure`] and
//! are printed once.

mod archive;
mod args;
mod capture;
mod connect;
mod failure;
mod fetch;
mod hashkv;
mod manifest;
mod output;
mod restore;
mod save;
mod source;
mod spool;
mod status;
mod stores;
mod terminal;
mod time;

use args::{Args, Command};
use clap::Parser;
use failure::{Code, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, and are no errors.
            let code = if error.use_stderr() { Code::Usage as u8 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Save(args) => save::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Hashkv(args) => hashkv::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Archive(args) => archive::run(&args.command),
    }
}
