//! Following a cluster into its archives, revision by revision.
//!
//! [`Machine`] decides; this module does what it says: a task watches, a thread writes into each archive,
//! one takes snapshots, and one for each makes its bases. What has come is kept in a journal on this host
//! meanwhile.

mod bases;
mod events;
mod machine;
mod tail;
mod watcher;
mod writing;

pub use events::{Action, Event, From, Notice, Now, Said, Settings};
pub use machine::Machine;
pub use tail::Tail;

use bases::{Bases, Before, Snapshots};
use rekindle_archive::format::header::Moment;
use rekindle_archive::format::{ObjectId, TimelineId};
use rekindle_archive::{Archive, BaseWritten, Journal};
use rekindle_client::Client;
use rekindle_etcd::{ClusterId, Revision};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use watcher::Watcher;
use writing::{Order, Writing};

/// How long nothing may happen before the machine is asked.
const TICK: Duration = Duration::from_millis(50);
/// How often the state is told.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Messages of a watch that may wait.
const WAITING: usize = 16;

/// What is to be followed, and into what.
pub struct Capture {
    /// The cluster: all its members.
    pub cluster: Client,
    /// The archives.
    pub archives: Vec<Archive>,
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

/// What is told of it while it works.
#[derive(Debug)]
pub enum Told {
    /// What the machine noticed.
    Notice(Notice),
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
        error: rekindle_archive::Error,
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
    /// Of each archive: the last revision that it has for good.
    pub archives: Vec<Option<Revision>>,
}

/// What the threads and tasks report.
enum Report {
    /// To the machine.
    Event(Event),
    /// An archive was opened.
    Opened {
        archive: usize,
        timeline: Option<TimelineId>,
        /// The revision of its newest base.
        base: Option<Revision>,
        end: Option<Revision>,
        base_age: Duration,
    },
    /// A base was made or not.
    Base { archive: usize, result: Result<Box<BaseWritten>, rekindle_archive::Error> },
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
    /// The machine gives no threads.
    #[error("starting threads: {0}")]
    Threads(#[from] std::io::Error),
}

impl Capture {
    /// Follows the cluster until `stop`, and then writes what has come.
    ///
    /// # Errors
    /// What this host cannot go on without. What fails of the cluster or of an archive is told, and tried
    /// again.
    pub fn run(self, stop: &AtomicBool, tell: &mut dyn FnMut(Told)) -> Result<(), Error> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let header = runtime.block_on(self.cluster.header())?;
        let cluster = ClusterId(header.cluster_id);
        let directory = self.spool.join(format!("journal-{cluster}"));
        let journal = Journal::open(&directory, self.journal_max)?;
        let tail = match journal.newest() {
            None => None,
            Some(kept) => Some(Tail::new(kept.last, kept.witness, kept.last_records()?)),
        };
        let machine = Machine::new(self.settings, self.archives.len(), tail);
        let writer = journal.writer()?;
        let (reports, reported) = mpsc::unbounded_channel();
        let (said, saying) = mpsc::channel(WAITING);
        let client = Arc::new(self.cluster);
        let snapshots = Snapshots::start(bases::Place {
            cluster,
            client: Arc::clone(&client),
            spool: self.spool.clone(),
            now: self.now,
            reports: reports.clone(),
            runtime: runtime.handle().clone(),
        })?;
        let orders = self.archives.iter().enumerate().map(|(number, archive)| {
            Writing {
                number,
                archive: archive.clone(),
                cluster,
                writer,
                host: self.host.clone(),
                flush_every: self.settings.flush_every,
                now: self.now,
                reports: reports.clone(),
            }
            .start()
        });
        let orders = orders.collect::<Result<Vec<_>, _>>()?;
        let bases = Bases { archives: self.archives, spool: self.spool, now: self.now };
        let timelines = vec![None; orders.len()];
        let watcher = Watcher::new(client, said, reports.clone());
        watcher.look_at_auth(&runtime);
        let mut driver = Driver {
            machine,
            journal,
            orders,
            snapshots,
            bases,
            watcher,
            based: timelines.clone(),
            last_base: vec![None; timelines.len()],
            timelines,
            reports,
            began: Instant::now(),
            now: self.now,
            runtime,
        };
        driver.run(reported, saying, stop, tell)
    }
}

/// Does what the machine says.
struct Driver {
    machine: Machine,
    journal: Journal,
    /// To the thread of each archive.
    orders: Vec<Sender<Order>>,
    snapshots: Snapshots,
    bases: Bases,
    watcher: Watcher,
    /// The history that is written of each archive.
    timelines: Vec<Option<TimelineId>>,
    /// The history of the last base that was made of each.
    based: Vec<Option<TimelineId>>,
    /// The revision of each one's newest base.
    last_base: Vec<Option<Revision>>,
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
        stop: &AtomicBool,
        tell: &mut dyn FnMut(Told),
    ) -> Result<(), Error> {
        let mut status = Instant::now();
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
            let mut ended = false;
            for event in event.into_iter().chain(self.stopped(stop)) {
                let now = Now { wall: (self.now)(), passed: self.began.elapsed() };
                for action in self.machine.step(event, now)? {
                    ended |= action == Action::End;
                    self.act(action, tell)?;
                }
            }
            if ended {
                return Ok(());
            }
            if status.elapsed() >= STATUS_EVERY {
                status = Instant::now();
                tell(Told::Status(self.status()));
            }
        }
    }

    fn stopped(&self, stop: &AtomicBool) -> Option<Event> {
        stop.load(Ordering::Relaxed).then_some(Event::Stop)
    }

    fn status(&self) -> Status {
        let archives = (0..self.orders.len()).map(|number| self.machine.written(number));
        Status {
            head: self.machine.head(),
            behind: self.machine.behind(),
            archives: archives.collect(),
        }
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
                tell(told);
                Ok(None)
            }
            Report::Opened { archive, timeline, base, end, base_age } => {
                self.last_base.get_mut(archive).into_iter().for_each(|it| *it = base);
                self.timelines.get_mut(archive).into_iter().for_each(|it| *it = timeline);
                let id = self.bases.archives.get(archive).map(Archive::id);
                let ours =
                    timeline.is_some() && id.and_then(|id| self.journal.feeds(id)) == timeline;
                Ok(Some(Event::Opened { archive, end, ours, base_age }))
            }
            Report::Base { archive, result: Ok(written) } => {
                let (timeline, revision) = (written.facts.timeline, Some(written.facts.last));
                self.based.get_mut(archive).into_iter().for_each(|it| *it = Some(timeline));
                self.last_base.get_mut(archive).into_iter().for_each(|it| *it = revision);
                let moved = self.timelines.get(archive) != Some(&Some(timeline));
                if moved {
                    self.order(archive, Order::OpenAgain);
                }
                tell(Told::Base { archive, written });
                Ok(Some(Event::Base { archive, revision, moved }))
            }
            Report::Base { archive, result: Err(error) } => {
                tell(Told::BaseFailed { archive, error });
                Ok(Some(Event::Base { archive, revision: None, moved: false }))
            }
        }
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
                for archive in &self.bases.archives {
                    self.journal.leave(archive.id())?;
                }
                self.journal.clear()?;
            }
            Action::UnmarkAll => self.journal.feed_none()?,
            Action::Unmark { archive } => {
                if let Some(archive) = self.bases.archives.get(archive) {
                    self.journal.feed_not(archive.id())?;
                }
            }
            Action::Mark { archive } => {
                let id = self.bases.archives.get(archive).map(Archive::id);
                let timeline = self.based.get(archive).copied().flatten();
                if let Some((id, timeline)) = id.zip(timeline) {
                    self.journal.feed(id, timeline)?;
                }
            }
            Action::Write { archive, from } => match self.journal.having(from).cloned() {
                Some(kept) => self.order(archive, Order::Write(kept)),
                None => self.report(Event::Missing { archive }),
            },
            Action::Beat { archive, cut } => self.order(archive, Order::Beat(cut)),
            Action::TakeSnapshot => self.snapshots.take(),
            Action::MakeBase { archive, end, followed } => {
                let log = end.zip(self.timelines.get(archive).copied().flatten());
                let log = log.map(|(end, timeline)| self.journal.view(timeline, end));
                let id = self.bases.archives.get(archive).map(Archive::id);
                let base = self.last_base.get(archive).copied().flatten();
                let is_known = match end.zip(base) {
                    Some((end, base)) if end > base => self.journal.reaches(base, end),
                    _ => true,
                };
                let has_left = id.is_some_and(|id| self.journal.has_left(id));
                let leaves = has_left || !followed && !is_known;
                self.make_base(archive, Before { log, leaves })?;
            }
            Action::DropSnapshot => self.snapshots.drop_it(),
            Action::Tell(notice) => tell(Told::Notice(notice)),
            Action::End => {}
        }
        Ok(())
    }

    fn make_base(&self, archive: usize, before: Before) -> Result<(), Error> {
        let Some(snapshot) = self.snapshots.taken() else {
            self.report(Event::Base { archive, revision: None, moved: false });
            return Ok(());
        };
        Ok(self.bases.make(archive, snapshot, before, self.reports.clone())?)
    }

    fn report(&self, event: Event) {
        // The other end is ours.
        let _ = self.reports.send(Report::Event(event));
    }

    fn order(&self, archive: usize, order: Order) {
        if let Some(orders) = self.orders.get(archive) {
            let _ = orders.send(order);
        }
    }
}

/// What follows clusters on this host, by the id that its claims have.
type WriterId = ObjectId;
