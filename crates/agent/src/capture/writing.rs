//! The thread that writes into one archive.

use super::events::Event;
use super::{Reach, Report, Reports, Told, WriterId};
use rekindle_archive::format::TimelineId;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, Cut, Error, Kept, LogEnd, LogWriter, MemberHash, Merge, Merged, Merging,
    StoreFaultKind, Written,
};
use rekindle_etcd::ClusterId;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Whoever writes nothing for so many flush intervals has lost his turn.
const SILENT_FLUSHES: u32 = 3;
/// How long is waited after a failure, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What is to be written.
pub(super) enum Order {
    /// A piece of the journal.
    Write(Kept),
    /// That nothing has come.
    Beat(Cut),
    /// That somebody is here.
    ShowLife,
    /// What members say of their keyspaces.
    Testify(Arc<[MemberHash]>),
    /// There is a base of another history now.
    OpenAgain,
    /// What fails is to be tried at once.
    TryNow,
}

/// What one archive is written with.
pub(super) struct Writing {
    pub number: usize,
    pub cluster: ClusterId,
    pub writer: WriterId,
    pub host: String,
    pub flush_every: Duration,
    pub now: fn() -> Moment,
    pub reports: Reports,
}

/// Nobody gives orders any more.
struct Over;

/// Failures that follow each other: only the first is told, and the longer they go on the longer is waited.
struct Trouble {
    told: bool,
    retry: Duration,
}

impl Trouble {
    fn none() -> Self {
        Self { told: false, retry: RETRY_MIN }
    }

    /// How long is to be waited.
    fn wait(&mut self) -> Duration {
        let retry = self.retry;
        self.retry = (retry * 2).min(RETRY_MAX);
        retry
    }
}

/// How serving an archive ended.
enum Left {
    /// It is to be opened again; another host writes into it where `overtaken`.
    Again {
        overtaken: bool,
    },
    Over,
}

impl Writing {
    /// Begins to serve; it ends with whoever gives the orders.
    pub(super) fn start(self, mut reach: Reach) -> io::Result<Sender<Order>> {
        let (orders, ordered) = channel();
        let name = format!("archive {}", self.number);
        std::thread::Builder::new().name(name).spawn(move || {
            // While it can be opened, but not be written into.
            let mut trouble = Trouble::none();
            loop {
                let turn = std::panic::AssertUnwindSafe(|| match self.open(&mut reach, &ordered) {
                    Ok((archive, writer)) => self.serve(&archive, writer, &ordered, &mut trouble),
                    // That nobody listens any more ends it.
                    Err(Over) => Left::Over,
                });
                let overtaken = match std::panic::catch_unwind(turn) {
                    Ok(Left::Over) => return,
                    Ok(Left::Again { overtaken }) => overtaken,
                    Err(_) => {
                        self.tell_failure(Error::Panicked.to_string(), &mut Trouble::none());
                        if self.wait(&ordered, RETRY_MAX).is_err() {
                            return;
                        }
                        true
                    }
                };
                self.report(Event::Closed { archive: self.number, overtaken });
            }
        })?;
        Ok(orders)
    }

    fn report(&self, event: Event) {
        let _ = self.reports.send(Report::Event(event));
    }

    fn tell(&self, told: Told) {
        let _ = self.reports.send(Report::Told(told));
    }

    /// Waits for its turn, as long as it takes.
    fn open(
        &self,
        reach: &mut Reach,
        orders: &Receiver<Order>,
    ) -> Result<(Archive, Option<Box<LogWriter>>), Over> {
        let (archive, mut trouble) = (self.number, Trouble::none());
        loop {
            let opened = reach().and_then(|is| {
                let _ = self.reports.send(Report::Reached { archive, is: is.clone() });
                match self.try_open(&is, orders) {
                    // Another one was quicker: it is waited for him.
                    Err(Error::Overtaken { host, .. }) => {
                        self.tell(Told::StandingBy { archive, host });
                        Ok(None)
                    }
                    opened => opened.map_err(|error| error.to_string()).map(|it| Some((is, it))),
                }
            });
            match opened {
                Ok(None) => {}
                Ok(Some((is, Opened::Yes { writer, end }))) => {
                    if trouble.told {
                        self.tell(Told::ArchiveBack { archive });
                    }
                    if writer.is_some() {
                        self.tell(Told::Writing { archive });
                    }
                    let _ = self.reports.send(Report::Opened {
                        archive,
                        timeline: writer.as_ref().map(|writer| writer.timeline()),
                        end: end.map(|end| end.last),
                        has_hole: end.is_some_and(|end| end.has_hole),
                        base: end.map(|end| (end.base, end.base_at)),
                    });
                    return Ok((is, writer));
                }
                Ok(Some((_, Opened::Over))) => return Err(Over),
                Err(cause) => {
                    self.tell_failure(cause, &mut trouble);
                    self.wait(orders, trouble.wait())?;
                }
            }
        }
    }

    fn tell_failure(&self, cause: String, trouble: &mut Trouble) {
        if !std::mem::replace(&mut trouble.told, true) {
            self.tell(Told::ArchiveFailed { archive: self.number, cause });
        }
    }

    /// Waits so long whatever is ordered.
    fn wait_out(&self, orders: &Receiver<Order>, time: Duration) -> Result<(), Over> {
        let until = Instant::now() + time;
        while let left = until.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            self.wait(orders, left)?;
        }
        Ok(())
    }

    /// Waits a while, or until something is ordered.
    fn wait(&self, orders: &Receiver<Order>, time: Duration) -> Result<(), Over> {
        match orders.recv_timeout(time) {
            Err(RecvTimeoutError::Disconnected) => Err(Over),
            // What was ordered meanwhile is ordered again once the archive is open.
            Ok(_) | Err(RecvTimeoutError::Timeout) => Ok(()),
        }
    }

    fn try_open(&self, archive: &Archive, orders: &Receiver<Order>) -> Result<Opened, Error> {
        let Some(end) = archive.log_end(self.cluster)? else {
            // The base that it needs first makes its history.
            archive.check_writable()?;
            return Ok(Opened::Yes { writer: None, end: None });
        };
        if self.wait_for_turn(archive, &end, orders)?.is_none() {
            return Ok(Opened::Over);
        }
        let writer = archive.claim(end.timeline, self.writer, &self.host, (self.now)())?;
        // What came until then was listed; what comes now is nobody's but ours.
        let end = archive.log_end(self.cluster)?;
        match end.filter(|end| end.timeline == writer.timeline()) {
            Some(end) => {
                let writer = Some(Box::new(writer));
                Ok(Opened::Yes { writer, end: Some(end) })
            }
            // Another history has begun meanwhile.
            None => self.try_open(archive, orders),
        }
    }

    /// Waits until whoever has the turn is silent; none where all ends before.
    fn wait_for_turn(
        &self,
        archive: &Archive,
        end: &LogEnd,
        orders: &Receiver<Order>,
    ) -> Result<Option<()>, Error> {
        let mut seen = archive.activity(end.timeline)?;
        let (mut silent, mut told) = (0, false);
        while silent < SILENT_FLUSHES {
            let Some(claim) = seen.claim.as_ref().filter(|claim| claim.writer != self.writer)
            else {
                break;
            };
            if !std::mem::replace(&mut told, true) {
                let host = claim.host.clone();
                self.tell(Told::StandingBy { archive: self.number, host });
            }
            if self.wait_out(orders, self.flush_every).is_err() {
                return Ok(None);
            }
            let now = archive.activity(end.timeline)?;
            silent = if now == seen { silent + 1 } else { 0 };
            seen = now;
        }
        Ok(Some(()))
    }

    fn serve(
        &self,
        archive: &Archive,
        mut writer: Option<Box<LogWriter>>,
        orders: &Receiver<Order>,
        trouble: &mut Trouble,
    ) -> Left {
        let mut merging = Background::new(self.now);
        loop {
            let Ok(order) = orders.recv() else { return Left::Over };
            let Some(writer) = &mut writer else {
                match order {
                    Order::OpenAgain => return Left::Again { overtaken: false },
                    // Without a base nothing was ordered.
                    _ => continue,
                }
            };
            let (cut, kept) = match order {
                Order::OpenAgain => return Left::Again { overtaken: false },
                Order::TryNow => continue,
                Order::ShowLife => {
                    // What fails shows with the next segment.
                    if let Err(Error::Overtaken { host, .. }) = writer.show_life() {
                        self.tell(Told::StandingBy { archive: self.number, host });
                        return Left::Again { overtaken: true };
                    }
                    self.report(Event::LifeShown { archive: self.number });
                    continue;
                }
                Order::Testify(hashes) => {
                    self.testify(archive, writer.timeline(), &hashes);
                    continue;
                }
                Order::Beat(cut) => (cut, None),
                Order::Write(kept) => match kept.read() {
                    Ok(cut) => (cut, Some(kept)),
                    Err(_) => {
                        self.report(Event::Missing { archive: self.number });
                        continue;
                    }
                },
            };
            match self.append(writer, &cut, orders, trouble) {
                Ok(written) => {
                    self.report(Event::Written { archive: self.number, last: cut.last });
                    let (archive, records) = (self.number, cut.logical_bytes);
                    let _ = self.reports.send(Report::Stored {
                        archive,
                        records,
                        bytes: written.bytes,
                    });
                    merging.wrote(kept, written);
                }
                Err(left) => return left,
            }
            merging.go_on(writer);
        }
    }

    fn testify(&self, archive: &Archive, timeline: TimelineId, hashes: &[MemberHash]) {
        for hash in hashes {
            if let Err(error) = archive.add_witness(timeline, hash, (self.now)()) {
                self.tell(Told::WitnessFailed { archive: self.number, error });
                return;
            }
        }
    }

    /// Writes until it is written, or another one's turn has come.
    fn append(
        &self,
        writer: &mut LogWriter,
        cut: &Cut,
        orders: &Receiver<Order>,
        trouble: &mut Trouble,
    ) -> Result<Written, Left> {
        let archive = self.number;
        loop {
            match writer.append(cut, (self.now)()) {
                Ok(written) => {
                    if std::mem::replace(trouble, Trouble::none()).told {
                        self.tell(Told::ArchiveBack { archive });
                    }
                    return Ok(written);
                }
                Err(Error::Overtaken { host, .. }) => {
                    self.tell(Told::StandingBy { archive, host });
                    return Err(Left::Again { overtaken: true });
                }
                Err(error) if is_of_its_place(&error) => {
                    // The place has to be looked at anew.
                    self.tell_failure(error.to_string(), trouble);
                    return match self.wait(orders, trouble.wait()) {
                        Ok(()) => Err(Left::Again { overtaken: false }),
                        Err(Over) => Err(Left::Over),
                    };
                }
                Err(error) => {
                    self.tell_failure(error.to_string(), trouble);
                    match orders.recv_timeout(trouble.wait()) {
                        Ok(Order::OpenAgain) => return Err(Left::Again { overtaken: false }),
                        Err(RecvTimeoutError::Disconnected) => return Err(Left::Over),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The place is not what it was, or nobody knows this host any more: what is known of it is of no use.
fn is_of_its_place(error: &Error) -> bool {
    use StoreFaultKind as K;
    match error {
        Error::ClaimGone { .. } => true,
        Error::Store(fault) => matches!(
            fault.kind,
            K::Unmounted | K::Denied | K::Credentials | K::NoCredentials | K::Expired
        ),
        _ => false,
    }
}

/// Merging, in a thread of its own: what comes does not wait for it.
struct Background {
    merging: Merging,
    running: Option<(Merge, JoinHandle<Result<Merged, Error>>)>,
    now: fn() -> Moment,
}

impl Background {
    fn new(now: fn() -> Moment) -> Self {
        Self { merging: Merging::default(), running: None, now }
    }

    fn wrote(&mut self, kept: Option<Kept>, written: Written) {
        if let Some(kept) = kept {
            self.merging.wrote(kept, written);
        }
    }

    /// Hears what came of the last one, and begins the next one where it is due. What fails leaves things as
    /// they are: nothing but the number of objects depends on it.
    fn go_on(&mut self, writer: &LogWriter) {
        if let Some((merge, thread)) = self.running.take_if(|(_, thread)| thread.is_finished()) {
            let result = thread.join().unwrap_or(Err(Error::Panicked));
            self.merging.done(&merge, result, (self.now)());
        }
        if self.running.is_none()
            && let Some(merge) = self.merging.due((self.now)())
        {
            let (merger, now, theirs) = (writer.merger(), self.now, merge.clone());
            let thread = std::thread::Builder::new().name("merge".to_owned());
            let thread = thread.spawn(move || merger.merge(&theirs, now));
            self.running = thread.ok().map(|thread| (merge, thread));
        }
    }
}

/// What came of opening.
enum Opened {
    /// It is open; without a writer it needs a base first.
    Yes { writer: Option<Box<LogWriter>>, end: Option<LogEnd> },
    /// Nobody wants it any more.
    Over,
}
