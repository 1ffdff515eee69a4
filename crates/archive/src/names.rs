//! Where every object has its name.
//!
//! ```text
//! archive.json                                              what the archive is
//! keys/<generation>.json                                    public keys, from generation 2 on
//! keys/<generation>-<id>.age                                the secret of a generation, sealed to its owners
//! timelines/<id>/timeline.json                              what the timeline is
//! timelines/<id>/packs/<id>.pack                            records written in bulk
//! timelines/<id>/writers/<epoch>.json                       a claim: who writes its log
//! timelines/<id>/writers/<epoch>-<id>.alive                 a sign of life of who writes it
//! timelines/<id>/log/<level>/<epoch>-<first>-<last>-<id>.seg   a part of the log
//! timelines/<id>/bases/<revision>-<raft index>-<id>.base    the state at one revision
//! timelines/<id>/witnesses/<revision>-<id>.witness          what a member has said of its keyspace
//! host/<host>/<time>-<id>.files                             files of a host
//! ```
//!
//! Numbers but for levels have 20 digits, so that names sort like them. They are there for people and for order:
//! what counts stands in the header.

use crate::format::files::is_host;
use crate::format::header::Moment;
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

/// Whose turn it is to write the log of a timeline: each claim is one higher than the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Of what was written by nobody who follows the cluster.
    pub const NONE: Self = Self(0);

    /// The next one; none where there is none.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A sign that whoever has the turn is there, though he writes no segment now.
pub(crate) fn sign(timeline: TimelineId, epoch: Epoch, id: ObjectId) -> String {
    format!("{}/{:020}-{id}.alive", claims(timeline), epoch.0)
}

/// The epoch of what [`sign`] writes.
pub(crate) fn parse_sign(name: &str) -> Option<Epoch> {
    let (_, stem) = name.strip_suffix(".alive")?.rsplit_once('/')?;
    stem.split_once('-')?.0.parse().ok().map(Epoch)
}

/// Where the claims to a timeline's log are.
pub(crate) fn claims(timeline: TimelineId) -> String {
    format!("{TIMELINES}/{timeline}/writers")
}

pub(crate) fn claim(timeline: TimelineId, epoch: Epoch) -> String {
    format!("{}/{:020}.json", claims(timeline), epoch.0)
}

/// Reads what [`claim`] writes.
pub(crate) fn parse_claim(name: &str) -> Option<Epoch> {
    let (rest, stem) = name.strip_suffix(".json")?.rsplit_once('/')?;
    let epoch = Epoch(stem.parse().ok().filter(|epoch| *epoch > 0)?);
    let is_own = rest.ends_with("/writers") && claim(timeline_of(name)?, epoch) == name;
    is_own.then_some(epoch)
}

/// Where a segment lies.
pub(crate) fn segment(timeline: TimelineId, name: SegmentName, id: ObjectId) -> String {
    let SegmentName { level, epoch, first, last } = name;
    let (log, epoch, first, last) = (log(timeline), epoch.0, first.get(), last.get());
    format!("{log}/{level}/{epoch:020}-{first:020}-{last:020}-{id}.seg")
}

/// The level of segments from which records were erased: no base takes any of them.
pub(crate) const REDACTED: u8 = u8::MAX;

/// What the name of a segment tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentName {
    /// How often what it holds was merged.
    pub level: u8,
    /// Whose turn it was.
    pub epoch: Epoch,
    /// The first revision that it has all records of; the one behind the last where it has none.
    pub first: Revision,
    /// The last one.
    pub last: Revision,
}

/// Reads what [`segment`] writes.
pub(crate) fn parse_segment(name: &str) -> Option<SegmentName> {
    let (folder, stem) = name.strip_suffix(".seg")?.rsplit_once('/')?;
    let parts: Vec<_> = stem.split('-').collect();
    let revision = |text: &str| text.parse().ok().and_then(Revision::new);
    let [epoch, first, last, _] = parts[..] else { return None };
    Some(SegmentName {
        level: folder.rsplit('/').next()?.parse().ok()?,
        epoch: Epoch(epoch.parse().ok()?),
        first: revision(first)?,
        last: revision(last)?,
    })
}

pub(crate) fn base(
    timeline: TimelineId,
    revision: Revision,
    index: RaftIndex,
    id: ObjectId,
) -> String {
    format!("{TIMELINES}/{timeline}/bases/{:020}-{:020}-{id}.base", revision.get(), index.0)
}

pub(crate) fn witness(timeline: TimelineId, revision: Revision, id: ObjectId) -> String {
    format!("{TIMELINES}/{timeline}/witnesses/{:020}-{id}.witness", revision.get())
}

/// The revision of what [`witness`] writes.
pub(crate) fn parse_witness(name: &str) -> Option<Revision> {
    let (_, stem) = name.strip_suffix(".witness")?.rsplit_once('/')?;
    stem.split_once('-')?.0.parse().ok().and_then(Revision::new)
}

/// Where files of hosts are.
pub(crate) const HOSTS: &str = "host";

pub(crate) fn files(host: &str, at: Moment, id: ObjectId) -> String {
    format!("{HOSTS}/{host}/{:020}-{id}.files", at.0.max(0))
}

/// The host of what [`files`] writes.
pub(crate) fn parse_files(name: &str) -> Option<&str> {
    let (host, stem) = name.strip_prefix(HOSTS)?.strip_prefix('/')?.split_once('/')?;
    let (time, id) = stem.strip_suffix(".files")?.split_once('-')?;
    let at = Moment(time.parse().ok()?);
    (is_host(host) && files(host, at, ObjectId::parse(id)?) == name).then_some(host)
}

/// The time of what [`files`] writes.
pub(crate) fn time_of_files(name: &str) -> Option<Moment> {
    let (_, stem) = name.strip_suffix(".files")?.rsplit_once('/')?;
    stem.split_once('-')?.0.parse().ok().map(Moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_say_host_and_time() {
        let name = files("node-1.example", Moment(12), ObjectId([2; 16]));
        assert_eq!(parse_files(&name), Some("node-1.example"));
        assert_eq!(time_of_files(&name), Some(Moment(12)));
        let bad =
            ["", "host/a/1-x.files", &name.replace("node-1", ".."), &name.replace("12-", "012-")];
        for bad in bad {
            assert_eq!(parse_files(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_of_witnesses_say_their_revisions() {
        let revision = Revision::new(12).unwrap();
        let name = witness(TimelineId([1; 16]), revision, ObjectId([2; 16]));
        assert_eq!(parse_witness(&name), Some(revision));
        assert_eq!(timeline_of(&name), Some(TimelineId([1; 16])));
        for bad in ["", ".witness", "a/.witness", "a/5.witness", "a/-5-x.witness", "a/x-5.witness"]
        {
            assert_eq!(parse_witness(bad), None, "{bad}");
        }
    }

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
    fn claims_tell_their_epoch() {
        let timeline = TimelineId([1; 16]);
        let name = claim(timeline, Epoch(7));
        assert_eq!(parse_claim(&name), Some(Epoch(7)));
        assert_eq!(parse_claim(&claim(timeline, Epoch::NONE)), None);
        for other in ["", "writers/7.json", &name[1..], &name.replace("00007", "7")] {
            assert_eq!(parse_claim(other), None, "{other}");
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
        let own = SegmentName { level: 2, epoch: Epoch(31), first, last };
        let name = segment(TimelineId([1; 16]), own, ObjectId([2; 16]));
        assert_eq!(parse_segment(&name), Some(own));
        assert_eq!(timeline_of(&name), Some(TimelineId([1; 16])));
        assert_eq!(timeline_of("timelines/x/log"), None);
        for bad in ["", "x.seg", "1-2-3", "0-1.seg", "0-1-2.seg", "0--1-5-x.seg", "a/b/0-x-5-y.seg"]
        {
            assert_eq!(parse_segment(bad), None, "{bad}");
        }
    }
}
