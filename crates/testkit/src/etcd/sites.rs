//! Where a cluster's members are: names, URLs, data directories. Known before anything starts, so
//! that a restore can be told.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Members, scratch};
use crate::ports::HeldPort;

/// The places of a cluster's members, in one temporary directory, with their ports held.
#[derive(Debug)]
pub struct Sites {
    dir: TempDir,
    sites: Vec<Site>,
}

/// The place of one member.
#[derive(Debug)]
pub struct Site {
    name: String,
    scheme: &'static str,
    client_port: u16,
    peer_port: u16,
    data_dir: PathBuf,
    held: Vec<HeldPort>,
}

impl Sites {
    /// Places for members called `m0`, `m1` and so on.
    pub fn new(members: Members) -> Self {
        let dir = scratch("rekindle-etcd-");
        let sites = (0..members.0).map(|index| Site::new(dir.path(), index)).collect();
        Self { dir, sites }
    }

    /// The directory in which member `NAME` has its data directory `NAME`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Every place, in the order of the names.
    pub fn iter(&self) -> std::slice::Iter<'_, Site> {
        self.sites.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Site> {
        self.sites.iter_mut()
    }

    /// The value of `--initial-cluster`: `m0=http://…,m1=http://…`.
    pub fn initial_cluster(&self) -> String {
        let pairs: Vec<_> =
            self.sites.iter().map(|site| format!("{}={}", site.name, site.peer_url())).collect();
        pairs.join(",")
    }
}

impl Site {
    fn new(dir: &Path, index: usize) -> Self {
        let (client, peer) = (HeldPort::new(), HeldPort::new());
        let name = format!("m{index}");
        Self {
            scheme: "http",
            client_port: client.number(),
            peer_port: peer.number(),
            data_dir: dir.join(&name),
            held: vec![client, peer],
            name,
        }
    }

    /// The member's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL that it listens on for clients.
    pub fn client_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    /// The URL that it listens on for its peers.
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(super) fn client_port(&self) -> u16 {
        self.client_port
    }

    pub(super) fn log_path(&self) -> PathBuf {
        // Beside the data directory, which must hold nothing of ours.
        self.data_dir.with_extension("log")
    }

    pub(super) fn serve_tls(&mut self) {
        self.scheme = "https";
    }

    pub(super) fn release_ports(&mut self) {
        self.held.drain(..).for_each(HeldPort::release);
    }
}
