//! Following a cluster into its archives, revision by revision.
//!
//! [`Machine`] decides; this module does what it says: a task watches, a thread writes into each archive,
//! one takes snapshots, and one for each makes its bases. What has come is kept in a journal on this host
//! meanwhile.

mod bases;
mod change;
mod events;
mod machine;
mod members;
mod tail;
mod watcher;
mod witness;
mod writing;

pub use events::{Action, Event, From, Notice, Now, Said, Settings};
pub use machine::Machine;
pub use tail::Tail;
pub use witness::Disagreement;

use bases::{Bases, Before, Snapshots};
use members::Members;
use rekindle_archive::format::header::Moment;
use rekindle_archive::format::{ObjectId, TimelineId};
use rekindle_archive::{Archive, BaseWritten, Comparison, Journal, MemberHash};
use rekindle_client::{Client, Endpoint};
use rekindle_etcd::{ClusterId, MemberId, Revision};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use watcher::Watcher;
use writing::{Order, Writing};

/// How long nothing may happen before the machine is asked.
const TICK: Duration = Duration::from_millis(50);
/// How often the state is told.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Messages of a watch that may wait.
const WAITING: usize = 16;

/// Opens an archive. It is asked again whenever the archive cannot be used, so that what is wrong with one of them
/// keeps the cluster from none of the others. The error says why it cannot be had now.
pub type Reach = Box<dyn FnMut() -> Result<Archive, String> + Send>;

/// What is to be followed, and into what.
pub struct Capture {
    /// The cluster; members that it lists are asked, too.
    pub cluster: Client,
    /// How the archives are come by.
    pub archives: Vec<Reach>,
    /// Where the journal and snapshots lie meanwhile; digest tables, too.
    pub spool: PathBuf,
    /// The most bytes of the journal.
    pub journal_max: u64,
    /// How it works.
    pub settings: Settings,
    /// This host, for people.
    pub host: String,
    /// The clock.
    pub now: fn() -> Moment,
}

/// What the outside wants of it.
#[derive(Clone, Copy, Debug)]
pub struct Signals<'a> {
    /// It is to end.
    pub stop: &'a AtomicBool,
    /// A base is to be made, once.
    pub base: &'a AtomicBool,
}

/// What is told of it while it works.
#[derive(Debug)]
pub enum Told {
    /// What the machine noticed.
    Notice(Notice),
    /// The cluster has other members than before.
    Members {
        /// Where it is asked now.
        endpoints: Vec<Endpoint>,
    },
    /// The cluster cannot be watched now.
    WatchFailed {
        /// Why.
        cause: String,
    },
    /// A snapshot could not be had.
    SnapshotFailed {
        /// Why.
        cause: String,
    },
    /// An archive cannot be written into now.
    ArchiveFailed {
        /// Its number.
        archive: usize,
        /// Why.
        cause: String,
    },
    /// It can again.
    ArchiveBack {
        /// Its number.
        archive: usize,
    },
    /// Another host writes into an archive: this one takes over when it falls silent.
    StandingBy {
        /// The archive's number.
        archive: usize,
        /// That host.
        host: String,
    },
    /// This host writes into an archive now.
    Writing {
        /// Its number.
        archive: usize,
    },
    /// A base was made.
    Base {
        /// The archive's number.
        archive: usize,
        /// What it is.
        written: Box<BaseWritten>,
    },
    /// A base could not be made.
    BaseFailed {
        /// The archive's number.
        archive: usize,
        /// Why.
        error: rekindle_archive::Error,
    },
    /// Something of an archive, or of the journal, cannot be read; a base is made without it.
    Unreadable {
        /// The archive's number.
        archive: usize,
        /// What, and why.
        cause: String,
    },
    /// Members have said their HashKV of a revision, and agree as far as they can be compared.
    Witnesses {
        /// So many.
        members: usize,
        /// That revision.
        revision: Revision,
        /// Those that had not come so far.
        lagging: Vec<MemberId>,
    },
    /// Members contradict each other.
    Disagreement(Disagreement),
    /// Members could not be asked for their HashKV.
    NoWitness {
        /// Why.
        cause: String,
    },
    /// What they have said could not be kept in an archive.
    WitnessFailed {
        /// The archive's number.
        archive: usize,
        /// Why.
        error: rekindle_archive::Error,
    },
    /// It is to end: what has come is written first.
    Stopping,
    /// How far it is, now and then.
    Status(Status),
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The last revision that has come.
    pub head: Option<Revision>,
    /// So many revisions the cluster is ahead of it, as far as is known.
    pub behind: i64,
    /// For so long, at least.
    pub behind_for: Duration,
    /// For how long the cluster has not said anything; none: it never has.
    pub silent_for: Option<Duration>,
    /// How far each archive is.
    pub archives: Vec<ArchiveStatus>,
}

/// How far an archive is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchiveStatus {
    /// The last revision that it has for good.
    pub written: Option<Revision>,
    /// Another host writes into it.
    pub stands_by: bool,
    /// Bytes of the records that this capture has written into its log, before compression.
    pub record_bytes: u64,
    /// What they take in the store.
    pub stored_bytes: u64,
    /// Its newest base, as far as this host knows, and when that was the cluster's.
    pub base: Option<(Revision, Moment)>,
    /// The newest revision at which this capture found it equal to a snapshot of the cluster.
    pub proven: Option<Revision>,
}

/// What the threads and tasks report.
enum Report {
    /// To the machine.
    Event(Event),
    /// An archive was reached.
    Reached { archive: usize, is: Archive },
    /// Its log was opened.
    Opened {
        archive: usize,
        timeline: Option<TimelineId>,
        end: Option<Revision>,
        /// Of its log some is gone.
        has_hole: bool,
        /// Its newest base, and when that was the cluster's.
        base: Option<(Revision, Moment)>,
    },
    /// Something is in its log for good.
    Stored {
        archive: usize,
        /// Bytes before compression.
        records: u64,
        /// Bytes in the store.
        bytes: u64,
    },
    /// A base was made or not.
    Base { archive: usize, result: Result<Box<BaseWritten>, rekindle_archive::Error> },
    /// Members have said their HashKV, or why none has.
    Hashed(Result<witness::Said, String>),
    /// To whoever looks on.
    Told(Told),
}

type Reports = mpsc::UnboundedSender<Report>;

/// Why capture does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cluster does not even say which one it is.
    #[error(transparent)]
    Cluster(#[from] rekindle_client::Error),
    /// The journal, or what came of the cluster.
    #[error(transparent)]
    Archive(#[from] rekindle_archive::Error),
    /// It was stopped before it followed anything.
    #[error("stopped before anything was followed")]
    Stopped,
    /// The machine gives no threads.
    #[error("starting threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How far it was.
    pub status: Status,
    /// The cluster has answered at last that this was all.
    pub complete: bool,
    /// Archives that this host writes into and that have not everything that came; the journal has it.
    pub lacking: Vec<usize>,
}

impl Capture {
    /// Follows the cluster until `stop`, and then writes what has come.
    ///
    /// # Errors
    /// What this host cannot go on without. What fails of the cluster or of an archive is told, and tried
    /// again.
    pub fn run(
        self,
        Signals { stop, base }: Signals<'_>,
        tell: &mut dyn FnMut(Told),
    ) -> Result<Ended, Error> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let header = unless(stop, &runtime, self.cluster.header())??;
        let cluster = ClusterId(header.cluster_id);
        let directory = self.spool.join(format!("journal-{cluster}"));
        let journal = Journal::open(&directory, self.journal_max, (self.now)())?;
        let tail = match journal.newest() {
            None => None,
            Some(kept) => {
                let first = journal.oldest().map_or(kept.first, |oldest| oldest.first);
                Some(Tail::new((first, kept.last), kept.witness, kept.last_records()?))
            }
        };
        let machine = Machine::new(self.settings, self.archives.len(), tail);
        let writer = journal.writer()?;
        let (reports, reported) = mpsc::unbounded_channel();
        let (said, saying) = mpsc::channel(WAITING);
        let members = Members::of(self.cluster, reports.clone());
        let members = Arc::new(unless(stop, &runtime, members)?);
        let (is_over, over) = watch::channel(false);
        let place = bases::Place {
            cluster,
            members: Arc::clone(&members),
            spool: self.spool.clone(),
            now: self.now,
            reports: reports.clone(),
            runtime: runtime.handle().clone(),
            over,
        };
        let snapshots = Snapshots::start(place, is_over)?;
        let mut destinations = Vec::new();
        for (number, reach) in self.archives.into_iter().enumerate() {
            let writing = Writing {
                number,
                cluster,
                writer,
                host: self.host.clone(),
                flush_every: self.settings.flush_every,
                now: self.now,
                reports: reports.clone(),
            };
            let orders = writing.start(reach)?;
            destinations.push(Destination {
                archive: None,
                left: false,
                orders,
                timeline: None,
                based: None,
                status: ArchiveStatus::default(),
            });
        }
        let watcher = Watcher::new(members, said, reports.clone());
        watcher.look_around(&runtime);
        let mut driver = Driver {
            machine,
            journal,
            destinations,
            snapshots,
            bases: Bases { spool: self.spool, now: self.now },
            watcher,
            hashes: Vec::new().into(),
            reports,
            began: Instant::now(),
            now: self.now,
            runtime,
        };
        driver.run(reported, saying, Signals { stop, base }, tell)
    }
}

/// What a call comes to, unless all is to stop before.
fn unless<T>(
    stop: &AtomicBool,
    runtime: &Runtime,
    call: impl Future<Output = T>,
) -> Result<T, Error> {
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(TICK).await;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            answer = call => Ok(answer),
            () = stopped => Err(Error::Stopped),
        }
    })
}

/// An archive that is written into.
struct Destination {
    /// Once it was reached.
    archive: Option<Archive>,
    /// The cluster became another one before that.
    left: bool,
    /// To its thread.
    orders: Sender<Order>,
    /// The history that is written.
    timeline: Option<TimelineId>,
    /// That of the last base that was made of it here.
    based: Option<TimelineId>,
    /// All of it but what the machine knows.
    status: ArchiveStatus,
}

impl Destination {
    /// Its log was opened; how old its newest base is.
    fn opened(
        &mut self,
        timeline: Option<TimelineId>,
        base: Option<(Revision, Moment)>,
        now: Moment,
    ) -> Duration {
        self.timeline = timeline;
        (self.status.stands_by, self.status.base) = (false, base);
        let age = base.map_or(0, |(_, at)| now.0.saturating_sub(at.0));
        Duration::from_millis(u64::try_from(age).unwrap_or(0))
    }
}

/// Does what the machine says. What uses the runtime goes before it.
struct Driver {
    machine: Machine,
    journal: Journal,
    destinations: Vec<Destination>,
    snapshots: Snapshots,
    bases: Bases,
    watcher: Watcher,
    /// What members have said last.
    hashes: Arc<[MemberHash]>,
    reports: Reports,
    began: Instant,
    now: fn() -> Moment,
    runtime: Runtime,
}

impl Driver {
    fn run(
        &mut self,
        mut reported: mpsc::UnboundedReceiver<Report>,
        mut saying: mpsc::Receiver<Report>,
        Signals { stop, base }: Signals<'_>,
        tell: &mut dyn FnMut(Told),
    ) -> Result<Ended, Error> {
        let (mut status, mut stopping) = (Instant::now(), false);
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    report = reported.recv() => report,
                    report = saying.recv() => report,
                    () = tokio::time::sleep(TICK) => None,
                }
            };
            let event = match self.runtime.block_on(next) {
                Some(report) => self.event(report, tell)?,
                None => Some(Event::Tick),
            };
            let stopped = stop.load(Ordering::Relaxed).then_some(Event::Stop);
            if stopped.is_some() && !std::mem::replace(&mut stopping, true) {
                tell(Told::Stopping);
            }
            let wanted = base.swap(false, Ordering::Relaxed).then_some(Event::BaseWanted);
            if wanted.is_some() {
                (0..self.destinations.len()).for_each(|archive| self.order(archive, Order::TryNow));
            }
            let mut ended = false;
            for event in event.into_iter().chain(wanted).chain(stopped) {
                let now = Now { wall: (self.now)(), passed: self.began.elapsed() };
                for action in self.machine.step(event, now)? {
                    ended |= action == Action::End;
                    self.act(action, tell)?;
                }
            }
            if ended {
                return Ok(self.ended());
            }
            if status.elapsed() >= STATUS_EVERY {
                status = Instant::now();
                tell(Told::Status(self.status()));
            }
        }
    }

    fn status(&self) -> Status {
        let status = |(number, place): (usize, &Destination)| ArchiveStatus {
            written: self.machine.written(number),
            ..place.status.clone()
        };
        Status {
            head: self.machine.head(),
            behind: self.machine.behind(),
            behind_for: self.machine.behind_for(self.began.elapsed()),
            silent_for: self.machine.silent_for(self.began.elapsed()),
            archives: self.destinations.iter().enumerate().map(status).collect(),
        }
    }

    fn ended(&self) -> Ended {
        let (status, kept) = (self.status(), self.machine.kept());
        let lacks = |archive: &ArchiveStatus| {
            !archive.stands_by && (archive.written.is_none() || archive.written < kept)
        };
        let numbered = status.archives.iter().map(lacks).enumerate();
        let lacking = numbered.filter(|(_, lacks)| *lacks).map(|(number, _)| number).collect();
        Ended { status, complete: self.machine.is_complete(), lacking }
    }

    /// What a report is to the machine.
    fn event(
        &mut self,
        report: Report,
        tell: &mut dyn FnMut(Told),
    ) -> Result<Option<Event>, Error> {
        match report {
            Report::Event(event) => Ok(Some(event)),
            Report::Told(told) => {
                if let Told::StandingBy { archive, .. } = told
                    && let Some(place) = self.destinations.get_mut(archive)
                {
                    place.status.stands_by = true;
                }
                tell(told);
                Ok(None)
            }
            Report::Hashed(Err(cause)) => {
                tell(Told::NoWitness { cause });
                Ok(Some(Event::NotHashed))
            }
            Report::Hashed(Ok(said)) => {
                let witness::Said { revision, hashes, lagging, took } = said;
                let members = hashes.len();
                let disagreement = witness::disagreement(&hashes);
                self.watcher.members().judge(&witness::Judgement::of(&hashes));
                tell(match disagreement {
                    Some(disagreement) => Told::Disagreement(disagreement),
                    None => Told::Witnesses { members, revision, lagging },
                });
                self.hashes = hashes.into();
                Ok(Some(Event::Hashed { revision, took }))
            }
            Report::Stored { archive, records, bytes } => {
                if let Some(Destination { status, .. }) = self.destinations.get_mut(archive) {
                    status.record_bytes += records;
                    status.stored_bytes += bytes;
                }
                Ok(None)
            }
            Report::Reached { archive, is } => {
                let Some(place) = self.destinations.get_mut(archive) else { return Ok(None) };
                if std::mem::take(&mut place.left) {
                    self.journal.leave(is.id())?;
                }
                place.archive = Some(is);
                Ok(None)
            }
            Report::Opened { archive, timeline, end, has_hole, base } => {
                let Some(place) = self.destinations.get_mut(archive) else { return Ok(None) };
                let base_age = place.opened(timeline, base, (self.now)());
                let feeds = place.archive.as_ref().and_then(|it| self.journal.feeds(it.id()));
                let ours = timeline.is_some() && feeds == timeline;
                Ok(Some(Event::Opened { archive, end, has_hole, ours, base_age }))
            }
            Report::Base { archive, result } => Ok(self.hear_base(archive, result, tell)),
        }
    }

    /// What came of a base.
    fn hear_base(
        &mut self,
        archive: usize,
        result: Result<Box<BaseWritten>, rekindle_archive::Error>,
        tell: &mut dyn FnMut(Told),
    ) -> Option<Event> {
        let place = self.destinations.get_mut(archive)?;
        let (mut base, mut moved) = (None, false);
        match result {
            Ok(written) => {
                let (timeline, revision) = (Some(written.facts.timeline), written.facts.last);
                place.based = timeline;
                place.status.base = Some((revision, written.facts.state));
                if let Comparison::Agreed { .. } = written.comparison {
                    place.status.proven = Some(revision);
                }
                (base, moved) = (Some(revision), place.timeline != timeline);
                if moved {
                    let _ = place.orders.send(Order::OpenAgain);
                }
                tell(Told::Base { archive, written });
            }
            Err(rekindle_archive::Error::Overtaken { host, .. }) => {
                // Another one has begun there meanwhile: it is waited for its turn.
                place.status.stands_by = true;
                let _ = place.orders.send(Order::OpenAgain);
                tell(Told::StandingBy { archive, host });
            }
            Err(error) => tell(Told::BaseFailed { archive, error }),
        }
        Some(Event::Base { archive, revision: base, moved })
    }

    fn act(&mut self, action: Action, tell: &mut dyn FnMut(Told)) -> Result<(), Error> {
        match action {
            Action::Watch { watch, from, elsewhere } => {
                self.watcher.watch(&self.runtime, watch, from, elsewhere);
            }
            Action::EndWatch => self.watcher.end(),
            Action::AskProgress => self.watcher.ask_progress(),
            Action::LookUp { lease } => self.watcher.look_up(&self.runtime, lease),
            Action::Keep(cut) => self.journal.add(&cut)?,
            Action::ClearJournal => {
                // First of all: what comes of it later must not go on from what is there.
                for place in &mut self.destinations {
                    match &place.archive {
                        Some(archive) => self.journal.leave(archive.id())?,
                        None => place.left = true,
                    }
                }
                self.journal.clear()?;
            }
            Action::UnmarkAll => self.journal.feed_none()?,
            Action::Unmark { archive } => {
                if let Some(archive) = self.archive(archive).map(Archive::id) {
                    self.journal.feed_not(archive)?;
                }
            }
            Action::Mark { archive } => {
                let based = self.destinations.get(archive).and_then(|place| place.based);
                if let Some((archive, timeline)) = self.archive(archive).zip(based) {
                    let archive = archive.id();
                    self.journal.feed(archive, timeline)?;
                }
            }
            Action::Write { archive, from } => match self.journal.having(from).cloned() {
                Some(kept) => self.order(archive, Order::Write(kept)),
                None => self.report(Event::Missing { archive }),
            },
            Action::ShowLife { archive } => self.order(archive, Order::ShowLife),
            Action::Beat { archive, cut } => self.order(archive, Order::Beat(cut)),
            Action::TakeSnapshot => self.snapshots.take(),
            Action::MakeBase { archive, end, followed } => {
                self.make_base(archive, end, followed)?;
            }
            Action::DropSnapshot => self.snapshots.drop_it(),
            Action::AskMembers => self.watcher.ask_members(&self.runtime, self.now),
            Action::Testify { archive } => {
                self.order(archive, Order::Testify(Arc::clone(&self.hashes)));
            }
            Action::Tell(notice) => tell(Told::Notice(notice)),
            Action::End => {}
        }
        Ok(())
    }

    fn make_base(&self, number: usize, end: Option<Revision>, followed: bool) -> Result<(), Error> {
        let place = self.destinations.get(number);
        let archive = self.archive(number);
        let Some(((place, archive), snapshot)) = place.zip(archive).zip(self.snapshots.taken())
        else {
            self.report(Event::Base { archive: number, revision: None, moved: false });
            return Ok(());
        };
        let log = end.zip(place.timeline);
        let log = log.map(|(end, timeline)| self.journal.view(timeline, end));
        let leaves = self.journal.has_left(archive.id());
        let before = Before { log, leaves, followed, first: end.is_none() };
        Ok(self.bases.make(number, archive, snapshot, before, self.reports.clone())?)
    }

    fn archive(&self, number: usize) -> Option<&Archive> {
        self.destinations.get(number)?.archive.as_ref()
    }

    fn report(&self, event: Event) {
        // The other end is ours.
        let _ = self.reports.send(Report::Event(event));
    }

    fn order(&self, archive: usize, order: Order) {
        if let Some(place) = self.destinations.get(archive) {
            // It goes on until nobody gives orders.
            let _ = place.orders.send(order);
        }
    }
}

/// What follows clusters on this host, by the id that its claims have.
type WriterId = ObjectId;
