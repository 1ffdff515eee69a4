//! Hosts with a network of their own: each in a network namespace, on one bridge, with an sshd, and a link that can be cut.
//!
//! For processes that are root in a network and a mount namespace of their own (`unshare --net --mount`): nothing of the
//! machine's network is touched, and all of it goes with them.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Of documentation (RFC 5737): no machine has it.
const NET: &str = "192.0.2";
const BRIDGE: &str = "hub";
const SSHD: &str = "/usr/sbin/sshd";
const SSH_WITHIN: Duration = Duration::from_secs(20);

/// The hosts' network. This process is on its bridge, and reaches all of them.
#[derive(Debug)]
pub struct Network {
    hosts: usize,
    directory: tempfile::TempDir,
    sshd: Vec<Child>,
}

impl Network {
    /// Makes it.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new(hosts: usize) -> Self {
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
        fs::create_dir_all("/run/netns").unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", BRIDGE, "type", "bridge"]);
        run("ip", &["addr", "add", &format!("{NET}.1/24"), "dev", BRIDGE]);
        run("ip", &["link", "set", BRIDGE, "up"]);
        let directory = tempfile::tempdir().unwrap();
        let mut this = Self { hosts, directory, sshd: Vec::new() };
        for host in 0..hosts {
            this.add(host);
        }
        this.start_sshd();
        this
    }

    fn add(&self, host: usize) {
        let (name, link) = (Self::name(host), Self::link(host));
        run("ip", &["netns", "add", &name]);
        run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &name]);
        run("ip", &["link", "set", &link, "master", BRIDGE, "up"]);
        let address = format!("{}/24", self.address(host));
        run("ip", &["-n", &name, "addr", "add", &address, "dev", "eth0"]);
        run("ip", &["-n", &name, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
    }

    fn name(host: usize) -> String {
        format!("m{host}")
    }

    fn link(host: usize) -> String {
        format!("to-m{host}")
    }

    /// Where a host is.
    ///
    /// # Panics
    /// Where there is none of this number.
    #[must_use]
    pub fn address(&self, host: usize) -> String {
        assert!(host < self.hosts);
        format!("{NET}.{}", 11 + host)
    }

    /// The words before a command that is to run on a host.
    #[must_use]
    pub fn on(&self, host: usize) -> String {
        assert!(host < self.hosts);
        format!("ip netns exec {}", Self::name(host))
    }

    /// A command on a host.
    #[must_use]
    pub fn command(&self, host: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &Self::name(host), program]);
        command
    }

    /// Its cable is pulled: whatever is sent is lost, and nobody is told.
    pub fn cut(&self, host: usize) {
        run("ip", &["link", "set", &Self::link(host), "nomaster"]);
    }

    /// And put back.
    pub fn mend(&self, host: usize) {
        run("ip", &["link", "set", &Self::link(host), "master", BRIDGE]);
    }

    /// Two of them hear nothing of each other any more; all others hear both.
    pub fn part(&self, one: usize, other: usize) {
        for (here, there) in [(one, other), (other, one)] {
            let (name, address) = (Self::name(here), self.address(there));
            run("ip", &["-n", &name, "route", "add", "blackhole", &address]);
        }
    }

    /// They do again.
    pub fn join(&self, one: usize, other: usize) {
        for (here, there) in [(one, other), (other, one)] {
            let (name, address) = (Self::name(here), self.address(there));
            run("ip", &["-n", &name, "route", "del", "blackhole", &address]);
        }
    }

    /// What reaches a host as root, by its address.
    #[must_use]
    pub fn ssh(&self) -> String {
        format!("ssh -F {}", self.path("ssh_config").display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One on each host. What is run there has the host's name in `$NAME`.
    fn start_sshd(&mut self) {
        let (host_key, key) = (self.path("host_key"), self.path("key"));
        for key in [&host_key, &key] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key.display().to_string()]);
        }
        fs::copy(key.with_extension("pub"), self.path("authorized")).unwrap();
        let config = format!(
            "User root\nIdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n\
             LogLevel ERROR\nConnectTimeout 3\nServerAliveInterval 1\nServerAliveCountMax 3\n",
            key.display()
        );
        fs::write(self.path("ssh_config"), config).unwrap();
        for host in 0..self.hosts {
            let name = Self::name(host);
            let config = self.path(&format!("sshd-{name}"));
            let text = format!(
                "ListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
                 PidFile none\nSetEnv NAME={name}\n",
                self.address(host),
                host_key.display(),
                self.path("authorized").display()
            );
            fs::write(&config, text).unwrap();
            let mut sshd = self.command(host, SSHD);
            sshd.args(["-D", "-e", "-f"]).arg(config).stdin(Stdio::null()).stderr(Stdio::null());
            self.sshd.push(sshd.spawn().expect("sshd is installed"));
        }
        for host in 0..self.hosts {
            let deadline = Instant::now() + SSH_WITHIN;
            while TcpStream::connect((self.address(host), 22)).is_err() {
                assert!(Instant::now() < deadline, "no sshd on m{host}");
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for sshd in &mut self.sshd {
            let _ = sshd.kill();
            let _ = sshd.wait();
        }
        let ended = |words: &[&str]| Command::new("ip").args(words).status();
        for host in 0..self.hosts {
            let _ = ended(&["link", "del", &Self::link(host)]);
            let _ = ended(&["netns", "del", &Self::name(host)]);
        }
        let _ = ended(&["link", "del", BRIDGE]);
    }
}

#[track_caller]
fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {said}");
}
