//! What is asked of a running agent, by files in its state: who may write there may ask.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const PAUSE: &str = "pause.json";
const REQUESTS: &str = "requests";
/// Whoever has not fetched his answer for so long will not.
const LEFT: Duration = Duration::from_secs(24 * 3600);

/// Nothing is done by schedule for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Why.
    pub reason: String,
    /// Until then; without it until somebody says otherwise.
    pub until: Option<Timestamp>,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        match self.until {
            Some(until) => write!(f, " (until {until})"),
            None => Ok(()),
        }
    }
}

impl Pause {
    /// The one that holds now. A file that cannot be read pauses nothing.
    #[must_use]
    pub fn read(state: &Path, now: Timestamp) -> Option<Self> {
        let bytes = std::fs::read(state.join(PAUSE)).ok()?;
        let pause: Self = serde_json::from_slice(&bytes).ok()?;
        pause.until.is_none_or(|until| now < until).then_some(pause)
    }
}

/// Pauses what has this state: an agent, or one of its clusters.
///
/// # Errors
/// The file cannot be written.
pub fn pause(state: &Path, pause: &Pause) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    put(&state.join(PAUSE), pause)
}

/// Goes on; whether it was paused.
///
/// # Errors
/// The file cannot be removed.
pub fn resume(state: &Path) -> io::Result<bool> {
    match std::fs::remove_file(state.join(PAUSE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

fn put(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, serde_json::to_vec(value)?)?;
    let state = path.parent().unwrap_or(Path::new("/"));
    give(&part, state)?;
    std::fs::rename(&part, path)
}

/// What root asks an agent of another user belongs to that one: he could not read it else.
fn give(path: &Path, like: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(like)?;
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// A backup that is wanted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// When it was asked for: its slot.
    pub asked: Timestamp,
}

/// The requests of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    directory: PathBuf,
}

impl Requests {
    pub(super) fn of(state: &Path) -> Self {
        Self { directory: state.join(REQUESTS) }
    }

    /// The oldest that nobody has answered.
    pub(super) fn first(&self) -> Option<(PathBuf, Request)> {
        let entries = std::fs::read_dir(&self.directory).ok()?;
        let paths = entries.flatten().map(|entry| entry.path());
        let asked = paths.filter(|path| path.extension().is_some_and(|it| it == "json"));
        let read = |path: PathBuf| {
            let request = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            Some((path, request))
        };
        asked.filter_map(read).min_by_key(|(_, request): &(_, Request)| request.asked)
    }

    /// Answers it with records of what was done.
    pub(super) fn answer(path: &Path, records: &[crate::records::Record]) {
        let _ = put(&path.with_extension("done"), &records);
        let _ = std::fs::remove_file(path);
    }

    /// Removes answers that nobody waits for any more, and what was begun by somebody who was killed.
    pub(super) fn tidy(&self, now: SystemTime) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let is_left = path.extension().is_some_and(|it| it == "done" || it == "part");
            let age = |written| now.duration_since(written).unwrap_or_default();
            if is_left && age(entry.metadata()?.modified()?) > LEFT {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Request {
    /// Asks the agent that has a cluster's state. Its answer will be at the path.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn ask(&self, state: &Path) -> io::Result<PathBuf> {
        let directory = state.join(REQUESTS);
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        give(&directory, state)?;
        let name = self.asked.as_nanosecond().to_string();
        let path = directory.join(&name).with_extension("json");
        put(&path, self)?;
        Ok(path.with_extension("done"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn a_pause_holds_until_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        assert_eq!(Pause::read(state, at(0)), None);
        let told = Pause { reason: "upgrade".to_owned(), until: Some(at(10)) };
        pause(state, &told).unwrap();
        assert_eq!(Pause::read(state, at(9)), Some(told));
        assert_eq!(Pause::read(state, at(10)), None);
        let told = Pause { reason: "moving".to_owned(), until: None };
        pause(state, &told).unwrap();
        assert_eq!(Pause::read(state, at(10)).unwrap().to_string(), "moving");
        assert!(resume(state).unwrap() && !resume(state).unwrap());
        assert_eq!(Pause::read(state, at(10)), None);
        std::fs::write(state.join(PAUSE), "{").unwrap();
        assert_eq!(Pause::read(state, at(10)), None);
    }

    /// Root asks, and the agent is another user.
    #[test]
    fn what_root_asks_belongs_to_whom_the_state_does() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path();
        std::os::unix::fs::chown(state, Some(12), Some(34)).unwrap();
        Request { asked: at(2) }.ask(state).unwrap();
        pause(state, &Pause { reason: "upgrade".to_owned(), until: None }).unwrap();
        let (path, _) = Requests::of(state).first().unwrap();
        for path in [&*state.join(PAUSE), &*state.join(REQUESTS), &*path] {
            let found = std::fs::metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid()), (12, 34), "{}", path.display());
        }
    }

    /// Whoever does not wait fetches no answer.
    #[test]
    fn answers_that_nobody_fetches_go_after_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let requests = Requests::of(directory.path());
        requests.tidy(SystemTime::now()).unwrap();
        let answer = Request { asked: at(1) }.ask(directory.path()).unwrap();
        Requests::answer(&requests.first().unwrap().0, &[]);
        Request { asked: at(2) }.ask(directory.path()).unwrap();
        let part = answer.with_file_name("3.part");
        std::fs::write(&part, "{").unwrap();
        requests.tidy(SystemTime::now()).unwrap();
        assert!(answer.exists() && part.exists());
        requests.tidy(SystemTime::now() + LEFT + Duration::from_secs(60)).unwrap();
        assert!(!answer.exists() && !part.exists());
        assert_eq!(requests.first().unwrap().1.asked, at(2), "that one is to be answered still");
    }

    #[test]
    fn requests_are_answered_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let requests = Requests::of(directory.path());
        assert!(requests.first().is_none());
        let answer = Request { asked: at(2) }.ask(directory.path()).unwrap();
        Request { asked: at(1) }.ask(directory.path()).unwrap();
        let (path, request) = requests.first().unwrap();
        assert_eq!(request.asked, at(1));
        Requests::answer(&path, &[]);
        let (path, request) = requests.first().unwrap();
        assert_eq!(request.asked, at(2));
        assert!(!answer.exists());
        Requests::answer(&path, &[]);
        assert_eq!(std::fs::read_to_string(answer).unwrap(), "[]");
        assert!(requests.first().is_none());
    }
}
