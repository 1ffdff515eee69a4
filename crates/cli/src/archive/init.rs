//! `rekindle archive init`: makes an archive of an empty place.

use super::{keep_to_ourselves, now, probe};
use crate::args::{InitArgs, StoreArgs};
use crate::failure::Failure;
use crate::output;
use rekindle_archive::{Archive, Error, Place, Store};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

pub(super) fn run(args: &InitArgs) -> Result<(), Failure> {
    let place = Place::parse(&args.store.place(args.place.as_deref())?)?;
    if !args.unencrypted {
        let what = "nothing says how the archive is to be protected";
        return Err(Failure::usage(what).remedy(
            "this version cannot encrypt yet: pass --unencrypted, and keep others from reading the \
             place, for it will hold the cluster's secrets",
        ));
    }
    keep_to_ourselves();
    let store = new_store(&place, &args.store)?;
    let found = probe::probe(&store)?;
    probe::verdict(&store, &found)?;
    let archive = Archive::init_unencrypted(store, now())?;
    if let Place::Directory(path) = &place {
        warn_of_others(path);
    }
    output::print(&format!(
        "archive   {place}\nid        {}\nstore     probed: it does all that an archive needs\n\
         protected not at all: it is not encrypted\nnext      rekindle save {place}\n",
        archive.id(),
    ))
}

/// The store at an empty place; a directory is made.
fn new_store(place: &Place, args: &StoreArgs) -> Result<Store, Failure> {
    if let Place::Directory(path) = place {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| Failure::io("making", path, &error))?;
    }
    let store = args.open(place)?;
    // Nothing is tried out where something lies already.
    match Archive::open(store.clone()) {
        Ok(_) => Err(Error::IsArchive { place: place.to_string() }.into()),
        Err(Error::NoArchive { .. }) if store.is_empty()? => Ok(store),
        Err(Error::NoArchive { .. }) => Err(Error::NotEmpty { place: place.to_string() }.into()),
        Err(error) => Err(error.into()),
    }
}

fn warn_of_others(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        eprintln!("warning: others may look into {}: chmod 700 it", path.display());
    }
}
