//! What members say of their keyspaces, kept beside what was archived of them, to be compared with it.

use crate::archive::Archive;
use crate::error::Error;
use crate::format::header::{Facts, HEADER_MAX, Moment};
use crate::format::witness::Testimony;
use crate::format::{Kind, TimelineId};
use crate::names;
use crate::object;
use crate::store::Listed;
use rekindle_etcd::{ClusterId, MemberId, RaftIndex, RaftTerm, Revision};

/// What a member has said of its keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHash {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The member.
    pub member: MemberId,
    /// Its raft term.
    pub term: RaftTerm,
    /// Its version.
    pub etcd: String,
    /// Up to which revision it has hashed.
    pub revision: Revision,
    /// Up to where it had compacted.
    pub compact: Option<Revision>,
    /// When it was asked.
    pub at: Moment,
    /// What it has said.
    pub said: Testimony,
}

/// A witness that was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessEntry {
    /// The object's name.
    pub name: String,
    /// Bytes of the object.
    pub bytes: u64,
    /// What its header says.
    pub facts: Facts,
}

impl Archive {
    /// Keeps what a member of the cluster that a timeline follows has said; the object's name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn add_witness(
        &self,
        timeline: TimelineId,
        hash: &MemberHash,
        now: Moment,
    ) -> Result<String, Error> {
        let facts = Facts {
            kind: Kind::Witness,
            archive: self.id(),
            timeline,
            id: object::random_id()?,
            first: hash.revision,
            last: hash.revision,
            compact: hash.compact,
            term: hash.term,
            index: RaftIndex::default(),
            state: hash.at,
            ended: now,
            records: 0,
            keys: 0,
            logical_bytes: 0,
            new_bytes: 0,
            cluster: hash.cluster,
            member: hash.member,
            etcd: hash.etcd.clone(),
            erased: false,
        };
        let built = object::build(self, &facts, &hash.said.encode())?;
        let name = names::witness(timeline, facts.last, facts.id);
        self.store().create(&name, built.bytes)?;
        Ok(name)
    }

    /// What members have said, in the order of revisions. What cannot be read of it is left out:
    /// a verification names it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn witnesses(&self) -> Result<Vec<WitnessEntry>, Error> {
        let mut listed = self.store().list(names::TIMELINES)?;
        listed.retain(|found| names::parse_witness(&found.name).is_some());
        let starts = self.store().read_starts(listed.clone(), HEADER_MAX as u64);
        let entry = |(Listed { name, bytes }, start): (_, Result<bytes::Bytes, _>)| {
            let full_name = self.store().full_name(&name);
            let header = object::parse(self, &full_name, Kind::Witness, &start.ok()?).ok()?;
            Some(WitnessEntry { name, bytes, facts: header.facts })
        };
        let mut found: Vec<_> = listed.into_iter().zip(starts).filter_map(entry).collect();
        found.sort_by_key(|entry| (entry.facts.last, entry.facts.state));
        Ok(found)
    }

    /// What a witness has said.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Damaged`] and its like of one that cannot be believed.
    pub fn testimony(&self, entry: &WitnessEntry) -> Result<Testimony, Error> {
        read(self, entry)
    }
}

/// What a witness says.
pub(crate) fn read(archive: &Archive, entry: &WitnessEntry) -> Result<Testimony, Error> {
    let bytes = archive.store().read(&entry.name, entry.bytes)?;
    check(archive, &entry.name, bytes)
}

/// Checks a witness, and reads it.
pub(crate) fn check(
    archive: &Archive,
    name: &str,
    bytes: bytes::Bytes,
) -> Result<Testimony, Error> {
    let full_name = archive.store().full_name(name);
    let opened = object::open(archive, &full_name, Kind::Witness, bytes)?;
    let damaged = |fault| Error::damaged(&full_name, fault);
    let facts = &opened.header.facts;
    let own = names::witness(facts.timeline, facts.last, facts.id);
    match own == name {
        true => Testimony::parse(&opened.content).map_err(damaged),
        false => Err(damaged(crate::format::FormatFault::Senseless { what: "its place" })),
    }
}
