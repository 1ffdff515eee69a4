//! bbolt files: read, check and write in bulk. Knows nothing of etcd.
//!
//! - [`Db`] opens a file through [`ReadAt`] and finds its page size and newest meta.
//! - [`Scan`] walks one bucket in key order. Each page is verified before anything in it is used,
//!   and a scan that met a damaged page goes on behind it when asked again.
//! - [`check()`] is the same walk over all buckets with every finding kept.
//! - [`BulkWriter`] writes a whole file from front to back out of sorted pairs.
//!
//! What may never happen here: a panic on any bytes, an allocation whose size only the bytes
//! decide, a page read twice through two references, a file changed in place. There is no mutation.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

mod ahead;
mod bulk;
mod check;
mod db;
mod error;
pub mod format;
mod meta;
mod page;
mod pageset;
mod scan;
mod source;

pub use bulk::{BucketWriter, BulkError, BulkWriter, Finished, Layout};
pub use check::{Halt, Part, Report, Usage, Visit, check};
pub use db::{Bucket, Db};
pub use error::{Damage, Error, Reason};
pub use format::{PageId, TxId};
pub use meta::Meta;
pub use page::{Leaf, Pair};
pub use scan::Scan;
pub use source::{Piece, ReadAt, read_one_by_one};
