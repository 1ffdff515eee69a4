//! How the etcd of this host is kept from starting, stopped, told what it is to be, and started.

mod command;
mod manifest;
mod static_pod;
mod systemd;

pub use manifest::patch;
pub use static_pod::{held_manifests, manifest_now};

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long whoever is asked to stop or to start has.
const WITHIN: Duration = Duration::from_secs(120);

/// What starts and stops an etcd here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// The user's own commands, for a shell; what the etcd is to be is in their environment, as etcd names it.
    Command {
        /// Starts it, and returns.
        start: String,
        /// Stops it, and keeps whatever starts it anew from that.
        stop: String,
    },
    /// A unit of systemd.
    Systemd {
        /// Its name.
        unit: String,
    },
    /// A static pod of the kubelet.
    StaticPod {
        /// Its manifest, in the kubelet's directory.
        manifest: PathBuf,
    },
}

/// What an etcd is to be when it starts: etcd's flags, by their names without dashes.
pub type Settings = BTreeMap<&'static str, String>;

/// Why a host did not do as it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A file.
    #[error("{doing} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What came back.
        cause: io::Error,
    },
    /// A command.
    #[error("{command}: {why}")]
    Command {
        /// What was run.
        command: String,
        /// How it ended, and what it said.
        why: String,
    },
    /// What is there is not as it should be.
    #[error("{0}")]
    Unfit(String),
}

impl Host {
    /// Keeps the etcd from being started, and stops it. It may take a while until it has ended.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn stop(&self) -> Result<(), Fault> {
        match self {
            Self::Command { stop, .. } => command::shell(stop, &Settings::new(), WITHIN),
            Self::Systemd { unit } => systemd::stop(unit),
            Self::StaticPod { manifest } => static_pod::stop(manifest),
        }
    }

    /// Lets it be started again, as what it is to be, and starts it: alone, where others would read it at once.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn start(&self, settings: &Settings) -> Result<(), Fault> {
        match self {
            Self::Command { start, .. } => command::shell(start, settings, WITHIN),
            Self::Systemd { unit } => systemd::start(unit, settings),
            Self::StaticPod { manifest } => static_pod::start(manifest, settings),
        }
    }

    /// Takes back what [`Self::start`] has told it to be, without starting it.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn restore_settings(&self) -> Result<(), Fault> {
        match self {
            Self::Command { .. } => Ok(()),
            Self::Systemd { unit } => systemd::restore_settings(unit),
            Self::StaticPod { manifest } => static_pod::restore_settings(manifest),
        }
    }

    /// It serves: whoever reads it and was stopped with it runs again, and what it was told before is forgotten.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn finish(&self) -> Result<(), Fault> {
        match self {
            Self::Command { .. } => Ok(()),
            Self::Systemd { unit } => systemd::finish(unit),
            Self::StaticPod { manifest } => static_pod::finish(manifest),
        }
    }

    /// It was stopped, and [`Self::finish`] has not been since.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        match self {
            Self::Command { .. } => false,
            Self::Systemd { unit } => systemd::is_unfinished(unit),
            Self::StaticPod { manifest } => static_pod::is_unfinished(manifest),
        }
    }

    /// What stops it, and what starts it, in words.
    #[must_use]
    pub fn words(&self) -> (String, String) {
        match self {
            Self::Command { start, stop } => (stop.clone(), start.clone()),
            Self::Systemd { unit } => (
                format!("systemctl stop {unit}, and a drop-in keeps it from starting"),
                format!("systemctl start {unit}"),
            ),
            Self::StaticPod { manifest } => {
                let held = static_pod::held(manifest);
                (
                    format!(
                        "{} and its readers' move to {}",
                        manifest.display(),
                        held.parent().unwrap_or(&held).display()
                    ),
                    format!("{} moves back", manifest.display()),
                )
            }
        }
    }
}

/// A setting as etcd has it in its environment: `initial-cluster` is `ETCD_INITIAL_CLUSTER`.
#[must_use]
pub fn variable(flag: &str) -> String {
    format!("ETCD_{}", flag.to_uppercase().replace('-', "_"))
}

fn at(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Fault {
    let path = path.to_owned();
    move |cause| Fault::Io { doing, path, cause }
}
