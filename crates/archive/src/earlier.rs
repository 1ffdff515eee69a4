//! What a later base has of an earlier revision.
//!
//! A base has every record from behind the revision at which it was compacted, and of those before it what that
//! compaction has left. So its records up to any revision between that one and its own are the keyspace of then,
//! compacted at the same.

use crate::archive::{Archive, BaseEntry};
use crate::error::Error;
use crate::format::base::{Base, Part, PartKind};
use crate::format::header::{Facts, Header, Moment};
use crate::format::segment::Instant;
use crate::format::{FormatFault, Kind};
use crate::frame::Frame;
use crate::names;
use crate::object::{self, OpenedRun};
use crate::read::{is_known, read_base};
use rekindle_etcd::{RecordKey, Revision, schema};

/// A base as of an earlier revision.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// The later base's, with what holds of the earlier revision in its facts, as far as that is known.
    pub entry: BaseEntry,
    /// What brings it back. Its HashKV is that of the later one.
    pub base: Base,
    /// Nobody saw when the cluster was there.
    pub reckoned: bool,
}

/// What parts have of a revision.
#[derive(Default)]
struct Found {
    /// Its last record, and the place of the part that has it.
    last: Option<(usize, Last)>,
    /// When the cluster was there, where a part tells.
    at: Option<Instant>,
}

/// The number of a record in its part, its key and its value.
type Last = (u64, RecordKey, Vec<u8>);

/// What a part has of a revision and of those before.
#[derive(Default)]
struct UpTo {
    /// So many records, those that are dead among them.
    records: u64,
    /// The last record of that very revision, and its number in the part.
    last: Option<Last>,
    /// When the cluster was there, where the part tells.
    at: Option<Instant>,
}

impl Archive {
    /// What a base has of a revision before its own. Users, roles, passwords and alarms are those of `before`, the
    /// newest base from before that revision, if there is one.
    ///
    /// # Errors
    /// [`Error::LogMissing`] for a revision that it has not all records of; an object cannot be read.
    pub fn as_of(
        &self,
        entry: &BaseEntry,
        base: Base,
        to: Revision,
        before: Option<&BaseEntry>,
    ) -> Result<Earlier, Error> {
        let facts = &entry.header.facts;
        let missing =
            || Error::LogMissing { base: self.store().full_name(&entry.name), missing: to };
        if to >= facts.last || Some(to) <= facts.compact {
            return Err(missing());
        }
        let (mut parts, mut found) = (Vec::new(), Found::default());
        for part in base.parts.iter().filter(|part| part.first.revision <= to) {
            let mut part = part.clone();
            if part.last.revision >= to {
                let up_to = self.part_up_to(entry, &part, to)?;
                let place = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
                part.dead.insert_range(place(up_to.records)..place(part.records));
                found.last = up_to.last.map(|last| (parts.len(), last)).or(found.last);
                found.at = up_to.at.or(found.at);
            }
            parts.push(part);
        }
        let (part, (number, key, value)) = found.last.ok_or_else(missing)?;
        // It tells the revision: where it was erased, it stays with nothing in it.
        if let (Some(part), Ok(number)) = (parts.get_mut(part), u32::try_from(number)) {
            part.dead.remove(number);
        }
        parts.retain(|part| part.living() > 0);
        let (mut frame, page_size) = Frame::parse(&base.frame)?;
        if let Some(before) = before {
            let theirs = Frame::parse(&read_base(self, before)?.frame)?.0;
            for bucket in [schema::AUTH, schema::AUTH_USERS, schema::AUTH_ROLES, schema::ALARM] {
                frame.replace(bucket, theirs.pairs(bucket).to_vec());
            }
            frame.add_missing(schema::LEASE, theirs)?;
        }
        frame.set_last_record(&key.to_bytes(), &value);
        let at = found.at.unwrap_or_else(|| reckoned(before, facts, to));
        let base = Base { parts, frame: frame.to_file(page_size)?, ..base };
        let facts = Facts {
            first: facts.first.min(to),
            last: to,
            state: at.at,
            records: base.living().ok_or_else(missing)?,
            ..facts.clone()
        };
        let header = Header { facts, ..entry.header.clone() };
        Ok(Earlier { entry: BaseEntry { header, ..entry.clone() }, base, reckoned: at.reckoned })
    }

    fn part_up_to(&self, entry: &BaseEntry, part: &Part, to: Revision) -> Result<UpTo, Error> {
        let store = self.store();
        let mut up_to = UpTo::default();
        if let PartKind::Pack { id, .. } = part.what {
            let name = names::pack(part.timeline, id);
            let full_name = store.full_name(&name);
            let bytes = store.read(&name, part.bytes)?;
            let opened = object::open_run(self, &full_name, Kind::Pack, bytes)?;
            let damaged = |fault| Error::damaged(&full_name, fault);
            return match is_known(part, &opened) {
                true => up_to.add(&opened, (part.first.revision, to), to).map_err(damaged),
                false => Err(damaged(FormatFault::Foreign)),
            };
        }
        let stock = self.stock(std::iter::once(part.timeline))?;
        let pieces = stock
            .cover(part)
            .map_err(|missing| Error::LogMissing { base: store.full_name(&entry.name), missing })?;
        for piece in pieces.iter().filter(|piece| piece.from <= to) {
            let opened = object::read_segment(self, &piece.segment.name, piece.segment.bytes)?;
            let damaged = |fault| Error::damaged(&store.full_name(&piece.segment.name), fault);
            up_to = up_to.add(&opened, (piece.from, piece.to.min(to)), to).map_err(damaged)?;
            up_to.at = opened.notes.times.of(to).filter(|_| piece.to >= to).or(up_to.at);
        }
        Ok(up_to)
    }
}

impl UpTo {
    /// With the records of a run from one revision to another, behind those before.
    fn add(
        mut self,
        opened: &OpenedRun,
        (first, last): (Revision, Revision),
        to: Revision,
    ) -> Result<Self, FormatFault> {
        let mut records = opened.within(first, last);
        while let Some(key) = records.advance()? {
            if key.revision == to {
                self.last = Some((self.records, key, records.value().to_vec()));
            }
            self.records += 1;
        }
        Ok(self)
    }
}

/// When the cluster was at a revision, if all came as fast.
fn reckoned(before: Option<&BaseEntry>, later: &Facts, to: Revision) -> Instant {
    let (from, since) = before.map_or((later.last, later.state), |before| {
        (before.header.facts.last, before.header.facts.state)
    });
    let whole = i128::from(later.last.get()) - i128::from(from.get());
    let part = i128::from(to.get()) - i128::from(from.get());
    let time = i128::from(later.state.0) - i128::from(since.0);
    let after = i64::try_from(time.saturating_mul(part) / whole.max(1)).unwrap_or_default();
    let at = if whole > 0 { Moment(since.0.saturating_add(after)) } else { later.state };
    Instant { revision: to, at, reckoned: true }
}
