//! What is done on one host while a whole cluster is brought back: small steps, each of which can be taken again. The host
//! that brings it back runs these on all, over the user's own ssh.

use super::local::SeenData;
use super::replay::replay;
use super::{Here, MemberArgs, local};
use crate::args::{Args, Command, ConnectArgs};
use crate::drill::in_path;
use crate::failure::{Code, Failure};
use crate::output;
use crate::source::Source;
use clap::{Args as ClapArgs, Parser, Subcommand};
use rekindle_datadir::{Fence, Fenced, RealDisk, fence_at};
use rekindle_etcd::digest::SnapshotDigest;
use rekindle_etcd::{Backend, HashRequest, Revision};
use rekindle_recovery::host::Settings;
use rekindle_recovery::replace::Local;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one that was started may take until its process is there.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const QUOTA: &str = "quota-backend-bytes";
/// Where it has no such flag (etcd `server/storage/quota.go`).
const QUOTA_DEFAULT: u64 = 2 << 30;

/// Take one step on this host: what rekindle recover runs, here and over ssh.
#[derive(Debug, ClapArgs)]
pub(crate) struct OnHostArgs {
    #[command(subcommand)]
    pub step: HostStep,
    #[command(flatten)]
    pub member: MemberArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostStep {
    /// Say what is there, as JSON.
    Look {
        /// Of this recovery.
        #[arg(long)]
        id: String,
        /// And what its data have changed behind this revision.
        #[arg(long)]
        since: Option<i64>,
    },
    /// Stop etcd, and fence its data directory.
    Fence {
        #[arg(long)]
        id: String,
    },
    /// Print the database that was set aside.
    Send {
        #[arg(long)]
        id: String,
        /// Has it apply first what the log has committed.
        #[arg(long)]
        etcd: Option<PathBuf>,
    },
    /// Keep a database that comes in, to restore it.
    Receive {
        #[arg(long)]
        id: String,
    },
    /// Restore beside the fence.
    Stage {
        #[arg(long)]
        id: String,
        /// What it is restored from, in words that are compared.
        #[arg(long)]
        from: String,
        #[arg(long)]
        initial_cluster: String,
        /// Source and flags of rekindle restore.
        #[arg(last = true, allow_hyphen_values = true)]
        restore: Vec<OsString>,
    },
    /// Put what was restored in place, and start it.
    Open {
        #[arg(long)]
        id: String,
        #[arg(long)]
        initial_cluster: String,
    },
    /// Start it again with the data that it has, if they are good.
    Start,
    /// It serves: let those run again that read it and were stopped with it.
    Finish {
        #[arg(long)]
        id: String,
    },
    /// Take all back; what has run before is started again.
    Undo {
        #[arg(long)]
        id: String,
    },
}

/// What a host says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seen {
    pub name: String,
    pub peer_urls: Vec<String>,
    pub data_dir: PathBuf,
    pub stops: String,
    pub starts: String,
    pub runs: bool,
    /// What it was restored from already, if it was.
    pub restored_from: Option<String>,
    /// It is in place.
    pub opened: bool,
    pub data: Option<SeenData>,
    /// Flags of its etcd in which hosts should agree.
    pub flags: BTreeMap<String, String>,
    /// An etcd that could apply what its log has and its database has not.
    pub etcd: Option<PathBuf>,
    /// Why its data cannot be read, or are not good.
    pub fault: Option<String>,
}

pub(crate) fn run(args: &OnHostArgs) -> Result<(), Failure> {
    let here = args.member.find(&args.connect)?;
    match &args.step {
        HostStep::Look { id, since } => say(&look(&here, id, since.and_then(Revision::new))?),
        HostStep::Fence { id } => fence(&here, id),
        HostStep::Send { id, etcd } => send(&here, id, etcd.as_deref()),
        HostStep::Receive { id } => receive(&here, id),
        HostStep::Stage { id, from, initial_cluster, restore } => {
            stage(&here, id, from, initial_cluster, restore)
        }
        HostStep::Open { id, initial_cluster } => {
            Fence::new(&here.place, id)?.open(&RealDisk)?;
            let settings = [
                ("initial-cluster", initial_cluster.clone()),
                ("initial-cluster-state", "existing".to_owned()),
            ];
            start(&here, &Settings::from(settings))
        }
        HostStep::Start => start_again(&here),
        HostStep::Finish { id } => finish(&here, id),
        HostStep::Undo { id } => undo(&here, id),
    }
}

/// Where its data are: in place, or set aside by this recovery.
fn data_of(here: &Here, fence: &Fence<'_>) -> Result<(PathBuf, Option<PathBuf>), Failure> {
    Ok(match fence.state(&RealDisk)? {
        Fenced::No => {
            (here.place.data_dir.clone(), here.place.wal.as_ref().map(|wal| wal.wal_dir.clone()))
        }
        Fenced::Yes | Fenced::Opened => (fence.set_aside(), fence.set_aside_wal()),
    })
}

/// As JSON, in a line of its own.
fn say(what: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(what);
    let failed = |error: serde_json::Error| Failure::new(Code::Failed, error.to_string());
    output::print(&format!("{}\n", text.map_err(failed)?))
}

fn look(here: &Here, id: &str, since: Option<Revision>) -> Result<Seen, Failure> {
    let fence = Fence::new(&here.place, id)?;
    let (stops, starts) = here.host.words();
    let runs = local::runs(&here.place)?;
    let restored_from = std::fs::read_to_string(note(&fence)).ok();
    let opened = restored_from.is_some() && fence_at(&RealDisk, &here.place)?.is_none();
    let found = match runs && !opened {
        true => Err("its etcd runs".to_owned()),
        false => data_of(here, &fence)
            .and_then(|(data, wal)| local::facts(&data, wal.as_deref(), since))
            .map_err(|failure| failure.what),
    };
    let (data, fault) = match found {
        Ok((data, fault)) => (Some(data), fault),
        Err(fault) => (None, Some(fault)),
    };
    Ok(Seen {
        name: here.name.clone(),
        peer_urls: here.peer_urls.clone(),
        data_dir: here.place.data_dir.clone(),
        stops,
        starts,
        runs,
        restored_from,
        opened,
        data,
        flags: here.flags.clone(),
        etcd: in_path(Path::new("etcd")),
        fault,
    })
}

/// What was restored on a host: each has to have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Staged {
    pub revision: i64,
    /// -1 where nothing is compacted, as etcd has it.
    pub compact_revision: i64,
    /// Its HashKV, as an etcd will give it.
    pub hash: u32,
    /// Keys by kind.
    pub kinds: BTreeMap<String, u64>,
}

fn fence(here: &Here, id: &str) -> Result<(), Failure> {
    match Fence::new(&here.place, id)?.state(&RealDisk)? {
        Fenced::Opened => Ok(()),
        Fenced::No | Fenced::Yes => {
            here.fence(id, "The whole cluster is being brought back: rekindle recover.")
        }
    }
}

/// What it is.
fn proof(fence: &Fence<'_>) -> PathBuf {
    fence.staged_data_dir().with_added_extension("proof")
}

/// What is said of what was restored.
fn note(fence: &Fence<'_>) -> PathBuf {
    fence.staged_data_dir().with_added_extension("from")
}

/// A database that has come over.
fn received(fence: &Fence<'_>) -> PathBuf {
    fence.staged_data_dir().with_added_extension("db")
}

/// With its digest, as a snapshot: whoever gets it sees whether it is whole.
fn send(here: &Here, id: &str, etcd: Option<&Path>) -> Result<(), Failure> {
    let fence = Fence::new(&here.place, id)?;
    let (data, wal) = data_of(here, &fence)?;
    let replayed = etcd.map(|etcd| replay(&data, wal.as_deref(), etcd)).transpose()?;
    let path = data.join("member/snap/db");
    let path = if path.exists() { path } else { data.join("snap/db") };
    let path = replayed.as_ref().map_or(path, |replayed| replayed.database.clone());
    let mut file =
        std::fs::File::open(&path).map_err(|error| Failure::io("opening", &path, &error))?;
    let (mut digest, mut bytes) = (SnapshotDigest::new(), vec![0; 1 << 20]);
    let mut out = std::io::stdout().lock();
    let failed = |error| Failure::io("sending", &path, &error);
    loop {
        match file.read(&mut bytes).map_err(failed)? {
            0 => break,
            read => {
                digest.update(&bytes[..read]);
                out.write_all(&bytes[..read]).map_err(failed)?;
            }
        }
    }
    out.write_all(&digest.of_all().0).and_then(|()| out.flush()).map_err(failed)
}

fn receive(here: &Here, id: &str) -> Result<(), Failure> {
    let path = received(&Fence::new(&here.place, id)?);
    let failed = |error| Failure::io("writing", &path, &error);
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create(true).truncate(true).open(&path).map_err(failed)?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn stage(
    here: &Here,
    id: &str,
    from: &str,
    initial_cluster: &str,
    restore: &[OsString],
) -> Result<(), Failure> {
    let fence = Fence::new(&here.place, id)?;
    if fence.state(&RealDisk)? == Fenced::Opened {
        let proof = std::fs::read_to_string(proof(&fence));
        let proof = proof.map_err(|error| Failure::io("reading", &note(&fence), &error))?;
        return output::print(&proof);
    }
    fence.clear_staged(&RealDisk)?;
    let mut words: Vec<OsString> = ["rekindle", "restore"].map(OsString::from).to_vec();
    let received = received(&fence);
    match restore.first().filter(|first| *first != "-") {
        Some(_) => words.extend_from_slice(restore),
        None => words.push(received.clone().into()),
    }
    let mut add = |flag: &str, value: &std::ffi::OsStr| {
        words.extend([OsString::from(flag), value.to_owned()]);
    };
    add("--name", here.name.as_ref());
    add("--initial-cluster", initial_cluster.as_ref());
    add("--initial-cluster-token", id.as_ref());
    add("--data-dir", fence.staged_data_dir().as_os_str());
    if let Some(wal) = fence.staged_wal_dir() {
        add("--wal-dir", wal.as_os_str());
    }
    let parsed = Args::try_parse_from(words).map_err(|error| Failure::usage(error.to_string()))?;
    let Command::Restore(args) = parsed.command else { return Err(Failure::usage("no restore")) };
    crate::restore::run(&args)?;
    let staged = staged(here, &fence)?;
    let text = serde_json::to_string(&staged).unwrap_or_default() + "\n";
    // What is restored is done once its source is noted.
    for (path, text) in [(proof(&fence), &*text), (note(&fence), from)] {
        std::fs::write(&path, text).map_err(|error| Failure::io("writing", &path, &error))?;
    }
    let _ = std::fs::remove_file(received);
    output::print(&text)
}

/// Reads what was restored as etcd will, and says what it holds.
fn staged(here: &Here, fence: &Fence<'_>) -> Result<Staged, Failure> {
    let source = Source::open(&fence.staged_data_dir(), fence.staged_wal_dir().as_deref())?;
    let source = source.reading_ahead();
    let backend = Backend::open(&source).map_err(Failure::from)?;
    let bytes = backend.db().size();
    let quota = here.flags.get(QUOTA).and_then(|quota| quota.parse().ok());
    let quota = quota.filter(|quota| *quota > 0).unwrap_or(QUOTA_DEFAULT);
    if bytes > quota {
        let what = format!(
            "{}: what was restored has {}, and its etcd's quota is {}: it would accept no writes",
            here.name,
            output::bytes(bytes),
            output::bytes(quota),
        );
        return Err(Failure::refused(what)
            .remedy("raise --quota-backend-bytes of the etcds of all hosts first"));
    }
    let hash = source.hash_kv(&HashRequest::default())?;
    Ok(Staged {
        revision: hash.revision.get(),
        compact_revision: hash.compact_revision.map_or(-1, Revision::get),
        hash: hash.hash,
        kinds: backend.keys_by_kind().map_err(Failure::from)?,
    })
}

fn start(here: &Here, settings: &Settings) -> Result<(), Failure> {
    if local::runs(&here.place)? {
        return Ok(());
    }
    here.host.start(settings)?;
    let until = Instant::now() + STARTS_WITHIN;
    while !local::runs(&here.place)? {
        if Instant::now() >= until {
            let what = format!(
                "{}: its etcd did not start within {} s",
                here.name,
                STARTS_WITHIN.as_secs()
            );
            return Err(Failure::new(Code::Failed, what).remedy("look at its log"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn start_again(here: &Here) -> Result<(), Failure> {
    match local::look(&here.place)? {
        Local::Member(_) => {}
        Local::Nothing | Local::Unreadable | Local::Fenced => {
            return Err(Failure::refused(format!(
                "{}: it has no data to be started with",
                here.name
            )));
        }
    }
    if !local::runs(&here.place)? {
        local::check(&here.place)?;
    }
    start(here, &Settings::new())
}

fn finish(here: &Here, id: &str) -> Result<(), Failure> {
    // Whoever is fenced by something else is not ours to let go.
    Fence::new(&here.place, id)?.state(&RealDisk)?;
    Ok(here.host.finish()?)
}

fn undo(here: &Here, id: &str) -> Result<(), Failure> {
    let fence = Fence::new(&here.place, id)?;
    if fence.state(&RealDisk)? == Fenced::Opened {
        here.host.stop()?;
    }
    fence.undo(&RealDisk)?;
    for path in [note(&fence), proof(&fence), received(&fence)] {
        let _ = std::fs::remove_file(path);
    }
    here.host.restore_settings()?;
    match local::look(&here.place)? {
        // One that is started on nothing would be a cluster of its own.
        Local::Nothing | Local::Fenced => {
            eprintln!("{} stays stopped: it has no data", here.name);
            Ok(())
        }
        Local::Member(_) | Local::Unreadable => {
            here.host.start(&Settings::new())?;
            Ok(here.host.finish()?)
        }
    }
}
