//! A snapshot out of an object store, for the commands that read files.
//!
//! It is fetched once, from front to back, into a file of the spool that has no name any more when
//! its first byte comes: reading in many places, and more than once, as checking and restoring do,
//! then costs no requests, and nothing stays behind, however the command ends.

use crate::failure::{Code, Failure};
use crate::source::Access;
use crate::spool::Spool;
use crate::terminal;
use rekindle_archive::{Place, Reader};
use rekindle_datadir::FileSource;
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The object of that name, as a file.
pub(crate) fn fetch(object: &Place, access: &Access<'_>) -> Result<FileSource, Failure> {
    let Some((place, name)) = object.split_object() else {
        return Err(Failure::usage(format!("{object} is a bucket, and holds no archive"))
            .remedy("name a snapshot in it, or the prefix of an archive"));
    };
    let reader = access.store.open(&place)?.reader(&name).map_err(Failure::from)?;
    let spool = Spool::new(access.spool, &format!("fetch-{}.db", std::process::id()))?;
    spool.check_space(reader.size())?;
    let file = unnamed(&spool)?;
    let stop = terminal::stop_flag()?;
    let (size, fetched) = (reader.size(), AtomicU64::new(0));
    let position = || fetched.load(Ordering::Relaxed);
    let work = || receive(reader, &file, spool.directory(), &stop, &fetched);
    terminal::watching("fetching", Some(size), position, work)?;
    FileSource::of(file).map_err(|error| Failure::io("opening", &spool.file, &error))
}

/// A file that only we can open, and that is gone as soon as it is closed.
fn unnamed(spool: &Spool) -> Result<File, Failure> {
    let directory = spool.directory();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| Failure::io("making", directory, &error))?;
    let failed = |error| Failure::io("creating", &spool.file, &error);
    // What a killed run of the same number has left is nobody's.
    let _ = std::fs::remove_file(&spool.file);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&spool.file)
        .map_err(failed)?;
    std::fs::remove_file(&spool.file).map_err(failed)?;
    Ok(file)
}

fn receive(
    reader: Reader,
    mut file: &File,
    directory: &Path,
    stop: &AtomicBool,
    fetched: &AtomicU64,
) -> Result<(), Failure> {
    let size = reader.size();
    for piece in reader {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::new(Code::Interrupted, "interrupted; nothing was changed"));
        }
        let piece = piece.map_err(Failure::from)?;
        file.write_all(&piece).map_err(|error| Failure::io("writing to", directory, &error))?;
        fetched.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    match fetched.load(Ordering::Relaxed) {
        got if got == size => Ok(()),
        got => {
            let what = format!("the store gave {got} bytes of {size}");
            Err(Failure::new(Code::Transient, what))
        }
    }
}
