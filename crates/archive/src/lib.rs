//! The archive: every record of a cluster's history kept once, proven, in any store.
//!
//! - [`mod@format`]: the bytes of its objects. Pure.
//! - [`Store`]: where objects are kept; each is created once and never changed.
//! - [`Protection`]: whether it is sealed and signed; [`Identity`] opens, [`SigningKey`] signs.
//! - [`Archive`]: what a store holds: bases, and where everything has its name.
//! - [`prepare_base`] makes a base of a snapshot, [`BaseRecords`] reads one for a restore.
//! - [`Verification`] says which bases can be brought back, and what is wrong with the others.
//!
//! What may never happen here: an object that is changed; a base that names what is not there yet;
//! records handed out that were not compared with their digests.

mod archive;
mod changed;
mod earlier;
mod error;
mod forget;
mod forks;
pub mod format;
mod frame;
mod host;
mod keys;
mod log;
mod names;
mod object;
mod plan;
mod prune;
mod read;
mod stats;
mod store;
mod tail;
mod transfer;
mod users;
mod verify;
mod witness;
mod write;

pub use archive::{Archive, BaseEntry, Listing};
pub use earlier::Earlier;
pub use error::Error;
pub use forget::{ForgetPlan, ForgetPoint, ForgetRequest, Forgot, Forgotten, plan_forget};
pub use host::FilesEntry;
pub use keys::{
    Closed, Identity, KeyFault, Protection, Recipient, RekeyFault, RekeyPlan, RekeyRequest,
    Sealing, Signer, SigningKey,
};
pub use log::{
    Activity, Change, Claim, Cut, Cutter, Journal, Kept, LogEnd, LogView, LogWriter, Merge, Merged,
    Merger, Merging, Witness, Written,
};
pub use names::Epoch;
pub use prune::{GRACE, Policy, PrunePlan, PruneRequest, Pruned, Reason, plan_prune};
pub use read::{BaseRecords, read_base};
pub use stats::{AgeUse, KindUse, Stats, stats};
pub use store::{
    Finding as ProbeFinding, Listed, Place, Probe, Provider, Reader, Retention, RetentionMode,
    Store, StoreFault, StoreFaultKind, StoreOptions, Upload, Wanted,
};
pub use tail::{Following, LogRange, Tail};
pub use transfer::{Item, Left, Transfer, Transferred};
pub use users::{UsersDrift, UsersFrom};
pub use verify::{
    Finding, Level, Point, Verdict, Verification, VerifyProgress, VerifyRequest, Word,
};
pub use witness::{MemberHash, WitnessEntry};
pub use write::{
    BaseRequest, BaseWritten, Comparison, Contradiction, ContradictionKind, Counts, Origin,
    PreparedBase, Progress, prepare_base,
};
