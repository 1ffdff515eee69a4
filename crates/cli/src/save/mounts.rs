//! File systems that this host has saved snapshots to: where one is not mounted any more, nothing is written to the
//! directory that lies there instead, on a disk that goes with the host.

use crate::failure::Failure;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A mount point a line.
const NAME: &str = "mounts";

/// The number of the file system that a path is on.
type Device<'a> = &'a dyn Fn(&Path) -> Option<u64>;

/// Refuses a file below a mount point where nothing is mounted.
pub(super) fn check(spool: &Path, file: &Path) -> Result<(), Failure> {
    check_with(spool, file, &device)
}

/// Remembers where the file system of a file that was saved is mounted. What cannot be remembered does not spoil
/// the backup.
pub(super) fn remember(spool: &Path, file: &Path) {
    if let Err(error) = remember_with(spool, file, &device) {
        let (path, file) = (spool.join(NAME), file.display());
        eprintln!(
            "warning: where {file} is mounted was not remembered in {}: {error}",
            path.display()
        );
    }
}

fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.dev())
}

fn check_with(spool: &Path, file: &Path, device: Device<'_>) -> Result<(), Failure> {
    let whole = whole(file);
    let is_away = |mount: &&PathBuf| whole.starts_with(mount) && !is_mount(mount, device);
    let Some(mount) = read(spool).into_iter().find(|mount| is_away(&mount)) else { return Ok(()) };
    let mount = mount.display();
    let what = format!(
        "nothing is mounted at {mount}, as it was when this host last saved there; nothing was written in \
         its place"
    );
    let known = spool.join(NAME);
    Err(Failure::refused(what)
        .remedy(format!("mount it; if that is to be so, remove {mount} from {}", known.display())))
}

fn remember_with(spool: &Path, file: &Path, device: Device<'_>) -> io::Result<()> {
    let whole = whole(file);
    let mut above = whole.ancestors().skip(1);
    let mount = above.find(|path| path.parent().is_some() && is_mount(path, device));
    let known = read(spool);
    let Some(mount) = mount.filter(|mount| !known.iter().any(|it| it == mount)) else {
        return Ok(());
    };
    let lines = known.iter().map(PathBuf::as_path).chain([mount]);
    let text: String = lines.map(|mount| format!("{}\n", mount.display())).collect();
    fs::create_dir_all(spool)?;
    let part = spool.join(NAME).with_extension("part");
    fs::write(&part, text)?;
    fs::rename(&part, spool.join(NAME))
}

fn read(spool: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(spool.join(NAME)).unwrap_or_default();
    text.lines().filter(|line| line.starts_with('/')).map(PathBuf::from).collect()
}

fn is_mount(path: &Path, device: Device<'_>) -> bool {
    let above = path.parent().and_then(device);
    device(path).is_some_and(|its| Some(its) != above)
}

/// The path without symlinks, as far as it is there.
fn whole(file: &Path) -> PathBuf {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let known = path.ancestors().find_map(|above| Some((fs::canonicalize(above).ok()?, above)));
    let whole = known.and_then(|(whole, above)| Some(whole.join(path.strip_prefix(above).ok()?)));
    whole.unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn what_is_not_mounted_any_more_is_not_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        let (spool, mount) = (root.join("spool"), root.join("backup"));
        let file = mount.join("etcd/2026/snapshot.db");
        let root_only = |path: &Path| path.exists().then_some(1);
        let mounted = |path: &Path| path.exists().then(|| 1 + u64::from(path.starts_with(&mount)));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let check = |device: Device<'_>| check_with(&spool, &file, device);
        // On the disk of the host there is nothing to be remembered.
        remember_with(&spool, &file, &root_only).unwrap();
        assert!(!spool.exists());
        check(&root_only).unwrap();
        for _ in 0..2 {
            remember_with(&spool, &file, &mounted).unwrap();
        }
        assert_eq!(read(&spool), std::slice::from_ref(&mount));
        check(&mounted).unwrap();
        let refused = check(&root_only).unwrap_err();
        assert_eq!(refused.code, Code::Refused);
        assert!(refused.what.contains(&mount.display().to_string()), "{refused}");
        fs::remove_dir_all(&mount).unwrap();
        check(&root_only).unwrap_err();
        // Elsewhere it says nothing.
        check_with(&spool, &root.join("backups/snapshot.db"), &root_only).unwrap();
    }
}
