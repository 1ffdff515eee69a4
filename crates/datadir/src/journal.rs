//! The note beside a data directory that a restore is under way, and how far it is.

use crate::disk::{Disk, Identity};
use crate::error::{At, Error};
use crate::place::parent;
use crate::swap::Step;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The journal's format.
const FORMAT: u32 = 1;

/// What lies in a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    format: u32,
    pub state: State,
    /// What a restore has made, and may remove: directories being built, the blocker.
    pub made: Vec<Made>,
}

/// Something that the restore has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub path: PathBuf,
    pub identity: Identity,
}

/// How far a restore is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// New directories are being written; nothing else was touched.
    Building,
    /// They are complete; these steps put them in place.
    Swapping { steps: Vec<Step> },
}

impl Journal {
    pub(crate) fn building(made: Vec<Made>) -> Self {
        Self { format: FORMAT, state: State::Building, made }
    }

    pub(crate) fn swapping(steps: Vec<Step>, made: Vec<Made>) -> Self {
        Self { format: FORMAT, state: State::Swapping { steps }, made }
    }

    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, Error> {
        let Some(bytes) = disk.read(path).at("reading", path)? else { return Ok(None) };
        let fault = |reason: String| Error::Journal { journal: path.to_owned(), reason };
        let journal: Self =
            serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
        if journal.format != FORMAT {
            return Err(fault(format!("format {}, not {FORMAT}", journal.format)));
        }
        Ok(Some(journal))
    }

    /// Puts the journal in place, durably, in place of an earlier one.
    pub(crate) fn write(&self, disk: &dyn Disk, path: &Path) -> Result<(), Error> {
        let new = path.with_extension("json.part");
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Journal { journal: new.clone(), reason: error.to_string() })?;
        if disk.stat(&new).at("looking at", &new)?.is_some() {
            disk.remove_file(&new).at("removing", &new)?;
        }
        let mut file = disk.create_files(&[&new], 0o600).at("creating", &new)?;
        file.write_all(&bytes).at("writing", &new)?;
        file.sync().at("syncing", &new)?;
        drop(file);
        disk.rename(&new, path).at("renaming", &new)?;
        sync_parent(disk, path)
    }

    pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
        if disk.stat(path).at("looking at", path)?.is_some() {
            disk.remove_file(path).at("removing", path)?;
            sync_parent(disk, path)?;
        }
        Ok(())
    }

    /// Removes what the restore has made, as far as it is still where it was made.
    pub(crate) fn remove_made(&self, disk: &dyn Disk) -> Result<(), Error> {
        for made in &self.made {
            match disk.stat(&made.path).at("looking at", &made.path)? {
                Some(found) if found.identity != made.identity => {}
                Some(found) if found.is_directory => {
                    disk.remove_tree(&made.path).at("removing", &made.path)?;
                }
                Some(_) => disk.remove_file(&made.path).at("removing", &made.path)?,
                None => {}
            }
        }
        Ok(())
    }
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let parent = parent(path);
    disk.sync_directory(&parent).at("syncing", &parent)
}
