//! One store's process: started, watched until it answers, ended.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::etcd::scratch;
use crate::ports::HeldPort;

/// How long a server may take to start: far more than it needs, for a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a condition that nothing announces.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often a start is repeated because another process took the port.
const PORT_ATTEMPTS: u32 = 5;

/// How much of a log is shown on failure, in lines from its end.
const LOG_LINES_SHOWN: usize = 40;

/// A process that serves on a port, and the directory that it lives in.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    dir: TempDir,
    port: u16,
}

/// What makes a server ready.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ready {
    /// It takes connections.
    Connects,
    /// It answers a GET of this path, whatever the answer, if it is no fault of its own.
    Answers(&'static str),
}

impl Server {
    /// Starts what `command` makes for a port and a directory.
    pub(super) fn start(ready: Ready, command: impl Fn(u16, &Path) -> Command) -> Self {
        for _ in 1..PORT_ATTEMPTS {
            if let Ok(server) = Self::try_start(ready, &command) {
                return server;
            }
        }
        Self::try_start(ready, &command).unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn try_start(ready: Ready, command: &impl Fn(u16, &Path) -> Command) -> Result<Self, String> {
        let dir = scratch("rekindle-store-");
        let held = HeldPort::new();
        let port = held.number();
        let mut command = command(port, dir.path());
        let log = File::create(dir.path().join("log")).expect("a log");
        command
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        held.release();
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { process, dir, port };
        server.wait(ready).map(|()| server)
    }

    fn wait(&mut self, ready: Ready) -> Result<(), String> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let is_ready = match ready {
                Ready::Connects => self.connect().is_ok(),
                Ready::Answers(path) => {
                    self.ask("GET", path, &[], "").is_ok_and(|answer| answer.status < 500)
                }
            };
            if is_ready {
                return Ok(());
            }
            let ended = self.process.try_wait().expect("the child is ours");
            if let Some(status) = ended {
                let log = self.log();
                // Another process may have taken the port; everything else is as it is.
                assert!(log.contains("in use"), "the store ended with {status}\n{log}");
                return Err(log);
            }
            assert!(Instant::now() < deadline, "the store is not ready\n{}", self.log());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Sends a signal to it.
    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process has a number"), signal).expect("the child is ours");
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its directory.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sends one request and returns what came back.
    pub(super) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address());
        let len = body.len().to_string();
        for (name, value) in
            headers.iter().chain(&[("Connection", "close"), ("Content-Length", &len)])
        {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        request += &format!("\r\n{body}");
        let mut stream = self.connect()?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no HTTP"))?;
        Ok(Answer { status, text })
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))?;
        stream.set_read_timeout(Some(START_DEADLINE))?;
        Ok(stream)
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        format!("--- the end of the store's log\n{}\n---", shown.join("\n"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
        // Both fail only for a process that has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    text: String,
}

impl Answer {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines().take_while(|line| !line.is_empty());
        lines.find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Panics with everything, unless it was a success.
    #[track_caller]
    pub(super) fn succeed(&self) {
        assert!((200..300).contains(&self.status), "{}", self.text);
    }
}
