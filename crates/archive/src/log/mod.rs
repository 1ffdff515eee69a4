//! The log as it is followed: revisions are cut into segments, kept in a journal of this host, and
//! written into archives by whose turn it is.
//!
//! What may never happen here: a part of a revision without the rest; a segment called written while
//! somebody else's turn may have begun before.

mod cut;
mod journal;
mod merge;
mod rows;
mod writer;

pub use cut::{Change, Cut, Cutter, Witness};
pub use journal::{Journal, Kept, LogView};
pub use merge::{Merge, Merged, Merger, Merging};
pub(crate) use rows::{LogFound, LogRange, LogRows, LogSource, Stored};
pub use writer::{Activity, Claim, LogEnd, LogWriter, Written};
