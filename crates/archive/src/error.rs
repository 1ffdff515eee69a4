//! What can go wrong with an archive.

use crate::format::{FormatFault, Generation};
use crate::keys::{Closed, RekeyFault};
use crate::store::{StoreFault, StoreFaultKind};
use crate::write::Contradiction;
use rekindle_etcd::Revision;

/// Why an archive did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// An object is damaged, or none of ours.
    #[error("{object}: {fault}")]
    Damaged {
        /// Where it lies.
        object: String,
        /// What is wrong with it.
        fault: FormatFault,
    },
    /// A place that should be an archive holds no `archive.json`.
    #[error("{place} holds no archive")]
    NoArchive {
        /// The place.
        place: String,
    },
    /// A place that should become an archive is one.
    #[error("{place} holds an archive already")]
    IsArchive {
        /// The place.
        place: String,
    },
    /// A place that should become an archive holds something else.
    #[error("{place} is not empty")]
    NotEmpty {
        /// The place.
        place: String,
    },
    /// The archive was written by a later version of this program.
    #[error("{object}: format version {got}, and this rekindle knows those up to {newest}")]
    TooNew {
        /// Where it says so.
        object: String,
        /// What it says.
        got: u16,
        /// What this program knows.
        newest: u16,
    },
    /// The archive needs something that only a later version of this program has.
    #[error("{object} needs \"{what}\", which this rekindle does not know")]
    Requires {
        /// Where it says so.
        object: String,
        /// What it needs.
        what: String,
    },
    /// A JSON file that is not what it should be.
    #[error("{object}: {fault}")]
    Json {
        /// Where it lies.
        object: String,
        /// What is wrong with it.
        fault: String,
    },
    /// An object says that it belongs to something else.
    #[error("{object} belongs to {got}, not to {want}")]
    Stranger {
        /// Where it lies.
        object: String,
        /// What it says.
        got: String,
        /// What it should say.
        want: String,
    },
    /// An object's key is not at hand.
    #[error("{object} is sealed to generation {generation} of the archive's keys, {why}")]
    Closed {
        /// Where it lies.
        object: String,
        /// Whose secret would open it.
        generation: Generation,
        /// Why that is not at hand.
        why: Closed,
    },
    /// The identities that were given open none of the archive's keys.
    #[error("none of the identities given opens the keys of {place}, which are sealed to others")]
    WrongIdentity {
        /// The archive.
        place: String,
    },
    /// No sealed key is there.
    #[error("{place} is sealed, but the secret of its keys is gone: nothing is left in its keys/")]
    KeysGone {
        /// The archive.
        place: String,
    },
    /// A sealed key that was damaged, or is not what its place says.
    #[error("{object}, which should hold a key of the archive: {fault}")]
    KeyObject {
        /// Where it lies.
        object: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The archive states another public key than the one whose secret its owners hold.
    #[error(
        "the archive states a public key for generation {generation} that is not the one of the \
         secret in {object}: somebody may have put a key of his own there"
    )]
    SwappedKey {
        /// Where the secret lies.
        object: String,
        /// Of which generation.
        generation: Generation,
    },
    /// Public keys that nobody who held the secret of the generation before has endorsed.
    #[error(
        "{object} states new keys for the archive, but nobody who holds its keys has endorsed them: \
         somebody may have put a key of his own there"
    )]
    Unendorsed {
        /// Where they stand.
        object: String,
    },
    /// An object is not sealed, though the archive is.
    #[error("{object} is not sealed, as everything in this archive is: it is none of its own")]
    NotSealed {
        /// Where it lies.
        object: String,
    },
    /// An object is not signed, though the archive demands it.
    #[error("{object} is not signed, as everything in this archive is: it is none of its own")]
    Unsigned {
        /// Where it lies.
        object: String,
    },
    /// An object's signature is by none of those whom the archive trusts.
    #[error("{object} is signed, but not by one whom the archive names as a signer")]
    WrongSignature {
        /// Where it lies.
        object: String,
    },
    /// The archive wants signatures, and there is nothing to make them with.
    #[error("{place} takes only what is signed, and no signing key was given")]
    NoSigningKey {
        /// The archive.
        place: String,
    },
    /// A signing key that the archive does not trust.
    #[error("{place} does not name {signer} as one of its signers")]
    ForeignSigningKey {
        /// The archive.
        place: String,
        /// Its public key.
        signer: String,
    },
    /// Something should be sealed, and to nobody.
    #[error("nobody is named to whom the archive's keys are to be sealed")]
    NoRecipients,
    /// Files of a host are kept in encrypted archives only.
    #[error("{place} is not encrypted, and files of a host hold its keys")]
    FilesUnsealed {
        /// The place.
        place: String,
    },
    /// Too much for files of a host.
    #[error("these are more than {} MiB of files", max >> 20)]
    FilesTooLarge {
        /// Most bytes.
        max: usize,
    },
    /// A host that cannot be called so.
    #[error("\"{host}\" is no name of a host")]
    NoHost {
        /// What it is called.
        host: String,
    },
    /// A change of keys that makes no sense.
    #[error(transparent)]
    Rekey(#[from] RekeyFault),
    /// Something could not be sealed.
    #[error("sealing {what}: {cause}")]
    Sealing {
        /// What it is.
        what: &'static str,
        /// What age said.
        cause: String,
    },
    /// The snapshot cannot be read as a keyspace.
    #[error(transparent)]
    Source(#[from] rekindle_etcd::Error),
    /// The frame of small buckets cannot be written.
    #[error("writing the small buckets: {0}")]
    Frame(#[from] rekindle_bolt::BulkError),
    /// A small bucket has grown out of all proportion.
    #[error("the buckets beside the records have more than {max} bytes, which no etcd writes")]
    FrameTooLarge {
        /// The most that is archived.
        max: usize,
    },
    /// A record that no block takes.
    #[error("record {record}: {fault}")]
    Record {
        /// Its revision.
        record: String,
        /// What is wrong with it.
        fault: FormatFault,
    },
    /// The machine gives no randomness, threads or the like.
    #[error("{what}: {cause}")]
    Machine {
        /// What was wanted.
        what: &'static str,
        /// What the machine said.
        cause: String,
    },
    /// A thread of ours has panicked.
    #[error("a thread has panicked: this is a fault of rekindle")]
    Panicked,
    /// An object that a base needs is not there.
    #[error("{object} is gone, and a base needs it")]
    Missing {
        /// Where it should lie.
        object: String,
    },
    /// A range of the log that a base needs is not there.
    #[error("{base} needs revision {missing} of the log, which no segment has")]
    LogMissing {
        /// The base.
        base: String,
        /// The first revision that is missing.
        missing: Revision,
    },
    /// Records were erased from a base, and another one stands for it.
    #[error("records were erased from {base}, and {by} stands for it")]
    Replaced {
        /// The base.
        base: String,
        /// The other one.
        by: String,
    },
    /// Two segments of the log have a revision in different ways.
    #[error("{} and {} tell different things of revision {revision}: two histories were written as one", objects[0], objects[1])]
    Forked {
        /// Both of them.
        objects: [String; 2],
        /// The first revision of which they differ.
        revision: Revision,
    },
    /// The records of a part are not those that a base means.
    #[error(
        "{base}: the archive's records from revision {first} to {last} are not those it was made of"
    )]
    Log {
        /// The base.
        base: String,
        /// The first revision.
        first: Revision,
        /// The last one.
        last: Revision,
    },
    /// The snapshot contradicts the cluster's last base.
    #[error("the snapshot contradicts the last base: {0}")]
    Contradiction(Contradiction),
    /// The snapshot is older than what the archive has, and nothing says that the cluster went back.
    #[error(
        "the snapshot is older than the newest base, and no linearizable read shows whether the \
         cluster went back or this member lags behind"
    )]
    Lagging,
    /// The base took so long that what it shares with older ones may have been pruned.
    #[error("the base took more than 12 hours")]
    TooLate,
    /// What the base shares with an older one was pruned meanwhile.
    #[error("{object} was pruned meanwhile, and the base with it")]
    Vanished {
        /// What is gone.
        object: String,
    },
    /// Another one writes the log now.
    #[error("{host} writes the log of {place} now")]
    Overtaken {
        /// The archive.
        place: String,
        /// On which host.
        host: String,
    },
    /// What says whose turn it is to write the log is not there any more.
    #[error("{object} is gone: another place has its name, or somebody has removed it")]
    ClaimGone {
        /// Where it should lie.
        object: String,
    },
    /// What was followed cannot be read where it was put, in the journal of this host or in the archive.
    #[error("{path} of what was followed cannot be read: {cause}")]
    Journal {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// A file of the spool cannot be read or written.
    #[error("{path}: {cause}")]
    Spool {
        /// The file.
        path: String,
        /// What the system says.
        cause: String,
    },
    /// Whoever asked has asked to stop.
    #[error("interrupted")]
    Stopped,
}

impl Error {
    /// The object that it is about, with its place, if it is about one.
    pub(crate) fn object(&self) -> Option<&str> {
        match self {
            Self::Store(StoreFault { object, .. })
            | Self::Damaged { object, .. }
            | Self::TooNew { object, .. }
            | Self::Requires { object, .. }
            | Self::Json { object, .. }
            | Self::NotSealed { object }
            | Self::Unsigned { object }
            | Self::WrongSignature { object }
            | Self::Missing { object }
            | Self::Stranger { object, .. } => Some(object),
            _ => None,
        }
    }

    /// Of reading an object that a base needs.
    pub(crate) fn reading(fault: StoreFault) -> Self {
        match fault.kind {
            StoreFaultKind::NotFound => Self::Missing { object: fault.object },
            _ => fault.into(),
        }
    }

    pub(crate) fn damaged(object: &str, fault: FormatFault) -> Self {
        Self::Damaged { object: object.to_owned(), fault }
    }
}
