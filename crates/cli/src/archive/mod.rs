//! `rekindle archive`: making archives, and what they hold.

mod copy;
mod export;
mod failure;
mod forget;
mod init;
mod key_args;
mod key_files;
mod list;
mod pin;
mod place;
mod point;
mod probe;
mod prune;
mod rekey;
mod remains;
mod repair;
mod stats;
mod verify;

pub(crate) use forget::ForgetArgs;
pub(crate) use key_args::{ProtectArgs, ReadKeys, RekeyArgs, WriteKeys};
pub(crate) use key_files::{unlock, with_signing_key};
pub(crate) use pin::Pin;
pub(crate) use place::{find, open, open_at, open_configured, parse_source};
pub(crate) use point::Point;
pub(crate) use prune::{PruneArgs, Rules};
pub(crate) use remains::with_what_remains;

use crate::args::ArchiveCommand;
use crate::failure::Failure;
use jiff::Timestamp;
use rekindle_archive::format::header::Moment;

pub(crate) fn run(command: &ArchiveCommand) -> Result<(), Failure> {
    match command {
        ArchiveCommand::Init(args) => init::run(args),
        ArchiveCommand::Probe(args) => probe::run(args),
        ArchiveCommand::List(args) => list::run(args),
        ArchiveCommand::Verify(args) => verify::run(args),
        ArchiveCommand::Export(args) => export::run(args),
        ArchiveCommand::Stats(args) => stats::run(args),
        ArchiveCommand::Copy(args) => copy::run(args),
        ArchiveCommand::Repair(args) => repair::run(args),
        ArchiveCommand::Rekey(args) => rekey::run(args),
        ArchiveCommand::Prune(args) => prune::run(args),
        ArchiveCommand::Forget(args) => forget::run(args),
    }
}

/// What is written from here on can be read by its owner only, as a snapshot can.
pub(crate) fn keep_to_ourselves() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// A moment as it is printed: RFC 3339, UTC, all that is known of it: who names it finds the same.
pub(crate) fn shown(moment: Moment) -> String {
    let at = Timestamp::from_millisecond(moment.0).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// The clock, for headers.
pub(crate) fn now() -> Moment {
    Moment(Timestamp::now().as_millisecond())
}
