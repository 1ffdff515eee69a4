//! What is wrong on a member's host, beside what the members say themselves: judged, pure. Each finding has its evidence and
//! the next thing to do.

mod backups;
mod certificates;
mod place;

pub use backups::{Backups, backups};
pub use certificates::{KeyPair, key_pair};
pub use place::{Claim, DataDir, claims, data_dir, disk, fragmented};

use crate::health::{Finding, Severity};

fn finding(
    (name, severity): (&'static str, Severity),
    what: impl Into<String>,
    remedy: &'static str,
) -> Finding {
    Finding { name, severity, member: None, what: what.into(), remedy }
}
