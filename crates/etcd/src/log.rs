//! What a member's raft log says, segment after segment.

use crate::ids::{RaftIndex, RaftTerm};
use crate::raft::{EntryKind, HardState, Metadata, SnapshotMark};
use crate::wal::Record;
use std::collections::VecDeque;

/// The log of a stopped member, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Whose log it is.
    pub metadata: Option<Metadata>,
    /// Term, vote and commit as saved last.
    pub hard_state: HardState,
    /// Term and index of the last entry.
    pub last_entry: Option<(RaftTerm, RaftIndex)>,
    marks: Vec<SnapshotMark>,
    /// Entries that change the members; no more than [`CHANGES_MAX`], the newest.
    changes: VecDeque<RaftIndex>,
}

/// No cluster has as many members.
const CHANGES_MAX: usize = 1024;

impl LogState {
    /// Takes the next record.
    pub fn add(&mut self, record: &Record<'_>) {
        match record {
            Record::Metadata(metadata) => self.metadata = Some(*metadata),
            // A later entry takes the place of all from its index on.
            Record::Entry(entry) => {
                self.last_entry = Some((entry.term, entry.index));
                while self.changes.pop_back_if(|index| *index >= entry.index).is_some() {}
                if matches!(entry.kind, EntryKind::ConfChange | EntryKind::ConfChangeV2) {
                    self.changes.push_back(entry.index);
                    if self.changes.len() > CHANGES_MAX {
                        self.changes.pop_front();
                    }
                }
            }
            Record::HardState(state) => self.hard_state = *state,
            Record::Snapshot(mark) => self.marks.push(mark.clone()),
        }
    }

    /// The newest snapshot that is not ahead of the commit: one that is was not finished (etcd
    /// `wal.go`, ValidSnapshotEntries).
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotMark> {
        let commit = self.hard_state.commit;
        let valid = self.marks.iter().filter(|mark| mark.index <= commit);
        valid.max_by_key(|mark| mark.index)
    }

    /// How many entries change the members that a database which has applied `index` does not know of, committed or not.
    #[must_use]
    pub fn changes_beyond(&self, index: RaftIndex) -> usize {
        self.changes.iter().filter(|change| **change > index).count()
    }

    /// How many entries are committed that a database which has applied `index` lacks. etcd itself
    /// would apply them when it starts.
    #[must_use]
    pub fn committed_beyond(&self, index: RaftIndex) -> u64 {
        let snapshot = self.snapshot().map_or(RaftIndex(0), |mark| mark.index);
        let last = self.last_entry.map_or(snapshot, |(_, last)| last.max(snapshot));
        self.hard_state.commit.min(last).0.saturating_sub(index.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Entry, EntryKind};

    fn state(entries: &[(u64, u64)], commit: u64, marks: &[u64]) -> LogState {
        let mut state = LogState::default();
        for (term, index) in entries {
            let (term, index) = (RaftTerm(*term), RaftIndex(*index));
            let kind = EntryKind::Normal;
            state.add(&Record::Entry(Entry { kind, term, index, data: &[] }));
        }
        for index in marks {
            let mark = SnapshotMark { index: RaftIndex(*index), ..SnapshotMark::empty() };
            state.add(&Record::Snapshot(mark));
        }
        let commit = RaftIndex(commit);
        state.add(&Record::HardState(HardState { commit, ..HardState::default() }));
        state
    }

    #[test]
    fn entries_that_the_database_lacks() {
        let beyond = |state: LogState, index| state.committed_beyond(RaftIndex(index));
        assert_eq!(beyond(state(&[(1, 1), (1, 2), (1, 3)], 3, &[]), 1), 2);
        assert_eq!(beyond(state(&[(1, 1), (1, 2), (1, 3)], 2, &[]), 2), 0);
        // Entries behind the last one were replaced and do not count, whatever the commit says.
        assert_eq!(beyond(state(&[(1, 1), (1, 5), (2, 3)], 5, &[]), 1), 2);
        // All entries are covered by a snapshot and purged.
        assert_eq!(beyond(state(&[], 7, &[7]), 7), 0);
        assert_eq!(beyond(state(&[], 7, &[7]), 5), 2);
        assert_eq!(beyond(LogState::default(), 5), 0);
    }

    #[test]
    fn a_snapshot_ahead_of_the_commit_does_not_count() {
        let state = state(&[(1, 1)], 5, &[0, 4, 9]);
        assert_eq!(state.snapshot().map(|mark| mark.index), Some(RaftIndex(4)));
    }

    /// Each record once went over all snapshots before it: a segment of nothing but snapshots, 16
    /// bytes each, kept the reader busy for hours.
    #[test]
    fn a_log_of_snapshots_alone_is_read_in_one_pass() {
        let indexes: Vec<u64> = (0..1_000_000).collect();
        let state = state(&[], 700_000, &indexes);
        assert_eq!(state.snapshot().map(|mark| mark.index), Some(RaftIndex(700_000)));
    }

    #[test]
    fn changes_of_members_are_counted_until_others_take_their_places() {
        let mut state = LogState::default();
        let mut add = |kind, index| {
            let (term, index) = (RaftTerm(1), RaftIndex(index));
            state.add(&Record::Entry(Entry { kind, term, index, data: &[] }));
            [0, 2].map(|index| state.changes_beyond(RaftIndex(index)))
        };
        assert_eq!(add(EntryKind::ConfChange, 1), [1, 0]);
        assert_eq!(add(EntryKind::ConfChangeV2, 2), [2, 0]);
        assert_eq!(add(EntryKind::Normal, 3), [2, 0]);
        assert_eq!(add(EntryKind::ConfChange, 4), [3, 1]);
        // Another leader has written over them.
        assert_eq!(add(EntryKind::Normal, 2), [1, 0]);
    }
}
