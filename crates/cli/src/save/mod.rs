//! `rekindle save`: a snapshot of a running cluster, proven before it gets its name, becomes a base of
//! an archive, or is seen in a store.

mod base;
mod mounts;
mod object;

use crate::archive::{Pin, now};
use crate::args::SaveArgs;
use crate::connect::{connect, explain};
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::spool::Spool;
use crate::status::SOUND;
use crate::terminal::{self, Calls};
use crate::time;
use rekindle_agent::snapshot::{
    self, NoMember, ReceiveFault, Received, Sinks, ask_all, complaints, next_batch, receive,
};
use rekindle_archive::Origin;
use rekindle_archive::format::header::Moment;
use rekindle_client::{Client, Error, Member, Status as MemberStatus};
use rekindle_datadir::{Disk, FileSource, NewSnapshot, RealDisk};
use rekindle_etcd::digest::Sha256Digest;
use rekindle_etcd::{Backend, ClusterId, Facts, KeyCount, MemberId, Status, Version, advisories};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn run(args: &SaveArgs) -> Result<(), Failure> {
    let target = Target::new(args)?;
    let connection = connect(&args.connect)?;
    let calls = Calls::new(terminal::stop_flag()?)?;
    let client = match connection.all_members {
        true => calls.wait(all_members(connection.client))?,
        false => connection.client,
    };
    let patience = args.connect.command_timeout.unwrap_or(Duration::from_secs(5));
    let mut chosen = calls.wait(pick(&client, args.without_quorum, patience))?;
    loop {
        let member = chosen.members.remove(0);
        let attempt = Attempt { target: &target, floor: chosen.floor, calls: &calls };
        match attempt.save(member) {
            // Another member may do what this one did not, and have what this one has lost.
            Err(failure)
                if matches!(failure.code, Code::Transient | Code::BadData)
                    && !chosen.members.is_empty() =>
            {
                eprintln!("warning: {}", failure.what);
            }
            Err(failure) => return Err(failure),
            Ok(done) => {
                let Done { output, alarm } = done?;
                output.print(args.output.format())?;
                return alarm.map_or(Ok(()), Err);
            }
        }
    }
}

/// What was saved, and what is wrong nevertheless.
struct Done {
    output: Output,
    alarm: Option<Failure>,
}

/// Where a snapshot goes.
enum Target {
    File {
        file: PathBuf,
        /// Where is remembered what was mounted.
        known: PathBuf,
    },
    /// It becomes a base.
    Archive(Box<base::Place>),
    /// It becomes an object of a store.
    Object(Box<object::Object>),
}

impl Target {
    fn new(args: &SaveArgs) -> Result<Self, Failure> {
        let mut pattern = args.store.place(args.target.as_deref())?;
        if args.target.is_none() {
            // etcdbrctl's flags name a folder.
            pattern.push('/');
        }
        let is_url = pattern.contains("://");
        let text = if is_url { filled(&pattern)? } else { pattern.clone() };
        if let Some(archive) = crate::archive::find(&text, &args.store)? {
            crate::archive::keep_to_ourselves();
            return Ok(Self::Archive(Box::new(base::Place::new(archive, args)?)));
        }
        refuse_lost(&text, args)?;
        if args.keys.fingerprint.is_some() || args.keys.signing_key.is_some() {
            return Err(Failure::usage(format!("{text} is no archive, and has no keys"))
                .remedy("leave --fingerprint and --signing-key away"));
        }
        match text.strip_prefix("file://") {
            Some(path) => Self::of_file(path, args),
            None if is_url => {
                crate::archive::keep_to_ourselves();
                Ok(Self::Object(Box::new(object::Object::new(&text, &pattern, args)?)))
            }
            None => Self::of_file(&text, args),
        }
    }

    fn of_file(text: &str, args: &SaveArgs) -> Result<Self, Failure> {
        let file = target(text)?;
        let known = Spool::new(args.spool.directory(), "any")?.directory().to_owned();
        mounts::check(&known, &file)?;
        Ok(Self::File { file, known })
    }

    /// The file that is written first.
    fn file(&self) -> &Path {
        match self {
            Self::File { file, .. } => file,
            Self::Archive(_) | Self::Object(_) => {
                self.spool().map_or(Path::new(""), |spool| &spool.file)
            }
        }
    }

    /// Where the snapshot lies meanwhile, if not where it stays.
    fn spool(&self) -> Option<&Spool> {
        match self {
            Self::File { .. } => None,
            Self::Archive(place) => Some(&place.spool),
            Self::Object(object) => Some(&object.spool),
        }
    }
}

/// Where this host has saved into an archive, nothing else is written: a mount may be missing, or
/// somebody may want to have the next backups unsealed.
fn refuse_lost(text: &str, args: &SaveArgs) -> Result<(), Failure> {
    let spool = Spool::new(args.spool.directory(), "any")?;
    let Some(pin) = Pin::lost(spool.directory(), text)? else { return Ok(()) };
    let what = format!("{text} was an archive when this host last saved into it, and is none now");
    Err(Failure::refused(what).remedy(format!(
        "mount it, or bring archive.json back from a copy of it; if it is not to be an archive any more, \
         remove {}",
        pin.display()
    )))
}

/// A name with its date patterns filled in.
fn filled(text: &str) -> Result<String, Failure> {
    time::fill_pattern(text, jiff::Timestamp::now()).map_err(|fault| {
        Failure::usage(format!("date pattern in \"{text}\": {fault}"))
            .remedy("a % begins a pattern such as %Y; write %% for a percent sign itself")
    })
}

/// What makes a directory an archive.
const ARCHIVE: &str = "archive.json";

/// The file that is meant: date patterns filled in, no directory; if it is there, one that may be
/// replaced.
fn target(text: &str) -> Result<PathBuf, Failure> {
    if text.is_empty() || text == "-" {
        return Err(Failure::usage(format!("\"{text}\" names no file to save to")).remedy(
            "name a file: a snapshot gets its name only when it is proven, so it is not printed",
        ));
    }
    let filled = filled(text)?;
    let path = PathBuf::from(&filled);
    if filled.ends_with('/') || path.is_dir() || path.file_name().is_none() {
        return Err(Failure::usage(format!("{filled} is a directory, and no archive")).remedy(
            "name a file in it, for example with a date: …/etcd-%Y%m%dT%H%M%SZ.db; or make an \
             archive of an empty directory with rekindle archive init",
        ));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    if folder.join(ARCHIVE).exists() {
        let what = format!("{} is an archive, and no place for other files", folder.display());
        return Err(Failure::usage(what).remedy("name the archive itself, or a file beside it"));
    }
    replaceable(&path)?;
    if path.exists() && !is_database_or_empty(&path)? {
        let what = format!("{filled} is neither a snapshot nor empty, and would be replaced");
        return Err(Failure::refused(what).remedy("name another file, or remove this one first"));
    }
    Ok(path)
}

/// Whether a file begins as bbolt's do (`common/meta.go`), or not at all.
fn is_database_or_empty(path: &Path) -> Result<bool, Failure> {
    const MAGIC_AT: usize = 16;
    const MAGIC: [u8; 4] = 0xed0c_daed_u32.to_le_bytes();
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(20).read_to_end(&mut start));
    read.map_err(|error| Failure::io("reading", path, &error))?;
    Ok(start.is_empty() || start.get(MAGIC_AT..) == Some(&MAGIC))
}

/// Refuses what is no file, and a file that is at work: an etcd locks its database.
pub(crate) fn replaceable(path: &Path) -> Result<(), Failure> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(Failure::io("looking at", path, &error)),
    };
    let refused = |what: &str| Failure::refused(format!("{} is {what}", path.display()));
    if found.is_symlink() {
        return Err(refused("a symlink, which a snapshot would replace")
            .remedy("name the file itself that it leads to"));
    }
    if !found.is_file() {
        return Err(
            refused("no regular file: it is a device, a FIFO or a socket").remedy("name a file")
        );
    }
    match RealDisk.is_locked(path) {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err(refused("locked by a process that is using it, as etcd locks its database")
                .remedy("name another file"))
        }
        Err(error) => Err(Failure::io("looking at", path, &error)),
    }
}

/// The directories above a file that are not there yet, the highest first.
pub(crate) fn missing_directories(target: &Path) -> Vec<&Path> {
    let above = target.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    let mut missing: Vec<_> = above.take_while(|path| !path.exists()).collect();
    missing.reverse();
    missing
}

/// A client of every member; where they cannot be listed, of the endpoints that were given.
async fn all_members(client: Client) -> Result<Client, Failure> {
    Ok(match client.of_all_members().await {
        Ok(all) => all,
        Err(error) => {
            eprintln!(
                "warning: the members cannot be listed, so only the endpoints given are used: {error}"
            );
            client
        }
    })
}

/// Members that a snapshot can be taken from, the best first.
struct Chosen {
    members: Vec<(Member, MemberStatus)>,
    /// The snapshot must not be older than this revision.
    floor: i64,
}

async fn pick(
    client: &Client,
    without_quorum: bool,
    patience: Duration,
) -> Result<Chosen, Failure> {
    let floor = match client.linearizable_revision().await {
        Ok(revision) => revision,
        Err(error) if without_quorum => {
            eprintln!("warning: no linearizable read, so the snapshot may be behind: {error}");
            0
        }
        Err(error) => return Err(explain(error)),
    };
    let candidates = ask_all(client).await;
    for complaint in complaints(&candidates) {
        eprintln!("warning: {complaint}");
    }
    let picked = snapshot::pick(client, candidates, floor, patience).await;
    let members = picked.map_err(|error| match error {
        NoMember::Behind { .. } => Failure::new(Code::Transient, error.to_string())
            .remedy("give more --endpoints, or --cluster for all members"),
        NoMember::Nobody { .. } => Failure::new(Code::Failed, error.to_string()),
    })?;
    Ok(Chosen { members, floor })
}

/// One try, from one member.
struct Attempt<'a> {
    target: &'a Target,
    floor: i64,
    calls: &'a Calls,
}

impl Attempt<'_> {
    /// The outer failure is the member's, and another member may do better; the inner one is not.
    fn save(
        &self,
        (member, member_status): (Member, MemberStatus),
    ) -> Result<Result<Done, Failure>, Failure> {
        let role = match member_status.leader == member_status.header.member_id {
            true => "leader",
            false => "follower",
        };
        let version = &member_status.version;
        eprintln!("saving from {} ({role}, etcd {version})", member.endpoint());
        warn_of_version(version);
        if let Some(spool) = self.target.spool()
            && let Err(failure) = spool.check_space(member_status.db_size)
        {
            return Ok(Err(failure));
        }
        let started = Instant::now();
        let mut snapshot = match self.begin() {
            Ok(snapshot) => snapshot,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut upload = match self.target {
            Target::Object(object) => Some(object.upload()),
            _ => None,
        };
        let received = AtomicU64::new(0);
        let work = || {
            let mut stream = self.calls.wait(member.snapshot())?;
            let sinks = Sinks { snapshot: &mut snapshot, upload: upload.as_mut() };
            let next = || self.calls.wait(next_batch(&mut stream));
            match receive(next, now, sinks, &received) {
                // The store's failure is none of the member's.
                Err(ReceiveFault::Store(fault)) => Ok(Err(fault.into())),
                received => Ok::<_, Failure>(Ok(received?)),
            }
        };
        let position = || received.load(Ordering::Relaxed);
        let Received { digest, crc, state } =
            match terminal::watching("saving", None, position, work)? {
                Ok(received) => received,
                Err(failure) => return Ok(Err(failure)),
            };
        let streamed = started.elapsed();
        snapshot.flush()?;
        let said = Said { status: &member_status, crc, state };
        let (checked, base) = match self.target {
            Target::Archive(place) => match self.archive(place, snapshot.part(), &said)? {
                Ok((checked, base)) => (checked, Some(base)),
                Err(failure) => return Ok(Err(failure)),
            },
            _ => (self.check(&mut snapshot)?, None),
        };
        if base.is_none() {
            self.calls.go_on()?;
        }
        let endpoint = member.endpoint().to_string();
        let version = member_status.version;
        let size = received.into_inner();
        let saved = Saved { digest, checked, size, streamed, endpoint, role, version };
        match (self.target, base) {
            (Target::File { file, known }, _) => {
                snapshot.publish()?;
                mounts::remember(known, file);
                Ok(Ok(saved.done(&file.display().to_string())))
            }
            (Target::Object(object), _) => {
                let completed = upload.map_or(Ok(()), rekindle_archive::Upload::complete);
                Ok(completed.map(|()| saved.done(&object.shown)).map_err(Failure::from))
            }
            (Target::Archive(_), base) => Ok(base.map_or_else(
                || Err(Failure::new(Code::Failed, "there is no base")),
                |base| Ok(Done { output: base.output(&saved), alarm: base.alarm() }),
            )),
        }
    }

    /// Begins the file, and the directories above it.
    fn begin(&self) -> Result<NewSnapshot<'static>, Failure> {
        let missing = missing_directories(self.target.file());
        let snapshot = NewSnapshot::create(&RealDisk, self.target.file())?;
        for directory in missing {
            eprintln!("made directory {}", directory.display());
        }
        Ok(snapshot)
    }

    /// Makes a base of the file. The failures are as [`Self::save`] has them.
    fn archive<'p>(
        &self,
        place: &'p base::Place,
        part: &Path,
        said: &Said<'_>,
    ) -> Result<Result<(Checked, base::Base<'p>), Failure>, Failure> {
        let header = &said.status.header;
        let origin = Origin {
            cluster: ClusterId(header.cluster_id),
            member: MemberId(header.member_id),
            etcd: said.status.version.clone(),
            state: said.state,
            current: self.floor > 0,
        };
        let judge = |checked: &Checked| self.judge(checked);
        place.add(part, &origin, said.crc, &judge, self.calls.stop())
    }

    /// Checks the whole file while it becomes durable.
    fn check(&self, snapshot: &mut NewSnapshot<'_>) -> Result<Checked, Failure> {
        let part = snapshot.part().to_owned();
        let (checked, synced) = std::thread::scope(|threads| {
            let checked = threads.spawn(|| read_back(&part));
            let synced = match self.target {
                Target::File { .. } => snapshot.sync(),
                // It goes as soon as the base or the object is there.
                Target::Archive(_) | Target::Object(_) => Ok(()),
            };
            let panicked = |_| Err(Failure::new(Code::Failed, "the checking thread has panicked"));
            (checked.join().unwrap_or_else(panicked), synced)
        });
        synced?;
        let checked = checked.map_err(of_member)?;
        self.judge(&checked)?;
        Ok(checked)
    }

    /// The snapshot is as new as it has to be, and sound.
    fn judge(&self, Checked { status, facts }: &Checked) -> Result<(), Failure> {
        let revision = facts.revision();
        if revision.get() < self.floor {
            let what = format!(
                "the snapshot is of revision {revision}, but the cluster was at {} before",
                self.floor
            );
            return Err(Failure::new(Code::Transient, what));
        }
        if status.report.content_damage > 0 || status.record_damage_total > 0 {
            let findings = status.report.findings.iter().map(ToString::to_string);
            let records = status.record_damage.iter().map(ToString::to_string);
            let first = findings.chain(records).next().unwrap_or_default();
            return Err(damaged(&first));
        }
        Ok(())
    }
}

/// What a member and its stream said of a snapshot.
struct Said<'a> {
    status: &'a MemberStatus,
    /// CRC-32C of what came.
    crc: u32,
    state: Moment,
}

/// What a walk over a snapshot has found out.
struct Checked {
    status: Status,
    facts: Facts,
}

/// What is wrong with a snapshot is wrong with the member's database.
fn of_member(failure: Failure) -> Failure {
    match failure.code {
        Code::BadData => damaged(&failure.what),
        _ => failure,
    }
}

fn damaged(first: &str) -> Failure {
    let what = format!("the member's database is damaged, and so is its snapshot: {first}");
    Failure::new(Code::BadData, what)
        .remedy("save from another member (--endpoints), and replace this one; nothing was kept")
}

fn read_back(part: &Path) -> Result<Checked, Failure> {
    let source = FileSource::open(part)
        .map_err(|error| Failure::io("opening", part, &error))?
        .reading_ahead();
    let backend = Backend::open(source)?;
    // Memory stays small, however many keys there are.
    Ok(Checked { status: backend.status(KeyCount::Reckoned)?, facts: backend.facts()? })
}

fn warn_of_version(version: &str) {
    for advisory in Version::parse(version).into_iter().flat_map(advisories) {
        eprintln!("warning: etcd {version}: {} ({})", advisory.text, advisory.reference);
    }
}

/// A snapshot that has its name.
struct Saved {
    digest: Sha256Digest,
    checked: Checked,
    /// Bytes of the file.
    size: u64,
    streamed: Duration,
    endpoint: String,
    role: &'static str,
    version: String,
}

impl Saved {
    fn done(&self, target: &str) -> Done {
        Done { output: self.output(target.to_owned()), alarm: None }
    }

    fn output(&self, target: String) -> Output {
        let status = &self.checked.status;
        let simple = format!("Snapshot saved at {target}\nServer version {}", self.version);
        let mut out = Output { simple, ..Output::default() };
        out.add("file", "File", target.clone());
        out.add("revision", "Revision", self.checked.facts.revision().get());
        out.add("totalKey", "Keys", status.live_keys);
        out.add("records", "Records", status.records);
        out.add("totalSize", "Size", status.total_size);
        out.add("inUse", "Bytes in use", status.report.usage.in_use_bytes());
        out.add("fileSize", "File size", self.size);
        out.add("sha256", "SHA-256", self.digest.to_string());
        out.add("hash", "Hash", status.hash);
        out.add("endpoint", "Endpoint", self.endpoint.clone());
        out.add("role", "Role", self.role);
        out.add("etcdVersion", "Etcd version", self.version.clone());
        let rate = self.size as f64 / self.streamed.as_secs_f64().max(1e-9);
        out.text = output::lines(&[
            ("saved", target),
            ("revision", self.checked.facts.revision().to_string()),
            ("keys", self.keys_line()),
            (
                "size",
                format!(
                    "{} ({} in use), received at {}/s",
                    output::bytes(self.size),
                    output::bytes(status.report.usage.in_use_bytes()),
                    output::bytes(rate as u64)
                ),
            ),
            ("SHA-256", format!("{} (good)", self.digest)),
            ("hash", format!("{:08x}", status.hash)),
            ("checker", self.checker_line()),
            ("etcd", format!("{}, {} {}", self.version, self.role, self.endpoint)),
        ]);
        out
    }

    fn keys_line(&self) -> String {
        let records = grouped(self.checked.status.records);
        match self.checked.status.live_keys {
            Some(keys) => format!("{} in {records} records", grouped(keys)),
            None => format!("{records} records; a compaction is under way"),
        }
    }

    fn checker_line(&self) -> String {
        match self.checked.status.report.findings_total {
            0 => SOUND.to_owned(),
            count => format!(
                "all keys and values are good; the member's bookkeeping has {} faults, the first: {}",
                grouped(count),
                self.checked
                    .status
                    .report
                    .findings
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default()
            ),
        }
    }
}

impl From<ReceiveFault<Self>> for Failure {
    fn from(fault: ReceiveFault<Self>) -> Self {
        match fault {
            ReceiveFault::Stream(failure) => failure,
            ReceiveFault::File(error) => error.into(),
            ReceiveFault::Store(fault) => fault.into(),
            fault @ ReceiveFault::Damaged(_) => Self::new(Code::Transient, fault.to_string()),
            fault @ ReceiveFault::Panicked => Self::new(Code::Failed, fault.to_string()),
        }
    }
}

/// What the client says, with what an administrator can do.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        explain(error)
    }
}
