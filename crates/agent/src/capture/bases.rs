//! Snapshots, and the bases that are made of them.

use super::events::Event;
use super::{Report, Reports, Told};
use crate::snapshot::{
    Choice, ReceiveFault, Received, Sinks, ask_all, choose, next_batch, receive,
};
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseRequest, BaseWritten, Error, LogView, Origin, Progress, prepare_base,
};
use rekindle_client::{Client, Member, Status};
use rekindle_datadir::{FileSource, NewSnapshot, RealDisk};
use rekindle_etcd::{Backend, ClusterId, Crc32c, MemberId};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// How often members that are behind are asked again, and how often.
const ASK_AGAIN: Duration = Duration::from_millis(100);
const ASK_TIMES: usize = 50;

/// What snapshots are taken of.
pub(super) struct Place {
    pub cluster: ClusterId,
    pub client: Arc<Client>,
    pub spool: PathBuf,
    pub now: fn() -> Moment,
    pub reports: Reports,
    pub runtime: Handle,
}

/// A snapshot that lies in the spool.
pub(super) struct Taken {
    path: PathBuf,
    origin: Origin,
    /// CRC-32C of what came.
    crc: u32,
}

/// The thread that takes snapshots.
pub(super) struct Snapshots {
    orders: Sender<Order>,
    taken: Arc<Mutex<Option<Arc<Taken>>>>,
}

enum Order {
    Take,
    Drop,
}

impl Snapshots {
    pub(super) fn start(place: Place) -> io::Result<Self> {
        let (orders, ordered) = channel();
        let taken: Arc<Mutex<Option<Arc<Taken>>>> = Arc::default();
        let theirs = Arc::clone(&taken);
        let thread = std::thread::Builder::new().name("snapshots".to_owned());
        thread.spawn(move || place.serve(&ordered, &theirs))?;
        Ok(Self { orders, taken })
    }

    pub(super) fn take(&self) {
        let _ = self.orders.send(Order::Take);
    }

    pub(super) fn drop_it(&self) {
        let _ = self.orders.send(Order::Drop);
    }

    /// The one that is there.
    pub(super) fn taken(&self) -> Option<Arc<Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
                match self.take() {
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

    /// Takes one from the first member that can give it.
    fn take(&self) -> Result<(NewSnapshot<'static>, Taken, Event), String> {
        let (members, floor) = self.runtime.block_on(self.members())?;
        let mut failures = Vec::new();
        for (member, status) in members {
            match self.take_from(&member, &status, floor) {
                Ok(taken) => return Ok(taken),
                Err(cause) => failures.push(format!("{}: {cause}", member.endpoint())),
            }
        }
        Err(failures.join("; "))
    }

    /// Members that are up to date, the best first, and the revision that the cluster was at.
    async fn members(&self) -> Result<(Vec<(Member, Status)>, i64), String> {
        let floor = self.client.linearizable_revision().await.map_err(|error| error.to_string())?;
        for _ in 0..ASK_TIMES {
            let candidates = ask_all(&self.client).await;
            match choose(&candidates, floor) {
                Choice::From(order) => {
                    let member = |index: usize| {
                        let status = candidates.get(index)?.status.as_ref().ok()?.clone();
                        Some((self.client.members().get(index)?.clone(), status))
                    };
                    return Ok((order.into_iter().filter_map(member).collect(), floor));
                }
                Choice::Behind { .. } => tokio::time::sleep(ASK_AGAIN).await,
                Choice::Nobody => return Err("no member can give a snapshot".to_owned()),
            }
        }
        Err(format!("no member has caught up with revision {floor}"))
    }

    fn take_from(
        &self,
        member: &Member,
        status: &Status,
        floor: i64,
    ) -> Result<(NewSnapshot<'static>, Taken, Event), String> {
        let path = self.spool.join(format!("capture-{}.db", self.cluster));
        let mut snapshot = NewSnapshot::create(&RealDisk, &path).map_err(|it| it.to_string())?;
        let stream = self.runtime.block_on(member.snapshot());
        let mut stream = stream.map_err(|error| error.to_string())?;
        let sinks = Sinks { snapshot: &mut snapshot, upload: None };
        let next = || self.runtime.block_on(next_batch(&mut stream));
        let received = receive(next, self.now, sinks, &AtomicU64::new(0));
        let received: Result<Received, ReceiveFault<rekindle_client::Error>> = received;
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
}

/// What bases are made with.
pub(super) struct Bases {
    pub archives: Vec<Archive>,
    pub spool: PathBuf,
    pub now: fn() -> Moment,
}

impl Bases {
    /// Begins to make a base in a thread of its own.
    pub(super) fn make(
        &self,
        number: usize,
        snapshot: Arc<Taken>,
        before: Before,
        reports: Reports,
    ) -> io::Result<()> {
        let Some(archive) = self.archives.get(number).cloned() else { return Ok(()) };
        let (spool, now) = (self.spool.clone(), self.now);
        let thread = std::thread::Builder::new().name(format!("base {number}"));
        thread.spawn(move || {
            let Before { log, leaves } = before;
            let base = Base { archive: &archive, snapshot: &snapshot, spool: &spool, leaves, now };
            let mut result = base.make(log.as_ref());
            if let (Err(Error::Spool { .. } | Error::Damaged { .. }), Some(_)) = (&result, &log) {
                // The journal may be what is damaged: then the log comes from the snapshot.
                result = base.make(None);
            }
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
    leaves: bool,
    now: fn() -> Moment,
}

impl Base<'_> {
    fn make(&self, log: Option<&LogView>) -> Result<BaseWritten, Error> {
        let backend = Backend::open(open(&self.snapshot.path)?.reading_ahead())?;
        let (walked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let request = BaseRequest {
            archive: self.archive,
            origin: &self.snapshot.origin,
            tables: Some(self.spool),
            log,
            leaves: self.leaves,
            full: false,
            now: &self.now,
            progress: Progress { walked: &walked, stop: &stop },
        };
        let prepared = prepare_base(&request, &backend)?;
        let status = prepared.status();
        let finding = status.report.findings.first().map(ToString::to_string);
        if status.report.content_damage > 0 || status.record_damage_total > 0 {
            let cause =
                format!("the member's snapshot is damaged: {}", finding.unwrap_or_default());
            return Err(Error::Spool { path: self.snapshot.path.display().to_string(), cause });
        }
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
