//! What `--config` says: the configuration of an agent, for any command. Flags go before it, and it goes before
//! the environment.

use crate::failure::{Code, Failure};
use rekindle_agent::config::{Archive, Cluster, Config};
use rekindle_archive::Store;
use rekindle_archive::format::Fingerprint;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Set once, before any command runs: like the environment it is there for the whole process.
static CONFIGURED: OnceLock<(Config, String)> = OnceLock::new();

/// Where it was read from.
static FILE: OnceLock<PathBuf> = OnceLock::new();

/// Reads a configuration, of which this cluster is meant.
pub(crate) fn load(path: &Path, cluster: Option<&str>) -> Result<(), Failure> {
    let config = read(path)?;
    let Some(found) = config.cluster(cluster) else {
        let names: Vec<_> = config.clusters.iter().map(|it| &*it.name).collect();
        let what = match cluster {
            Some(name) => format!("{} has no cluster {name}", path.display()),
            None => format!("{} has several clusters", path.display()),
        };
        let remedy = format!("name one of them with --config-cluster: {}", names.join(", "));
        return Err(Failure::usage(what).remedy(remedy));
    };
    let name = found.name.clone();
    let _ = CONFIGURED.set((config, name));
    let _ = FILE.set(path.to_owned());
    Ok(())
}

/// Reads a configuration; all that is wrong with it is told.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    read_text(path).map(|(config, _)| config)
}

/// The same, and the text that it was.
pub(crate) fn read_text(path: &Path) -> Result<(Config, String), Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::io("reading", path, &error))?;
    let config = Config::parse(&text).map_err(|faults| {
        let mut what = format!("{} is not good:", path.display());
        for fault in faults {
            let _ = write!(what, "\n  {fault}");
        }
        Failure::new(Code::Usage, what)
            .remedy("docs/configuration.md, or rekindle agent --reference, has all fields")
    })?;
    Ok((config, text))
}

/// The words that name what is configured to another run of this program.
pub(crate) fn words() -> Vec<OsString> {
    let Some((_, name)) = CONFIGURED.get() else { return Vec::new() };
    let path = FILE.get().cloned().unwrap_or_default();
    vec!["--config".into(), path.into_os_string(), "--config-cluster".into(), name.into()]
}

/// The cluster that is meant, if a configuration was named.
pub(crate) fn cluster() -> Option<&'static Cluster> {
    let (config, name) = CONFIGURED.get()?;
    config.cluster(Some(name))
}

/// Where snapshots of it lie on their way.
pub(crate) fn spool() -> Option<PathBuf> {
    let (config, _) = CONFIGURED.get()?;
    Some(config.spool_of(cluster()?))
}

/// What this host remembers of it.
pub(crate) fn state() -> Option<PathBuf> {
    let (config, _) = CONFIGURED.get()?;
    Some(config.state_of(cluster()?))
}

/// What it says of an archive.
pub(crate) fn archive(store: &Store) -> Option<&'static Archive> {
    cluster()?.archive(store.place())
}

/// The fingerprint that a user says, or a configuration.
pub(crate) fn fingerprint(said: Option<Fingerprint>, store: &Store) -> Option<Fingerprint> {
    said.or_else(|| archive(store)?.fingerprint)
}
