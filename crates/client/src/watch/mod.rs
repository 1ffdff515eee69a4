//! Watching keys change.
//!
//! - No revision is ever split: the changes of one revision come together, in the order of their
//!   sub-revisions where all keys are watched.
//! - A watch ends with an error, never silently; after an error it is of no more use.
//! - Memory holds one message and one unfinished revision, up to a limit.

mod assembly;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Client;
use crate::error::{Error, EtcdFault};
use crate::kv::{Header, Keys};
use crate::member::Member;
use crate::method::Method;
use crate::proto::etcdserverpb as pb;
use crate::proto::mvccpb::Event;
use assembly::Assembly;
use pb::watch_request::RequestUnion;

/// The largest message that is taken. etcd cuts what exceeds its `--max-request-bytes` (1.5 MiB)
/// but never inside one change, and not what it sends while a watch is being created: up to a
/// thousand revisions at once (`server/etcdserver/api/v3rpc/watch.go`, `sendLoop`).
const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// The largest revision that is put together unless told otherwise: a hundred times what etcd takes
/// in one transaction by default.
const REVISION_BYTES_MAX: usize = 256 << 20;

/// Requests on their way: creation, a cancellation, some questions for progress.
const REQUESTS_WAITING: usize = 8;

const WATCH: Method<pb::WatchRequest, pb::WatchResponse> = pb::WATCH.up_to(MESSAGE_BYTES_MAX);

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    keys: Keys,
    start_revision: i64,
    progress_notify: bool,
    prev_kv: bool,
    revision_bytes_max: usize,
}

impl WatchRequest {
    /// All keys, from this revision on, itself included.
    pub fn from_revision(start_revision: i64) -> Self {
        Self {
            keys: Keys::all(),
            start_revision,
            progress_notify: false,
            prev_kv: false,
            revision_bytes_max: REVISION_BYTES_MAX,
        }
    }

    /// These keys instead of all. Sub-revisions cannot be told from the order any more.
    pub fn keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// With a message now and then (every 10 minutes by default) while nothing happens.
    pub fn progress_notify(self) -> Self {
        Self { progress_notify: true, ..self }
    }

    /// With each change, what the key was before.
    pub fn prev_kv(self) -> Self {
        Self { prev_kv: true, ..self }
    }

    /// Fails at a revision whose keys and values exceed so many bytes, instead of 256 MiB.
    pub fn revision_bytes_max(self, revision_bytes_max: usize) -> Self {
        Self { revision_bytes_max, ..self }
    }
}

/// Changes as they happen. Dropping it ends the call.
#[derive(Debug)]
pub struct Watch {
    member: Member,
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
    header: Header,
    watch_id: i64,
    assembly: Assembly,
}

/// What a [`Watch`] delivers.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchMessage {
    /// One or more whole revisions.
    Changes(Changes),
    /// Everything up to this revision, itself included, was delivered before.
    Progress {
        /// That revision.
        revision: i64,
    },
}

/// One or more whole revisions.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// Who told, and its newest revision at that time, to which more may be on its way.
    pub header: Header,
    /// The changes, by revision and within it in the order in which they were made. Never empty.
    pub events: Vec<Event>,
}

impl Changes {
    /// The last revision in here: everything up to it was delivered, these changes included.
    pub fn last_revision(&self) -> i64 {
        self.events.last().map_or(0, assembly::revision)
    }
}

impl Client {
    /// Watches through the first member that can. A read, until it has begun.
    ///
    /// # Errors
    /// Those of [`Member::watch`].
    pub async fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        let open = async |member: &Member| member.watch(request.clone()).await;
        self.first(Error::is_this_members_alone, open).await
    }
}

impl Member {
    /// Watches through this member, which ends the watch when it loses sight of the leader.
    ///
    /// Where the start is compacted away, that is known only with the first message.
    ///
    /// # Errors
    /// [`EtcdFault::PermissionDenied`] for a user who may not read all that is to be watched,
    /// [`EtcdFault::NoLeader`].
    pub async fn watch(&self, request: WatchRequest) -> Result<Watch, Error> {
        let (requests, queue) = mpsc::channel(REQUESTS_WAITING);
        let assembly = Assembly::new(request.start_revision, request.revision_bytes_max);
        let create = RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: request.keys.key,
            range_end: request.keys.range_end,
            start_revision: request.start_revision,
            progress_notify: request.progress_notify,
            prev_kv: request.prev_kv,
            watch_id: 0,
            fragment: true,
        });
        // The queue is empty and its other end is here, so there is room.
        let _ = requests.send(pb::WatchRequest { request_union: Some(create) }).await;
        let within = self.timeouts().command;
        let opened = async {
            let queue = ReceiverStream::new(queue);
            let responses = self.call_bidirectional(within, &WATCH, queue).await?;
            let (member, header) = (self.clone(), Header::default());
            let mut watch = Watch { member, requests, responses, header, watch_id: 0, assembly };
            watch.await_created().await?;
            Ok(watch)
        };
        // The call may be answered at once and the watch be created late, so both are timed.
        match timeout(within, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::Deadline {
                endpoint: self.endpoint().clone(),
                call: WATCH.name(),
                after: within,
            }),
        }
    }
}

impl Watch {
    /// Who watches, and its newest revision when the watch was created.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The next message, or none if none comes within `within`. No change is lost when the future
    /// is dropped.
    ///
    /// # Errors
    /// [`Error::WatchCompacted`] when what it needs next is compacted away, as it began there or was
    /// so slow; [`Error::RevisionTooLarge`], [`Error::Lost`], [`EtcdFault::NoLeader`] and the like.
    pub async fn next(&mut self, within: Duration) -> Result<Option<WatchMessage>, Error> {
        match timeout(within, self.next_message()).await {
            Ok(message) => message.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Asks how far the watch has come. When all was delivered, a [`WatchMessage::Progress`]
    /// follows; otherwise nothing does, nor does it while the member's revision is below the one
    /// from which is watched (`server/storage/mvcc/watchable_store.go`, `progressIfSync`).
    ///
    /// # Errors
    /// [`Error::Lost`] when the watch has ended.
    pub async fn request_progress(&self) -> Result<(), Error> {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await
    }

    /// Ends the watch and waits until the member has confirmed it. Changes that come meanwhile are
    /// thrown away.
    ///
    /// # Errors
    /// [`Error::Deadline`] when it does not confirm.
    pub async fn cancel(mut self) -> Result<(), Error> {
        let watch_id = self.watch_id;
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await?;
        let within = self.member.timeouts().command;
        let confirmed = async {
            while !self.receive().await?.canceled {}
            Ok(())
        };
        match timeout(within, confirmed).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(Error::Deadline {
                endpoint: self.member.endpoint().clone(),
                call: WATCH.name(),
                after: within,
            }),
        }
    }

    async fn send(&self, request: RequestUnion) -> Result<(), Error> {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.send(request).await.map_err(|_| self.lost("it has ended"))
    }

    async fn await_created(&mut self) -> Result<(), Error> {
        let response = self.receive().await?;
        if response.canceled {
            return Err(self.canceled(&response));
        }
        if !response.created {
            return Err(self.protocol("changes before the watch was created"));
        }
        self.watch_id = response.watch_id;
        self.header = response.header.into();
        Ok(())
    }

    async fn next_message(&mut self) -> Result<WatchMessage, Error> {
        loop {
            let response = self.receive().await?;
            if response.canceled {
                return Err(self.canceled(&response));
            }
            let header = Header::from(response.header);
            if response.events.is_empty() && !response.fragment {
                if self.assembly.is_unfinished() {
                    return Err(self.protocol("progress amid a revision"));
                }
                return Ok(WatchMessage::Progress { revision: header.revision });
            }
            let events = self.assembly.add(response.events, response.fragment);
            let events = events.map_err(|too_large| Error::RevisionTooLarge {
                endpoint: self.member.endpoint().clone(),
                revision: too_large.revision,
                limit: self.assembly.limit,
            })?;
            if !events.is_empty() {
                return Ok(WatchMessage::Changes(Changes { header, events }));
            }
        }
    }

    async fn receive(&mut self) -> Result<pb::WatchResponse, Error> {
        match self.responses.message().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(self.lost("the server ended the stream")),
            Err(status) => Err(self.member.explain(&WATCH, &status).await),
        }
    }

    fn canceled(&self, response: &pb::WatchResponse) -> Error {
        let (endpoint, call) = (self.member.endpoint().clone(), WATCH.name());
        if response.compact_revision > 0 {
            return Error::WatchCompacted {
                endpoint,
                start: self.assembly.next_revision,
                compact_revision: response.compact_revision,
            };
        }
        let message = response.cancel_reason.clone();
        let fault = EtcdFault::from_message(&message).unwrap_or(EtcdFault::Canceled);
        Error::Etcd { endpoint, call, fault, message }
    }

    fn lost(&self, cause: &str) -> Error {
        let endpoint = self.member.endpoint().clone();
        Error::Lost { endpoint, call: WATCH.name(), cause: cause.to_owned() }
    }

    fn protocol(&self, what: &'static str) -> Error {
        Error::Protocol { endpoint: self.member.endpoint().clone(), call: WATCH.name(), what }
    }
}
