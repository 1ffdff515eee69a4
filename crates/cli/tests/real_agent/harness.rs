//! An agent that runs, and what it has said and kept.

use rekindle_testkit::etcd::Cluster;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Far more than anything takes here, for a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// `rekindle` with nothing in its environment and nobody at its terminal.
pub fn rekindle<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.env_clear().args(args).stdin(Stdio::null());
    command
}

/// Runs it; what it printed.
pub fn done<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> String {
    let output = rekindle(args).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A directory with an archive and the state of agents.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let this = Self { directory: tempfile::tempdir().unwrap() };
        done(["archive", "init", &this.path("archive"), "--unencrypted"]);
        this
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Writes the configuration of an agent; `cluster` are the fields of its one cluster behind its name and
    /// endpoints.
    pub fn configure(&self, agent: &str, cluster: &Cluster, more: &str, fields: &str) -> PathBuf {
        let endpoints = cluster.client_urls().join(", ");
        let state = self.path(agent);
        let text = format!(
            "state: {state}\nlisten: 127.0.0.1:0\n{more}clusters:\n- name: prod\n  endpoints: [{endpoints}]\n{fields}"
        );
        let path = PathBuf::from(self.path(&format!("{agent}.yaml")));
        fs::write(&path, text.replace("HERE", &self.path(""))).unwrap();
        path
    }

    /// What is kept of runs in the archive.
    pub fn records(&self) -> Vec<Value> {
        self.records_in("archive")
    }

    pub fn records_in(&self, place: &str) -> Vec<Value> {
        let told = done(["records", &self.path(place), "-w=json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        told["records"].as_array().unwrap().clone()
    }
}

/// An agent, and what it has said.
pub struct Guarding {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    /// What was said up to here was waited for.
    heard: usize,
}

impl Guarding {
    pub fn start(config: &Path) -> Self {
        Self::run(rekindle(["agent".as_ref(), "--config".as_ref(), config.as_os_str()]))
    }

    /// The same where a file system of two megabytes is mounted at a place, with a new archive on it.
    pub fn start_with_little_room(config: &Path, place: &str, archive: &str) -> Self {
        let script = "mount -t tmpfs -o size=2m none \"$1\" && \"$0\" archive init --unencrypted \"$2\" \
                      >/dev/null && exec \"$0\" agent --config \"$3\"";
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script]);
        command.args([env!("CARGO_BIN_EXE_rekindle"), place, archive]).arg(config);
        Self::run(command)
    }

    fn run(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (line, lines) = channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|it| line.send(it))
        });
        Self { child, lines, said: Vec::new(), heard: 0 }
    }

    /// Waits until it says this, behind what was waited for before; the line.
    pub fn wait_for(&mut self, text: &str) -> String {
        self.wait_for_any(&[text])
    }

    /// The same of any of these.
    pub fn wait_for_any(&mut self, texts: &[&str]) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            while let Some(line) = self.said.get(self.heard) {
                self.heard += 1;
                if texts.iter().any(|text| line.contains(text)) {
                    return line.clone();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(_) => panic!("it did not say {texts:?}: {:#?}", self.said),
            }
        }
    }

    /// Listens to it for so long, while it is measured.
    pub fn listen_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(line) =
            self.lines.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.said.push(line);
        }
    }

    /// The page of metrics, at the address that it has said.
    pub fn metrics(address: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        page
    }

    /// The address at which it serves.
    pub fn address(&mut self) -> String {
        let line = self.wait_for("metrics are at http://");
        let (_, rest) = line.split_once("http://").unwrap();
        rest.trim_end_matches("/metrics").to_owned()
    }

    /// Waits until a page of metrics has this line.
    pub fn wait_for_metric(address: &str, want: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let page = Self::metrics(address);
            if page.lines().any(|line| line.starts_with(want)) {
                return;
            }
            assert!(Instant::now() < deadline, "{want} is not in {page}");
            std::thread::yield_now();
        }
    }

    /// Anonymous memory of the agent and its processes, in bytes.
    pub fn memory(&self) -> u64 {
        let mut bytes = 0;
        for pid in self.processes() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
            let kib =
                anonymous.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
            bytes += kib.unwrap_or_default() << 10;
        }
        bytes
    }

    /// Time of a core that they have taken.
    pub fn processor(&self) -> Duration {
        let mut ticks = 0;
        for pid in self.processes() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Behind the name, which may have anything in it: fields 14 and 15 of proc(5).
            let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
            ticks +=
                fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
        // A hundredth of a second each, on every Linux there is.
        Duration::from_millis(ticks * 10)
    }

    /// It, and what it has started, by their numbers.
    fn processes(&self) -> Vec<String> {
        let (mut found, mut next) = (Vec::new(), vec![self.child.id().to_string()]);
        while let Some(pid) = next.pop() {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for task in tasks {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                next.extend(children.split_whitespace().map(str::to_owned));
            }
            found.push(pid);
        }
        found
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Kills it, as nobody can guard against.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it; what it has said.
    pub fn stop(mut self) -> Vec<String> {
        self.signal("-TERM");
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        assert_eq!(status.code(), Some(0), "{:#?}", self.said);
        std::mem::take(&mut self.said)
    }
}

impl Drop for Guarding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.said.extend(self.lines.try_iter());
            eprintln!("the agent said: {:#?}", self.said);
        }
    }
}
