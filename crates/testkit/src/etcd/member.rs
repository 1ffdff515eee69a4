//! One etcd process: started, watched until it answers, frozen, stopped, killed, started again.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::health::Probe;
use super::{START_DEADLINE, Site};

/// Between two looks at a condition that nothing announces.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long a member may take to end when asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How long a line may take to appear in a log.
const LOG_DEADLINE: Duration = Duration::from_secs(30);

/// How much of a log is shown on failure, in lines from its end.
const LOG_LINES_SHOWN: usize = 60;

/// A member of a [`super::Cluster`].
#[derive(Debug)]
pub struct Member {
    name: String,
    client_url: String,
    peer_url: String,
    data_dir: PathBuf,
    client_port: u16,
    launch: Launch,
    probe: Probe,
    process: Mutex<Option<Child>>,
}

/// What is run, and where its output goes.
#[derive(Debug)]
pub(super) struct Launch {
    pub binary: PathBuf,
    pub args: Vec<String>,
    pub log: PathBuf,
}

/// Why a member did not start.
#[derive(Debug)]
pub(super) enum StartFailure {
    /// Another process has one of its ports; the text is the log's end.
    AddressInUse(String),
    /// Anything else, in full.
    Other(String),
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressInUse(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

impl Member {
    pub(super) fn launch(site: &Site, launch: Launch, probe: Probe) -> Self {
        let process = launch.spawn();
        Self {
            name: site.name().to_owned(),
            client_url: site.client_url(),
            peer_url: site.peer_url(),
            data_dir: site.data_dir().to_owned(),
            client_port: site.client_port(),
            launch,
            probe,
            process: Mutex::new(Some(process)),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL where it serves clients.
    pub fn client_url(&self) -> &str {
        &self.client_url
    }

    /// The same without the scheme: `127.0.0.1:PORT`.
    pub fn client_address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// The URL where it serves its peers.
    pub fn peer_url(&self) -> &str {
        &self.peer_url
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.launch.log).unwrap_or_default()
    }

    /// Waits until its log contains `text`.
    ///
    /// # Panics
    /// When it does not within half a minute.
    pub fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + LOG_DEADLINE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} came\n{}", self.log_tail());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The id of its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.process().as_ref().expect("the member runs").id()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&self) {
        if let Some(mut child) = self.process().take() {
            end(&mut child);
        }
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(&self) {
        let Some(mut child) = self.process().take() else {
            return;
        };
        signal(&child, Signal::TERM);
        let deadline = Instant::now() + STOP_DEADLINE;
        while child.try_wait().expect("the child is ours").is_none() {
            if Instant::now() > deadline {
                end(&mut child);
                panic!("{} did not stop within {STOP_DEADLINE:?}\n{}", self.name, self.log_tail());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Stops its execution, and returns when it has stopped: connections stay open and nothing
    /// answers, until [`Member::thaw`].
    pub fn freeze(&self) {
        let process = self.process();
        let child = process.as_ref().expect("the member runs");
        signal(child, Signal::STOP);
        // The signal is taken by each thread in its own time; this waits for the last.
        waitid(WaitId::Pid(pid(child)), WaitIdOptions::STOPPED).expect("the child is ours");
    }

    /// Lets it go on after [`Member::freeze`].
    pub fn thaw(&self) {
        signal(self.process().as_ref().expect("the member runs"), Signal::CONT);
    }

    /// Starts it again after [`Member::stop`] or [`Member::kill`], and waits until it answers.
    ///
    /// # Panics
    /// When it runs already, or does not start.
    pub fn start(&self) {
        self.start_unready();
        self.wait_ready(Instant::now() + START_DEADLINE)
            .unwrap_or_else(|failure| panic!("{failure}"));
    }

    /// Starts it again without waiting: for a cluster that has no quorum until others follow.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start_unready(&self) {
        let mut process = self.process();
        assert!(process.is_none(), "{} runs already", self.name);
        *process = Some(self.launch.spawn());
    }

    pub(super) fn wait_ready(&self, deadline: Instant) -> Result<(), StartFailure> {
        loop {
            let unready = match self.probe.ask(self.client_port) {
                Ok(()) => return Ok(()),
                Err(unready) => unready,
            };
            if let Some(status) = self.exit_status() {
                let text = format!("{} ended with {status}\n{}", self.name, self.log_tail());
                return Err(if text.contains("address already in use") {
                    StartFailure::AddressInUse(text)
                } else {
                    StartFailure::Other(text)
                });
            }
            if Instant::now() > deadline {
                let text = format!("{} is not ready: {unready}\n{}", self.name, self.log_tail());
                return Err(StartFailure::Other(text));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn exit_status(&self) -> Option<std::process::ExitStatus> {
        self.process().as_mut()?.try_wait().expect("the child is ours")
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!("--- the end of {}'s log\n{}\n---", self.name, shown.join("\n"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        self.kill();
    }
}

impl Launch {
    fn spawn(&self) -> Child {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", self.log.display()));
        Command::new(&self.binary)
            .args(&self.args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.binary.display()))
    }
}

fn end(child: &mut Child) {
    // Both fail only for a process that has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn signal(child: &Child, signal: Signal) {
    kill_process(pid(child), signal).expect("the child is ours and not waited for");
}

fn pid(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id")
}
