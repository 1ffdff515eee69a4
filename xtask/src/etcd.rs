//! Real etcd servers on loopback ports, each ended when its handle goes, whatever the way.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::checkout;
use crate::interrupt::Interrupt;

/// Between two looks at whether a server answers.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long a server may take to give one answer; its own limit is below it.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// How much of a server's log an error shows, in lines from the end.
const LOG_LINES_SHOWN: usize = 10;

/// A name, and where its server listens.
#[derive(Clone, Debug)]
pub struct Site {
    pub name: String,
    client_port: u16,
    peer_port: u16,
}

impl Site {
    /// One for each name, on ports that are free now.
    pub fn find<const N: usize>(names: [&str; N]) -> Result<[Self; N]> {
        Self::find_all(&names)?.try_into().map_err(|_| anyhow!("a site for each name"))
    }

    /// The same for as many as there are.
    pub fn find_all(names: &[&str]) -> Result<Vec<Self>> {
        // All are held until all are found, so that no port is found twice.
        let mut held = Vec::new();
        let mut port = || -> Result<u16> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .context("cannot find a free port on 127.0.0.1")?;
            let port = listener.local_addr()?.port();
            held.push(listener);
            Ok(port)
        };
        let mut sites = Vec::new();
        for &name in names {
            sites.push(Self { name: name.to_owned(), client_port: port()?, peer_port: port()? });
        }
        Ok(sites)
    }

    /// Host and port, as etcdctl prints it.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// The arguments that make etcd serve a data directory here.
    pub fn arguments(&self, data_dir: &str) -> Vec<String> {
        let client = format!("http://{}", self.endpoint());
        let mut words: Vec<String> =
            ["--name", &self.name, "--data-dir", data_dir].into_iter().map(str::to_owned).collect();
        words.extend(["--listen-peer-urls".into(), self.peer_url()]);
        words.extend(["--listen-client-urls".into(), client.clone()]);
        words.extend(["--advertise-client-urls".into(), client]);
        words
    }
}

/// What the servers of a new cluster need besides.
pub fn founding_arguments(site: &Site, all: &[Site]) -> Vec<String> {
    ["--initial-advertise-peer-urls", &site.peer_url(), "--initial-cluster", &initial_cluster(all)]
        .map(str::to_owned)
        .to_vec()
}

/// The members as etcd and a restore take them.
pub fn initial_cluster(sites: &[Site]) -> String {
    let members: Vec<String> =
        sites.iter().map(|site| format!("{}={}", site.name, site.peer_url())).collect();
    members.join(",")
}

/// A running server.
#[derive(Debug)]
pub struct Etcd {
    site: Site,
    child: Child,
    log: PathBuf,
}

impl Etcd {
    /// Starts the program, which must serve the site; its output goes to the log.
    pub fn start(site: &Site, mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| checkout::missing(&command))?;
        Ok(Self { site: site.clone(), child, log: log.to_path_buf() })
    }

    /// Waits until the server answers a linearizable read, which takes a leader.
    pub fn wait_until_healthy(&mut self, within: Duration, interrupt: &Interrupt) -> Result<()> {
        let deadline = Instant::now() + within;
        while !is_healthy(self.site.client_port).unwrap_or(false) {
            interrupt.check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("etcd {} ended ({status}):\n{}", self.site.name, self.log_end());
            }
            if Instant::now() > deadline {
                let seconds = within.as_secs();
                bail!("etcd {} is silent for {seconds} s:\n{}", self.site.name, self.log_end());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It fails only where the server has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that knows nothing of what the user has set for clusters of their own.
pub fn command(words: &[impl AsRef<OsStr>]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or(OsStr::new(""), AsRef::as_ref));
    command.args(words).stdin(Stdio::null());
    forget_settings(&mut command);
    command
}

/// Takes from a command what the user has set for a real cluster: it must not lead there.
pub fn forget_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["ETCD_", "ETCDCTL_", "REKINDLE_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}

/// What etcd's `/health` says, which does a linearizable read.
fn is_healthy(port: u16) -> io::Result<bool> {
    let answer = get(&format!("127.0.0.1:{port}"), "/health")?;
    Ok(answer.lines().next().is_some_and(|status| status.contains(" 200 ")))
}

/// What a server on this machine answers to a GET: head and body.
pub fn get(address: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
