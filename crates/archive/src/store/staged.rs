//! What a killed process leaves in a directory: files under names that no object has.
//!
//! `object_store` writes a file beside its place, with `#` and a number behind its name, and then
//! gives it the name. It lists none of these.

use super::{Store, StoreFault, StoreFaultKind};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

impl Store {
    /// Files that were begun before `before` and never became objects; elsewhere than in a directory
    /// there are none.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn staged(&self, before: SystemTime) -> Result<Vec<PathBuf>, StoreFault> {
        let Some(root) = &self.objects.root else { return Ok(Vec::new()) };
        let (mut found, mut folders) = (Vec::new(), vec![root.path().to_owned()]);
        while let Some(folder) = folders.pop() {
            let looked = look(&folder, before, &mut folders, &mut found);
            // Others remove folders, too.
            match looked {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(fault("listing", &folder, &error));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Removes such a file.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub(crate) fn remove_staged(&self, path: &Path) -> Result<(), StoreFault> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(fault("removing", path, &error))
            }
            _ => Ok(()),
        }
    }
}

fn look(
    folder: &Path,
    before: SystemTime,
    folders: &mut Vec<PathBuf>,
    found: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            folders.push(entry.path());
        } else if kind.is_file()
            && is_staged(&entry.file_name().to_string_lossy())
            && entry.metadata()?.modified()? < before
        {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// An object's name, and behind it `#` and a number.
fn is_staged(name: &str) -> bool {
    let ends = [".pack", ".seg", ".base", ".witness", ".files", ".json", ".age"];
    name.rsplit_once('#').is_some_and(|(object, number)| {
        ends.iter().any(|end| object.ends_with(end))
            && !number.is_empty()
            && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

pub(super) fn fault(doing: &'static str, path: &Path, error: &io::Error) -> StoreFault {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => StoreFaultKind::Denied,
        _ => StoreFaultKind::Failed,
    };
    let (object, cause) = (path.display().to_string(), error.to_string());
    StoreFault { doing, object, kind, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_ours_were_begun() {
        for name in ["a.pack#1", "0-1-2.seg#12", "archive.json#3"] {
            assert!(is_staged(name), "{name}");
        }
        for name in ["a.pack", "#1", "notes#1", "a.pack#", "a.pack#1x", "a#1.pack"] {
            assert!(!is_staged(name), "{name}");
        }
    }
}
