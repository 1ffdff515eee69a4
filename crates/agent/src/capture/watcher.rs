//! The watch of a cluster, and what is looked up of it.

use super::events::{Event, From, Said};
use super::members::Members;
use super::{Report, Reports, Told, witness};
use rekindle_archive::Witness;
use rekindle_archive::format::header::Moment;
use rekindle_client::{Error, Header, LeaseKeys, Watch, WatchMessage, WatchRequest};
use rekindle_etcd::{ClusterId, MemberId, RaftTerm, Revision};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

/// How long is waited for a message before it is looked for questions; these come at once.
const WAIT: Duration = Duration::from_secs(60);
/// How often is looked whether users and roles have changed, and members.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Leases that are looked up at once.
const LOOKING_UP: usize = 4;

/// Watches a cluster at one of its members.
pub(super) struct Watcher {
    members: Arc<Members>,
    said: mpsc::Sender<Report>,
    reports: Reports,
    /// The member that is watched at.
    turn: Arc<AtomicUsize>,
    current: Option<Current>,
    looking_up: Arc<Semaphore>,
}

/// A watch that is open or being opened.
struct Current {
    task: AbortHandle,
    questions: mpsc::Sender<()>,
}

impl Watcher {
    pub(super) fn new(members: Arc<Members>, said: mpsc::Sender<Report>, reports: Reports) -> Self {
        let looking_up = Arc::new(Semaphore::new(LOOKING_UP));
        Self { members, said, reports, turn: Arc::default(), current: None, looking_up }
    }

    /// Begins a watch.
    pub(super) fn watch(&mut self, runtime: &Runtime, watch: u64, from: From, elsewhere: bool) {
        self.end();
        if elsewhere {
            self.turn.fetch_add(1, Ordering::Relaxed);
        }
        let (questions, asked) = mpsc::channel(1);
        let (members, turn) = (Arc::clone(&self.members), self.turn.load(Ordering::Relaxed));
        let mouth = Mouth { watch, said: self.said.clone() };
        let reports = self.reports.clone();
        let task = runtime.spawn(async move {
            let ended = follow(&members, turn, from, asked, &mouth).await;
            let compacted = matches!(ended, Error::WatchCompacted { .. });
            if !compacted {
                let _ = reports.send(Report::Told(Told::WatchFailed { cause: ended.to_string() }));
            }
            mouth.say(Said::Ended { compacted }).await;
        });
        self.current = Some(Current { task: task.abort_handle(), questions });
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        if let Some(current) = self.current.take() {
            current.task.abort();
        }
    }

    /// Asks it how far it has come.
    pub(super) fn ask_progress(&self) {
        if let Some(current) = &self.current {
            // One question that waits is enough.
            let _ = current.questions.try_send(());
        }
    }

    /// Looks now and then whether users, roles or members have changed: a watch tells nothing of that.
    pub(super) fn look_around(&self, runtime: &Runtime) {
        let (members, reports) = (Arc::clone(&self.members), self.reports.clone());
        runtime.spawn(async move {
            let mut known = None;
            loop {
                members.list().await;
                let client = members.client();
                // Where it cannot be known, bases come by their schedule.
                if let Ok(found) = client.auth_status().await {
                    let now = (found.enabled, found.auth_revision);
                    if known.replace(now).is_some_and(|before| before != now)
                        && reports.send(Report::Event(Event::AuthChanged)).is_err()
                    {
                        return;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Asks members for their HashKV.
    pub(super) fn ask_members(&self, runtime: &Runtime, now: fn() -> Moment) {
        let (members, reports) = (Arc::clone(&self.members), self.reports.clone());
        runtime.spawn(async move {
            let asking = tokio::spawn(async move { witness::ask(&members, now).await });
            let said = asking.await.unwrap_or_else(|failed| Err(failed.to_string()));
            let _ = reports.send(Report::Hashed(said));
        });
    }

    /// Looks up a lease.
    pub(super) fn look_up(&self, runtime: &Runtime, id: i64) {
        let (client, reports) = (self.members.client(), self.reports.clone());
        let looking_up = Arc::clone(&self.looking_up);
        runtime.spawn(async move {
            let Ok(_permit) = looking_up.acquire().await else { return };
            let found = client.lease(id, LeaseKeys::Omitted).await.ok().flatten();
            let ttl_s = found.and_then(|lease| u64::try_from(lease.granted_ttl_s).ok());
            let _ = reports.send(Report::Event(Event::Lease { id, ttl_s }));
        });
    }
}

/// What a watch speaks with.
struct Mouth {
    watch: u64,
    said: mpsc::Sender<Report>,
}

impl Mouth {
    async fn say(&self, said: Said) {
        // Where nobody listens any more, all ends.
        let _ = self.said.send(Report::Event(Event::Watch { watch: self.watch, said })).await;
    }
}

/// Watches until that fails.
async fn follow(
    known: &Members,
    turn: usize,
    from: From,
    mut asked: mpsc::Receiver<()>,
    mouth: &Mouth,
) -> Error {
    let mut watch = match open(known, turn, from, mouth).await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    loop {
        let message = tokio::select! {
            message = watch.next(WAIT) => message,
            Some(()) = asked.recv() => match watch.request_progress().await {
                Ok(()) => Ok(None),
                Err(error) => Err(error),
            },
        };
        match message {
            Ok(None) => {}
            Ok(Some(message)) => mouth.say(said(message)).await,
            Err(error) => return error,
        }
    }
}

/// Opens a watch at a member, or at the next one that can. What the cluster's newest revision is, is read
/// before: where the member is behind, or the cluster went back, that shows.
async fn open(known: &Members, turn: usize, from: From, mouth: &Mouth) -> Result<Watch, Error> {
    let client = known.client();
    let newest = revision(client.linearizable_revision().await?);
    let from = match from {
        From::Newest => newest,
        From::Revision(revision) => revision,
    };
    let members = client.members();
    let mut failed = Error::NoEndpoints;
    for offset in 0..members.len() {
        let Some(member) = members.get((turn + offset) % members.len().max(1)) else { continue };
        match member.watch(WatchRequest::from_revision(from.get())).await {
            Ok(watch) => {
                let header = watch.header();
                if known.is_suspect(MemberId(header.member_id)) && offset + 1 < members.len() {
                    continue;
                }
                let newest = newest.max(revision(header.revision));
                mouth.say(Said::Began { from, witness: witness(header), newest }).await;
                return Ok(watch);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn said(message: WatchMessage) -> Said {
    match message {
        WatchMessage::Progress { revision: it } => Said::Progress { revision: revision(it) },
        WatchMessage::Changes(changes) => Said::Changes {
            events: changes.events,
            witness: witness(changes.header),
            newest: revision(changes.header.revision),
        },
    }
}

fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap_or_default()
}

fn witness(header: Header) -> Witness {
    Witness {
        cluster: ClusterId(header.cluster_id),
        member: MemberId(header.member_id),
        term: RaftTerm(header.raft_term),
    }
}
