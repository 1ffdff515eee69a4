//! The etcd member of this host: where its data lie, and what starts and stops it.

pub(crate) mod local;
mod on_host;
mod reconfigure;
mod replace;
mod replay;

pub(crate) use local::{Newer, SeenData, voters};
pub(crate) use on_host::{OnHostArgs, Seen, Staged, run as on_host};
pub(crate) use reconfigure::{ReconfigureArgs, run as reconfigure};
pub(crate) use replace::{ReplaceArgs, run as replace};

use crate::args::ConnectArgs;
use crate::configured;
use crate::failure::{Code, Failure};
use crate::manifest::{KUBEADM, Manifest};
use crate::restore::resolve;
use clap::Args as ClapArgs;
use rekindle_datadir::{Error, Fence, Place, RealDisk};
use rekindle_recovery::host::{Fault, Host, manifest_now};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const HEADING: &str = "This host's member";
/// How long an etcd may take to end once it was told to.
const ENDS_WITHIN: Duration = Duration::from_secs(90);
/// And how long it may still be heard after it was told.
const SILENT_WITHIN: Duration = Duration::from_secs(15);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Flags in which the hosts of a cluster should agree.
const COMPARED: [&str; 3] =
    ["quota-backend-bytes", "auto-compaction-mode", "auto-compaction-retention"];
/// Whatever starts it again and again may do so between stop and fence: then it is stopped anew.
const STOPS: usize = 20;

/// The etcd member of this host. A static pod's manifest says it all; else a configuration's `member`, or flags.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct MemberArgs {
    /// Its name.
    #[arg(long, help_heading = HEADING)]
    pub name: Option<String>,
    /// Its data directory.
    #[arg(long, value_name = "DIR", help_heading = HEADING)]
    pub data_dir: Option<PathBuf>,
    /// Its log, where that has a directory of its own.
    #[arg(long, value_name = "DIR", help_heading = HEADING)]
    pub wal_dir: Option<PathBuf>,
    /// Where its peers reach it, separated by commas.
    #[arg(long, value_name = "URLS", help_heading = HEADING)]
    pub initial_advertise_peer_urls: Option<String>,
    /// Unit of systemd that runs it.
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["start_command", "stop_command"], help_heading = HEADING)]
    pub unit: Option<String>,
    /// Command of your own that starts it, for /bin/sh: what it is to be is in ETCD_INITIAL_CLUSTER and the like.
    #[arg(long, value_name = "COMMAND", requires = "stop_command", help_heading = HEADING)]
    pub start_command: Option<String>,
    /// Command of your own that stops it, and keeps whatever starts it anew from that.
    #[arg(long, value_name = "COMMAND", requires = "start_command", help_heading = HEADING)]
    pub stop_command: Option<String>,
}

/// The words of a step on a host, behind `rekindle on-host`.
#[derive(Clone, Debug)]
pub(crate) struct HostStepWords(pub Vec<OsString>);

impl HostStepWords {
    pub(crate) fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self(words.into_iter().map(OsString::from).collect())
    }

    pub(crate) fn add<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.0.extend(words.into_iter().map(OsString::from));
    }
}

/// It, found.
#[derive(Clone, Debug)]
pub(crate) struct Here {
    pub name: String,
    pub peer_urls: Vec<String>,
    pub place: Place,
    pub host: Host,
    /// Those of [`COMPARED`] that its manifest has.
    pub flags: BTreeMap<String, String>,
}

impl MemberArgs {
    /// The same for who neither stops nor starts it.
    pub(crate) fn find_place(&self, connect: &ConnectArgs) -> Result<Here, Failure> {
        self.find(connect).or_else(|_| {
            let unit = self.unit.clone().or_else(|| Some("etcd.service".to_owned()));
            let unit = unit.filter(|_| self.start_command.is_none());
            Self { unit, ..self.clone() }.find(connect)
        })
    }

    /// Finds it: flags, then the configuration, then the manifest.
    pub(crate) fn find(&self, connect: &ConnectArgs) -> Result<Here, Failure> {
        let configured = configured::cluster();
        let member = configured.and_then(|cluster| cluster.member.as_ref());
        let runs_else = self.unit.is_some() || self.start_command.is_some() || member.is_some();
        let implied =
            || (!runs_else && manifest_now(Path::new(KUBEADM)).exists()).then(|| KUBEADM.into());
        let path = connect.from_manifest.clone();
        let path = path.or_else(|| configured?.manifest.clone()).or_else(implied);
        let manifest = path.as_deref().map(Manifest::read).transpose()?;
        let flag = |name: &str| manifest.as_ref()?.flag(name).map(str::to_owned);
        let missing = |what: &str, flag: &str| {
            Failure::usage(format!("nothing says {what} of this host's member"))
                .remedy(format!("give {flag}, or member in the configuration, or --from-manifest"))
        };
        let name = self.name.clone().or_else(|| Some(member?.name.clone()));
        let name = name.or_else(|| flag("name")).ok_or_else(|| missing("the name", "--name"))?;
        let given = self.initial_advertise_peer_urls.clone();
        let given = given.or_else(|| Some(member?.peer_urls.join(",")));
        let urls = given.or_else(|| flag("initial-advertise-peer-urls"));
        let urls = urls.ok_or_else(|| missing("the peer URLs", "--initial-advertise-peer-urls"))?;
        let listed = |name| manifest.as_ref().and_then(|manifest| manifest.path_flag(name));
        let data_dir = self.data_dir.clone().or_else(|| Some(member?.data_dir.clone()));
        let data_dir = data_dir.or_else(|| listed("data-dir"));
        let data_dir = data_dir.ok_or_else(|| missing("the data directory", "--data-dir"))?;
        let wal_dir = self.wal_dir.clone().or_else(|| member?.wal_dir.clone());
        let wal_dir = wal_dir.or_else(|| listed("wal-dir"));
        let unit = self.unit.clone().or_else(|| member?.unit.clone());
        let commands = self.start_command.clone().zip(self.stop_command.clone());
        let commands = commands.or_else(|| {
            let member = member?;
            member.start.clone().zip(member.stop.clone())
        });
        let host = match (commands, unit, path) {
            (Some((start, stop)), ..) => Host::Command { start, stop },
            (None, Some(unit), _) => Host::Systemd { unit },
            (None, None, Some(manifest)) => Host::StaticPod { manifest },
            (None, None, None) => {
                return Err(Failure::usage(
                    "nothing says what starts and stops this host's member",
                )
                .remedy("give --unit, or --start-command and --stop-command"));
            }
        };
        let peer_urls = urls.split(',').map(|url| url.trim().to_owned()).collect();
        let flags = COMPARED.iter().filter_map(|name| Some(((*name).to_owned(), flag(name)?)));
        let flags = flags.collect();
        Ok(Here { name, peer_urls, place: resolve(&data_dir, wal_dir.as_deref())?, host, flags })
    }
}

impl Here {
    /// Stops the etcd, waits until it has ended, and fences its data directory.
    pub(crate) fn fence(&self, id: &str, why: &str) -> Result<(), Failure> {
        let fence = Fence::new(&self.place, id)?;
        for left in (0..STOPS).rev() {
            self.host.stop()?;
            let until = Instant::now() + ENDS_WITHIN;
            while local::runs(&self.place)? && Instant::now() < until {
                std::thread::sleep(LOOK_EVERY);
            }
            match fence.put(&RealDisk, why) {
                Err(Error::InUse { .. }) if left > 0 => {}
                put => {
                    put?;
                    break;
                }
            }
        }
        self.wait_until_silent();
        Ok(())
    }

    /// One whose files are gone holds no lock, and serves until it has ended. Who still answers then is somebody else.
    fn wait_until_silent(&self) {
        let until = Instant::now() + SILENT_WITHIN;
        let answers = |url: &String| {
            let address = url.split_once("://").map_or(&**url, |(_, rest)| rest);
            let found = address.trim_end_matches('/').to_socket_addrs();
            found.is_ok_and(|mut found| {
                found.any(|address| TcpStream::connect_timeout(&address, CONNECT_WITHIN).is_ok())
            })
        };
        while self.peer_urls.iter().any(answers) && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let failure = Self::new(Code::Failed, fault.to_string());
        match fault {
            Fault::Io { path, doing, cause } => Self::io(doing, &path, &cause),
            Fault::Command { .. } => failure.remedy(
                "mend what it says; then run the same command again: it goes on where it was",
            ),
            _ => failure,
        }
    }
}
