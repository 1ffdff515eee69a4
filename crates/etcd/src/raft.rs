//! The raft messages that lie in WAL and `.snap` files.
//!
//! Written as etcd 3.4 to 3.6 write them, zeros included; 3.7 leaves zeros out and reads both.
//! Source: `raft/raftpb/raft.proto`, etcd `api/etcdserverpb/raft_internal.proto` (Metadata).

use crate::ids::{ClusterId, MemberId, RaftIndex, RaftTerm};
use crate::membership::Member;
use crate::wire::{self, Fields, WireFault};

/// Who writes this WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The member.
    pub member: MemberId,
    /// Its cluster.
    pub cluster: ClusterId,
}

impl Metadata {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, WireFault> {
        let mut metadata = Self { member: MemberId(0), cluster: ClusterId(0) };
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => metadata.member = MemberId(field.uint64()?),
                2 => metadata.cluster = ClusterId(field.uint64()?),
                _ => {}
            }
        }
        Ok(metadata)
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_uint64(&mut out, 1, self.member.0);
        wire::put_uint64(&mut out, 2, self.cluster.0);
        out
    }
}

/// What raft must not forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The current term.
    pub term: RaftTerm,
    /// For whom it voted in that term; 0 = nobody.
    pub vote: u64,
    /// The last entry known to be committed.
    pub commit: RaftIndex,
}

impl HardState {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, WireFault> {
        let mut state = Self::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => state.term = RaftTerm(field.uint64()?),
                2 => state.vote = field.uint64()?,
                3 => state.commit = RaftIndex(field.uint64()?),
                _ => {}
            }
        }
        Ok(state)
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_uint64(&mut out, 1, self.term.0);
        wire::put_uint64(&mut out, 2, self.vote);
        wire::put_uint64(&mut out, 3, self.commit.0);
        out
    }
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A request to the store.
    Normal,
    /// A change of the members.
    ConfChange,
    /// A change of the members in the newer form.
    ConfChangeV2,
    /// A kind that this program does not know.
    Other(i64),
}

/// An entry of the raft log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it holds.
    pub kind: EntryKind,
    /// The term in which it was proposed.
    pub term: RaftTerm,
    /// Its place in the log.
    pub index: RaftIndex,
    /// Its content.
    pub data: &'a [u8],
}

impl<'a> Entry<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, WireFault> {
        let mut entry =
            Self { kind: EntryKind::Normal, term: RaftTerm(0), index: RaftIndex(0), data: &[] };
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => {
                    entry.kind = match field.int64()? {
                        0 => EntryKind::Normal,
                        1 => EntryKind::ConfChange,
                        2 => EntryKind::ConfChangeV2,
                        other => EntryKind::Other(other),
                    }
                }
                2 => entry.term = RaftTerm(field.uint64()?),
                3 => entry.index = RaftIndex(field.uint64()?),
                4 => entry.data = field.bytes()?,
                _ => {}
            }
        }
        Ok(entry)
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let kind = match self.kind {
            EntryKind::Normal => 0,
            EntryKind::ConfChange => 1,
            EntryKind::ConfChangeV2 => 2,
            EntryKind::Other(other) => other.cast_unsigned(),
        };
        let mut out = Vec::new();
        wire::put_uint64(&mut out, 1, kind);
        wire::put_uint64(&mut out, 2, self.term.0);
        wire::put_uint64(&mut out, 3, self.index.0);
        wire::put_bytes(&mut out, 4, self.data);
        out
    }
}

/// The content of the entry that adds a voting member.
pub(crate) fn add_member(member: &Member) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_uint64(&mut out, 1, 0);
    wire::put_uint64(&mut out, 2, 0);
    wire::put_uint64(&mut out, 3, member.id.0);
    wire::put_bytes(&mut out, 4, member.to_json().as_bytes());
    out
}

/// Who votes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voting members, ascending.
    pub voters: Vec<MemberId>,
    /// Members without a vote.
    pub learners: Vec<MemberId>,
}

impl ConfState {
    /// The configuration in which all of these vote.
    #[must_use]
    pub fn of_voters(members: &[Member]) -> Self {
        let mut voters: Vec<_> = members.iter().map(|member| member.id).collect();
        voters.sort_unstable();
        Self { voters, learners: Vec::new() }
    }

    pub(crate) fn parse(message: &[u8]) -> Result<Self, WireFault> {
        let mut state = Self::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => state.voters.push(MemberId(field.uint64()?)),
                2 => state.learners.push(MemberId(field.uint64()?)),
                _ => {}
            }
        }
        Ok(state)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.voters.iter().for_each(|id| wire::put_uint64(&mut out, 1, id.0));
        self.learners.iter().for_each(|id| wire::put_uint64(&mut out, 2, id.0));
        wire::put_uint64(&mut out, 5, 0);
        out
    }

    /// The JSON of `confState` in bucket `meta`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let list =
            |ids: &[MemberId]| ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",");
        let mut json = format!("{{\"voters\":[{}]", list(&self.voters));
        if !self.learners.is_empty() {
            json += &format!(",\"learners\":[{}]", list(&self.learners));
        }
        json + ",\"auto_leave\":false}"
    }
}

/// Up to where a snapshot of the raft state reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The last entry that it covers; 0 = the empty snapshot of a new log.
    pub index: RaftIndex,
    /// The term of that entry.
    pub term: RaftTerm,
    /// Who voted then; `None` in 3.4 and for the empty snapshot.
    pub conf_state: Option<ConfState>,
}

impl SnapshotMark {
    /// The snapshot before the first entry.
    #[must_use]
    pub fn empty() -> Self {
        Self { index: RaftIndex(0), term: RaftTerm(0), conf_state: None }
    }

    /// walpb.Snapshot.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, WireFault> {
        let mut mark = Self::empty();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => mark.index = RaftIndex(field.uint64()?),
                2 => mark.term = RaftTerm(field.uint64()?),
                3 => mark.conf_state = Some(ConfState::parse(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(mark)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put_uint64(&mut out, 1, self.index.0);
        wire::put_uint64(&mut out, 2, self.term.0);
        if let Some(conf_state) = &self.conf_state {
            wire::put_bytes(&mut out, 3, &conf_state.to_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_as_etcd_3_6_writes_them() {
        let conf_state =
            ConfState { voters: vec![MemberId(0x41f5_eef9_73fc_e2df)], learners: Vec::new() };
        assert_eq!(conf_state.to_bytes(), b"\x08\xdf\xc5\xf3\x9f\x97\xdf\xfb\xfa\x41\x28\x00");
        assert_eq!(conf_state.to_json(), "{\"voters\":[4752967736919646943],\"auto_leave\":false}");
        assert_eq!(SnapshotMark::empty().to_bytes(), b"\x08\x00\x10\x00");
        // 3.7 leaves field 5 out.
        let of_3_7 = ConfState::parse(b"\x08\xdf\xc5\xf3\x9f\x97\xdf\xfb\xfa\x41");
        assert_eq!(of_3_7, Ok(conf_state));
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(a: u64, b: u64, c: u64, data: Vec<u8>, ids: Vec<u64>) {
            let metadata = Metadata { member: MemberId(a), cluster: ClusterId(b) };
            prop_assert_eq!(Metadata::parse(&metadata.to_bytes()), Ok(metadata));
            let state = HardState { term: RaftTerm(a), vote: b, commit: RaftIndex(c) };
            prop_assert_eq!(HardState::parse(&state.to_bytes()), Ok(state));
            let entry = Entry {
                kind: EntryKind::ConfChange, term: RaftTerm(a), index: RaftIndex(b), data: &data,
            };
            let bytes = entry.to_bytes();
            prop_assert_eq!(Entry::parse(&bytes), Ok(entry));
            let ids: Vec<_> = ids.into_iter().map(MemberId).collect();
            let conf_state = ConfState { voters: ids.clone(), learners: ids };
            prop_assert_eq!(ConfState::parse(&conf_state.to_bytes()), Ok(conf_state.clone()));
            let mark = SnapshotMark {
                index: RaftIndex(a), term: RaftTerm(b), conf_state: Some(conf_state),
            };
            prop_assert_eq!(SnapshotMark::parse(&mark.to_bytes()), Ok(mark));
        }
    }
}
