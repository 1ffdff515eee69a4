//! The archive: every record of a cluster's history kept once, proven, in any store.
//!
//! - [`mod@format`]: the bytes of its objects. Pure.
//! - [`Store`]: where objects are kept; each is created once and never changed.
//! - [`Archive`]: what a store holds: bases, and where everything has its name.
//! - [`prepare_base`] makes a base of a snapshot, [`BaseRecords`] reads one for a restore.
//!
//! What may never happen here: an object that is changed; a base that names what is not there yet;
//! records handed out that were not compared with their digests.

mod archive;
mod error;
pub mod format;
mod names;
mod object;
mod plan;
mod read;
mod store;
mod write;

pub use archive::{Archive, BaseEntry, Listing};
pub use error::Error;
pub use read::{BaseRecords, read_base};
pub use store::{
    Finding, Place, Probe, Provider, Reader, Store, StoreFault, StoreFaultKind, StoreOptions,
    Upload, Wanted,
};
pub use write::{
    BaseRequest, BaseWritten, Comparison, Contradiction, ContradictionKind, Counts, Origin,
    PreparedBase, Progress, prepare_base,
};
