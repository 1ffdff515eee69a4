//! Putting a finished directory in the place of another, so that at every moment either of them is
//! whole and etcd can start on the right one or on none.
//!
//! First a file takes the directory's place: whoever starts an etcd now fails, and whoever had one
//! running is found by its lock. Then the old directories go aside and the new ones come. The steps
//! are fixed before the first is taken and lie in a journal; how far an interrupted swap came is
//! seen by which file is where, so each step is taken once, whatever happened.

use crate::disk::{Disk, Identity};
use crate::error::{At, Error};
use crate::place::parent;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One step of a swap. Each can be told from its effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Exchange two paths; it is done when `one` is `becomes`.
    Exchange {
        /// The path that etcd knows.
        one: PathBuf,
        /// The other one.
        other: PathBuf,
        /// What was at `other` before.
        becomes: Identity,
    },
    /// Move something to a free place; it is done when `to` is `what`.
    Rename {
        /// From here.
        from: PathBuf,
        /// To there.
        to: PathBuf,
        /// What is moved.
        what: Identity,
    },
    /// Nobody may have the database open; it is done as soon as a later step is.
    CheckUnlocked {
        /// Where the old database is now.
        database: PathBuf,
    },
    /// Remove a file; it is done when nothing is there.
    Remove {
        /// The file.
        path: PathBuf,
    },
}

impl Step {
    fn is_done(&self, disk: &dyn Disk) -> Result<bool, Error> {
        let is = |path: &Path, identity: Identity| {
            let found = disk.stat(path).at("looking at", path)?;
            Ok(found.is_some_and(|found| found.identity == identity))
        };
        match self {
            Self::Exchange { one, becomes, .. } => is(one, *becomes),
            Self::Rename { to, what, .. } => is(to, *what),
            Self::CheckUnlocked { .. } => Ok(false),
            Self::Remove { path } => Ok(disk.stat(path).at("looking at", path)?.is_none()),
        }
    }

    fn take(&self, disk: &dyn Disk) -> Result<(), Error> {
        match self {
            Self::Exchange { one, other, .. } => {
                disk.exchange(one, other).at("exchanging", one)?;
                sync_parents(disk, &[one, other])
            }
            Self::Rename { from, to, .. } => {
                disk.rename(from, to).at("renaming", from)?;
                sync_parents(disk, &[to, from])
            }
            Self::CheckUnlocked { database } => check_unlocked(disk, database),
            Self::Remove { path } => {
                disk.remove_file(path).at("removing", path)?;
                sync_parents(disk, &[path])
            }
        }
    }

    /// What takes back this step, if anything does.
    fn reversed(&self) -> Option<Self> {
        match self {
            Self::Exchange { one, other, becomes } => {
                let (one, other) = (one.clone(), other.clone());
                Some(Self::Exchange { one, other, becomes: *becomes })
            }
            Self::Rename { from, to, what } => {
                Some(Self::Rename { from: to.clone(), to: from.clone(), what: *what })
            }
            Self::CheckUnlocked { .. } | Self::Remove { .. } => None,
        }
    }
}

/// Fails where some process has the database locked.
pub(crate) fn check_unlocked(disk: &dyn Disk, database: &Path) -> Result<(), Error> {
    if disk.is_locked(database).at("locking", database)? {
        return Err(Error::InUse { database: database.to_owned() });
    }
    Ok(())
}

fn sync_parents(disk: &dyn Disk, paths: &[&Path]) -> Result<(), Error> {
    let mut parents: Vec<_> = paths.iter().map(|path| parent(path)).collect();
    parents.dedup();
    parents.iter().try_for_each(|parent| disk.sync_directory(parent).at("syncing", parent))
}

/// How many of the steps are done: all up to the last whose effect is there.
fn done(disk: &dyn Disk, steps: &[Step]) -> Result<usize, Error> {
    for (index, step) in steps.iter().enumerate().rev() {
        // That nothing is there says nothing: it may never have come to be where it is removed.
        let can_be_told = !matches!(step, Step::Remove { .. })
            || index.checked_sub(1).map_or(Ok(true), |before| steps[before].is_done(disk))?;
        if can_be_told && step.is_done(disk)? {
            return Ok(index + 1);
        }
    }
    Ok(0)
}

/// Takes the steps that are left.
pub(crate) fn go_on(disk: &dyn Disk, steps: &[Step]) -> Result<(), Error> {
    let done = done(disk, steps)?;
    steps.iter().skip(done).try_for_each(|step| step.take(disk))
}

/// All steps are done.
pub(crate) fn is_complete(disk: &dyn Disk, steps: &[Step]) -> Result<bool, Error> {
    Ok(done(disk, steps)? == steps.len())
}

/// Takes back the steps that are done, the last one first.
pub(crate) fn undo(disk: &dyn Disk, steps: &[Step]) -> Result<(), Error> {
    let done = done(disk, steps)?;
    let back = steps.iter().take(done).rev().filter_map(Step::reversed);
    back.into_iter().try_for_each(|step| step.take(disk))
}

/// What leaves a path, and what comes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// The path.
    pub target: PathBuf,
    /// What is there now and where it goes; `None`: nothing is there, or an empty directory.
    pub leaves: Option<Leg>,
    /// What comes and from where.
    pub arrives: Option<Leg>,
}

/// A file or directory and its other place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leg {
    /// Which one it is.
    pub what: Identity,
    /// Where it goes to, or comes from.
    pub place: PathBuf,
}

/// The file that takes the data directory's place meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocker {
    pub path: PathBuf,
    pub identity: Identity,
    /// The old database, as a path below the old directory.
    pub database: PathBuf,
}

/// The steps of a swap. Without a blocker (the file system cannot exchange, or nothing is there to
/// be kept from starting) directories are renamed one after the other.
pub(crate) fn steps(data: &Move, log: &[Move], blocker: Option<&Blocker>) -> Vec<Step> {
    let leave = |m: &Move, from: &Path| {
        let leg = m.leaves.as_ref()?;
        Some(Step::Rename { from: from.to_owned(), to: leg.place.clone(), what: leg.what })
    };
    let arrive = |m: &Move| {
        let leg = m.arrives.as_ref()?;
        Some(Step::Rename { from: leg.place.clone(), to: m.target.clone(), what: leg.what })
    };
    let log_steps = log
        .iter()
        .filter_map(|m| leave(m, &m.target))
        .chain(log.iter().filter_map(arrive))
        .collect::<Vec<_>>();
    let exchange = |other: &Path, becomes| Step::Exchange {
        one: data.target.clone(),
        other: other.to_owned(),
        becomes,
    };
    let mut steps = Vec::new();
    match (blocker, &data.leaves, &data.arrives) {
        (Some(blocker), Some(_), Some(new)) => {
            steps.push(exchange(&blocker.path, blocker.identity));
            let database = blocker.path.join(&blocker.database);
            steps.push(Step::CheckUnlocked { database });
            steps.extend(leave(data, &blocker.path));
            steps.extend(log_steps);
            steps.push(exchange(&new.place, new.what));
            steps.push(Step::Remove { path: new.place.clone() });
        }
        _ => {
            steps.extend(leave(data, &data.target));
            steps.extend(log_steps);
            steps.extend(arrive(data));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real::RealDisk;
    use std::fs;

    /// `.part` was removed by hand amid a swap: `--resume` took that for the last step's doing, and
    /// the journal that led out was gone.
    #[test]
    fn a_file_that_is_not_there_yet_has_not_been_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["data", "blocked", "new"] {
            fs::create_dir(path(name)).unwrap();
        }
        let identity = |name: &str| RealDisk.stat(&path(name)).unwrap().unwrap().identity;
        let exchange = |other: &str| Step::Exchange {
            one: path("data"),
            other: path(other),
            becomes: identity(other),
        };
        let remove = Step::Remove { path: path("new") };
        let steps = [exchange("blocked"), exchange("new"), remove];
        steps[0].take(&RealDisk).unwrap();
        fs::remove_dir(path("new")).unwrap();
        assert!(!is_complete(&RealDisk, &steps).unwrap());
        assert!(go_on(&RealDisk, &steps).is_err());
        undo(&RealDisk, &steps).unwrap();
        assert_eq!(done(&RealDisk, &steps).unwrap(), 0);
    }
}
