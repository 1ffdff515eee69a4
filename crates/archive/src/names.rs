//! Where every object has its name.
//!
//! ```text
//! archive.json                                              what the archive is
//! keys/<generation>.json                                    public keys, from generation 2 on
//! keys/<generation>-<id>.age                                the secret of a generation, sealed to its owners
//! timelines/<id>/timeline.json                              what the timeline is
//! timelines/<id>/packs/<id>.pack                            records written in bulk
//! timelines/<id>/log/<level>/<epoch>-<first>-<last>-<id>.seg   a part of the log
//! timelines/<id>/bases/<revision>-<raft index>-<id>.base    the state at one revision
//! ```
//!
//! Numbers but for levels have 20 digits, so that names sort like them. They are there for people and for order:
//! what counts stands in the header.

use crate::format::{Generation, ObjectId, TimelineId};
use rekindle_etcd::{RaftIndex, Revision};

/// The file that makes a place an archive.
pub(crate) const ARCHIVE: &str = "archive.json";
/// Where the keys are.
pub(crate) const KEYS: &str = "keys";
/// Where the timelines are.
pub(crate) const TIMELINES: &str = "timelines";

pub(crate) fn public_keys(generation: Generation) -> String {
    format!("{KEYS}/{:020}.json", generation.0)
}

pub(crate) fn key_object(generation: Generation, id: ObjectId) -> String {
    format!("{KEYS}/{:020}-{id}.age", generation.0)
}

/// What lies among the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyName {
    Public(Generation),
    Object(Generation, ObjectId),
}

/// Reads what [`public_keys`] and [`key_object`] write.
pub(crate) fn parse_key(name: &str) -> Option<KeyName> {
    let stem = name.strip_prefix(KEYS)?.strip_prefix('/')?;
    let number = |text: &str| text.parse().ok().map(Generation);
    let (parsed, again) = match stem.strip_suffix(".json") {
        Some(generation) => {
            let generation = number(generation)?;
            (KeyName::Public(generation), public_keys(generation))
        }
        None => {
            let (generation, id) = stem.strip_suffix(".age")?.split_once('-')?;
            let (generation, id) = (number(generation)?, ObjectId::parse(id)?);
            (KeyName::Object(generation, id), key_object(generation, id))
        }
    };
    (again == name).then_some(parsed)
}

pub(crate) fn timeline(id: TimelineId) -> String {
    format!("{TIMELINES}/{id}/timeline.json")
}

/// The timeline that an object belongs to.
pub(crate) fn timeline_of(name: &str) -> Option<TimelineId> {
    TimelineId::parse(name.strip_prefix(TIMELINES)?.strip_prefix('/')?.split('/').next()?)
}

/// Where the packs of a timeline are.
pub(crate) fn packs(timeline: TimelineId) -> String {
    format!("{TIMELINES}/{timeline}/packs")
}

pub(crate) fn pack(timeline: TimelineId, id: ObjectId) -> String {
    format!("{}/{id}.pack", packs(timeline))
}

/// What nobody needs is written down here.
pub(crate) const PRUNE: &str = "prune";

pub(crate) fn mark(id: ObjectId) -> String {
    format!("{PRUNE}/{id}.json")
}

/// Where the log of a timeline is.
pub(crate) fn log(timeline: TimelineId) -> String {
    format!("{TIMELINES}/{timeline}/log")
}

/// Where a segment lies that was not merged of others, nor written by one who follows the cluster.
pub(crate) fn segment(
    timeline: TimelineId,
    first: Revision,
    last: Revision,
    id: ObjectId,
) -> String {
    let (log, first, last) = (log(timeline), first.get(), last.get());
    format!("{log}/0/{:020}-{first:020}-{last:020}-{id}.seg", 0)
}

/// What the name of a segment tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentName {
    /// The first revision that it has all records of.
    pub first: Revision,
    /// The last one.
    pub last: Revision,
}

/// Reads what [`segment`] writes.
pub(crate) fn parse_segment(name: &str) -> Option<SegmentName> {
    let stem = name.rsplit('/').next()?.strip_suffix(".seg")?;
    let parts: Vec<_> = stem.split('-').collect();
    let revision = |text: &str| text.parse().ok().and_then(Revision::new);
    let [_, first, last, _] = parts[..] else { return None };
    Some(SegmentName { first: revision(first)?, last: revision(last)? })
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
    fn names_of_keys_have_one_form() {
        let (generation, id) = (Generation(2), ObjectId([3; 16]));
        let public = public_keys(generation);
        assert_eq!(parse_key(&public), Some(KeyName::Public(generation)));
        let object = key_object(generation, id);
        assert_eq!(parse_key(&object), Some(KeyName::Object(generation, id)));
        let short = public.replace("/0", "/");
        for other in ["", "keys", "keys/.json", "keys/2.json", "keys/x.age", &short, &public[1..]] {
            assert_eq!(parse_key(other), None, "{other}");
        }
    }

    #[test]
    fn names_sort_like_revisions() {
        let name = |revision| {
            let (timeline, id) = (TimelineId([1; 16]), ObjectId([2; 16]));
            base(timeline, Revision::new(revision).unwrap(), RaftIndex(7), id)
        };
        assert!(name(9) < name(10) && name(10) < name(i64::MAX));
    }

    #[test]
    fn segments_tell_their_revisions() {
        let revision = |number| Revision::new(number).unwrap();
        let (first, last) = (revision(7), revision(1200));
        let name = segment(TimelineId([1; 16]), first, last, ObjectId([2; 16]));
        assert_eq!(parse_segment(&name), Some(SegmentName { first, last }));
        assert_eq!(timeline_of(&name), Some(TimelineId([1; 16])));
        assert_eq!(timeline_of("timelines/x/log"), None);
        for bad in ["", "x.seg", "1-2-3", "0-1.seg", "0-1-2.seg", "0--1-5-x.seg", "a/b/0-x-5-y.seg"]
        {
            assert_eq!(parse_segment(bad), None, "{bad}");
        }
    }
}
