//! The bytes of an archive: every object but the two JSON ones.
//!
//! An object is a plain [`Header`] and a body. The body, once unsealed, begins with a digest of the
//! header's facts, so that nobody can put a body under another header. What the bodies hold: [`run`]
//! and [`base`]. FORMAT.md has the tables, and a test holds it to the constants here.
//!
//! What may never happen here: input, output, a clock, chance; a panic on any bytes; memory whose
//! size only the bytes decide; an object of an unknown version, kind or flag that is read all the same.
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

pub mod base;
pub mod block;
pub(crate) mod cursor;
mod digest;
mod fault;
pub mod files;
pub mod filter;
pub mod header;
mod id;
pub mod keys;
pub mod run;
pub mod segment;
pub mod witness;

pub(crate) use cursor::{Cursor, Put};
pub use digest::{DIGEST, Domain, Hasher, LogDigest, ValueDigests};
pub use fault::FormatFault;
pub use header::{Facts, Header, Kind};
pub use id::{ArchiveId, ObjectId, TimelineId};
pub(crate) use id::{hex, parse_hex};
pub use keys::{Fingerprint, Generation};

/// One row of a byte table: offset, size, name.
pub type Row = (usize, usize, &'static str);
