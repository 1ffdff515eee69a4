//! Where an archive is, and which point of it an argument names.

use super::{Point, now};
use crate::args::StoreArgs;
use crate::failure::Failure;
use rekindle_agent::config;
use rekindle_archive::{Archive, Error, Place, Store};
use std::io::ErrorKind;
use std::path::Path;

/// The archive that an argument names, with etcdbrctl's flags or without.
pub(crate) fn open(named: &str, store: &StoreArgs) -> Result<Archive, Failure> {
    open_at(&store.place(Some(named))?, store)
}

/// The archive at a place.
pub(crate) fn open_at(place: &str, store: &StoreArgs) -> Result<Archive, Failure> {
    Ok(Archive::open(store.open(&Place::parse(place)?)?)?)
}

/// An archive of a configuration.
pub(crate) fn open_configured(archive: &config::Archive) -> Result<Archive, Failure> {
    let options = archive.store.options(crate::stores::variables()).map_err(Failure::usage)?;
    Ok(Archive::open(Store::open(&Place::parse(&archive.place)?, &options)?)?)
}

/// The archive at a place, if it holds one. Only a definite "not found" means that it does not.
pub(crate) fn find(place: &str, store: &StoreArgs) -> Result<Option<Archive>, Failure> {
    if place.is_empty() {
        return Ok(None);
    }
    let place = Place::parse(place)?;
    if let Place::Directory(path) = &place {
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Failure::io("opening", path, &error)),
        }
    }
    match Archive::open(store.open(&place)?) {
        Ok(archive) => Ok(Some(archive)),
        Err(Error::NoArchive { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The archive and the point that an argument names, if it names an archive.
pub(crate) fn parse_source(
    text: &str,
    store: &StoreArgs,
) -> Result<Option<(Archive, Point)>, Failure> {
    let is_url = text.contains("://");
    // The name of no bucket and of no object of ours has an @ in it; that of a file may.
    if !(is_url && text.contains('@'))
        && let Some(archive) = find(text, store)?
    {
        return Ok(Some((archive, Point::Latest)));
    }
    // What is there under the whole name is what is meant.
    let is_there = || !is_url && Path::new(text).exists();
    let Some((place, point)) = text.rsplit_once('@').filter(|_| !is_there()) else {
        return Ok(None);
    };
    match find(place, store)? {
        Some(archive) => Ok(Some((archive, Point::parse(point, now())?))),
        None if is_url => Ok(Some((open_at(place, store)?, Point::Latest))),
        None => Ok(None),
    }
}
