//! `rekindle save-files` and `rekindle restore-files`: what a host has beside its etcd.

mod restore;
mod save;

pub(crate) use restore::{RestoreFilesArgs, run as restore};
pub(crate) use save::{SaveFilesArgs, run as save};

use crate::failure::Failure;
use rekindle_archive::Error;
use rekindle_archive::format::files::is_host;

/// This host, as its files are called.
fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Reads the name of a host.
fn parse_host(text: &str) -> Result<String, String> {
    match is_host(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("a host has a name of letters, digits, dots, hyphens and underscores".to_owned())
        }
    }
}

/// What is told of files that an archive does not take.
pub(crate) fn refused(error: &Error) -> Option<Failure> {
    let what = error.to_string();
    match error {
        Error::FilesUnsealed { .. } => Some(Failure::refused(what).remedy(
            "name an encrypted archive: rekindle archive init PLACE --recipient age1...; whoever reads these \
             files is master of the cluster",
        )),
        Error::FilesTooLarge { .. } => Some(Failure::usage(what).remedy("name fewer paths")),
        Error::NoHost { .. } => Some(Failure::usage(what).remedy("name it: --host")),
        _ => None,
    }
}
