//! Finds the real servers that `cargo xtask tools` put into the cache.
//!
//! The pinned versions stand in the repository's `tools/versions`, one `<name> <version>` a line.
//! A tool lies in `<root>/<name>-<version>/`, with `<root>` from `REKINDLE_TOOLS`, or else
//! `rekindle/tools` in the user's cache directory.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// An etcd release line that the tests run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 3.4: the oldest that is still met; Debian's package, without etcdutl.
    V3_4,
    /// 3.5.
    V3_5,
    /// 3.6.
    V3_6,
    /// 3.7.
    V3_7,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 4] = [Self::V3_4, Self::V3_5, Self::V3_6, Self::V3_7];

    /// The newest version: for tests that do not depend on one.
    pub const LATEST: Self = Self::V3_7;

    /// The tool's name in `tools/versions`.
    pub fn tool_name(self) -> &'static str {
        match self {
            Self::V3_4 => "etcd-3.4",
            Self::V3_5 => "etcd-3.5",
            Self::V3_6 => "etcd-3.6",
            Self::V3_7 => "etcd-3.7",
        }
    }

    /// The path of one of this version's binaries: `etcd`, `etcdctl` or `etcdutl` (not in 3.4).
    pub fn binary(self, name: &str) -> PathBuf {
        tool(self.tool_name(), name)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tool_name())
    }
}

/// The path of `binary` of the tool called `name` in `tools/versions`.
///
/// # Panics
/// When the tool is not pinned, or not in the cache.
pub fn tool(name: &str, binary: &str) -> PathBuf {
    let path = cache_root().join(format!("{name}-{}", pinned(name))).join(binary);
    assert!(path.is_file(), "{} is missing: run `cargo xtask tools`", path.display());
    path
}

fn cache_root() -> PathBuf {
    if let Some(root) = env::var_os("REKINDLE_TOOLS") {
        return root.into();
    }
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map_or_else(
        || PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache"),
        PathBuf::from,
    );
    cache.join("rekindle/tools")
}

fn pinned(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/versions");
    let text = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    version_in(&text, name)
        .unwrap_or_else(|| panic!("{} pins no version of {name}", file.display()))
        .to_owned()
}

/// The version that `versions`, the text of `tools/versions`, gives for `name`.
fn version_in<'a>(versions: &'a str, name: &str) -> Option<&'a str> {
    versions.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (pinned, version) = line.split_once(char::is_whitespace)?;
        (pinned == name).then(|| version.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_file_lookup() {
        let text =
            "# servers\netcd-3.4 3.4.23-4+b4\netcd-3.5\t3.5.35\n#etcd-3.6 9\nbbolt  1.4.3 \n";
        for (name, want) in [
            ("etcd-3.4", Some("3.4.23-4+b4")),
            ("etcd-3.5", Some("3.5.35")),
            ("etcd-3.6", None),
            ("etcd", None),
            ("bbolt", Some("1.4.3")),
        ] {
            assert_eq!(version_in(text, name), want, "{name}");
        }
    }
}
