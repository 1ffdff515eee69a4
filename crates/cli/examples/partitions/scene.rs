//! A cluster with certificates on hosts of their own, an archive of it, and what is typed on its hosts.

use rekindle_testkit::Version;
use rekindle_testkit::certs::{Ca, Leaf};
use rekindle_testkit::etcd::{Certificates, Hosts, Members};
use rekindle_testkit::network::Network;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longer than an election, and shorter than anything gives up.
const CUT_FOR: Duration = Duration::from_secs(3);

pub struct Scene {
    pub hosts: Hosts,
    pub network: Network,
    certificates: Certificates,
    members: usize,
    program: String,
    keys: AtomicUsize,
    directory: tempfile::TempDir,
    _ca: Ca,
}

pub fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

impl Scene {
    pub fn new(program: &str, members: usize) -> Self {
        let network = Network::new(members);
        let ca = Ca::new("etcd-ca");
        let addresses: Vec<_> = (0..members).map(|host| network.address(host)).collect();
        let own = ca.issue("member", &Leaf::server().at(addresses.iter().map(String::as_str)));
        let certificates = Certificates { ca: ca.path(), own };
        let hosts = Hosts::start_with(
            Version::LATEST,
            Members(members),
            true,
            Some(certificates.clone()),
            Some(&network),
        );
        let directory = tempfile::tempdir().unwrap();
        let (program, keys) = (program.to_owned(), AtomicUsize::new(0));
        let scene =
            Self { hosts, network, certificates, members, program, keys, directory, _ca: ca };
        scene.done(scene.rekindle(&["archive", "init", &scene.archive(), "--unencrypted"]));
        for host in scene.hosts.iter() {
            // A JSON is a YAML.
            let member = serde_json::json!({
                "name": host.name, "peerUrls": [host.peer_url], "dataDir": host.data_dir,
                "start": host.start, "stop": host.stop,
            });
            let text = format!(
                "state: {}\nclusters:\n- name: prod\n  endpoints: [{}]\n  member: {member}\n  archives: [{{place: {}}}]\n",
                scene.path(&format!("state-{}", host.name)),
                scene.hosts.endpoints(),
                scene.archive()
            );
            fs::write(scene.path(&format!("{}.yaml", host.name)), text).unwrap();
        }
        scene
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    pub fn archive(&self) -> String {
        self.path("archive")
    }

    fn rekindle(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Beside the hosts, from where all are reached.
    pub fn here(&self, words: &[&str]) -> Output {
        self.rekindle(words).args(self.reaching()).output().unwrap()
    }

    pub fn command_on(&self, host: usize, words: &[&str]) -> Command {
        let mut command = self.network.command(host, &self.program);
        let config = self.path(&format!("m{host}.yaml"));
        command.args(["--config", &config]).args(words).args(self.certificates.flags());
        command.stdin(Stdio::null());
        command
    }

    pub fn on(&self, host: usize, words: &[&str]) -> Output {
        self.command_on(host, words).output().unwrap()
    }

    fn reaching(&self) -> Vec<String> {
        let endpoints = format!("--endpoints={}", self.hosts.endpoints());
        std::iter::once(endpoints).chain(self.certificates.flags()).collect()
    }

    fn over_ssh(&self, command: &mut Command) {
        command.arg(format!("--ssh={}", self.network.ssh()));
        let folder = self.directory.path().display();
        command.arg(format!("--remote-command={} --config {folder}/$NAME.yaml", self.program));
    }

    /// Of all hosts, from beside them.
    pub fn recover(&self, more: &[&str]) -> Command {
        let mut command = self.rekindle(&["recover", "--yes"]);
        command.args(self.reaching());
        self.over_ssh(&mut command);
        command
            .args((0..self.members).map(|host| format!("--host={}", self.network.address(host))));
        command.args(more);
        command
    }

    /// Of the hosts that are named, from one of them.
    pub fn recover_on(&self, host: usize, more: &[&str]) -> Command {
        let mut command = self.command_on(host, &["recover", "--yes"]);
        self.over_ssh(&mut command);
        command.args(more);
        command
    }

    pub fn done(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}\n{}", told(&output));
        told(&output)
    }

    /// It does it, or has nothing to do.
    pub fn done_or_served(&self, mut command: Command) {
        let output = command.output().unwrap();
        let said = told(&output);
        let serves = ["the cluster serves", "serves: there is nothing to replace"];
        let serves = serves.iter().any(|it| said.contains(it));
        assert!(output.status.success() || serves, "{said}");
    }

    /// Does something once a command has said so many lines, and waits until it has ended; whether it said so many.
    pub fn after(&self, command: Command, lines: usize, then: impl FnOnce(&mut Child)) -> bool {
        self.after_for(command, lines, then, |_| {})
    }

    /// And something else soon after, while it goes on.
    pub fn after_for(
        &self,
        mut command: Command,
        lines: usize,
        then: impl FnOnce(&mut Child),
        later: impl FnOnce(&mut Child),
    ) -> bool {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let heard = said.by_ref().take(lines).count();
        if heard == lines {
            then(&mut child);
            std::thread::scope(|threads| {
                // Whoever says more and is not heard would wait for that.
                threads.spawn(|| said.for_each(drop));
                let until = Instant::now() + CUT_FOR;
                while Instant::now() < until && child.try_wait().unwrap().is_none() {
                    std::thread::park_timeout(LOOK_EVERY);
                }
                later(&mut child);
                child.wait().unwrap();
            });
        }
        child.wait().unwrap();
        heard == lines
    }

    pub fn save(&self) {
        let output = self.here(&["save", &self.archive()]);
        assert!(output.status.success(), "{}", told(&output));
    }

    pub fn fill(&self, keys: usize) {
        self.put_on(&(0..self.members).collect::<Vec<_>>(), keys);
    }

    fn etcdctl(&self, hosts: &[usize], words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(Version::LATEST.binary("etcdctl"));
        let endpoints: Vec<_> =
            hosts.iter().map(|host| &*self.hosts.host(*host).client_url).collect();
        command.arg(format!("--endpoints={}", endpoints.join(",")));
        command.args(self.certificates.flags()).args(words).stdin(Stdio::null());
        let output = command.output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(told(&output)),
        }
    }

    /// More keys, by way of some of the hosts.
    pub fn put_on(&self, hosts: &[usize], keys: usize) {
        for _ in 0..keys {
            let key = format!("/{}", self.keys.fetch_add(1, Ordering::Relaxed));
            self.eventually(&key, || self.etcdctl(hosts, &["put", &key, "value"]).map(drop));
        }
    }

    fn eventually(&self, what: &str, mut done: impl FnMut() -> Result<(), String>) {
        let deadline = Instant::now() + WITHIN;
        while let Err(why) = done() {
            assert!(Instant::now() < deadline, "{what}: {why}");
            std::thread::park_timeout(LOOK_EVERY);
        }
    }

    pub fn leader(&self) -> usize {
        let leader = |host: &usize| {
            let said = self.etcdctl(&[*host], &["endpoint", "status", "-w=json"]).unwrap();
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            let status = &said[0]["Status"];
            status["leader"] == status["header"]["member_id"]
        };
        (0..self.members).find(leader).expect("one leads")
    }

    pub fn wait_until_nobody_serves(&self) {
        self.eventually("nobody serves", || {
            let seen = told(&self.here(&["check"]));
            let nobody = format!("0 of {} voting members serve", self.members);
            if seen.contains(&nobody) { Ok(()) } else { Err(seen) }
        });
    }

    /// All serve, have all keys, and are one cluster with one history.
    #[track_caller]
    pub fn is_whole(&self, keys: usize) {
        self.eventually("all are one", || {
            let deep = told(&self.here(&["check", "--deep"]));
            let all = format!("{0} of {0} voting members serve", self.members);
            if deep.contains(&all) && !deep.contains("different") { Ok(()) } else { Err(deep) }
        });
        for host in 0..self.members {
            let mut found = String::new();
            // Who leads may change yet.
            self.eventually("it is read", || {
                let get = ["get", "--prefix", "/", "--count-only", "-w=fields"];
                self.etcdctl(&[host], &get).map(|said| found = said)
            });
            assert!(found.contains(&format!("\"Count\" : {keys}\n")), "m{host}: {keys}\n{found}");
        }
        assert_eq!(keys, self.keys.load(Ordering::Relaxed), "what was acknowledged");
    }
}
