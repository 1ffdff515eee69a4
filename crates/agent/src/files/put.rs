//! Putting files back.

use rekindle_archive::format::files::{FileEntry, FileKind, Files};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink,
};
use std::path::{Path, PathBuf};

/// How what is there differs from what was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// It has another content, or is something else.
    Changed,
    /// It has another owner, group or permissions.
    Rights,
    /// It was not kept.
    Added,
}

impl Difference {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::Rights => "rights",
            Self::Added => "added",
        }
    }
}

/// How files are put.
#[derive(Clone, Copy, Debug)]
pub struct Putting<'a> {
    /// Below which directory.
    pub root: &'a Path,
    /// What is there and differs gets another name first; else nothing is done where anything differs.
    pub replace: bool,
    /// What is behind the names of what was there.
    pub aside: &'a str,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Put {
    /// What was written.
    pub written: Vec<PathBuf>,
    /// What was there already.
    pub same: usize,
    /// What was there before, under its new name.
    pub aside: Vec<PathBuf>,
    /// What did not get its owner: only root may give files away.
    pub not_owned: usize,
}

/// How what lies below `root` differs from what was kept, and from it alone.
///
/// # Errors
/// A file cannot be read.
pub fn differences(files: &Files, root: &Path) -> io::Result<Vec<(String, Difference)>> {
    let mut found = Vec::new();
    for entry in &files.entries {
        if let Some(difference) = difference(entry, &below(root, &entry.path))? {
            found.push((entry.path.clone(), difference));
        }
    }
    Ok(found)
}

/// Why files were not put, or not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutFault {
    /// Something is there; nothing was written.
    InTheWay(String),
    /// Something could not be written; what was written before stays.
    Failed(String),
}

/// Puts files below a directory.
///
/// # Errors
/// [`PutFault`].
pub fn put(files: &Files, putting: Putting<'_>) -> Result<Put, PutFault> {
    let Putting { root, replace, aside } = putting;
    let told = |path: &Path, error: &io::Error| {
        PutFault::Failed(format!("putting {}: {error}", path.display()))
    };
    let mut found = Vec::new();
    for entry in &files.entries {
        let path = below(root, &entry.path);
        if let Some(link) = link_out(root, &path) {
            let what =
                format!("{} is a link, and may lead out of {}", link.display(), root.display());
            return Err(PutFault::InTheWay(format!("{what}; nothing was written")));
        }
        let is = difference(entry, &path).map_err(|error| told(&path, &error))?;
        found.push((entry, path, is));
    }
    let in_the_way = |is: &Option<Difference>| *is == Some(Difference::Changed);
    let ways: Vec<_> = found.iter().filter(|(_, _, is)| in_the_way(is)).collect();
    if let (Some((_, path, _)), false) = (ways.first(), replace) {
        let others = match ways.len() {
            1 => " is".to_owned(),
            count => format!(" and {} others are", count - 1),
        };
        let what =
            format!("{}{others} there with another content; nothing was written", path.display());
        return Err(PutFault::InTheWay(what));
    }
    // What was seen below something that is moved aside was seen through it.
    let replaced: Vec<_> =
        found.iter().filter(|(_, _, is)| in_the_way(is)).map(|(_, path, _)| path.clone()).collect();
    for (_, path, is) in &mut found {
        if replaced.iter().any(|above| path.starts_with(above) && path != above) {
            *is = Some(Difference::Missing);
        }
    }
    let mut done = Put::default();
    for (entry, path, is) in &found {
        match is {
            None => done.same += 1,
            Some(_) => write(entry, path, aside, &mut done).map_err(|error| told(path, &error))?,
        }
    }
    // Rights of directories come last, for files are still put into them.
    let directories = found.iter().rev().filter(|(entry, ..)| entry.what == FileKind::Directory);
    for (entry, path, _) in directories {
        rights(entry, path, &mut done).map_err(|error| told(path, &error))?;
    }
    Ok(done)
}

/// A link among the directories between the root and a path. Where the root is /, links are the host's own.
fn link_out(root: &Path, path: &Path) -> Option<PathBuf> {
    if root == Path::new("/") {
        return None;
    }
    let above =
        path.ancestors().skip(1).take_while(|above| *above != root && above.starts_with(root));
    let is_link = |path: &&Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    above.filter(is_link).last().map(Path::to_owned)
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn difference(entry: &FileEntry, path: &Path) -> io::Result<Option<Difference>> {
    let found = match fs::symlink_metadata(path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Some(Difference::Missing));
        }
        found => found?,
    };
    let kind = found.file_type();
    let is_same = match &entry.what {
        FileKind::Directory => kind.is_dir(),
        FileKind::File(bytes) => {
            kind.is_file() && found.len() == bytes.len() as u64 && fs::read(path)? == *bytes
        }
        FileKind::Link(target) => kind.is_symlink() && fs::read_link(path)? == Path::new(target),
    };
    if !is_same {
        return Ok(Some(Difference::Changed));
    }
    let owners = (found.uid(), found.gid()) == (entry.owner, entry.group);
    let is_link = kind.is_symlink();
    let rights = owners && (is_link || found.mode() & 0o7777 == entry.mode);
    Ok((!rights).then_some(Difference::Rights))
}

fn write(entry: &FileEntry, path: &Path, aside: &str, done: &mut Put) -> io::Result<()> {
    // Only where somebody has said so is anything there.
    let is_there = fs::symlink_metadata(path).is_ok();
    if is_there && difference(entry, path)? == Some(Difference::Changed) {
        let mut name = path.as_os_str().to_owned();
        name.push(aside);
        fs::rename(path, &name)?;
        done.aside.push(name.into());
    }
    let is_there = fs::symlink_metadata(path).is_ok();
    if let Some(parent) = path.parent() {
        // Of those above what was kept the rights are not known: as the host makes them.
        DirBuilder::new().recursive(true).create(parent)?;
    }
    match &entry.what {
        FileKind::Directory if is_there => return Ok(()),
        FileKind::Directory => DirBuilder::new().mode(0o700).create(path)?,
        FileKind::Link(target) if !is_there => symlink(target, path)?,
        FileKind::File(bytes) if !is_there => create(path, bytes)?,
        _ => {}
    }
    done.written.push(path.to_owned());
    match entry.what {
        FileKind::Directory => Ok(()),
        _ => rights(entry, path, done),
    }
}

/// Readable to its user only, until it has its own rights; whole as soon as it has its name.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that was left by whoever was interrupted is in nobody's way.
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // Whoever has made the name meanwhile keeps it.
    let named = written.and_then(|()| fs::hard_link(&part, path));
    fs::remove_file(&part)?;
    named
}

fn rights(entry: &FileEntry, path: &Path, done: &mut Put) -> io::Result<()> {
    let (owner, group) = (Some(entry.owner), Some(entry.group));
    let owned = match entry.what {
        FileKind::Link(_) => lchown(path, owner, group),
        _ => chown(path, owner, group),
    };
    match owned {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => done.not_owned += 1,
        owned => owned?,
    }
    // After the owner: a change of that takes set-id bits away.
    match entry.what {
        FileKind::Link(_) => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(entry.mode)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::collect;
    use super::*;

    /// Files as they lie on a host, and where they come back.
    struct Scene {
        directory: tempfile::TempDir,
        files: Files,
    }

    impl Scene {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let from = directory.path().join("from");
            fs::create_dir_all(from.join("pki/deep")).unwrap();
            fs::write(from.join("pki/ca.key"), "secret").unwrap();
            fs::set_permissions(from.join("pki/ca.key"), Permissions::from_mode(0o600)).unwrap();
            fs::write(from.join("pki/deep/ca.crt"), "public").unwrap();
            symlink("ca.key", from.join("pki/link")).unwrap();
            fs::set_permissions(from.join("pki/deep"), Permissions::from_mode(0o555)).unwrap();
            let asked = [from.join("pki").display().to_string()];
            let files = collect("h", &asked).unwrap().files;
            Self { directory, files }
        }

        fn to(&self) -> PathBuf {
            self.directory.path().join("to")
        }

        fn at(&self, name: &str) -> PathBuf {
            below(&self.to(), &format!("{}/{name}", self.files.asked[0]))
        }

        fn put(&self, replace: bool) -> Result<Put, PutFault> {
            put(&self.files, Putting { root: &self.to(), replace, aside: ".before" })
        }

        fn differences(&self) -> Vec<&'static str> {
            let found = differences(&self.files, &self.to()).unwrap();
            found.iter().map(|(_, is)| is.word()).collect()
        }
    }

    #[test]
    fn what_was_kept_comes_back_as_it_was() {
        let scene = Scene::new();
        assert_eq!(scene.differences(), ["missing"; 5]);
        let done = scene.put(false).unwrap();
        assert_eq!((done.written.len(), done.same), (5, 0));
        assert_eq!(scene.differences(), [""; 0]);
        assert_eq!(fs::read_to_string(scene.at("link")).unwrap(), "secret");
        assert_eq!(fs::metadata(scene.at("ca.key")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(scene.at("deep")).unwrap().mode() & 0o777, 0o555);
        // Once more does nothing.
        assert_eq!(scene.put(false).unwrap().same, 5);
    }

    /// The kernel takes set-id bits away when an owner changes; and who follows a link gives the owner to something else.
    #[test]
    fn owners_and_set_id_bits_come_back() {
        let mut scene = Scene::new();
        let may_give = rustix::process::geteuid().is_root();
        for entry in &mut scene.files.entries {
            if let FileKind::File(_) = entry.what {
                entry.mode = 0o4750;
            }
            if may_give {
                (entry.owner, entry.group) = (12, 34);
            }
            if let (FileKind::Link(_), true) = (&entry.what, may_give) {
                (entry.owner, entry.group) = (56, 78);
            }
        }
        let done = scene.put(false).unwrap();
        assert_eq!((scene.differences(), done.not_owned), (Vec::new(), 0));
        assert_eq!(fs::metadata(scene.at("ca.key")).unwrap().mode() & 0o7777, 0o4750);
    }

    #[test]
    fn what_is_there_is_not_lost() {
        let scene = Scene::new();
        scene.put(false).unwrap();
        fs::write(scene.at("ca.key"), "mine").unwrap();
        fs::remove_file(scene.at("link")).unwrap();
        fs::set_permissions(scene.at("deep/ca.crt"), Permissions::from_mode(0o640)).unwrap();
        assert_eq!(scene.differences(), ["changed", "rights", "missing"]);
        let PutFault::InTheWay(refused) = scene.put(false).unwrap_err() else { unreachable!() };
        assert!(refused.contains("ca.key") && refused.contains("nothing was written"), "{refused}");
        assert!(!scene.at("link").exists());
        let done = scene.put(true).unwrap();
        assert_eq!(done.aside, [scene.at("ca.key.before")]);
        assert_eq!(fs::read_to_string(scene.at("ca.key.before")).unwrap(), "mine");
        assert_eq!(scene.differences(), [""; 0]);
    }

    /// Where a directory was kept, a link to the very same files has come: they were taken for there, and the link moved aside.
    #[test]
    fn what_lies_below_what_is_replaced_is_put_again() {
        let scene = Scene::new();
        scene.put(false).unwrap();
        let (pki, elsewhere) = (scene.at(""), scene.directory.path().join("elsewhere"));
        let pki = pki.to_str().unwrap().trim_end_matches('/').to_owned();
        fs::rename(&pki, &elsewhere).unwrap();
        symlink(&elsewhere, &pki).unwrap();
        let mut files = scene.files.clone();
        // As where links above are the host's own.
        files.entries.retain(|entry| !matches!(entry.what, FileKind::Link(_)));
        let root = Path::new("/");
        let moved =
            |entry: &mut FileEntry| entry.path = format!("{}{}", scene.to().display(), entry.path);
        files.entries.iter_mut().for_each(moved);
        let done = put(&files, Putting { root, replace: true, aside: ".before" }).unwrap();
        assert_eq!(done.same, 0);
        assert_eq!(fs::read_to_string(scene.at("ca.key")).unwrap(), "secret");
        assert!(!fs::symlink_metadata(&pki).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(elsewhere.join("ca.key")).unwrap(), "secret");
    }

    #[test]
    fn what_an_interrupted_run_has_left_is_in_nobodys_way() {
        let scene = Scene::new();
        fs::create_dir_all(scene.at("")).unwrap();
        fs::write(scene.at("ca.key.part"), "half").unwrap();
        fs::write(scene.at(&format!("ca.key.{}.part", std::process::id())), "half").unwrap();
        scene.put(false).unwrap();
        assert_eq!(fs::read_to_string(scene.at("ca.key")).unwrap(), "secret");
    }

    #[test]
    fn nothing_is_put_behind_a_link_that_leads_out() {
        let scene = Scene::new();
        let outside = scene.directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let way = scene.at("").parent().unwrap().to_owned();
        fs::create_dir_all(way.parent().unwrap()).unwrap();
        symlink(&outside, &way).unwrap();
        for replace in [false, true] {
            let refused = scene.put(replace).unwrap_err();
            assert!(
                matches!(&refused, PutFault::InTheWay(what) if what.contains("is a link")),
                "{refused:?}"
            );
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        // Nor behind one farther above, where all directories between are there.
        let scene = Scene::new();
        let outside = scene.directory.path().join("outside");
        let asked = scene.files.asked[0].trim_start_matches('/').to_owned();
        let (first, rest) = asked.split_once('/').unwrap();
        fs::create_dir_all(outside.join(rest).join("deep")).unwrap();
        fs::create_dir(scene.to()).unwrap();
        symlink(&outside, scene.to().join(first)).unwrap();
        let refused = scene.put(true).unwrap_err();
        assert!(matches!(&refused, PutFault::InTheWay(_)), "{refused:?}");
        assert!(fs::read_dir(outside.join(rest).join("deep")).unwrap().next().is_none());
    }
}
