//! Reading what there is.

use rekindle_archive::format::files::{FILES_MAX, FileEntry, FileKind, Files};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What brings a host of kubeadm, or an etcd under systemd, back; what of it is not there is left out.
pub const USUAL: [&str; 10] = [
    "/etc/default/etcd",
    "/etc/etcd",
    "/etc/etcd.env",
    "/etc/kubernetes",
    "/etc/rekindle/config.yaml",
    "/etc/systemd/system/etcd.service",
    "/etc/systemd/system/kubelet.service.d",
    "/usr/lib/systemd/system/kubelet.service.d",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/kubeadm-flags.env",
];
/// The manifest of the server that encrypts at rest, and its flag.
const APISERVER: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const AT_REST: &str = "--encryption-provider-config=";
/// The bits of permissions.
const MODES: u32 = 0o7777;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// All that could be read.
    pub files: Files,
    /// Paths that are not there.
    pub missing: Vec<String>,
    /// Paths that could not be read, or are neither files, directories nor links, and why.
    pub skipped: Vec<(String, String)>,
}

/// Where Kubernetes' API server, if its manifest is on this host, has the keys with which it encrypts at rest.
#[must_use]
pub fn at_rest_config() -> Option<String> {
    at_rest_of(&fs::read_to_string(APISERVER).ok()?)
}

fn at_rest_of(manifest: &str) -> Option<String> {
    let line = manifest.lines().find_map(|line| line.split_once(AT_REST).map(|(_, rest)| rest))?;
    let path = line.trim().trim_matches(['"', '\'']);
    path.starts_with('/').then(|| path.to_owned())
}

/// [`USUAL`], as far as it is there, and the keys at rest.
#[must_use]
pub fn usual() -> Vec<String> {
    let mut paths: Vec<_> = USUAL.map(str::to_owned).into_iter().chain(at_rest_config()).collect();
    paths.retain(|path| fs::symlink_metadata(path).is_ok());
    paths
}

/// Reads all at these whole paths and below them. Links stay links; what they lead to is read at its own place, too.
///
/// # Errors
/// It is more than can be kept.
pub fn collect(host: &str, asked: &[String]) -> Result<Collected, String> {
    let files = Files { host: host.to_owned(), asked: asked.to_vec(), ..Files::default() };
    let mut this = Collecting {
        found: Collected { files, ..Collected::default() },
        entries: BTreeMap::new(),
        bytes: 0,
    };
    for path in asked {
        match whole(path.trim_end_matches('/')) {
            None => this.found.missing.push(path.clone()),
            Some(path) => this.add(&path)?,
        }
    }
    this.found.files.entries = this.entries.into_values().collect();
    let skipped = this.found.skipped.iter().map(|(path, _)| path);
    this.found.files.left_out = this.found.missing.iter().chain(skipped).cloned().collect();
    Ok(this.found)
}

/// Where a path leads, up to what it names itself: nothing is kept below a link, or has `..` in its name. None where
/// nothing is there.
fn whole(path: &str) -> Option<String> {
    let path = Path::new(path);
    let whole = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => fs::canonicalize(parent).ok()?.join(name),
        _ => fs::canonicalize(path).ok()?,
    };
    fs::symlink_metadata(&whole).ok()?;
    whole.into_os_string().into_string().ok()
}

struct Collecting {
    found: Collected,
    entries: BTreeMap<String, FileEntry>,
    bytes: usize,
}

impl Collecting {
    fn add(&mut self, path: &str) -> Result<(), String> {
        if self.entries.contains_key(path) {
            return Ok(());
        }
        let read = fs::symlink_metadata(path).and_then(|found| Ok((read(path, &found)?, found)));
        let (what, found) = match read {
            Ok((Some(what), found)) => (what, found),
            Ok((None, _)) => {
                let why = "it is neither a file nor a directory nor a link".to_owned();
                self.found.skipped.push((path.to_owned(), why));
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(too_large(path));
            }
            Err(error) => {
                self.found.skipped.push((path.to_owned(), error.to_string()));
                return Ok(());
            }
        };
        if let FileKind::File(bytes) = &what {
            self.bytes += bytes.len();
            if self.bytes > FILES_MAX {
                return Err(too_large(path));
            }
        }
        // A directory of certificates is a link to another disk as often as not.
        let leads_to = match what {
            FileKind::Link(_) => {
                fs::canonicalize(path).ok().and_then(|it| it.into_os_string().into_string().ok())
            }
            _ => None,
        };
        let is_directory = what == FileKind::Directory;
        let (mode, owner, group) = (found.mode() & MODES, found.uid(), found.gid());
        let entry = FileEntry { path: path.to_owned(), mode, owner, group, what };
        self.entries.insert(path.to_owned(), entry);
        if is_directory {
            self.below(path)?;
        }
        leads_to.map_or(Ok(()), |path| self.add(&path))
    }

    fn below(&mut self, path: &str) -> Result<(), String> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                self.found.skipped.push((path.to_owned(), error.to_string()));
                return Ok(());
            }
        };
        for entry in entries.flatten() {
            match entry.file_name().into_string() {
                Ok(name) => self.add(&format!("{path}/{name}"))?,
                Err(name) => {
                    let shown = format!("{path}/{}", name.display());
                    self.found.skipped.push((shown, "its name is no text".to_owned()));
                }
            }
        }
        Ok(())
    }
}

fn too_large(path: &str) -> String {
    format!("with {path} it is more than {} MiB: name fewer paths", FILES_MAX >> 20)
}

fn read(path: &str, found: &fs::Metadata) -> io::Result<Option<FileKind>> {
    let kind = found.file_type();
    if kind.is_dir() {
        return Ok(Some(FileKind::Directory));
    }
    if kind.is_symlink() {
        let target = fs::read_link(Path::new(path))?.into_os_string().into_string();
        return Ok(target.ok().map(FileKind::Link));
    }
    if !kind.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(FILES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > FILES_MAX {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(Some(FileKind::File(bytes))),
    }
}

#[cfg(test)]
mod tests {
    /// What was kept once below a link, or by a name with `..` in it, could be read by nobody.
    #[test]
    fn whatever_is_asked_for_can_be_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::create_dir(&real).unwrap();
        fs::write(real.join("enc.yaml"), "keys").unwrap();
        symlink(&real, &link).unwrap();
        let text = |path: &Path| path.display().to_string();
        let up = text(&real.join("../real/enc.yaml"));
        for asked in [
            vec![text(&link), text(&link.join("enc.yaml"))],
            vec![up],
            vec![text(&real.join(".."))],
        ] {
            let found = collect("h", &asked).unwrap();
            let back = Files::parse(&found.files.encode()).unwrap();
            assert!(back.entries.iter().any(|it| it.path.ends_with("real/enc.yaml")), "{asked:?}");
        }
    }

    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn all_below_is_read_and_what_links_lead_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::create_dir_all(path("pki/etcd")).unwrap();
        fs::write(path("pki/etcd/ca.key"), "secret").unwrap();
        fs::set_permissions(path("pki/etcd/ca.key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path("elsewhere"), "x").unwrap();
        symlink(path("elsewhere"), path("pki/link")).unwrap();
        // In a circle, and to nowhere.
        symlink(path("pki"), path("pki/etcd/up")).unwrap();
        symlink("none", path("pki/nowhere")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("pki/socket")).unwrap();
        let asked = [path("pki/"), path("pki/etcd"), path("none")];
        let found = collect("h", &asked).unwrap();
        assert_eq!(found.missing, [path("none")]);
        assert_eq!(found.skipped.len(), 1, "{:?}", found.skipped);
        let paths: Vec<_> = found.files.entries.iter().map(|it| it.path.clone()).collect();
        let want = [
            "elsewhere",
            "pki",
            "pki/etcd",
            "pki/etcd/ca.key",
            "pki/etcd/up",
            "pki/link",
            "pki/nowhere",
        ];
        assert_eq!(paths, want.map(path));
        let key = &found.files.entries[3];
        assert_eq!((key.mode, &key.what), (0o600, &FileKind::File(b"secret".to_vec())));
        assert_eq!(found.files.entries[5].what, FileKind::Link(path("elsewhere")));
        let again = Files::parse(&found.files.encode()).unwrap();
        assert_eq!(again, found.files);
    }

    #[test]
    fn keys_at_rest_are_named_by_the_manifest() {
        let manifest =
            "    - --etcd-servers=x\n    - --encryption-provider-config=/etc/k/enc.yaml\n";
        assert_eq!(at_rest_of(manifest).as_deref(), Some("/etc/k/enc.yaml"));
        assert_eq!(at_rest_of("    - --etcd-servers=x\n"), None);
    }
}
