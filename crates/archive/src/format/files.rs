//! Files of a host: certificates, manifests and what else brings its etcd and Kubernetes back.
//!
//! ```text
//! files
//!    sized   host
//!    varint  number of paths that were asked for
//!    sized   each of them
//!    varint  number of paths that could not be read
//!    sized   each of them
//!    varint  number of entries, in the order of their paths
//!    of each entry
//!       1       1 a directory, 2 a file, 3 a symbolic link
//!       sized   path, from / on
//!       varint  permissions, with set-id and sticky bits
//!       varint  owner's number
//!       varint  group's number
//!       sized   bytes of the file, or where the link leads
//! ```
//!
//! An object holds it compressed: a varint that says how many bytes it has, and zstd.
//!
//! What may never happen here: a path that leads out of where it is put, by itself or over a link that comes along.

use super::cursor::{Cursor, Put};
use super::fault::FormatFault;

/// Most bytes of all that is read or written at once.
pub const FILES_MAX: usize = 64 << 20;
/// The bits of permissions.
const MODES: u64 = 0o7777;
/// Longest name of a host, as DNS has it.
const HOST_MAX: usize = 253;

/// What was there of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The host.
    pub host: String,
    /// The paths that were asked for: all below them is there.
    pub asked: Vec<String>,
    /// What of it is not here: it was not there, or could not be read.
    pub left_out: Vec<String>,
    /// What was there, in the order of paths.
    pub entries: Vec<FileEntry>,
}

/// A file, a directory or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// From / on, without a / at the end.
    pub path: String,
    /// Permissions, with set-id and sticky bits.
    pub mode: u32,
    /// Owner's number.
    pub owner: u32,
    /// Group's number.
    pub group: u32,
    /// What it is.
    pub what: FileKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A file with these bytes.
    File(Vec<u8>),
    /// A symbolic link that leads there.
    Link(String),
}

/// Whether a text is a host's name: letters, digits, `.`, `-` and `_`, no dot in front.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty()
        && text.len() <= HOST_MAX
        && !text.starts_with('.')
        && text.bytes().all(is_plain)
}

impl Files {
    /// Its bytes, before compression. `entries` are in the order of their paths.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_sized(self.host.as_bytes());
        for paths in [&self.asked, &self.left_out] {
            out.put_varint(paths.len() as u64);
            paths.iter().for_each(|path| out.put_sized(path.as_bytes()));
        }
        out.put_varint(self.entries.len() as u64);
        for entry in &self.entries {
            let (kind, bytes): (u8, &[u8]) = match &entry.what {
                FileKind::Directory => (1, &[]),
                FileKind::File(bytes) => (2, bytes),
                FileKind::Link(target) => (3, target.as_bytes()),
            };
            out.push(kind);
            out.put_sized(entry.path.as_bytes());
            for number in [entry.mode, entry.owner, entry.group] {
                out.put_varint(number.into());
            }
            out.put_sized(bytes);
        }
        out
    }

    /// Reads them.
    ///
    /// # Errors
    /// Whatever no writer writes: also a path that is not in order, has `..` in it, or lies below what is no directory.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatFault> {
        let mut cursor = Cursor::new(bytes, "the files of a host");
        let host = text(&mut cursor)?;
        if !is_host(&host) {
            return Err(cursor.senseless());
        }
        let [asked, left_out] = [texts(&mut cursor)?, texts(&mut cursor)?];
        let mut entries: Vec<FileEntry> = Vec::new();
        // Paths of files and links: nothing lies below one.
        let mut ends = std::collections::BTreeSet::new();
        for _ in 0..cursor.varint()? {
            let entry = FileEntry::parse(&mut cursor)?;
            let is_in_order = entries.last().is_none_or(|last| last.path < entry.path);
            let above = entry.path.match_indices('/').map(|(at, _)| at);
            let is_below = |at: usize| entry.path.get(..at).is_some_and(|it| ends.contains(it));
            if !is_in_order || !is_path(&entry.path) || above.into_iter().any(is_below) {
                return Err(cursor.senseless());
            }
            if entry.what != FileKind::Directory {
                ends.insert(entry.path.clone());
            }
            entries.push(entry);
        }
        cursor.end()?;
        Ok(Self { host, asked, left_out, entries })
    }
}

impl FileEntry {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, FormatFault> {
        let [kind] = cursor.array()?;
        let path = text(cursor)?;
        let (mode, owner, group) = (cursor.varint()?, cursor.varint()?, cursor.varint()?);
        let bytes = cursor.sized()?;
        let what = match kind {
            1 if bytes.is_empty() => FileKind::Directory,
            2 => FileKind::File(bytes.to_vec()),
            3 => FileKind::Link(utf8(bytes).ok_or_else(|| cursor.senseless())?),
            _ => return Err(cursor.senseless()),
        };
        let number = |number: u64| u32::try_from(number).map_err(|_| cursor.senseless());
        let mode = number(mode).and_then(|it| match u64::from(it) & !MODES {
            0 => Ok(it),
            _ => Err(cursor.senseless()),
        })?;
        Ok(Self { path, mode, owner: number(owner)?, group: number(group)?, what })
    }
}

fn texts(cursor: &mut Cursor<'_>) -> Result<Vec<String>, FormatFault> {
    let mut found = Vec::new();
    for _ in 0..cursor.varint()? {
        found.push(text(cursor)?);
    }
    Ok(found)
}

fn text(cursor: &mut Cursor<'_>) -> Result<String, FormatFault> {
    let bytes = cursor.sized()?;
    utf8(bytes).ok_or_else(|| cursor.senseless())
}

fn utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).map(str::to_owned)
}

/// Whether it is a whole path, in the one form that each has.
fn is_path(path: &str) -> bool {
    let is_step = |step: &str| !["", ".", ".."].contains(&step);
    path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, what: FileKind) -> FileEntry {
        FileEntry { path: path.to_owned(), mode: 0o640, owner: 1, group: 70_000, what }
    }

    fn files(entries: Vec<FileEntry>) -> Files {
        Files {
            host: "node-1.example".to_owned(),
            asked: vec!["/etc/a".to_owned()],
            left_out: vec!["/etc/b".to_owned()],
            entries,
        }
    }

    fn some() -> Files {
        files(vec![
            entry("/etc/a", FileKind::Directory),
            entry("/etc/a/key", FileKind::File(b"secret".to_vec())),
            entry("/etc/a/link", FileKind::Link("../b".to_owned())),
        ])
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let bytes = some().encode();
        assert_eq!(Files::parse(&bytes), Ok(some()));
        assert_eq!(Files::parse(&files(Vec::new()).encode()), Ok(files(Vec::new())));
        for length in 0..bytes.len() {
            Files::parse(&bytes[..length]).unwrap_err();
        }
        Files::parse(&[&bytes[..], &[0]].concat()).unwrap_err();
    }

    #[test]
    fn no_path_leads_elsewhere() {
        let check = |entries: Vec<FileEntry>| {
            Files::parse(&files(entries).encode()).unwrap_err();
        };
        let file = |path: &str| entry(path, FileKind::File(Vec::new()));
        for bad in ["", "/", "etc/a", "/etc/../a", "/etc/./a", "/etc//a", "/etc/a/", "..", "/a\0"] {
            check(vec![file(bad)]);
        }
        check(vec![file("/b"), file("/a")]);
        check(vec![file("/a"), file("/a")]);
        check(vec![file("/a"), file("/a/b")]);
        // What lies between in the order of names does not hide it.
        check(vec![
            entry("/a", FileKind::Link("/etc".to_owned())),
            file("/a-b"),
            file("/a/passwd"),
        ]);
        Files::parse(&files(vec![file("/a"), file("/a-b"), file("/a1/b")]).encode()).unwrap();
    }

    #[test]
    fn hosts_have_plain_names() {
        assert!(is_host("node-1.example.com") && is_host("N_1"));
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", &"a".repeat(254)] {
            assert!(!is_host(bad), "{bad}");
        }
        let mut bad = some();
        bad.host = "../x".to_owned();
        Files::parse(&bad.encode()).unwrap_err();
    }
}
