//! What the machine is told, and what it says is to be done.

use rekindle_archive::format::header::Moment;
use rekindle_archive::{Cut, Witness};
use rekindle_client::Event as WatchEvent;
use rekindle_etcd::Revision;
use std::time::Duration;

/// How it works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What came is written so often.
    pub flush_every: Duration,
    /// Or when it has about so many bytes.
    pub flush_bytes: usize,
    /// A watch that begins more than so many revisions behind is given up, or one that is ten times as many
    /// behind later.
    pub behind_max: i64,
    /// Or one that falls behind by so much time.
    pub behind_time: Duration,
    /// Snapshots are at least so long apart.
    pub snapshots_every: Duration,
    /// A base is made so often.
    pub bases_every: Duration,
    /// Members are asked for their HashKV so often; none: never.
    pub witnesses_every: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flush_every: Duration::from_secs(5),
            flush_bytes: 8 << 20,
            behind_max: 2000,
            behind_time: Duration::from_secs(2),
            snapshots_every: Duration::from_secs(60),
            bases_every: Duration::from_secs(60 * 60),
            witnesses_every: Some(Duration::from_secs(60 * 60)),
        }
    }
}

/// The time of an event.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By the calendar.
    pub wall: Moment,
    /// Since capture began; it never goes back.
    pub passed: Duration,
}

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// Of a watch.
    Watch {
        /// Which one; what is left of one that was given up is not listened to.
        watch: u64,
        /// What it said.
        said: Said,
    },
    /// A lease was looked up.
    Lease {
        /// Its id.
        id: i64,
        /// The seconds that it was granted. None: it has ended, or nobody answered.
        ttl_s: Option<u64>,
    },
    /// An archive can be written into.
    Opened {
        /// Its number.
        archive: usize,
        /// Up to where it has the log. None: it needs a base first.
        end: Option<Revision>,
        /// Of its log some is gone, or was erased: what the journal has of that must not bring it back.
        has_hole: bool,
        /// It is marked: what the journal had went on from what the archive had.
        ours: bool,
        /// So long ago was its last base.
        base_age: Duration,
    },
    /// An archive cannot be written into now; it will be opened again.
    Closed {
        /// Its number.
        archive: usize,
        /// Another host writes into it.
        overtaken: bool,
    },
    /// That somebody writes into an archive was shown.
    LifeShown {
        /// Its number.
        archive: usize,
    },
    /// What an archive was to be given is in its log for good.
    Written {
        /// Its number.
        archive: usize,
        /// The last revision.
        last: Revision,
    },
    /// The journal does not have what an archive was to be given.
    Missing {
        /// Its number.
        archive: usize,
    },
    /// A snapshot is there.
    Snapshot {
        /// What it is of.
        revision: Revision,
        /// Up to where it was compacted.
        compact: Option<Revision>,
    },
    /// There is none; why was told.
    NoSnapshot,
    /// A base was made.
    Base {
        /// The archive's number.
        archive: usize,
        /// Of what; none where it failed, which was told.
        revision: Option<Revision>,
        /// It began a history of its own: the archive will be opened again.
        moved: bool,
    },
    /// Members have said their HashKV.
    Hashed {
        /// Of this revision.
        revision: Revision,
        /// So long it took, of all.
        took: Duration,
    },
    /// They have not; why was told.
    NotHashed,
    /// Users or roles of the cluster have changed: only a base has them.
    AuthChanged,
    /// Somebody wants a base now.
    BaseWanted,
    /// All is to end.
    Stop,
}

/// What a watch says.
#[derive(Debug)]
pub enum Said {
    /// It has begun, at this revision.
    Began {
        /// That revision.
        from: Revision,
        /// By whom.
        witness: Witness,
        /// The newest revision there.
        newest: Revision,
    },
    /// Whole revisions.
    Changes {
        /// Their changes.
        events: Vec<WatchEvent>,
        /// By whom.
        witness: Witness,
        /// The newest revision there.
        newest: Revision,
    },
    /// All up to this revision was said before.
    Progress {
        /// That revision.
        revision: Revision,
    },
    /// It has ended.
    Ended {
        /// What it was to begin with is compacted away.
        compacted: bool,
    },
}

impl Said {
    /// Whether it says nothing any more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// Where a watch is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the cluster's newest revision: of one that is to come, etcd does not tell its progress.
    Newest,
    /// At this revision.
    Revision(Revision),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a watch, at another member than the last one where `elsewhere`.
    Watch {
        /// Its number.
        watch: u64,
        /// From where.
        from: From,
        /// The last one has failed.
        elsewhere: bool,
    },
    /// End the watch.
    EndWatch,
    /// Ask the watch how far it has come.
    AskProgress,
    /// Look up a lease.
    LookUp {
        /// Its id.
        lease: i64,
    },
    /// Put into the journal.
    Keep(Cut),
    /// Take the journal away: it is of another history.
    ClearJournal,
    /// What comes next is not known to go on from what archives have, until a base of each was made.
    UnmarkAll,
    /// The same of one archive.
    Unmark {
        /// Its number.
        archive: usize,
    },
    /// It goes on from what this archive has, of which a base was made.
    Mark {
        /// Its number.
        archive: usize,
    },
    /// Give an archive the piece of the journal that has this revision.
    Write {
        /// Its number.
        archive: usize,
        /// That revision.
        from: Revision,
    },
    /// Show others that somebody writes into an archive, though there is nothing to be written.
    ShowLife {
        /// Its number.
        archive: usize,
    },
    /// Tell an archive that nothing had come.
    Beat {
        /// Its number.
        archive: usize,
        /// An empty piece.
        cut: Cut,
    },
    /// Take a snapshot.
    TakeSnapshot,
    /// Make a base of the snapshot.
    MakeBase {
        /// The archive's number.
        archive: usize,
        /// Up to where the archive has a log.
        end: Option<Revision>,
        /// That is known to be of what the cluster has now. Otherwise it has to be looked at, or a history
        /// begins.
        followed: bool,
    },
    /// The snapshot is needed no more.
    DropSnapshot,
    /// Ask members for their HashKV, one after the other: each does nothing else meanwhile.
    AskMembers,
    /// Keep in an archive what they have said: it is of the history that the archive has.
    Testify {
        /// The archive's number.
        archive: usize,
    },
    /// Tell whoever looks on.
    Tell(Notice),
    /// All that could be written is.
    End,
}

/// Something that somebody may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The watch has begun.
    Following {
        /// From this revision on.
        from: Revision,
    },
    /// The watch was behind by so many revisions and was given up: the rest comes from a snapshot.
    Behind {
        /// So many.
        revisions: i64,
    },
    /// The watch passed over revisions, or said that it had said what it had not.
    Lost {
        /// The first one.
        first: Revision,
    },
    /// What the cluster has is not what it had: it was restored, or is another one.
    AnotherHistory {
        /// The revision at which that shows.
        at: Revision,
    },
    /// Revisions are no restore points of an archive: they were compacted away before it had them, or the
    /// journal has them no more.
    Gap {
        /// The archive's number.
        archive: usize,
        /// The first one.
        first: Revision,
        /// The last one.
        last: Revision,
    },
}
