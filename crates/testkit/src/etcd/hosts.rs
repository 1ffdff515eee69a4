//! Etcds that scripts start and stop, as administrators do: for commands that are told how.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Members, START_DEADLINE, scratch};
use crate::certs::CertFiles;
use crate::network::Network;
use crate::ports::HeldPort;
use crate::tools::Version;

/// Hosts, each with one member of a cluster.
#[derive(Debug)]
pub struct Hosts {
    version: Version,
    hosts: Vec<Host>,
    certificates: Option<Certificates>,
    _directory: tempfile::TempDir,
}

/// What members show to clients and to each other, and trust.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority that has signed all.
    pub ca: PathBuf,
    /// Of all members, for 127.0.0.1, and of clients.
    pub own: CertFiles,
}

impl Certificates {
    /// The flags of tools that reach them.
    #[must_use]
    pub fn flags(&self) -> [String; 3] {
        let Self { ca, own: CertFiles { cert, key, .. } } = self;
        [("cacert", ca), ("cert", cert), ("key", key)]
            .map(|(flag, path)| format!("--{flag}={}", path.display()))
    }
}

/// How etcd is run.
struct Run<'a> {
    etcd: PathBuf,
    supervised: bool,
    certificates: Option<&'a Certificates>,
    network: Option<&'a Network>,
}

/// A host: two scripts, and a data directory.
#[derive(Debug)]
pub struct Host {
    /// Its member's name.
    pub name: String,
    /// Where clients reach it.
    pub client_url: String,
    /// Where peers reach it.
    pub peer_url: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Starts it, with what the environment says that it is to be, and returns.
    pub start: String,
    /// Ends it, and returns when it has ended.
    pub stop: String,
    directory: PathBuf,
}

impl Hosts {
    /// A cluster whose members serve; `supervised` ones are started again whenever they end, until they are stopped.
    ///
    /// # Panics
    /// Where they do not come to serve.
    #[must_use]
    pub fn start(version: Version, members: Members, supervised: bool) -> Self {
        Self::start_with(version, members, supervised, None, None)
    }

    /// The same, where nobody is heard without a certificate, and on hosts that have a network of their own.
    ///
    /// # Panics
    /// Where they do not come to serve.
    #[must_use]
    pub fn start_with(
        version: Version,
        members: Members,
        supervised: bool,
        certificates: Option<Certificates>,
        network: Option<&Network>,
    ) -> Self {
        let directory = scratch("rekindle-hosts-");
        let etcd = version.binary("etcd");
        let run = Run { etcd, supervised, certificates: certificates.as_ref(), network };
        let hosts = (0..members.0).map(|number| Host::new(directory.path(), number, &run));
        let hosts = hosts.collect();
        let this = Self { version, hosts, certificates, _directory: directory };
        let initial: Vec<_> = this.hosts.iter().map(Host::initial).collect();
        for host in &this.hosts {
            host.run(&host.start, &[("ETCD_INITIAL_CLUSTER", &initial.join(","))]);
        }
        this.wait_until_they_serve();
        this
    }

    /// One of them.
    #[must_use]
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Host> {
        self.hosts.iter()
    }

    /// Where clients reach all of them.
    #[must_use]
    pub fn endpoints(&self) -> String {
        self.hosts.iter().map(|host| &*host.client_url).collect::<Vec<_>>().join(",")
    }

    /// Runs etcdctl with all endpoints; what it printed, or why it failed.
    ///
    /// # Errors
    /// What it said.
    pub fn try_etcdctl(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(self.version.binary("etcdctl"));
        command
            .env_clear()
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints()))
            .args(self.certificates.iter().flat_map(Certificates::flags));
        let output = command.args(words).output().expect("etcdctl runs");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The same; it must do it.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn etcdctl(&self, words: &[&str]) -> String {
        self.try_etcdctl(words).unwrap_or_else(|said| panic!("etcdctl {words:?}: {said}"))
    }

    /// What it prints as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[track_caller]
    pub fn etcdctl_json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.etcdctl(&[words, &["-w=json"]].concat())).unwrap()
    }

    /// The names of those that vote, sorted.
    ///
    /// # Panics
    /// Where no list can be had.
    #[track_caller]
    pub fn voters(&self) -> Vec<String> {
        let list = self.etcdctl_json(&["member", "list"]);
        let members = list["members"].as_array().unwrap().iter();
        let voters = members.filter(|it| it["isLearner"] != Value::Bool(true));
        let mut names: Vec<_> =
            voters.map(|it| it["name"].as_str().unwrap_or_default().to_owned()).collect();
        names.sort();
        names
    }

    /// Waits until each answers a read as of now.
    ///
    /// # Panics
    /// Where one does not in time.
    #[track_caller]
    pub fn wait_until_they_serve(&self) {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match self.try_etcdctl(&["endpoint", "health"]) {
                Ok(_) => return,
                Err(said) => {
                    let logs: Vec<_> = self.hosts.iter().map(Host::log_tail).collect();
                    assert!(Instant::now() < deadline, "{said}\n{}", logs.join("\n"));
                }
            }
        }
    }
}

impl Host {
    fn new(directory: &Path, number: usize, run: &Run<'_>) -> Self {
        let name = format!("m{number}");
        let directory = directory.join(&name);
        fs::create_dir(&directory).unwrap();
        let scheme = if run.certificates.is_some() { "https" } else { "http" };
        let (client, peer) = (HeldPort::new(), HeldPort::new());
        let (address, client_port, peer_port) = match run.network {
            Some(network) => (network.address(number), 2379, 2380),
            None => ("127.0.0.1".to_owned(), client.number(), peer.number()),
        };
        let this = Self {
            client_url: format!("{scheme}://{address}:{client_port}"),
            peer_url: format!("{scheme}://{address}:{peer_port}"),
            data_dir: directory.join("data"),
            start: directory.join("start").display().to_string(),
            stop: directory.join("stop").display().to_string(),
            directory,
            name,
        };
        drop((client, peer));
        this.write_scripts(run, run.network.map(|network| network.on(number)));
        this
    }

    fn write_scripts(&self, run: &Run<'_>, on: Option<String>) {
        let Self { name, client_url, peer_url, data_dir, directory, .. } = self;
        let etcd = format!("{} {}", on.unwrap_or_default(), run.etcd.display());
        let (data, at) = (data_dir.display(), directory.display());
        // Databases are far behind their logs, so that whoever is killed shows it.
        let flags = format!(
            "--name {name} --data-dir {data} --listen-client-urls {client_url} --advertise-client-urls {client_url} \
             --listen-peer-urls {peer_url} --initial-advertise-peer-urls {peer_url} --quota-backend-bytes 8589934592 --backend-batch-interval 2s --heartbeat-interval 50 \
             --election-timeout 500{}",
            run.certificates.map(flags).unwrap_or_default()
        );
        let run = match run.supervised {
            false => format!("exec {etcd} {flags}"),
            // One that ends is there again at once.
            true => format!(
                "while [ ! -e {at}/held ]; do {etcd} {flags} & echo $! > {at}/child; wait $!; done"
            ),
        };
        self.script("run", &format!("echo $$ > {at}/pid\n{run}"));
        self.script(
            "start",
            &format!("rm -f {at}/held\nsetsid {at}/run >> {at}/log 2>&1 < /dev/null &"),
        );
        // One without a quorum ends after some seconds; nobody waits for that here. A zombie whose threads still end has its
        // sockets.
        let stop = format!(
            "touch {at}/held\nfor file in {at}/pid {at}/child; do\n[ -e $file ] || continue\npid=$(cat $file)\n\
             kill -CONT $pid 2>/dev/null; kill $pid 2>/dev/null\ntries=0\nwhile [ -e /proc/$pid ] && {{ ! grep -q '^State:.Z' /proc/$pid/status || [ -n \"$(ls /proc/$pid/task | grep -v ^$pid$)\" ]; }}; do\n\
             tries=$((tries + 1)); [ $tries -lt ${{PATIENCE:-50}} ] || kill -KILL $pid 2>/dev/null\nsleep 0.02\ndone\n\
             rm -f $file\ndone\ntrue"
        );
        self.script("stop", &stop);
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// As `--initial-cluster` has it.
    #[must_use]
    pub fn initial(&self) -> String {
        format!("{}={}", self.name, self.peer_url)
    }

    fn run(&self, script: &str, env: &[(&str, &str)]) {
        let mut command = Command::new(script);
        command.envs(env.iter().copied()).stdin(Stdio::null());
        assert!(command.status().expect("a script runs").success(), "{script}");
    }

    /// Starts it with what it has.
    pub fn begin(&self) {
        self.run(&self.start, &[]);
    }

    /// Starts it as the one member of a cluster of its own.
    pub fn begin_new(&self) {
        self.run(&self.start, &[("ETCD_INITIAL_CLUSTER", &self.initial())]);
    }

    /// Starts it with what it is to be.
    pub fn begin_as(&self, initial_cluster: &str, state: &str) {
        let env =
            [("ETCD_INITIAL_CLUSTER", initial_cluster), ("ETCD_INITIAL_CLUSTER_STATE", state)];
        self.run(&self.start, &env);
    }

    /// Ends it.
    pub fn end(&self) {
        self.run(&self.stop, &[]);
    }

    /// The disk of the host is gone: it ends, and nothing is left.
    ///
    /// # Panics
    /// Where it cannot be removed.
    pub fn lose(&self) {
        self.run(&self.stop, &[("PATIENCE", "0")]);
        fs::remove_dir_all(&self.data_dir).unwrap();
    }

    /// Tells its process, and what looks after it.
    ///
    /// # Panics
    /// Where there is none.
    pub fn signal(&self, signal: Signal) {
        let told = self.pids().into_iter().filter(|pid| kill_process(*pid, signal).is_ok()).count();
        assert!(told > 0, "{} does not run", self.name);
    }

    fn pids(&self) -> Vec<Pid> {
        let read = |file| fs::read_to_string(self.directory.join(file)).ok()?.trim().parse().ok();
        ["pid", "child"].into_iter().filter_map(read).filter_map(Pid::from_raw).collect()
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        format!("--- {}\n{}", self.name, lines[lines.len().saturating_sub(8)..].join("\n"))
    }
}

/// Those of etcd.
fn flags(certificates: &Certificates) -> String {
    let Certificates { ca, own: CertFiles { cert, key, .. } } = certificates;
    let (ca, cert, key) = (ca.display(), cert.display(), key.display());
    let of = |prefix: &str| {
        format!(
            " --{prefix}cert-file {cert} --{prefix}key-file {key} --{prefix}trusted-ca-file {ca} --{prefix}client-cert-auth"
        )
    };
    of("") + &of("peer-")
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        // One that is frozen hears nothing else.
        for pid in self.pids() {
            let _ = kill_process(pid, Signal::CONT);
        }
        let _ = Command::new(&self.stop).env("PATIENCE", "0").stderr(Stdio::null()).status();
    }
}
