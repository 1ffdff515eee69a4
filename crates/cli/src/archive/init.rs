//! `rekindle archive init`: makes an archive of an empty place.

use super::place::local;
use super::{keep_to_ourselves, now};
use crate::args::InitArgs;
use crate::failure::Failure;
use crate::output;
use rekindle_archive::{Archive, Store};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

pub(super) fn run(args: &InitArgs) -> Result<(), Failure> {
    let path = local(&args.place)?;
    if !args.unencrypted {
        let what = "nothing says how the archive is to be protected";
        return Err(Failure::usage(what).remedy(
            "this version cannot encrypt yet: pass --unencrypted, and keep others from reading the \
             place, for it will hold the cluster's secrets",
        ));
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|error| Failure::io("making", &path, &error))?;
    keep_to_ourselves();
    let archive = Archive::init_unencrypted(Store::directory(&path)?, now())?;
    let mode = std::fs::metadata(&path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        eprintln!("warning: others may look into {}: chmod 700 it", path.display());
    }
    output::print(&format!(
        "archive   {}\nid        {}\nprotected not at all: it is not encrypted\n\
         next      rekindle save {}\n",
        path.display(),
        archive.id(),
        path.display()
    ))
}
