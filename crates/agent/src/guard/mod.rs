//! The agent: for each cluster a process that follows it and three threads that do its jobs, and above them one that
//! watches, tells and is told.

mod following;
mod health;
mod keeping;
mod lane;
mod requests;

pub use requests::{Pause, Request, pause, resume};

use crate::alarms::{Alarm, Key, alarms};
use crate::board::{Board, CaptureState, ClusterState, JobState};
use crate::child::{Program, Stop};
use crate::config::{self, Cluster, Config};
use crate::health::Health;
use crate::jobs::{Job, Lane, jobs_of};
use crate::notify::Notifier;
use crate::records;
use following::Following;
use jiff::Timestamp;
use rekindle_archive::{Archive, Store};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often all is looked over.
const TICK: Duration = Duration::from_secs(1);
/// When what has panicked begins again.
const AFTER_PANIC: Duration = Duration::from_secs(30);

/// Why an agent cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This host's own disk.
    #[error("{doing} {path}: {cause}")]
    State {
        /// What failed.
        doing: &'static str,
        /// With which path.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// Two would do everything twice.
    #[error("another agent works with {path}")]
    AtWork {
        /// Its state.
        path: String,
    },
    /// The store of this host's records.
    #[error(transparent)]
    Records(#[from] rekindle_archive::StoreFault),
    /// The machine gives no threads.
    #[error("starting threads: {0}")]
    Threads(#[from] io::Error),
    /// A configuration that was read makes no sense.
    #[error("{0}")]
    Configuration(String),
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How bad it is.
    pub level: Level,
    /// The cluster, if it is of one.
    pub cluster: Option<String>,
    /// The job, if it is of one.
    pub job: Option<String>,
    /// What.
    pub text: String,
}

/// How bad a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It goes as it should.
    Info,
    /// It does not.
    Warning,
    /// Somebody has to look.
    Alarm,
}

/// Takes lines of the log.
pub type Log = Arc<dyn Fn(LogLine) + Send + Sync>;

/// Opens an archive of the configuration, with a cluster's spool, or says why not: not there, or not the one whose
/// keys this host knows.
pub type OpenArchive =
    Arc<dyn Fn(&config::Archive, &Path) -> Result<Archive, String> + Send + Sync>;

/// What an agent is begun with.
pub struct Agent {
    /// Reads the configuration, and the text that it was; the error says what is wrong.
    pub load: Box<dyn Fn() -> Result<(Config, String), String>>,
    /// How it comes by archives, to keep records in.
    pub open: OpenArchive,
    /// This program.
    pub program: PathBuf,
    /// This host, for people.
    pub host: String,
    /// Where it says what it does.
    pub log: Log,
}

/// What the outside wants of an agent.
#[derive(Clone, Copy, Debug)]
pub struct Signals<'a> {
    /// It is to end.
    pub stop: &'a AtomicBool,
    /// It is to read its configuration anew.
    pub reload: &'a AtomicBool,
}

/// The board, shared.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Board>>);

impl Shared {
    /// Looks at it, or writes on it.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on it of a cluster.
    fn of<T>(&self, cluster: &str, look: impl FnOnce(&mut ClusterState) -> T) -> T {
        look(self.board().clusters.entry(cluster.to_owned()).or_default())
    }
}

/// What threads of a cluster have in common.
struct Ward {
    cluster: Cluster,
    jobs: Vec<Job>,
    program: Program,
    agent: records::Agent,
    /// Records on this host.
    own: Store,
    /// What archives have not got of them.
    owed: keeping::Owed,
    away: keeping::Away,
    keep_records: keeping::HowLong,
    open: OpenArchive,
    spool: PathBuf,
    /// Where this host keeps what is of the cluster.
    directory: PathBuf,
    shared: Shared,
    stop: Stop,
    log: Log,
    following: Arc<Following>,
    requests: requests::Requests,
}

impl Ward {
    fn say(&self, level: Level, job: Option<&str>, text: impl Into<String>) {
        let (cluster, job) = (Some(self.cluster.name.clone()), job.map(str::to_owned));
        (self.log)(LogLine { level, cluster, job, text: text.into() });
    }

    /// One that has hung is not waited for again so soon.
    fn open(&self, archive: &config::Archive) -> Result<Archive, String> {
        if let Some(why) = self.away.why(&archive.place, Instant::now()) {
            return Err(why);
        }
        let began = Instant::now();
        let opened = (self.open)(archive, &self.spool);
        if let Err(why) = &opened {
            self.away.add(&archive.place, why, began.elapsed(), Instant::now());
        }
        opened
    }

    fn state<T>(&self, look: impl FnOnce(&mut ClusterState) -> T) -> T {
        self.shared.of(&self.cluster.name, look)
    }
}

/// A cluster that is guarded.
struct Guarded {
    cluster: Cluster,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Guarded {
    fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// An agent at work.
pub struct Guard {
    agent: Agent,
    config: Config,
    who: records::Agent,
    shared: Shared,
    guarded: Vec<Guarded>,
    /// Those that end; others may begin in their place afterwards.
    ending: Vec<Guarded>,
    notifier: Notifier,
    keep_records: keeping::HowLong,
    raised: BTreeMap<Key, Alarm>,
    _lock: File,
}

impl Guard {
    /// Begins to guard what a configuration says.
    ///
    /// # Errors
    /// [`Error`]; what fails of a cluster or a store is told later, and tried again.
    pub fn begin(agent: Agent) -> Result<Self, Error> {
        let (config, text) = (agent.load)().map_err(Error::Configuration)?;
        make_directory(&config.state)?;
        let lock = lock(&config.state)?;
        keep(&config, &text)?;
        let id = own_id(&config.state)?;
        let who = records::Agent { id, host: agent.host.clone() };
        let shared = Shared(Arc::new(Mutex::new(Board::new(records::now()))));
        let notifier = Notifier::start(&config, Arc::clone(&agent.log))?;
        let keep_records = keeping::HowLong::new(config.keep_records.0);
        let mut guard = Self {
            agent,
            config,
            who,
            shared,
            guarded: Vec::new(),
            ending: Vec::new(),
            notifier,
            keep_records,
            raised: BTreeMap::new(),
            _lock: lock,
        };
        guard.begin_missing();
        Ok(guard)
    }

    /// What is known.
    #[must_use]
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Guards until it is told to end. `tick` is called every second, while all is well within.
    ///
    /// Whatever fails meanwhile is told, and tried again.
    pub fn run(mut self, signals: Signals<'_>, mut tick: impl FnMut(&[Alarm])) {
        while !signals.stop.load(Ordering::Relaxed) {
            if signals.reload.swap(false, Ordering::Relaxed) {
                self.reload();
            }
            self.ending.retain(|ending| !ending.is_over());
            self.begin_missing();
            self.look_at_pauses();
            let now = records::now();
            // One that is not guarded any more may have told of itself while it ended.
            let is_guarded = |name: &String| self.config.cluster(Some(name)).is_some();
            self.shared.board().clusters.retain(|name, _| is_guarded(name));
            let mut found = alarms(&self.shared.board(), &self.config, now);
            found.retain(|alarm| !alarm.muted || self.raised.contains_key(&alarm.key()));
            self.tell(&found, now);
            tick(&found);
            std::thread::park_timeout(TICK);
        }
        self.end();
    }

    fn say(&self, level: Level, text: impl Into<String>) {
        (self.agent.log)(LogLine { level, cluster: None, job: None, text: text.into() });
    }

    /// Begins with clusters that nobody guards yet, and whose last guard has ended.
    fn begin_missing(&mut self) {
        for cluster in &self.config.clusters {
            let is_it = |it: &Guarded| it.cluster.name == cluster.name;
            if self.guarded.iter().any(is_it) || self.ending.iter().any(is_it) {
                continue;
            }
            let (cluster, stop, threads) = (cluster.clone(), Stop::default(), Vec::new());
            let mut guarded = Guarded { cluster, stop, threads };
            match self.guard(&mut guarded) {
                Ok(()) => self.guarded.push(guarded),
                Err(fault) => {
                    // The other clusters do not suffer from it.
                    let (since, fault) = (records::now(), fault.to_string());
                    self.shared.of(&guarded.cluster.name, |state| {
                        state.unguarded.get_or_insert((since, String::new())).1 = fault;
                    });
                    guarded.stop.set();
                    self.ending.push(guarded);
                }
            }
        }
    }

    /// Begins with a cluster; where that fails, some of its threads may have begun.
    fn guard(&self, guarded: &mut Guarded) -> Result<(), Error> {
        let Guarded { cluster, stop, threads } = guarded;
        let directory = self.config.state_of(cluster);
        make_directory(&directory)?;
        let mut jobs = jobs_of(cluster).map_err(Error::Configuration)?;
        for job in &mut jobs {
            // Hosts with the same configuration do not all begin at once.
            job.spread = format!("{}/{}", self.who.id, job.spread);
        }
        let also = [
            "--config".to_owned(),
            kept(&self.config.state).display().to_string(),
            "--config-cluster".to_owned(),
            cluster.name.clone(),
            "--write-out=json".to_owned(),
        ];
        let ward = Ward {
            jobs,
            program: Program { path: self.agent.program.clone(), also: also.into() },
            agent: self.who.clone(),
            own: Store::directory(&directory)?,
            owed: keeping::Owed::default(),
            away: keeping::Away::default(),
            keep_records: self.keep_records.clone(),
            open: Arc::clone(&self.agent.open),
            spool: self.config.spool_of(cluster),
            shared: self.shared.clone(),
            stop: stop.clone(),
            log: Arc::clone(&self.agent.log),
            following: Arc::default(),
            requests: requests::Requests::of(&directory),
            directory,
            cluster: cluster.clone(),
        };
        let paused = self.pause_of(cluster, records::now());
        let begun = ClusterState { paused, ..begun(&ward) };
        ward.state(|state| *state = begun.after(state));
        let ward = Arc::new(ward);
        if cluster.is_followed() {
            threads.push(thread("follows", &ward, following::run)?);
        }
        if cluster.check.enabled {
            threads.push(thread("looks", &ward, health::run)?);
        }
        for lane in [Lane::Base, Lane::Save, Lane::Keep] {
            threads.push(thread("jobs", &ward, move |ward| lane::run(ward, lane))?);
        }
        Ok(())
    }

    /// Takes a changed configuration, or says why not: then all goes on as it did.
    fn reload(&mut self) {
        let fault = match self.changed() {
            Err(fault) => {
                self.say(Level::Warning, &*fault);
                // What was begun for it is not needed.
                let _ = self.notifier.configure(&self.config);
                Some((records::now(), fault))
            }
            Ok(config) => {
                self.take(config);
                None
            }
        };
        self.shared.board().config_fault = fault;
    }

    /// The configuration as it is now, once nothing can fail of it any more.
    fn changed(&mut self) -> Result<Config, String> {
        let (config, text) = (self.agent.load)()
            .map_err(|fault| format!("the changed configuration is not good: {fault}"))?;
        if config.state != self.config.state || config.listen != self.config.listen {
            self.say(Level::Warning, "state and listen change when the agent is started anew");
        }
        let config = Config { state: self.config.state.clone(), ..config };
        self.notifier
            .configure(&config)
            .map_err(|fault| format!("nobody new can be told, for want of threads: {fault}"))?;
        keep(&config, &text)
            .map_err(|fault| format!("the changed configuration cannot be kept: {fault}"))?;
        Ok(config)
    }

    fn take(&mut self, config: Config) {
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut self.guarded)
            .into_iter()
            .partition(|guarded| config.clusters.contains(&guarded.cluster));
        self.guarded = stay;
        for guarded in go {
            guarded.stop.set();
            let is_kept = config.clusters.iter().any(|it| it.name == guarded.cluster.name);
            if !is_kept {
                self.shared.board().clusters.remove(&guarded.cluster.name);
            }
            self.say(Level::Info, format!("{}: changed, and begun anew", guarded.cluster.name));
            self.ending.push(guarded);
        }
        // Clusters that go on as they are keep no longer what others do not.
        self.keep_records.set(config.keep_records.0);
        self.config = config;
        self.say(Level::Info, "the configuration was read anew");
    }

    /// Why a cluster is paused, if it is.
    fn pause_of(&self, cluster: &Cluster, now: Timestamp) -> Option<String> {
        let told = || {
            let own = Pause::read(&self.config.state_of(cluster), now);
            own.or_else(|| Pause::read(&self.config.state, now)).map(|pause| pause.to_string())
        };
        cluster.paused.clone().or_else(told)
    }

    fn look_at_pauses(&self) {
        let now = records::now();
        for cluster in &self.config.clusters {
            let paused = self.pause_of(cluster, now);
            self.shared.of(&cluster.name, |state| {
                if state.paused.is_some() && paused.is_none() {
                    state.resumed = Some(now);
                }
                state.paused = paused;
            });
        }
    }

    /// Tells what began and what ended.
    fn tell(&mut self, found: &[Alarm], now: Timestamp) {
        let found: BTreeMap<_, _> =
            found.iter().map(|alarm| (alarm.key(), alarm.clone())).collect();
        for (key, alarm) in &found {
            if !self.raised.contains_key(key) {
                let Alarm { name, subject, summary, remedy, .. } = alarm;
                let subject =
                    if subject.is_empty() { String::new() } else { format!(" {subject}") };
                let text = format!("{name}{subject}: {summary}. What to do: {remedy}");
                let cluster = Some(alarm.cluster.clone()).filter(|name| !name.is_empty());
                (self.agent.log)(LogLine { level: Level::Alarm, cluster, job: None, text });
            }
        }
        for (key, alarm) in &self.raised {
            if !found.contains_key(key) {
                let text = format!("{} {}: over", alarm.name, alarm.subject);
                let cluster = Some(alarm.cluster.clone()).filter(|name| !name.is_empty());
                (self.agent.log)(LogLine { level: Level::Info, cluster, job: None, text });
            }
        }
        self.notifier.tell(&found.values().cloned().collect::<Vec<_>>(), now);
        self.raised = found;
    }

    /// Ends all, each as it should be ended.
    fn end(&mut self) {
        let all: Vec<_> = self.guarded.drain(..).chain(self.ending.drain(..)).collect();
        all.iter().for_each(|guarded| guarded.stop.set());
        for guarded in all {
            for thread in guarded.threads {
                let _ = thread.join();
            }
        }
    }
}

/// What is known of a cluster before anything was done.
fn begun(ward: &Ward) -> ClusterState {
    let now = records::now();
    let cluster = &ward.cluster;
    // What is older than others are kept is what was done last.
    let records = records::newest(&ward.own, &cluster.name, Timestamp::UNIX_EPOCH);
    let records = records.unwrap_or_default();
    let mut jobs: BTreeMap<_, _> = ward
        .jobs
        .iter()
        .map(|job| {
            let period = job.schedule.period(now);
            let schedule = Some(job.schedule.clone());
            (
                job.name.clone(),
                JobState {
                    period,
                    schedule,
                    jitter: job.jitter,
                    since: Some(now),
                    ..JobState::default()
                },
            )
        })
        .collect();
    for record in records {
        if let Some(job) = jobs.get_mut(&record.job) {
            job.slot = job.slot.max(Some(record.slot));
            job.hear(record.not_later_than(now), false);
        }
    }
    ClusterState {
        health: Health::default(),
        paused: None,
        resumed: None,
        capture: cluster.is_followed().then(|| CaptureState::new(now)),
        archives: cluster
            .archives
            .iter()
            .filter(|_| cluster.is_followed())
            .map(|archive| (archive.place.clone(), crate::board::ArchiveState::default()))
            .collect(),
        surroundings: Vec::new(),
        unguarded: None,
        jobs,
    }
}

/// Starts a thread of a cluster; where it panics it is told, and begins again.
fn thread(
    name: &'static str,
    ward: &Arc<Ward>,
    work: impl Fn(&Arc<Ward>) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let ward = Arc::clone(ward);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        loop {
            let turn = std::panic::AssertUnwindSafe(|| work(&ward));
            if std::panic::catch_unwind(turn).is_ok() {
                return;
            }
            ward.say(Level::Warning, None, format!("what {name} has panicked, and begins again"));
            if ward.stop.wait(AFTER_PANIC) {
                return;
            }
        }
    })
}

fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |cause| Error::State { doing, path: path.display().to_string(), cause }
}

/// The configuration that holds for an agent with this state: whatever becomes of the file that it was read from, commands
/// are run with this.
#[must_use]
pub fn kept(state: &Path) -> PathBuf {
    state.join("config.yaml")
}

fn keep(config: &Config, text: &str) -> Result<(), Error> {
    let path = kept(&config.state);
    // A disk that is full keeps nobody from beginning as before.
    if std::fs::read(&path).is_ok_and(|before| before == text.as_bytes()) {
        return Ok(());
    }
    let part = path.with_extension("part");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
    let mut file = file.map_err(at("opening", &part))?;
    file.write_all(text.as_bytes()).map_err(at("writing", &part))?;
    std::fs::rename(&part, &path).map_err(at("writing", &path))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(at("making", path))
}

fn lock(state: &Path) -> Result<File, Error> {
    let path = state.join("agent.lock");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(at("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Error::AtWork { path: state.display().to_string() }),
    }
}

/// The id of the agent that works with this state.
fn own_id(state: &Path) -> Result<String, Error> {
    let path = state.join("agent.id");
    if let Ok(text) = std::fs::read_to_string(&path)
        && text.trim().len() == 16
        && text.trim().bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return Ok(text.trim().to_owned());
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| {
        at("asking for randomness for", &path)(io::Error::other(error.to_string()))
    })?;
    let id = format!("{:016x}", u64::from_le_bytes(bytes));
    std::fs::write(&path, format!("{id}\n")).map_err(at("writing", &path))?;
    Ok(id)
}
