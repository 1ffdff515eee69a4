//! Revisions on their way into a segment.

use crate::error::Error;
use crate::format::block;
use crate::format::header::Moment;
use crate::format::run;
use crate::format::segment::{self, LeaseGrant, Notes, Times};
use crate::write::LEVEL;
use rekindle_etcd::{ClusterId, KeyValue, MemberId, RaftTerm, RecordKey, Revision};

/// Revisions that came within so many milliseconds have one time.
const MARK_EVERY: i64 = 10;

/// Who told of revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its member.
    pub member: MemberId,
    /// The raft term at that member.
    pub term: RaftTerm,
}

/// One change of a transaction, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// What the key is now; of a delete only the key counts.
    pub kv: KeyValue<'a>,
    /// It was a delete.
    pub is_delete: bool,
}

impl Change<'_> {
    /// The value of its record, as etcd writes it.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        match self.is_delete {
            true => KeyValue { key: self.kv.key, ..KeyValue::default() }.to_bytes(),
            false => self.kv.to_bytes(),
        }
    }
}

/// Whole revisions, ready to become a segment of any archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The first revision; the one behind the last where none had come.
    pub first: Revision,
    /// The last one.
    pub last: Revision,
    /// Records.
    pub records: u64,
    /// Bytes of their blocks before compression.
    pub logical_bytes: u64,
    /// Leases that it tells of.
    pub leases: u64,
    /// The cluster was at the last revision at this moment.
    pub state: Moment,
    /// Who told of it.
    pub witness: Witness,
    /// What a segment of it holds.
    pub content: Vec<u8>,
}

/// Puts revisions together. Memory is some megabytes, or one revision.
#[derive(Debug)]
pub struct Cutter {
    first: Revision,
    next: Revision,
    block: block::Builder,
    run: run::Builder,
    times: Vec<(Revision, Moment)>,
    /// The last revision and its time, where that has no mark of its own.
    unmarked: Option<(Revision, Moment)>,
    leases: Vec<LeaseGrant>,
}

impl Cutter {
    /// One that waits for this revision.
    #[must_use]
    pub fn new(next: Revision) -> Self {
        Self {
            first: next,
            next,
            block: block::Builder::default(),
            run: run::Builder::default(),
            times: Vec::new(),
            unmarked: None,
            leases: Vec::new(),
        }
    }

    /// The revision that it waits for.
    #[must_use]
    pub fn next(&self) -> Revision {
        self.next
    }

    /// Whether nothing was added since the last cut.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next == self.first
    }

    /// About so many bytes of a segment.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.run.bytes() + self.block.bytes()
    }

    /// Adds the revision that it waits for: all changes of a transaction, in their order.
    ///
    /// # Errors
    /// A revision that no block takes.
    pub fn add(&mut self, changes: &[Change<'_>], at: Moment) -> Result<(), Error> {
        let revision = self.next;
        let values: Vec<_> = changes.iter().map(Change::value).collect();
        // Blocks hold whole revisions.
        if self.block.is_full_before(values.iter().map(Vec::len).sum()) {
            self.close_block()?;
        }
        for ((change, value), sub) in changes.iter().zip(&values).zip(0..) {
            let key = RecordKey { revision, sub, tombstone: change.is_delete };
            let added = self.block.add(key, value, change.kv.key);
            added.map_err(|fault| Error::Record { record: key.to_string(), fault })?;
        }
        self.mark(revision, at);
        self.next = revision.later(1).ok_or(Error::Panicked)?;
        Ok(())
    }

    /// A lease was looked up that records hang on.
    pub fn add_lease(&mut self, lease: LeaseGrant) {
        self.leases.push(lease);
    }

    /// What has come since the last cut. Where nothing has, that this was so at `at`.
    ///
    /// # Errors
    /// There is no memory for compression.
    pub fn cut(&mut self, witness: Witness, at: Moment) -> Result<Cut, Error> {
        self.close_block()?;
        let next = Self::new(self.next);
        let Self { first, next: end, run, mut times, unmarked, leases, .. } =
            std::mem::replace(self, next);
        times.extend(unmarked);
        let last = Revision::new(end.get() - 1).unwrap_or_default();
        let state = times.last().map_or(at, |(_, at)| *at);
        let (records, logical_bytes) =
            run.entries().iter().fold((0, 0), |(records, raw), entry| {
                (records + entry.records, raw + entry.raw as u64)
            });
        let told = leases.len() as u64;
        let notes = Notes { times: Times { reckoned: false, marks: times }, leases };
        let mut content = segment::encode(&notes);
        content.extend_from_slice(&run.finish().0);
        Ok(Cut { first, last, records, logical_bytes, leases: told, state, witness, content })
    }

    fn close_block(&mut self) -> Result<(), Error> {
        let Some(filled) = self.block.take() else { return Ok(()) };
        let failed = |fault| Error::Record { record: "of a block".to_owned(), fault };
        let (stored, entry) = filled.compress(LEVEL).map_err(failed)?;
        self.run.add(&stored, entry);
        Ok(())
    }

    /// The cluster was at that revision when it was told of. Clocks that go back are not followed.
    fn mark(&mut self, revision: Revision, at: Moment) {
        match self.times.last_mut() {
            Some((marked, before)) if at <= *before => {
                *marked = revision;
                self.unmarked = None;
            }
            Some((_, before)) if at.0.saturating_sub(before.0) < MARK_EVERY => {
                self.unmarked = Some((revision, at));
            }
            _ => {
                self.times.push((revision, at));
                self.unmarked = None;
            }
        }
    }
}

impl Cut {
    /// Whether it has no record, and says that none had come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first > self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn put(key: &[u8]) -> Change<'_> {
        Change { kv: KeyValue { key, version: 1, ..KeyValue::default() }, is_delete: false }
    }

    #[test]
    fn revisions_become_records_in_their_order() {
        let mut cutter = Cutter::new(revision(7));
        assert!(cutter.is_empty());
        let delete = Change { is_delete: true, ..put(b"b") };
        cutter.add(&[put(b"z"), delete, put(b"a")], Moment(1000)).unwrap();
        cutter.add(&[put(b"z")], Moment(1003)).unwrap();
        cutter.add(&[put(b"z")], Moment(1020)).unwrap();
        cutter.add(&[put(b"z")], Moment(900)).unwrap();
        cutter.add_lease(LeaseGrant { id: 5, ttl_s: 60 });
        let cut = cutter.cut(Witness::default(), Moment(2000)).unwrap();
        assert_eq!((cut.first, cut.last), (revision(7), revision(10)));
        assert_eq!((cut.records, cut.leases, cut.state), (6, 1, Moment(1020)));
        let (notes, rest) = segment::parse(&cut.content).unwrap();
        // What came within 10 ms of another has no time of its own, unless it is the last.
        let marks = vec![(revision(7), Moment(1000)), (revision(10), Moment(1020))];
        assert_eq!(notes.times, Times { reckoned: false, marks });
        assert_eq!(notes.leases, [LeaseGrant { id: 5, ttl_s: 60 }]);
        let run = run::Run::parse_index(rest).unwrap();
        let mut keys = Vec::new();
        for (range, entry) in run.blocks() {
            let mut records = run::Run::open(rest, &range, entry).unwrap();
            while let Some(key) = records.advance() {
                keys.push((key.to_string(), records.value().to_vec()));
            }
        }
        let shown: Vec<_> = keys.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(shown, ["7/0", "7/1 (delete)", "7/2", "8/0", "9/0", "10/0"]);
        assert_eq!(keys[1].1, KeyValue { key: b"b", ..KeyValue::default() }.to_bytes());
    }

    #[test]
    fn nothing_that_came_is_told_too() {
        let mut cutter = Cutter::new(revision(7));
        let cut = cutter.cut(Witness::default(), Moment(5)).unwrap();
        assert!(cut.is_empty());
        assert_eq!((cut.first, cut.last, cut.state), (revision(7), revision(6), Moment(5)));
        cutter.add(&[put(b"a")], Moment(6)).unwrap();
        let cut = cutter.cut(Witness::default(), Moment(7)).unwrap();
        assert_eq!((cut.first, cut.last, cut.state), (revision(7), revision(7), Moment(6)));
        assert_eq!(cutter.next(), revision(8));
    }

    #[test]
    fn no_block_ends_within_a_revision() {
        let mut cutter = Cutter::new(revision(2));
        let key = vec![b'k'; 300_000];
        for _ in 0..4 {
            cutter.add(&[put(&key), put(&key)], Moment(0)).unwrap();
        }
        let cut = cutter.cut(Witness::default(), Moment(0)).unwrap();
        let (_, rest) = segment::parse(&cut.content).unwrap();
        let run = run::Run::parse_index(rest).unwrap();
        assert_eq!(run.blocks().len(), 4);
        for (_, entry) in run.blocks() {
            assert_eq!((entry.first.sub, entry.last.sub), (0, 1));
        }
    }
}
