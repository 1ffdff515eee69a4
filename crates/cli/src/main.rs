//! The `rekindle` command: flags in, the crates below do the work, words and an exit code out.
//!
//! Everything that is said to a user is said from here. Errors come up as [`failure::Failure`] and
//! are printed once.

mod agent;
mod archive;
mod args;
mod capture;
mod check;
mod configured;
mod connect;
mod defragment;
mod doctor;
mod drill;
mod failure;
mod fetch;
mod hashkv;
mod host;
mod manifest;
mod member;
mod output;
mod prune_snapshots;
mod records;
mod recover;
mod restore;
mod runbook;
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

/// A text without the secret keys in it, if it has any: whoever gives one in a wrong place is told so, and
/// his terminal or log does not keep it.
fn without_secrets(text: &str) -> Option<String> {
    const SECRET: &str = "AGE-SECRET-KEY-";
    let upper = text.to_ascii_uppercase();
    let mut kept = String::new();
    let mut at = 0;
    while let Some(found) = upper.get(at..)?.find(SECRET) {
        let begin = at + found + SECRET.len();
        let key = upper.get(begin..)?.find(|c: char| !c.is_ascii_alphanumeric());
        kept += text.get(at..begin)?;
        kept += "…";
        at = key.map_or(text.len(), |len| begin + len);
    }
    kept += text.get(at..)?;
    (kept != text).then_some(kept)
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, and are no errors.
            let code = if error.use_stderr() { Code::Usage as u8 } else { 0 };
            match without_secrets(&error.to_string()) {
                Some(text) => eprint!("{text}"),
                None => _ = error.print(),
            }
            return ExitCode::from(code);
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            eprint!("{}", without_secrets(&text).unwrap_or(text));
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let Args { config, config_cluster, command } = args;
    if let Command::Agent(args) = command {
        return agent::run(&args, config.as_deref(), config_cluster.as_deref());
    }
    match &config {
        Some(path) => configured::load(path, config_cluster.as_deref())?,
        None if config_cluster.is_some() => {
            return Err(Failure::usage("--config-cluster without --config names nothing"));
        }
        None => {}
    }
    match command {
        Command::Save(args) => save::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Hashkv(args) => hashkv::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Archive(args) => archive::run(&args.command),
        Command::Drill(args) => drill::run(&args),
        Command::Runbook(args) => runbook::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Replace(args) => member::replace(&args),
        Command::Reconfigure(args) => member::reconfigure(&args),
        Command::Recover(args) => recover::run(&args),
        Command::OnHost(args) => member::on_host(&args),
        Command::Defragment(args) => defragment::run(&args),
        Command::SaveFiles(args) => host::save(&args),
        Command::RestoreFiles(args) => host::restore(&args),
        Command::Records(args) => records::run(&args),
        Command::PruneSnapshots(args) => prune_snapshots::run(&args),
        Command::Agent(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_keys_are_not_printed() {
        let text = "invalid value 'AGE-SECRET-KEY-1ABC' for '--recipient': age-secret-key-1xyz";
        let want = "invalid value 'AGE-SECRET-KEY-…' for '--recipient': age-secret-key-…";
        assert_eq!(without_secrets(text).as_deref(), Some(want));
        assert_eq!(without_secrets("none"), None);
    }
}
