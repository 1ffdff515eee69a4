//! What an archive holds, and what that costs: by headers and bases, without reading records.

use crate::archive::Archive;
use crate::error::Error;
use crate::format::base::PartKind;
use crate::format::header::{HEADER_MAX, Moment};
use crate::format::{Header, Kind, ObjectId, TimelineId};
use crate::names;
use crate::read::read_base;
use crate::store::{Listed, StoreFaultKind};
use rekindle_etcd::RecordKey;
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

/// What an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By kind of object: packs, segments, bases.
    pub kinds: Vec<KindUse>,
    /// By age, the youngest first.
    pub ages: Vec<AgeUse>,
    /// Bytes of the records of all bases: what as many snapshots would hold, uncompressed.
    pub bases_bytes: u64,
    /// Objects that cannot be read.
    pub unreadable: u64,
}

/// What is held in objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindUse {
    /// The kind.
    pub kind: Kind,
    /// How many there are.
    pub objects: u64,
    /// Bytes as stored.
    pub stored: u64,
    /// Bytes of the records in them, before compression; of bases, which have none, 0.
    pub logical: u64,
    /// About so many of the stored bytes are of records that no base has any more.
    pub dead: u64,
}

/// What was saved in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeUse {
    /// Objects of at most so many days; none: all that are older.
    pub days_max: Option<u32>,
    /// Bases.
    pub bases: u64,
    /// Bytes of their records, before compression.
    pub bases_bytes: u64,
    /// Bytes of all objects that were written then.
    pub stored: u64,
}

impl Stats {
    /// Bytes as stored, in all.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.stored).sum()
    }

    /// Bytes of records in packs and segments, before compression.
    #[must_use]
    pub fn logical(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.logical).sum()
    }

    /// Stored bytes of records that no base has any more, about.
    #[must_use]
    pub fn dead(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.dead).sum()
    }
}

/// Days of the ages that are told apart; what is older comes last.
const AGES: [u32; 3] = [1, 7, 30];
const DAY: i64 = 24 * 60 * 60 * 1000;

/// Looks at all objects' headers, and into the bases.
///
/// # Errors
/// [`Error::Store`] where the archive cannot be listed.
pub fn stats(archive: &Archive, now: Moment) -> Result<Stats, Error> {
    let kind = |kind| KindUse { kind, objects: 0, stored: 0, logical: 0, dead: 0 };
    let age = |days_max| AgeUse { days_max, bases: 0, bases_bytes: 0, stored: 0 };
    let mut stats = Stats {
        kinds: [Kind::Pack, Kind::Segment, Kind::Base, Kind::Witness, Kind::Files]
            .map(kind)
            .to_vec(),
        ages: AGES.map(Some).into_iter().chain([None]).map(age).collect(),
        ..Stats::default()
    };
    let mut listed = archive.store().list(names::TIMELINES)?;
    listed.extend(archive.store().list(names::HOSTS)?);
    let listed: Vec<_> = listed
        .into_iter()
        .filter(|it| ![".json", ".alive"].iter().any(|end| it.name.ends_with(end)))
        .collect();
    let starts = archive.store().read_starts(listed.clone(), HEADER_MAX as u64);
    for (found, start) in listed.iter().zip(starts) {
        match start.map(|start| Header::parse(&start)) {
            Ok(Ok(header)) => stats.add(found, &header, now),
            // It went meanwhile.
            Err(fault) if fault.kind == StoreFaultKind::NotFound => {}
            _ => stats.unreadable += 1,
        }
    }
    for (kind, dead) in dead_bytes(archive, &mut stats.unreadable)? {
        if let Some(it) = stats.kinds.iter_mut().find(|it| it.kind == kind) {
            it.dead = dead.min(it.stored);
        }
    }
    Ok(stats)
}

impl Stats {
    fn add(&mut self, found: &Listed, header: &Header, now: Moment) {
        let facts = &header.facts;
        let is_base = facts.kind == Kind::Base;
        let logical = if is_base { 0 } else { facts.logical_bytes };
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.kind == facts.kind) {
            kind.objects += 1;
            kind.stored += found.bytes;
            kind.logical = kind.logical.saturating_add(logical);
        }
        let days = now.0.saturating_sub(facts.ended.0) / DAY;
        let fits = |age: &&mut AgeUse| age.days_max.is_none_or(|max| days < i64::from(max));
        let Some(age) = self.ages.iter_mut().find(fits) else { return };
        age.stored += found.bytes;
        if is_base {
            age.bases += 1;
            age.bases_bytes = age.bases_bytes.saturating_add(facts.logical_bytes);
            self.bases_bytes = self.bases_bytes.saturating_add(facts.logical_bytes);
        }
    }
}

/// A part that bases share.
struct Shared {
    kind: Kind,
    records: u64,
    bytes: u64,
    /// Records that are dead in all of them.
    dead: RoaringBitmap,
}

/// Stored bytes of records that are dead in every base that has them, reckoned by their number.
fn dead_bytes(archive: &Archive, unreadable: &mut u64) -> Result<Vec<(Kind, u64)>, Error> {
    let mut parts: BTreeMap<(TimelineId, RecordKey, RecordKey, Option<ObjectId>), Shared> =
        BTreeMap::new();
    for entry in archive.list()?.bases {
        let Ok(base) = read_base(archive, &entry) else {
            *unreadable += 1;
            continue;
        };
        for part in base.parts {
            let (kind, id) = match part.what {
                PartKind::Pack { id, .. } => (Kind::Pack, Some(id)),
                PartKind::Log { .. } => (Kind::Segment, None),
            };
            let key = (part.timeline, part.first, part.last, id);
            match parts.get_mut(&key) {
                Some(shared) => shared.dead &= &part.dead,
                None => {
                    let (records, bytes, dead) = (part.records, part.bytes, part.dead);
                    parts.insert(key, Shared { kind, records, bytes, dead });
                }
            }
        }
    }
    let dead = |kind: Kind| {
        let of_kind = parts.values().filter(|shared| shared.kind == kind);
        (kind, of_kind.map(Shared::dead_bytes).fold(0, u64::saturating_add))
    };
    Ok([Kind::Pack, Kind::Segment].map(dead).to_vec())
}

impl Shared {
    fn dead_bytes(&self) -> u64 {
        let product = u128::from(self.bytes) * u128::from(self.dead.len());
        u64::try_from(product / u128::from(self.records.max(1))).unwrap_or(u64::MAX)
    }
}
