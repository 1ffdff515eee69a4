//! `rekindle drill`: a restore into a throwaway etcd, on purpose, to see that it works.

use crate::archive::{ReadKeys, parse_source, shown};
use crate::args::{ConnectArgs, OutputArgs, SpoolArgs, StoreArgs};
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::source::{Access, Kind, Source, Users};
use crate::spool::Spool;
use crate::terminal::{self, Calls};
use crate::time::parse_duration;
use clap::Args as ClapArgs;
use rekindle_agent::child::end_with_parent;
use rekindle_agent::config::Drill;
use rekindle_agent::probe::Probe;
use rekindle_archive::{BaseEntry, WitnessEntry};
use rekindle_client::{Keys, Range};
use rekindle_etcd::{HashKv, HashRequest, Revision};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

mod native;

/// How often is looked whether etcd answers.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So much of what a failed etcd has said is shown.
const SAID_BYTES: u64 = 2000;
/// What has to be said of a drill without one.
pub(crate) const NOT_BOOTED: &str = "no etcd was booted";

/// Restore into a throwaway etcd, and see that it answers with what the source has.
///
/// Restores one member into a directory of its own in the spool, starts it on loopback, compares its HashKV with that of the
/// source, asks it what --probe says, ends it and removes everything. Exit code 3 where it has not what the
/// source has. Where no etcd is named and none is in PATH, none is started: what was restored is checked, and its HashKV compared
/// with that of the source and with what a member has said of it.
#[derive(Debug, ClapArgs)]
pub(crate) struct DrillArgs {
    /// ARCHIVE[@POINT], a snapshot file or URL, or the data directory of a stopped member.
    #[arg(required_unless_present = "storage_provider")]
    pub source: Option<PathBuf>,
    /// Of an archive: any point but the newest, by chance.
    #[arg(long)]
    pub random: bool,
    /// The etcd to start [default: that of the drill in --config; else etcd in PATH, and without one none]
    #[arg(long, value_name = "PROGRAM")]
    pub etcd: Option<PathBuf>,
    /// There must be keys with this prefix, or at least so many: PREFIX or PREFIX=COUNT. Several may be given [default:
    /// those of the drill in --config]
    #[arg(long = "probe", value_name = "PREFIX", value_parser = Probe::parse)]
    pub probes: Vec<Probe>,
    /// It is a failure when all of it takes longer [default: that of the drill in --config]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub within: Option<Duration>,
    /// How long etcd has for its start.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2m")]
    pub start_timeout: Duration,
    /// USER[:PASSWORD] of the cluster, where it asks for one; the password may be in ETCDCTL_PASSWORD.
    #[arg(long)]
    pub user: Option<String>,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) fn run(args: &DrillArgs) -> Result<(), Failure> {
    crate::archive::keep_to_ourselves();
    let calls = Calls::new(terminal::stop_flag()?)?;
    let path = args.store.source(args.source.as_deref())?;
    let Terms { program, probes, within } = Terms::new(args, configured(&path));
    let program = find_etcd(program.as_deref(), !probes.is_empty())?;
    if program.is_none() {
        eprintln!("warning: there is no etcd in PATH: {NOT_BOOTED}, name one with --etcd");
    }
    let path = if args.random { by_chance(&path, args)? } else { path };
    let site = Site::new(&Spool::new(args.spool.directory(), "drill")?)?;
    let access = Access {
        store: &args.store,
        spool: args.spool.directory(),
        keys: &args.keys,
        point: None,
        users: Users::OfPoint,
    };
    let began = Instant::now();
    let source = Source::open_any(&path, None, &access)?;
    let want = hash_of(&source)?;
    let (client, peer) = (url(port()?), url(port()?));
    let restoring = Instant::now();
    crate::restore::into_directory(&source, &site.data_dir(), &peer)
        .map_err(|failure| source.with_what_remains(failure))?;
    let restored = restoring.elapsed();
    let looking = Instant::now();
    let seen = match &program {
        Some(program) => {
            let etcd = site.start(program, &client, &peer)?;
            let trial = Trial { args, calls: &calls, client: &client, probes: &probes };
            trial.ask(etcd, &want)?
        }
        None => {
            let native::Seen { hash, witness } = native::look(&source, &site.data_dir())?;
            let took = looking.elapsed();
            Seen { is_same: hash == want, found: Vec::new(), took, witness, booted: false }
        }
    };
    let report = Report { source: &source, want, restored, seen, all: began.elapsed() };
    report.output(&probes).print(args.output.format())?;
    judge(within, &probes, &report.seen, report.all)
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// What was seen of what was restored.
struct Seen {
    /// Whether it has the HashKV of the source.
    is_same: bool,
    /// Keys of each probe.
    found: Vec<i64>,
    /// How long it took until etcd answered; or until it was looked at.
    took: Duration,
    /// A member that has said the same of its own.
    witness: Option<WitnessEntry>,
    /// An etcd has served it.
    booted: bool,
}

/// Asking the etcd that was started.
struct Trial<'a> {
    args: &'a DrillArgs,
    calls: &'a Calls,
    client: &'a str,
    probes: &'a [Probe],
}

impl Trial<'_> {
    fn ask(&self, mut etcd: Etcd, want: &HashKv) -> Result<Seen, Failure> {
        let Self { args, calls, client, probes } = self;
        let starting = Instant::now();
        let (endpoints, user) = (Some((*client).to_owned()), args.user.clone());
        let client = connect(&ConnectArgs { endpoints, user, ..ConnectArgs::default() })?.client;
        loop {
            match calls.wait(client.linearizable_revision()) {
                Ok(_) => break,
                Err(failure) if failure.code == Code::Interrupted => return Err(failure),
                Err(failure) => etcd.check(&failure, starting.elapsed() >= args.start_timeout)?,
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let took = starting.elapsed();
        let member =
            client.members().first().ok_or_else(|| Failure::new(Code::Failed, "no member"))?;
        let got = calls.wait(member.hash_kv(want.revision.get()))?;
        let found = probes.iter().map(|probe| {
            let range = Range::new(Keys::prefix(probe.prefix.clone())).count_only();
            calls.wait(client.range(range)).map(|answer| answer.count)
        });
        let found = found.collect::<Result<Vec<_>, _>>()?;
        let compact = want.compact_revision.map_or(-1, Revision::get);
        let is_same = (got.hash, got.compact_revision) == (want.hash, compact);
        Ok(Seen { is_same, found, took, witness: None, booted: true })
    }
}

fn judge(
    within: Option<Duration>,
    probes: &[Probe],
    seen: &Seen,
    all: Duration,
) -> Result<(), Failure> {
    if !seen.is_same {
        let what = "what was restored has another HashKV than the source".to_owned();
        return Err(Failure::new(Code::BadData, what).remedy(
            "rekindle archive verify --level proven says what is wrong; keep other backups",
        ));
    }
    let missing = probes.iter().zip(&seen.found).find(|(probe, found)| **found < probe.least);
    if let Some((probe, found)) = missing {
        let (prefix, least) = (&probe.prefix, probe.least);
        let what = format!("there are {found} keys with {prefix}, and {least} should be there");
        return Err(Failure::new(Code::BadData, what)
            .remedy("look whether the cluster has them: rekindle status of the source"));
    }
    match within.filter(|within| all > *within) {
        None => Ok(()),
        Some(within) => {
            let (all, within) = (all.as_secs_f64(), within.as_secs_f64());
            let what = format!("it took {all:.1} s, and {within:.1} s are allowed");
            Err(Failure::new(Code::Failed, what)
                .remedy("look at the disk and the way to the store"))
        }
    }
}

/// What is wanted of a drill: flags go before what a configuration says.
struct Terms {
    program: Option<PathBuf>,
    probes: Vec<Probe>,
    within: Option<Duration>,
}

impl Terms {
    fn new(args: &DrillArgs, drill: Option<&Drill>) -> Self {
        let configured = drill.into_iter().flat_map(|drill| &drill.probes);
        let configured = configured.filter_map(|text| Probe::parse(text).ok()).collect();
        let etcd = args.etcd.clone().or_else(|| drill?.etcd.clone());
        Self {
            program: etcd,
            probes: if args.probes.is_empty() { configured } else { args.probes.clone() },
            within: args.within.or_else(|| Some(drill?.within.as_ref()?.0)),
        }
    }
}

/// What a configuration says of drills of this source.
fn configured(source: &Path) -> Option<&'static Drill> {
    let text = source.to_str()?;
    let cluster = crate::configured::cluster()?;
    let place = text.rsplit_once('@').map_or(text, |(place, _)| place);
    cluster.archive(text).or_else(|| cluster.archive(place))?.drill.as_ref()
}

/// The etcd that is started: the one that is named, or the one in PATH. Where there is none, what was restored is looked at
/// without one, unless it is to be asked for keys. Known before anything is restored.
pub(crate) fn find_etcd(named: Option<&Path>, probes: bool) -> Result<Option<PathBuf>, Failure> {
    if let Some(named) = named {
        return find_program(named).map(Some);
    }
    let found = in_path(Path::new("etcd"));
    if found.is_none() && probes {
        let what = "there is no etcd in PATH, and probes need one that runs".to_owned();
        return Err(Failure::usage(what).remedy(
            "name the etcd of the cluster's version: --etcd, or drill.etcd in --config; or leave the probes out",
        ));
    }
    Ok(found)
}

fn is_program(path: &Path) -> bool {
    let found = path.metadata();
    found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

pub(crate) fn in_path(name: &Path) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn find_program(named: &Path) -> Result<PathBuf, Failure> {
    let is_path = named.components().count() > 1 || named.is_absolute();
    let found = match is_path {
        true => Some(named.to_owned()).filter(|path| is_program(path)),
        false => in_path(named),
    };
    found.ok_or_else(|| {
        let within = if is_path { "" } else { " in PATH" };
        let what = format!("there is no program {}{within}", named.display());
        Failure::usage(what)
            .remedy("name the etcd of the cluster's version: --etcd, or drill.etcd in --config")
    })
}

/// What came of it.
struct Report<'a> {
    source: &'a Source,
    want: HashKv,
    restored: Duration,
    seen: Seen,
    all: Duration,
}

impl Report<'_> {
    fn output(&self, probes: &[Probe]) -> Output {
        let (seen, revision) = (&self.seen, self.want.revision.get());
        let verdict = if seen.is_same { "OK" } else { "CONTRADICTS" };
        let mut out = Output { simple: format!("{verdict}, {revision}"), ..Output::default() };
        out.add("verdict", "Verdict", verdict);
        out.add("level", "Level", seen.level());
        out.add("booted", "Booted", seen.booted);
        out.add("source", "Source", self.source.path.display().to_string());
        out.add("revision", "Revision", revision);
        out.add("hash", "Hash", self.want.hash);
        if !seen.booted {
            let witness = seen.witness.as_ref().map(|entry| entry.facts.last.get());
            out.add("witnessRevision", "Witness revision", witness);
        }
        let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
        out.add("restoreSeconds", "Restore seconds", seconds(self.restored));
        match seen.booted {
            true => out.add("startSeconds", "Start seconds", seconds(seen.took)),
            false => out.add("checkSeconds", "Check seconds", seconds(seen.took)),
        }
        out.add("seconds", "Seconds", seconds(self.all));
        let told: Vec<_> = probes
            .iter()
            .zip(&seen.found)
            .map(|(probe, found)| json!({ "prefix": probe.prefix, "least": probe.least, "keys": found }))
            .collect();
        out.json.insert("probes".to_owned(), told.into());
        out.text = output::lines(&self.rows(probes, verdict));
        out
    }

    fn rows(&self, probes: &[Probe], verdict: &str) -> Vec<(&'static str, String)> {
        let (seen, hash) = (&self.seen, self.want.hash);
        let revision = grouped(self.want.revision.get());
        let (said, until) = match seen.booted {
            true => (
                format!("{verdict}: etcd answers with HashKV {hash} of revision {revision}"),
                "until etcd answered",
            ),
            false => (
                format!(
                    "{verdict}: what was restored is sound, and has HashKV {hash} of revision {revision}; {NOT_BOOTED}"
                ),
                "to look at it",
            ),
        };
        let took = format!(
            "{:.1} s: {:.1} s to restore, {:.1} s {until}",
            self.all.as_secs_f64(),
            self.restored.as_secs_f64(),
            seen.took.as_secs_f64()
        );
        let mut rows = vec![("verdict", said)];
        if let Kind::Base(base) = &self.source.kind {
            let point = format!("revision {} of {}", base.revision(), shown(base.time()));
            rows.push(("point", point));
        }
        if !seen.booted {
            rows.push(("witness", seen.witnessed()));
        }
        rows.push(("took", took));
        for (probe, found) in probes.iter().zip(&seen.found) {
            rows.push(("probe", format!("{}: {} keys", probe.prefix, grouped(found))));
        }
        rows
    }
}

impl Seen {
    /// What is known of the point by it.
    fn level(&self) -> &'static str {
        match (self.booted, &self.witness) {
            (true, _) => "drilled",
            (false, Some(_)) => "proven",
            (false, None) => "read",
        }
    }

    fn witnessed(&self) -> String {
        match &self.witness {
            Some(entry) => {
                let (member, revision) = (entry.facts.member, grouped(entry.facts.last.get()));
                format!("member {member} has said the same HashKV of revision {revision}")
            }
            None => "none: no member was asked for its HashKV at a revision of this".to_owned(),
        }
    }
}

fn hash_of(source: &Source) -> Result<HashKv, Failure> {
    let hash = source.hash_kv(&HashRequest::default());
    hash.map_err(|failure| source.with_what_remains(failure))
}

/// A point of an archive but the newest: any base, and any revision that the log has behind it. The newest where there
/// is no other.
fn by_chance(path: &Path, args: &DrillArgs) -> Result<PathBuf, Failure> {
    let text = path.display().to_string();
    let Some((archive, _)) = parse_source(&text, &args.store)? else {
        return Err(Failure::usage(format!("{text} is no archive, and has one point only"))
            .remedy("leave --random out"));
    };
    let mut dice = [0; 16];
    getrandom::fill(&mut dice).map_err(|error| {
        Failure::new(Code::Failed, format!("asking the machine for randomness: {error}"))
    })?;
    let (first, second) = dice.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let bases = archive.list()?.bases;
    let older = bases.get(..bases.len().saturating_sub(1)).filter(|older| !older.is_empty());
    let any: &[BaseEntry] = older.unwrap_or(&bases);
    let place = usize::try_from(number(first).checked_rem(any.len() as u64).unwrap_or(0));
    let Some(base) = place.ok().and_then(|place| any.get(place)) else {
        return Err(Failure::new(Code::NotFound, format!("{text} holds no restore point")));
    };
    let facts = &base.header.facts;
    let last = archive.following(base)?.last();
    let span = last.get().abs_diff(facts.last.get()).saturating_add(1);
    let behind = number(second) % span;
    let place = archive.store().place();
    Ok(match facts.last.later(behind).filter(|_| behind > 0) {
        Some(revision) => PathBuf::from(format!("{place}@{}:{revision}", facts.timeline)),
        None => {
            let name = base.name.rsplit('/').next().unwrap_or_default();
            PathBuf::from(format!("{place}@{name}"))
        }
    })
}

/// A port of loopback that is free now.
fn port() -> Result<u16, Failure> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.map(|address| address.port())
        .map_err(|error| Failure::new(Code::Failed, format!("looking for a free port: {error}")))
}

/// Where it takes place; all of it goes at the end.
struct Site {
    directory: PathBuf,
    _lock: File,
}

impl Site {
    /// Takes the place of one that was cut off.
    fn new(spool: &Spool) -> Result<Self, Failure> {
        let directory = spool.file.clone();
        let parent = spool.directory();
        std::fs::create_dir_all(parent).map_err(|error| Failure::io("making", parent, &error))?;
        let path = directory.with_extension("lock");
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(|error| Failure::io("opening", &path, &error))?;
        if lock.try_lock().is_err() {
            let what = format!("another drill works in {}", parent.display());
            return Err(Failure::new(Code::Transient, what));
        }
        let this = Self { directory, _lock: lock };
        this.clear().map_err(|error| Failure::io("removing", &this.directory, &error))?;
        let made = std::fs::create_dir(&this.directory);
        made.map_err(|error| Failure::io("making", &this.directory, &error))?;
        Ok(this)
    }

    fn clear(&self) -> std::io::Result<()> {
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn start(&self, program: &Path, client: &str, peer: &str) -> Result<Etcd, Failure> {
        let said = self.directory.join("etcd.log");
        let mut options = OpenOptions::new();
        let log = options.read(true).write(true).create(true).truncate(true).open(&said);
        let log = log.map_err(|error| Failure::io("opening", &said, &error))?;
        let output = log.try_clone().map_err(|error| Failure::io("opening", &said, &error))?;
        let mut command = end_with_parent(program);
        command.args(["--name", "drill", "--data-dir"]).arg(self.data_dir());
        command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
        command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
        command.args(["--initial-cluster", &format!("drill={peer}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let child = command.spawn().map_err(|error| {
            Failure::io("starting", program, &error)
                .remedy("name the etcd of the cluster's version with --etcd")
        })?;
        Ok(Etcd { child, log })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

/// The throwaway etcd. Dropped, it is killed.
struct Etcd {
    child: Child,
    log: File,
}

impl Etcd {
    /// It does not answer yet, for this reason: it has ended, or has had its time.
    fn check(&mut self, failure: &Failure, is_late: bool) -> Result<(), Failure> {
        let ended = self.child.try_wait().ok().flatten();
        let what = match ended {
            Some(status) => format!("the etcd that was restored has ended ({status})"),
            None if is_late => {
                format!("the etcd that was restored does not answer: {}", failure.what)
            }
            None => return Ok(()),
        };
        let end = self.log.seek(SeekFrom::End(0)).unwrap_or(0);
        let mut said = Vec::new();
        let _ = self.log.seek(SeekFrom::Start(end.saturating_sub(SAID_BYTES)));
        let _ = self.log.read_to_end(&mut said);
        let said = String::from_utf8_lossy(&said);
        let last: Vec<_> = said.lines().rev().take(3).collect();
        let what =
            format!("{what}. It said: {}", last.into_iter().rev().collect::<Vec<_>>().join(" "));
        Err(Failure::new(Code::BadData, what).remedy(
            "look whether --etcd is of the cluster's version; then this point does not restore: keep other \
             backups, and verify the archive (rekindle archive verify --level proven)",
        ))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
