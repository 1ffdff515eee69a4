//! Real etcd clusters on loopback ports, and the etcdctl and etcdutl of the same version.
//!
//! A cluster is ready when each member has answered a linearizable read through its own client
//! port. Its processes end with it, and no process is ever ended that was not started here. When a
//! test fails, the members' logs are printed.
//!
//! ```no_run
//! use rekindle_testkit::{Version, etcd::{Cluster, Members}};
//!
//! let cluster = Cluster::start(Version::V3_6, Members(3));
//! cluster.etcdctl(["put", "a", "1"]);
//! cluster.member(0).kill();
//! ```

mod ctl;
mod health;
mod hosts;
mod member;
mod sites;

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::Version;
use crate::certs::{Ca, CertFiles, Leaf};
use member::{Launch, StartFailure};

pub use ctl::etcdutl;
pub use hosts::{Certificates, Host, Hosts};
pub use member::Member;
pub use sites::{Site, Sites};

/// How long a cluster may take to start: far more than it needs, for a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How often a start is repeated because another process took one of its ports.
const PORT_ATTEMPTS: u32 = 5;

/// The user that [`Setup::auth`] creates, with the root role.
pub const ROOT_USER: &str = "root";

/// That user's password.
pub const ROOT_PASSWORD: &str = "correct-horse";

/// How many members a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Members(pub usize);

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    version: Version,
    // Before the directory that it lives in: fields are dropped in this order.
    members: Vec<Member>,
    sites: Sites,
    tls: Option<Tls>,
    auth: bool,
}

impl Cluster {
    /// Starts a new cluster over plain HTTP, without authentication.
    pub fn start(version: Version, members: Members) -> Self {
        Self::with(version).members(members).start()
    }

    /// Begins the description of a cluster; one member unless told otherwise.
    pub fn with(version: Version) -> Setup {
        Setup {
            version,
            members: Members(1),
            sites: None,
            tls: None,
            auth: Auth::Off,
            durable: false,
            also_listen: None,
            flags: Vec::new(),
        }
    }

    /// The version that runs.
    pub fn version(&self) -> Version {
        self.version
    }

    /// One member, numbered from 0 in the order of their names.
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// Every member.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Every member's client URL.
    pub fn client_urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_url().to_owned()).collect()
    }

    /// Where the members are: names, URLs, data directories.
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// etcdctl with everything it needs to reach this cluster, for a test that wants to see how it
    /// ends.
    pub fn etcdctl_command(&self) -> Command {
        self.etcdctl_at(&self.client_urls().join(","))
    }

    /// Runs etcdctl against all members and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn etcdctl<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> String {
        ctl::run(self.etcdctl_command().args(args.into_iter().map(Into::into)))
    }

    /// Runs etcdctl against all members with `-w json`.
    ///
    /// # Panics
    /// When it fails, or prints something else.
    pub fn etcdctl_json<A: Into<OsString>>(&self, args: impl IntoIterator<Item = A>) -> Value {
        let mut command = self.etcdctl_command();
        ctl::run_json(command.args(["-w", "json"]).args(args.into_iter().map(Into::into)))
    }

    /// etcdctl for one member alone.
    pub fn etcdctl_for(&self, member: &Member) -> Command {
        self.etcdctl_at(member.client_url())
    }

    fn etcdctl_at(&self, endpoints: &str) -> Command {
        let mut command = ctl::etcdctl(self.version, endpoints);
        if let Some(tls) = &self.tls {
            tls.add_client_flags(&mut command);
        }
        if self.auth {
            command.arg(format!("--user={ROOT_USER}:{ROOT_PASSWORD}"));
        }
        command
    }

    fn enable_auth(&mut self) {
        self.etcdctl(["user", "add", &format!("{ROOT_USER}:{ROOT_PASSWORD}")]);
        self.etcdctl(["user", "grant-role", ROOT_USER, "root"]);
        self.etcdctl(["auth", "enable"]);
        self.auth = true;
    }
}

/// How the members serve TLS to clients. Between themselves they always speak plain HTTP.
#[derive(Debug, Clone)]
struct Tls {
    server: CertFiles,
    /// Whose client certificates are demanded, if any are.
    client_ca: Option<std::path::PathBuf>,
    /// What the harness itself presents.
    harness: CertFiles,
}

impl Tls {
    fn server_args(&self) -> Vec<String> {
        let mut args = vec![
            format!("--cert-file={}", self.server.cert.display()),
            format!("--key-file={}", self.server.key.display()),
        ];
        if let Some(ca) = &self.client_ca {
            args.push("--client-cert-auth".to_owned());
            args.push(format!("--trusted-ca-file={}", ca.display()));
        }
        args
    }

    fn add_client_flags(&self, command: &mut Command) {
        // A test may have chosen a certificate that nobody should accept.
        command.arg("--insecure-skip-tls-verify");
        command.arg("--cert").arg(&self.harness.cert).arg("--key").arg(&self.harness.key);
    }
}

/// What is to be done about authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Auth {
    Off,
    Enable,
    On,
}

/// What a cluster shall be like. [`Setup::start`] starts it.
#[derive(Debug)]
pub struct Setup {
    version: Version,
    members: Members,
    sites: Option<Sites>,
    tls: Option<Tls>,
    auth: Auth,
    durable: bool,
    also_listen: Option<String>,
    flags: Vec<String>,
}

impl Setup {
    /// Sets the number of members.
    pub fn members(self, members: Members) -> Self {
        Self { members, ..self }
    }

    /// Uses these names, URLs and data directories instead of new ones: for data directories that
    /// exist already, such as restored ones.
    pub fn on(self, sites: Sites) -> Self {
        Self { members: Members(sites.len()), sites: Some(sites), ..self }
    }

    /// Serves clients over TLS with this certificate.
    pub fn tls(self, ca: &Ca, server: &CertFiles) -> Self {
        let harness = ca.issue("harness", &Leaf::client("harness"));
        let tls = Tls { server: server.clone(), client_ca: None, harness };
        Self { tls: Some(tls), ..self }
    }

    /// Serves clients over TLS and demands certificates of them that `ca` signed.
    pub fn mutual_tls(self, ca: &Ca, server: &CertFiles) -> Self {
        let mut setup = self.tls(ca, server);
        if let Some(tls) = &mut setup.tls {
            tls.client_ca = Some(ca.path());
        }
        setup
    }

    /// Creates [`ROOT_USER`] and turns authentication on.
    pub fn auth(self) -> Self {
        Self { auth: Auth::Enable, ..self }
    }

    /// Says that authentication is on already, with [`ROOT_USER`], in the data directories that
    /// are used.
    pub fn auth_is_on(self) -> Self {
        Self { auth: Auth::On, ..self }
    }

    /// Lets the servers sync their files, which they otherwise do not where they can be told.
    pub fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    /// Serves clients at this URL too, for a cluster of one.
    pub fn also_listen(self, url: impl Into<String>) -> Self {
        Self { also_listen: Some(url.into()), ..self }
    }

    /// Adds a flag to every member's command line.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Starts the cluster and waits until every member answers.
    ///
    /// # Panics
    /// When a member ends, or does not answer in time.
    pub fn start(mut self) -> Cluster {
        crate::install_crypto_provider();
        if let Some(sites) = self.sites.take() {
            return self.start_on(sites).unwrap_or_else(|failure| panic!("{failure}"));
        }
        for _ in 1..PORT_ATTEMPTS {
            match self.start_on(Sites::new(self.members)) {
                Err(StartFailure::AddressInUse(_)) => {}
                started => return started.unwrap_or_else(|failure| panic!("{failure}")),
            }
        }
        self.start_on(Sites::new(self.members)).unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// Starts what must not start, and returns what the first member to end has said.
    ///
    /// # Panics
    /// When every member answers.
    pub fn start_in_vain(mut self) -> String {
        crate::install_crypto_provider();
        let sites = self.sites.take().unwrap_or_else(|| Sites::new(self.members));
        match self.start_on(sites) {
            Ok(cluster) => panic!("{} has started", cluster.version),
            Err(failure) => failure.to_string(),
        }
    }

    fn start_on(&self, mut sites: Sites) -> Result<Cluster, StartFailure> {
        let probe = health::Probe::new(self.tls.as_ref().map(|tls| &tls.harness));
        let initial_cluster = sites.initial_cluster();
        let mut members = Vec::with_capacity(sites.len());
        for site in sites.iter_mut() {
            if self.tls.is_some() {
                site.serve_tls();
            }
            let launch = Launch {
                binary: self.version.binary("etcd"),
                args: self.arguments(site, &initial_cluster),
                log: site.log_path(),
            };
            site.release_ports();
            members.push(Member::launch(site, launch, probe.clone()));
        }
        let deadline = std::time::Instant::now() + START_DEADLINE;
        for member in &members {
            member.wait_ready(deadline)?;
        }
        let version = self.version;
        let auth = self.auth == Auth::On;
        let mut cluster = Cluster { version, members, sites, tls: self.tls.clone(), auth };
        if self.auth == Auth::Enable {
            cluster.enable_auth();
        }
        Ok(cluster)
    }

    fn arguments(&self, site: &Site, initial_cluster: &str) -> Vec<String> {
        let client_url = site.client_url();
        let also = self.also_listen.as_ref().map(|url| format!(",{url}")).unwrap_or_default();
        let mut args = vec![
            format!("--name={}", site.name()),
            format!("--data-dir={}", site.data_dir().display()),
            format!("--listen-client-urls={client_url}{also}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls={}", site.peer_url()),
            format!("--initial-advertise-peer-urls={}", site.peer_url()),
            format!("--initial-cluster={initial_cluster}"),
            "--initial-cluster-token=testkit".to_owned(),
            // Elections in tenths of a second; not less, or a busy machine holds them all day.
            "--heartbeat-interval=30".to_owned(),
            "--election-timeout=300".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        if self.version == Version::V3_4 {
            args.push("--logger=zap".to_owned());
        } else if !self.durable {
            args.push("--unsafe-no-fsync".to_owned());
        }
        args.extend(self.tls.iter().flat_map(Tls::server_args));
        args.extend(self.flags.iter().cloned());
        args
    }
}

/// A temporary directory for a test's files.
pub(crate) fn scratch(prefix: &str) -> TempDir {
    TempDir::with_prefix(prefix).expect("a temporary directory")
}
