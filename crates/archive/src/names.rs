//! Where every object has its name.
//!
//! ```text
//! archive.json                                              what the archive is
//! timelines/<id>/timeline.json                              what the timeline is
//! timelines/<id>/packs/<id>.pack                            records written in bulk
//! timelines/<id>/bases/<revision>-<raft index>-<id>.base    the state at one revision
//! ```
//!
//! Numbers have 20 digits, so that names sort like them. They are there for people and for order:
//! what counts stands in the header.

use crate::format::{ObjectId, TimelineId};
use rekindle_etcd::{RaftIndex, Revision};

/// The file that makes a place an archive.
pub(crate) const ARCHIVE: &str = "archive.json";
/// Where the timelines are.
pub(crate) const TIMELINES: &str = "timelines";

pub(crate) fn timeline(id: TimelineId) -> String {
    format!("{TIMELINES}/{id}/timeline.json")
}

pub(crate) fn pack(timeline: TimelineId, id: ObjectId) -> String {
    format!("{TIMELINES}/{timeline}/packs/{id}.pack")
}

pub(crate) fn base(
    timeline: TimelineId,
    revision: Revision,
    index: RaftIndex,
    id: ObjectId,
) -> String {
    format!("{TIMELINES}/{timeline}/bases/{:020}-{:020}-{id}.base", revision.get(), index.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_like_revisions() {
        let name = |revision| {
            let (timeline, id) = (TimelineId([1; 16]), ObjectId([2; 16]));
            base(timeline, Revision::new(revision).unwrap(), RaftIndex(7), id)
        };
        assert!(name(9) < name(10) && name(10) < name(i64::MAX));
    }
}
