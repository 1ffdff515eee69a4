//! Carries out a plan for an etcd data directory: builds it, puts it in place, takes it back.
//!
//! - [`Disk`] is the door to the file system, [`RealDisk`] the real one.
//! - [`restore()`] builds beside what is there and exchanges; [`resume`] and [`roll_back`] end what
//!   was interrupted.
//! - [`Fence`] keeps any etcd from starting on a directory until it is lifted.
//! - [`NewSnapshot`] is a snapshot file that appears when it is whole.
//!
//! What may never happen here: a byte of an old data directory removed or changed; a new directory
//! in place that is not whole and durable; an etcd that can start while old and new are mixed.

mod disk;
mod error;
mod fence;
mod files;
mod journal;
mod place;
mod read_ahead;
mod real;
mod restore;
mod snapshot;
mod source;
mod swap;

pub use disk::{Disk, Identity, Lock, NewFile, Stat};
pub use error::Error;
pub use fence::{Fence, Fenced, fence_at};
pub use place::{Place, WalPlace};
pub use real::{RealDisk, free_space};
pub use restore::{
    Ended, Job, Progress, Restored, Target, Undo, check_resume, check_target, plan_roll_back,
    restore, resume, roll_back,
};
pub use snapshot::{Database, NewSnapshot};
pub use source::FileSource;
