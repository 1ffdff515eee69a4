//! Snapshots, and the bases that are made of them.

use super::events::Event;
use super::members::Members;
use super::{Report, Reports, Told};
use crate::snapshot::{NoMember, Received, Sinks, ask_all, next_batch, pick, receive};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseRequest, BaseWritten, Error, LogView, Origin, Progress, prepare_base,
};
use rekindle_client::{Member, Status};
use rekindle_datadir::{FileSource, NewSnapshot, RealDisk, free_space};
use rekindle_etcd::{Backend, ClusterId, Crc32c, MemberId};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How long members that are behind have time to catch up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Room beside a snapshot that should stay free.
const SPACE_MARGIN: u64 = 64 << 20;

/// What snapshots are taken of.
pub(super) struct Place {
    pub cluster: ClusterId,
    pub members: Arc<Members>,
    pub spool: PathBuf,
    pub now: fn() -> Moment,
    pub reports: Reports,
    pub runtime: Handle,
    /// True once all is to end.
    pub over: watch::Receiver<bool>,
}

/// A snapshot that lies in the spool.
pub(super) struct Taken {
    path: PathBuf,
    origin: Origin,
    /// CRC-32C of what came.
    crc: u32,
}

/// The thread that takes snapshots. It ends with this, and uses the runtime until then.
pub(super) struct Snapshots {
    orders: Option<Sender<Order>>,
    taken: Arc<Mutex<Option<Arc<Taken>>>>,
    over: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Take,
    Drop,
}

impl Snapshots {
    pub(super) fn start(place: Place, over: watch::Sender<bool>) -> io::Result<Self> {
        let (orders, ordered) = channel();
        let taken: Arc<Mutex<Option<Arc<Taken>>>> = Arc::default();
        let theirs = Arc::clone(&taken);
        let thread = std::thread::Builder::new().name("snapshots".to_owned());
        let thread = thread.spawn(move || place.serve(&ordered, &theirs))?;
        Ok(Self { orders: Some(orders), taken, over, thread: Some(thread) })
    }

    pub(super) fn take(&self) {
        self.order(Order::Take);
    }

    pub(super) fn drop_it(&self) {
        self.order(Order::Drop);
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(order);
        }
    }

    /// The one that is there.
    pub(super) fn taken(&self) -> Option<Arc<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.over.send_replace(true);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Place {
    fn serve(&self, orders: &Receiver<Order>, taken: &Mutex<Option<Arc<Taken>>>) {
        // Its file goes with it.
        let mut held: Option<NewSnapshot<'_>> = None;
        for order in orders {
            drop(held.take());
            let mut there = None;
            if let Order::Take = order {
                let take = std::panic::AssertUnwindSafe(|| self.take());
                let panicked = |_| Err("its thread has panicked".to_owned());
                match std::panic::catch_unwind(take).unwrap_or_else(panicked) {
                    Ok((snapshot, new, event)) => {
                        held = Some(snapshot);
                        there = Some((Arc::new(new), event));
                    }
                    Err(cause) => {
                        let _ = self.reports.send(Report::Told(Told::SnapshotFailed { cause }));
                        let _ = self.reports.send(Report::Event(Event::NoSnapshot));
                    }
                }
            }
            let (new, event) = there.unzip();
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = new;
            if let Some(event) = event {
                let _ = self.reports.send(Report::Event(event));
            }
        }
    }

    /// What a call of the cluster comes to, unless all ends before.
    fn wait<T, E: std::fmt::Display>(
        &self,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, String> {
        let mut over = self.over.clone();
        self.runtime.block_on(async {
            tokio::select! {
                answer = call => answer.map_err(|error| error.to_string()),
                _ = over.wait_for(|over| *over) => Err("capture has ended".to_owned()),
            }
        })
    }

    /// Takes one from the first member that can give it.
    fn take(&self) -> Result<(NewSnapshot<'static>, Taken, Event), String> {
        let client = self.members.client();
        let floor = self.wait(client.linearizable_revision())?;
        let candidates = self.wait(async { Ok::<_, NoMember>(ask_all(&client).await) })?;
        let mut failures = Vec::new();
        for (member, status) in self.wait(pick(&client, candidates, floor, PATIENCE))? {
            if self.members.is_suspect(MemberId(status.header.member_id)) {
                failures.push(format!("{}: other members contradict it", member.endpoint()));
                continue;
            }
            match self.take_from(&member, &status, floor) {
                Ok(taken) => return Ok(taken),
                Err(cause) => failures.push(format!("{}: {cause}", member.endpoint())),
            }
        }
        Err(failures.join("; "))
    }

    fn take_from(
        &self,
        member: &Member,
        status: &Status,
        floor: i64,
    ) -> Result<(NewSnapshot<'static>, Taken, Event), String> {
        let path = self.spool.join(format!("capture-{}.db", self.cluster));
        // First of all: it removes what a run that was killed has left, and that took room.
        let mut snapshot = NewSnapshot::create(&RealDisk, &path).map_err(|it| it.to_string())?;
        self.check_space(status.db_size)?;
        let mut stream = self.wait(member.snapshot())?;
        let sinks = Sinks { snapshot: &mut snapshot, upload: None };
        let next = || self.wait(next_batch(&mut stream));
        let received = receive(next, self.now, sinks, &AtomicU64::new(0));
        let Received { crc, state, .. } = received.map_err(|fault| fault.to_string())?;
        snapshot.flush().map_err(|error| error.to_string())?;
        let path = snapshot.part().to_owned();
        let (revision, compact) = facts(&path).map_err(|error| error.to_string())?;
        if revision.get() < floor {
            return Err(format!("its snapshot is of revision {revision}, before {floor}"));
        }
        let origin = Origin {
            cluster: self.cluster,
            member: MemberId(status.header.member_id),
            etcd: status.version.clone(),
            state,
            current: true,
        };
        let event = Event::Snapshot { revision, compact };
        Ok((snapshot, Taken { path, origin, crc }, event))
    }

    fn check_space(&self, snapshot: u64) -> Result<(), String> {
        let free = free_space(&self.spool).map_err(|error| error.to_string())?;
        let need = snapshot.saturating_add(SPACE_MARGIN);
        match free >= need {
            true => Ok(()),
            false => Err(format!(
                "{} has {} MiB free, and a snapshot may need {} MiB: make room, or name another --spool",
                self.spool.display(),
                free >> 20,
                need >> 20
            )),
        }
    }
}

/// What a snapshot is of, and up to where it was compacted.
fn facts(path: &Path) -> Result<(rekindle_etcd::Revision, Option<rekindle_etcd::Revision>), Error> {
    let facts = Backend::open(open(path)?)?.facts()?;
    Ok((facts.revision(), facts.compaction.revision()))
}

fn open(path: &Path) -> Result<FileSource, Error> {
    FileSource::open(path).map_err(|error| spool(path, &error))
}

fn spool(path: &Path, error: &io::Error) -> Error {
    Error::Spool { path: path.display().to_string(), cause: error.to_string() }
}

/// What is known of an archive before a base of it is made.
pub(super) struct Before {
    /// What its log has, as far as the journal has it, too.
    pub log: Option<LogView>,
    /// The cluster is another one than that.
    pub leaves: bool,
    /// The archive's log is known to be of what the cluster has now.
    pub followed: bool,
    /// It had no base.
    pub first: bool,
}

/// What bases are made with.
pub(super) struct Bases {
    pub spool: PathBuf,
    pub now: fn() -> Moment,
}

impl Bases {
    /// Begins to make a base in a thread of its own.
    pub(super) fn make(
        &self,
        number: usize,
        archive: &Archive,
        snapshot: Arc<Taken>,
        before: Before,
        reports: Reports,
    ) -> io::Result<()> {
        let (archive, spool, now) = (archive.clone(), self.spool.clone(), self.now);
        let thread = std::thread::Builder::new().name(format!("base {number}"));
        thread.spawn(move || {
            let unreadable = |error: &Error| {
                let cause = error.to_string();
                let _ = reports.send(Report::Told(Told::Unreadable { archive: number, cause }));
            };
            let base = Base { archive: &archive, snapshot: &snapshot, spool: &spool, before, now };
            let made = std::panic::AssertUnwindSafe(|| base.make(unreadable));
            let result = std::panic::catch_unwind(made).unwrap_or(Err(Error::Panicked));
            let result = result.map(Box::new);
            let _ = reports.send(Report::Base { archive: number, result });
        })?;
        Ok(())
    }
}

/// A base that is to be made.
struct Base<'a> {
    archive: &'a Archive,
    snapshot: &'a Taken,
    spool: &'a Path,
    before: Before,
    now: fn() -> Moment,
}

impl Base<'_> {
    fn make(&self, unreadable: impl Fn(&Error)) -> Result<BaseWritten, Error> {
        let backend = Backend::open(open(&self.snapshot.path)?.reading_ahead())?;
        let (walked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let progress = Progress { walked: &walked, stop: &stop };
        let plain = BaseRequest::new(self.archive, &self.snapshot.origin, &self.now, progress);
        let Before { log, leaves, followed, first } = &self.before;
        let request = BaseRequest {
            tables: Some(self.spool),
            log: log.as_ref(),
            leaves: *leaves,
            followed: *followed,
            first: *first,
            ..plain
        };
        let prepared = prepare_base(&request, &backend)?;
        let status = prepared.status();
        let finding = status.report.findings.first().map(ToString::to_string);
        if status.report.content_damage > 0 || status.record_damage_total > 0 {
            let cause =
                format!("the member's snapshot is damaged: {}", finding.unwrap_or_default());
            return Err(Error::Spool { path: self.snapshot.path.display().to_string(), cause });
        }
        prepared.unreadable().iter().for_each(unreadable);
        self.check_file()?;
        prepared.publish((self.now)())
    }

    /// What was archived is what came over the wire.
    fn check_file(&self) -> Result<(), Error> {
        let path = &self.snapshot.path;
        let mut file = File::open(path).map_err(|error| spool(path, &error))?;
        let (mut crc, mut buffer) = (Crc32c::new(), vec![0; 1 << 20]);
        loop {
            let read = file.read(&mut buffer).map_err(|error| spool(path, &error))?;
            crc.update(buffer.get(..read).unwrap_or_default());
            if read == 0 {
                break;
            }
        }
        match crc.value() == self.snapshot.crc {
            true => Ok(()),
            false => {
                let cause = "it is not what came: the disk or the memory of this host is at fault";
                Err(Error::Spool { path: path.display().to_string(), cause: cause.to_owned() })
            }
        }
    }
}
