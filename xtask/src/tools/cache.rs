//! Where tools are kept: `NAME-VERSION` folders with the binaries directly inside.
//!
//! A folder appears whole, by a rename, or not at all; what an interrupted run left behind is never
//! taken for a tool. Runs at the same time wait for each other.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::versions::Pin;

/// How the names of half-made folders begin.
const PARTIAL: &str = ".partial-";

/// The folder of tools, locked for this process until it is dropped.
pub struct Cache {
    root: PathBuf,
    _lock: File,
}

/// Where a recipe works: what it leaves in `binaries` is kept, the rest is not.
pub struct Place {
    pub binaries: PathBuf,
    pub scratch: PathBuf,
}

impl Cache {
    pub fn open() -> Result<Self> {
        Self::open_at(place("tools")?)
    }

    fn open_at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let path = root.join(".lock");
        let lock =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("another run is getting tools; waiting for it");
                lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Self { root, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn folder(&self, pin: &Pin) -> PathBuf {
        self.root.join(format!("{}-{}", pin.name, pin.version))
    }

    pub fn has(&self, pin: &Pin, binaries: &[&str]) -> bool {
        binaries.iter().all(|binary| self.folder(pin).join(binary).is_file())
    }

    /// Bytes of all files of a tool.
    pub fn size(&self, pin: &Pin) -> Result<u64> {
        let (mut size, mut folders) = (0, vec![self.folder(pin)]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                match entry.metadata()? {
                    found if found.is_dir() => folders.push(entry.path()),
                    found => size += found.len(),
                }
            }
        }
        Ok(size)
    }

    /// Builds a tool aside and puts it in place when all its binaries are there.
    pub fn fill(
        &self,
        pin: &Pin,
        binaries: &[&str],
        build: impl FnOnce(&Place) -> Result<()>,
    ) -> Result<()> {
        let folder = self.folder(pin);
        self.remove_leftovers()?;
        // A compiler may outlive a run that was killed: it must not write where the next one does.
        let partial = self.root.join(format!("{PARTIAL}{}", std::process::id()));
        let place = Place { binaries: partial.join("binaries"), scratch: partial.join("scratch") };
        for path in [&place.binaries, &place.scratch] {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        build(&place).with_context(|| format!("cannot get {} {}", pin.name, pin.version))?;
        if let Some(binary) = binaries.iter().find(|&b| !place.binaries.join(b).is_file()) {
            bail!("building {} {} gave no `{binary}`", pin.name, pin.version);
        }
        remove(&folder)?;
        fs::rename(&place.binaries, &folder)
            .with_context(|| format!("cannot put {} in place", folder.display()))?;
        remove(&partial)
    }

    /// The lock is ours: what lies here half-made is of runs that were interrupted.
    fn remove_leftovers(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The folder of what is kept under a name, here `tools`.
pub fn place(name: &str) -> Result<PathBuf> {
    root(name, |variable| env::var(variable).ok())
}

/// The test harness looks in the same place for tools: `crates/testkit` states the same rule.
fn root(name: &str, variable: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = format!("REKINDLE_{}", name.to_uppercase());
    if let Some(root) = set(&own) {
        return Ok(root);
    }
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    match cache {
        Some(cache) => Ok(cache.join("rekindle").join(name)),
        None => bail!("no place to keep {name}: set {own} to a folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_root(variables: &[(&str, &str)], expected: Option<&str>) {
        let found = root("tools", |name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        });
        assert_eq!(found.ok(), expected.map(PathBuf::from));
    }

    #[test]
    fn the_root_follows_the_environment() {
        check_root(&[("REKINDLE_TOOLS", "/t"), ("HOME", "/h")], Some("/t"));
        check_root(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")], Some("/c/rekindle/tools"));
        check_root(&[("XDG_CACHE_HOME", ""), ("HOME", "/h")], Some("/h/.cache/rekindle/tools"));
        check_root(&[], None);
    }

    fn an_empty_root(test: &str) -> PathBuf {
        let root = env::temp_dir().join(format!("rekindle-cache-{test}-{}", std::process::id()));
        remove(&root).unwrap();
        root
    }

    fn a_pin() -> Pin {
        Pin { name: "tool".into(), version: "1".into() }
    }

    #[test]
    fn a_tool_appears_whole_or_not_at_all() {
        let root = an_empty_root("whole");
        let cache = Cache::open_at(root.clone()).unwrap();
        fs::create_dir_all(root.join(".partial-of-a-killed-run/binaries")).unwrap();
        let half = cache.fill(&a_pin(), &["a", "b"], |place| {
            fs::write(place.binaries.join("a"), "half")?;
            Ok(())
        });
        assert_eq!(half.unwrap_err().to_string(), "building tool 1 gave no `b`");
        assert!(!cache.folder(&a_pin()).exists());

        cache
            .fill(&a_pin(), &["a"], |place| {
                assert!(!place.binaries.join("a").exists(), "left from the run that failed");
                fs::write(place.scratch.join("big"), "not kept")?;
                fs::write(place.binaries.join("a"), "whole")?;
                Ok(())
            })
            .unwrap();
        assert!(cache.has(&a_pin(), &["a"]) && !cache.has(&a_pin(), &["a", "b"]));
        assert_eq!(cache.size(&a_pin()).unwrap(), 5);
        let names: Vec<_> = fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| name == ".lock" || name == "tool-1"), "{names:?}");
        remove(&root).unwrap();
    }
}
