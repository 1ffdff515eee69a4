//! Writing the log of a timeline, one at a time.
//!
//! Who wants to write claims the turn behind the last one: `writers/<epoch>.json` is created, which
//! succeeds once. Whoever had the turn before finds that claim after his next segment, and may not call
//! it written: who claimed looked at the log afterwards, and may not have seen it.

use super::cut::{Cut, Witness};
use super::merge::Merger;
use crate::archive::{Archive, FORMAT, JSON_MAX, from_json, shown, to_json};
use crate::error::Error;
use crate::format::header::{Facts, Moment};
use crate::format::{Kind, ObjectId, TimelineId};
use crate::names::{self, Epoch, SegmentName};
use crate::object;
use crate::plan::cover::{SegmentEntry, reach};
use crate::store::StoreFaultKind;
use crate::tail::Erased;
use rekindle_etcd::{ClusterId, RaftIndex, Revision};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `writers/<epoch>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct ClaimFile {
    format: u16,
    requires: Vec<String>,
    timeline: String,
    epoch: u64,
    /// Whose it is, and on which host, for people.
    writer: String,
    host: String,
    claimed: String,
}

/// A claim to the log of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which turn it is.
    pub epoch: Epoch,
    /// Whose: what follows a cluster keeps its id in its spool.
    pub writer: ObjectId,
    /// On which host, for people.
    pub host: String,
}

/// What shows whether whoever has the turn still writes: compare it with that of some time ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The newest claim.
    pub claim: Option<Claim>,
    /// Names of the segments that came under it, and of signs of life.
    signs: Vec<String>,
}

/// How far an archive has a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The history that the cluster is in.
    pub timeline: TimelineId,
    /// The revision of its newest base.
    pub base: Revision,
    /// When that was the cluster's.
    pub base_at: Moment,
    /// The last revision up to which the log goes on from it.
    pub last: Revision,
    /// Of what the log had behind the base some is gone, or was erased: it must not come back from a journal,
    /// and only a base brings the archive on.
    pub has_hole: bool,
}

/// Writes the log of a timeline while it is its turn.
#[derive(Debug)]
pub struct LogWriter {
    turn: Turn,
    /// What was created last and is not known to be part of the log.
    created: Option<((Revision, Revision, Moment), Written)>,
    /// The last one that said that nothing had come.
    beat: Option<String>,
    /// The last sign of life.
    sign: Option<String>,
}

/// A turn to write the log of a timeline.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    archive: Archive,
    timeline: TimelineId,
    epoch: Epoch,
    writer: ObjectId,
}

impl Archive {
    /// How far it has a cluster; none where it has no base of it.
    ///
    /// # Errors
    /// [`Error::Store`]; a base that cannot be read.
    pub fn log_end(&self, cluster: ClusterId) -> Result<Option<LogEnd>, Error> {
        self.check_place()?;
        let listing = self.list()?;
        let Some(current) = self.current_timeline(&listing, cluster)? else { return Ok(None) };
        let of_it = |base: &&crate::archive::BaseEntry| base.header.facts.timeline == current;
        let Some(newest) = listing.bases.iter().rev().find(of_it) else { return Ok(None) };
        let facts = &newest.header.facts;
        let (timeline, base, base_at) = (facts.timeline, facts.last, facts.state);
        let erased = Erased::read(self)?;
        let stock = self.stock(std::iter::once(timeline))?;
        let living = erased.living_log(&stock, timeline);
        let reached = base.later(1).map(|next| reach(&living, next)).unwrap_or_default();
        let last = reached.last().map_or(base, |piece| piece.to);
        let names: BTreeSet<_> = living.iter().map(|segment| &segment.name).collect();
        let is_erased = |it: &SegmentEntry| it.last > base && !names.contains(&it.name);
        let has_hole = stock.log(timeline).iter().any(is_erased)
            || living.iter().any(|it| !it.is_empty() && it.last > last);
        Ok(Some(LogEnd { timeline, base, base_at, last, has_hole }))
    }

    /// What shows whether anybody writes the log of a timeline.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Json`].
    pub fn activity(&self, timeline: TimelineId) -> Result<Activity, Error> {
        let claim = self.newest_claim(timeline)?;
        let epoch = claim.as_ref().map(|claim| claim.epoch);
        let mut listed = self.store().list(&names::log(timeline))?;
        listed.append(&mut self.store().list(&names::claims(timeline))?);
        let of_turn = |name: &String| {
            let segment = names::parse_segment(name).map(|it| it.epoch);
            segment.or_else(|| names::parse_sign(name)) == epoch
        };
        let signs = listed.into_iter().map(|it| it.name).filter(of_turn).collect();
        Ok(Activity { signs, claim })
    }

    fn newest_claim(&self, timeline: TimelineId) -> Result<Option<Claim>, Error> {
        let listed = self.store().list(&names::claims(timeline))?;
        let newest = listed.iter().filter_map(|it| names::parse_claim(&it.name)).max();
        newest.map(|epoch| self.read_claim(timeline, epoch)).transpose()
    }

    fn read_claim(&self, timeline: TimelineId, epoch: Epoch) -> Result<Claim, Error> {
        let name = names::claim(timeline, epoch);
        let bytes = self.store().read(&name, JSON_MAX)?;
        let object = self.store().full_name(&name);
        let file: ClaimFile = from_json(&object, &bytes)?;
        let writer = ObjectId::parse(&file.writer);
        let is_own = file.timeline == timeline.to_string() && file.epoch == epoch.0;
        match writer.filter(|_| is_own) {
            Some(writer) => Ok(Claim { epoch, writer, host: file.host }),
            None => Err(Error::Json { object, fault: "it is no claim to this log".to_owned() }),
        }
    }

    /// Claims the turn behind the last one. List the log only afterwards.
    ///
    /// # Errors
    /// [`Error::Overtaken`] where another was quicker; [`Error::Store`].
    pub fn claim(
        &self,
        timeline: TimelineId,
        writer: ObjectId,
        host: &str,
        now: Moment,
    ) -> Result<LogWriter, Error> {
        self.check_writable()?;
        self.check_place()?;
        let listed = self.store().list(&names::claims(timeline))?;
        let newest = listed.iter().filter_map(|it| names::parse_claim(&it.name)).max();
        let epoch = newest.unwrap_or_default().next().ok_or(Error::Panicked)?;
        let file = ClaimFile {
            format: FORMAT,
            requires: Vec::new(),
            timeline: timeline.to_string(),
            epoch: epoch.0,
            writer: writer.to_string(),
            host: host.to_owned(),
            claimed: shown(now),
        };
        match self.store().create(&names::claim(timeline, epoch), to_json(&file)) {
            Err(fault) if fault.kind == StoreFaultKind::Exists => {
                Err(self.overtaken(timeline, epoch))
            }
            created => {
                created?;
                // Who had a turn before shows no life in it any more.
                for sign in listed.iter().filter(|it| names::parse_sign(&it.name).is_some()) {
                    let _ = self.store().remove(&sign.name);
                }
                let turn = Turn { archive: self.clone(), timeline, epoch, writer };
                Ok(LogWriter { turn, created: None, beat: None, sign: None })
            }
        }
    }

    fn overtaken(&self, timeline: TimelineId, epoch: Epoch) -> Error {
        let host = self.read_claim(timeline, epoch).map(|claim| claim.host);
        let host = host.unwrap_or_else(|_| "somebody".to_owned());
        Error::Overtaken { place: self.store().place().to_owned(), host }
    }
}

impl LogWriter {
    /// The history whose log it writes.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.turn.timeline
    }

    /// Writes a segment, and tells its name. Only when this succeeds it is part of the log for good. After a
    /// failure of the store the same may be written again.
    ///
    /// # Errors
    /// [`Error::Overtaken`]; [`Error::Store`].
    pub fn append(&mut self, cut: &Cut, now: Moment) -> Result<Written, Error> {
        let own = (cut.first, cut.last, cut.state);
        let created = self.created.take().filter(|(created, _)| *created == own);
        let written = match created {
            // It may have been created in another place, where a mount was gone meanwhile.
            Some((_, created)) if self.turn.is_there(&created.name)? => created,
            _ => self.turn.create(0, cut, now)?,
        };
        self.created = Some((own, written.clone()));
        self.check_turn()?;
        self.created = None;
        // That nothing had come until earlier says nothing any more.
        let beat = cut.is_empty().then(|| written.name.clone());
        if let Some(before) = std::mem::replace(&mut self.beat, beat) {
            let _ = self.turn.archive.store().remove(&before);
        }
        Ok(written)
    }

    /// Shows that whoever has the turn is there, though there is nothing to be written.
    ///
    /// # Errors
    /// [`Error::Overtaken`]; [`Error::ClaimGone`]; [`Error::Store`].
    pub fn show_life(&mut self) -> Result<(), Error> {
        let Turn { archive, timeline, epoch, .. } = &self.turn;
        let name = names::sign(*timeline, *epoch, object::random_id()?);
        self.check_turn()?;
        archive.store().create(&name, Vec::new())?;
        if let Some(before) = self.sign.replace(name) {
            let _ = archive.store().remove(&before);
        }
        Ok(())
    }

    /// Whether it is still its turn. Its own claim is looked at, too: where a mount is gone, a directory of
    /// the same name takes everything.
    ///
    /// # Errors
    /// [`Error::Overtaken`]; [`Error::ClaimGone`]; [`Error::Store`] where that is not known.
    pub fn check_turn(&self) -> Result<(), Error> {
        self.turn.check()
    }

    /// What merges segments that were written in this turn.
    #[must_use]
    pub fn merger(&self) -> Merger {
        Merger::new(self.turn.clone())
    }
}

impl Turn {
    fn is_there(&self, name: &str) -> Result<bool, Error> {
        match self.archive.store().modified(name) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(false),
            looked => Ok(looked.map(|_| true)?),
        }
    }

    pub(super) fn create(&self, level: u8, cut: &Cut, now: Moment) -> Result<Written, Error> {
        let Witness { cluster, member, term } = cut.witness;
        let facts = Facts {
            kind: Kind::Segment,
            archive: self.archive.id(),
            timeline: self.timeline,
            id: object::random_id()?,
            first: cut.first,
            last: cut.last,
            compact: None,
            term,
            index: RaftIndex::default(),
            state: cut.state,
            ended: now,
            records: cut.records,
            keys: cut.leases,
            logical_bytes: cut.logical_bytes,
            new_bytes: 0,
            cluster,
            member,
            etcd: String::new(),
            erased: false,
        };
        let built = object::build(&self.archive, &facts, &cut.content)?;
        let (first, last) = (cut.first, cut.last);
        let place = SegmentName { level, epoch: self.epoch, first, last };
        let name = names::segment(self.timeline, place, facts.id);
        let bytes = built.bytes.len() as u64;
        self.archive.store().create(&name, built.bytes)?;
        Ok(Written { name, bytes })
    }

    /// The first of some segments that is gone, or waits for a prune because it has what was erased.
    pub(super) fn gone(&self, names: &[String]) -> Result<Option<String>, Error> {
        let erased = Erased::read(&self.archive)?;
        let stock = self.archive.stock(std::iter::once(self.timeline))?;
        let living = erased.living_log(&stock, self.timeline);
        let is_living = |name: &String| living.iter().any(|segment| segment.name == *name);
        Ok(names.iter().find(|name| !is_living(name)).cloned())
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        Ok(self.archive.store().remove(name)?)
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let own = names::claim(self.timeline, self.epoch);
        let gone = || Error::ClaimGone { object: self.archive.store().full_name(&own) };
        match self.archive.read_claim(self.timeline, self.epoch) {
            Ok(claim) if claim.writer == self.writer => {}
            Err(Error::Store(fault)) if fault.kind != StoreFaultKind::NotFound => {
                return Err(fault.into());
            }
            _ => return Err(gone()),
        }
        let next = self.epoch.next().ok_or(Error::Panicked)?;
        match self.archive.store().read(&names::claim(self.timeline, next), JSON_MAX) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(()),
            Err(fault) if fault.kind != StoreFaultKind::TooLarge => Err(fault.into()),
            _ => Err(self.archive.overtaken(self.timeline, next)),
        }
    }
}

/// A segment that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its name.
    pub(super) name: String,
    /// So many bytes it has in the store.
    pub bytes: u64,
}
