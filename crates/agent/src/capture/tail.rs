//! The last revision that is known, by which a cluster is recognised.

use rekindle_archive::{Change, Witness};
use rekindle_etcd::{RaftTerm, RecordKey, Revision};

/// The last revision that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The first revision of the journal whose last this is.
    first: Revision,
    revision: Revision,
    witness: Witness,
    /// Whether each of its changes was a delete, and the value of its record.
    records: Vec<(bool, Vec<u8>)>,
}

/// What the first revision of a watch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The one that is known, as it is known.
    Same,
    /// What comes behind it; it had only deletes, and may be gone.
    Gone,
    /// One before it.
    Before,
    /// None that goes on from it.
    Other,
}

impl Tail {
    /// Of a journal: its first and its last revision, and that one's records, and who told of it.
    #[must_use]
    pub fn new(
        (first, revision): (Revision, Revision),
        witness: Witness,
        records: Vec<(RecordKey, Vec<u8>)>,
    ) -> Self {
        let records = records.into_iter().map(|(key, value)| (key.tombstone, value)).collect();
        Self { first, revision, witness, records }
    }

    pub(super) fn of(revision: Revision, witness: Witness, changes: &[Change<'_>]) -> Self {
        let records = changes.iter().map(|change| (change.is_delete, change.value())).collect();
        Self { first: revision, revision, witness, records }
    }

    /// The first and the last revision of the journal.
    pub(super) fn journal(&self) -> (Revision, Revision) {
        (self.first, self.revision)
    }

    /// That revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Older versions of etcd remove a delete at the very revision of a compaction.
    pub(super) fn may_be_gone(&self) -> bool {
        self.records.iter().all(|(is_delete, _)| *is_delete)
    }

    /// Whoever watches now is of another cluster, or of one that went back.
    pub(super) fn contradicts(&self, witness: Witness) -> bool {
        let known = self.witness.term != RaftTerm::default();
        witness.cluster != self.witness.cluster || (known && witness.term < self.witness.term)
    }

    /// Compares the first revision that comes, of which deletes may be missing.
    pub(super) fn matches(&self, revision: Revision, changes: &[Change<'_>]) -> Match {
        if revision < self.revision {
            return Match::Before;
        }
        let mut known = self.records.iter();
        let came = match revision == self.revision {
            true => changes,
            false => &[],
        };
        for change in came {
            let it = (change.is_delete, change.value());
            let is_it = |record: &&(bool, Vec<u8>)| **record == it;
            // What is passed over may be missing only where it is a delete.
            let passed = known.clone().take_while(|record| !is_it(record));
            if passed.clone().any(|(is_delete, _)| !is_delete) {
                return Match::Other;
            }
            let passed = passed.count();
            if known.nth(passed).is_none() {
                return Match::Other;
            }
        }
        let rest_may_be_gone = known.all(|(is_delete, _)| *is_delete);
        match rest_may_be_gone {
            true if revision == self.revision => Match::Same,
            true if self.revision.later(1) == Some(revision) => Match::Gone,
            _ => Match::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_etcd::{ClusterId, KeyValue, MemberId};

    fn revision(number: i64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn put(key: &[u8]) -> Change<'_> {
        Change { kv: KeyValue { key, version: 1, ..KeyValue::default() }, is_delete: false }
    }

    fn delete(key: &[u8]) -> Change<'_> {
        Change { is_delete: true, ..put(key) }
    }

    #[test]
    fn the_last_revision_is_recognised() {
        let witness = Witness::default();
        let tail = Tail::of(revision(7), witness, &[put(b"a"), delete(b"b"), put(b"c")]);
        let check = |at, changes: &[Change<'_>]| tail.matches(revision(at), changes);
        assert_eq!(check(7, &[put(b"a"), delete(b"b"), put(b"c")]), Match::Same);
        assert_eq!(check(7, &[put(b"a"), put(b"c")]), Match::Same, "a delete may be gone");
        assert_eq!(check(7, &[put(b"a"), delete(b"b")]), Match::Other);
        assert_eq!(check(7, &[put(b"a"), delete(b"c"), put(b"c")]), Match::Other);
        assert_eq!(check(7, &[put(b"c"), put(b"a")]), Match::Other);
        assert_eq!(check(7, &[put(b"a"), delete(b"b"), put(b"c"), put(b"d")]), Match::Other);
        assert_eq!(check(7, &[put(b"c")]), Match::Other, "what was put is not gone");
        assert_eq!(check(6, &[put(b"a")]), Match::Before);
        assert_eq!(check(8, &[put(b"a")]), Match::Other, "it should have come first");
        let deletes = Tail::of(revision(7), witness, &[delete(b"b")]);
        assert_eq!(deletes.matches(revision(8), &[put(b"a")]), Match::Gone);
        assert_eq!(deletes.matches(revision(9), &[put(b"a")]), Match::Other);
    }

    #[test]
    fn a_cluster_that_went_back_is_another() {
        let witness = |cluster, term| Witness {
            cluster: ClusterId(cluster),
            member: MemberId(1),
            term: RaftTerm(term),
        };
        let tail = Tail::of(revision(7), witness(1, 5), &[]);
        assert!(!tail.contradicts(witness(1, 5)));
        assert!(!tail.contradicts(witness(1, 6)));
        assert!(tail.contradicts(witness(1, 4)));
        assert!(tail.contradicts(witness(2, 5)));
    }
}
