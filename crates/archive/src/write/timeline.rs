//! Which history of a cluster a snapshot belongs to.

use super::Origin;
use crate::archive::{Archive, BaseEntry, Listing, TimelineOrigin};
use crate::error::Error;
use crate::format::TimelineId;
use crate::format::header::Moment;
use rekindle_etcd::{ClusterId, RaftIndex, RaftTerm, Revision};

/// A timeline.
pub(super) enum Choice {
    /// One that is there.
    GoesOn(TimelineId),
    /// One that begins.
    Begins(TimelineOrigin),
}

impl Choice {
    /// One that leaves another behind that revision.
    pub(super) fn forks(parent: TimelineId, fork: Revision) -> Self {
        Self::Begins(TimelineOrigin {
            parent: Some(parent),
            fork,
            reason: "what the cluster has contradicts its last base",
        })
    }

    /// One that leaves another, of which nobody knows where.
    pub(super) fn leaves(parent: TimelineId) -> Self {
        Self::Begins(TimelineOrigin {
            parent: Some(parent),
            fork: Revision::default(),
            reason: "nothing shows that the cluster has what was followed before",
        })
    }

    /// Its id; it is made if it is not there.
    pub(super) fn open(
        &self,
        archive: &Archive,
        cluster: ClusterId,
        now: Moment,
    ) -> Result<TimelineId, Error> {
        match self {
            Self::GoesOn(timeline) => Ok(*timeline),
            Self::Begins(origin) => archive.timeline(cluster, *origin, now),
        }
    }
}

/// The newest revision of a timeline's bases.
pub(super) fn newest(listing: &Listing, timeline: TimelineId) -> Revision {
    let facts = listing.bases.iter().map(|base| &base.header.facts);
    facts.filter(|it| it.timeline == timeline).map(|it| it.last).max().unwrap_or_default()
}

/// The timeline that a snapshot belongs to: that of the cluster's newest base, unless the cluster
/// went back behind it, as one that was restored has. Bases that were being made at the same time
/// say nothing of that, nor does a position that is not known.
pub(super) fn choose(
    archive: &Archive,
    listing: &Listing,
    origin: &Origin,
    position: (Option<RaftTerm>, Option<RaftIndex>),
) -> Result<Choice, Error> {
    let current = archive.current_timeline(listing, origin.cluster)?;
    let is_current = |base: &&BaseEntry| Some(base.header.facts.timeline) == current;
    let mut newest_first = listing.bases.iter().rev().filter(is_current);
    let Some(newest) = newest_first.clone().next() else {
        return Ok(Choice::Begins(TimelineOrigin {
            parent: None,
            fork: Revision::default(),
            reason: "the first base of the cluster",
        }));
    };
    let before = newest_first.find(|base| base.header.facts.ended < origin.state);
    let went_back = before.is_some_and(|base| {
        let there = (base.header.facts.term, base.header.facts.index);
        matches!(position, (Some(term), Some(index)) if (term, index) < there)
    });
    let timeline = newest.header.facts.timeline;
    match (went_back, origin.current) {
        (false, _) => Ok(Choice::GoesOn(timeline)),
        (true, false) => Err(Error::Lagging),
        (true, true) => Ok(Choice::Begins(TimelineOrigin {
            parent: Some(timeline),
            // Where it parts is not known.
            fork: Revision::default(),
            reason: "the cluster went back behind the newest base: it was restored",
        })),
    }
}
