//! Where an archive is, and which point of it an argument names.

use super::{Point, now};
use crate::failure::Failure;
use rekindle_archive::{Archive, Error, Store};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The archive at a place.
pub(crate) fn open(place: &str) -> Result<Archive, Failure> {
    Ok(Archive::open(Store::directory(&local(place)?)?)?)
}

/// The archive at a place, if it holds one. Only a definite "not found" means that it does not.
pub(crate) fn find(place: &str) -> Result<Option<Archive>, Failure> {
    let Ok(path) = local(place) else { return Ok(None) };
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(Failure::io("opening", &path, &error)),
    }
    match Archive::open(Store::directory(&path)?) {
        Ok(archive) => Ok(Some(archive)),
        Err(Error::NoArchive { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The directory that a place names.
pub(super) fn local(place: &str) -> Result<PathBuf, Failure> {
    let path = place.strip_prefix("file://").unwrap_or(place);
    match path.split_once("://") {
        Some((scheme, _)) => {
            Err(Failure::usage(format!("{place}: archives on {scheme}:// are not supported yet"))
                .remedy("name a directory"))
        }
        None if path.is_empty() => Err(Failure::usage("\"\" names no place")),
        None => Ok(Path::new(path).to_owned()),
    }
}

/// The archive and the point that an argument names, if it names an archive.
pub(crate) fn parse_source(text: &str) -> Result<Option<(Archive, Point)>, Failure> {
    if let Some(archive) = find(text)? {
        return Ok(Some((archive, Point::Latest)));
    }
    // What is there under the whole name is what is meant.
    let Some((place, point)) = text.rsplit_once('@').filter(|_| !Path::new(text).exists()) else {
        return Ok(None);
    };
    match find(place)? {
        Some(archive) => Ok(Some((archive, Point::parse(point, now())?))),
        None => Ok(None),
    }
}
