//! Revisions on their way into a segment.

use crate::error::Error;
use crate::format::FormatFault;
use crate::format::block::{self, Packing};
use crate::format::header::Moment;
use crate::format::run;
use crate::format::segment::{self, LeaseGrant, Notes, Times};
use rekindle_etcd::{ClusterId, KeyValue, MemberId, RaftTerm, RecordKey, Revision};

/// Revisions that came within so many milliseconds have one time, as they are written and in what was
/// merged.
const MARK_EVERY: i64 = 10;
const MARK_EVERY_MERGED: i64 = 100;

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
    mark_every: i64,
    packing: Packing,
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
            mark_every: MARK_EVERY,
            packing: Packing::QUICK,
            leases: Vec::new(),
        }
    }

    /// One that puts cuts together.
    pub(super) fn merging(next: Revision) -> Self {
        Self { mark_every: MARK_EVERY_MERGED, packing: Packing::DENSE, ..Self::new(next) }
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

    /// Bytes of the blocks that are closed.
    pub(super) fn closed_bytes(&self) -> usize {
        self.run.bytes()
    }

    /// Adds the revision that it waits for: all changes of a transaction, in their order.
    ///
    /// # Errors
    /// A revision that no block takes.
    pub fn add(&mut self, changes: &[Change<'_>], at: Moment) -> Result<(), Error> {
        let revision = self.next;
        let record = |(change, sub): (&Change<'_>, i64)| {
            (RecordKey { revision, sub, tombstone: change.is_delete }, change.value())
        };
        self.add_revision(&changes.iter().zip(0..).map(record).collect::<Vec<_>>())?;
        self.mark(revision, at);
        Ok(())
    }

    fn add_revision(&mut self, records: &[(RecordKey, Vec<u8>)]) -> Result<(), Error> {
        // Blocks hold whole revisions.
        let bytes = records.iter().map(|(_, value)| value.len()).sum();
        if self.block.is_full_before(bytes, self.packing) {
            self.close_block()?;
        }
        for (key, value) in records {
            let failed = |fault| Error::Record { record: key.to_string(), fault };
            let senseless = |_| FormatFault::Senseless { what: "a record" };
            let name = KeyValue::parse(value).map_err(senseless).map_err(failed)?.key;
            self.block.add(*key, value, name).map_err(failed)?;
        }
        self.next = self.next.later(1).ok_or(Error::Panicked)?;
        Ok(())
    }

    /// Adds all of a cut that begins with the revision that it waits for.
    ///
    /// # Errors
    /// It does not, or is damaged.
    pub(super) fn add_cut(&mut self, cut: &Cut) -> Result<(), Error> {
        let failed = |fault| Error::Record { record: format!("of revision {}", cut.first), fault };
        let (notes, content) = segment::parse(&cut.content).map_err(failed)?;
        let run = run::Run::parse_index(content).map_err(failed)?;
        for (range, entry) in run.blocks() {
            let mut records = run::Run::open(content, &range, entry).map_err(failed)?;
            let mut revision: Vec<(RecordKey, Vec<u8>)> = Vec::new();
            while let Some(key) = records.advance() {
                if revision.last().is_some_and(|(last, _)| last.revision < key.revision) {
                    self.add_known(&revision)?;
                    revision.clear();
                }
                revision.push((key, records.value().to_vec()));
            }
            self.add_known(&revision)?;
        }
        for (revision, at) in notes.times.marks {
            self.mark(revision, at);
        }
        self.leases.extend(notes.leases);
        match cut.last.later(1) == Some(self.next) {
            true => Ok(()),
            false => Err(failed(FormatFault::Ends { what: "a cut" })),
        }
    }

    /// Adds the records of a revision, which must be the one that it waits for.
    fn add_known(&mut self, records: &[(RecordKey, Vec<u8>)]) -> Result<(), Error> {
        match records.first() {
            Some((key, _)) if key.revision == self.next => self.add_revision(records),
            first => {
                let record = first.map_or_else(String::new, |(key, _)| key.to_string());
                Err(Error::Record { record, fault: FormatFault::Senseless { what: "a cut" } })
            }
        }
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
        let Self { mark_every, packing, .. } = *self;
        let next = Self { mark_every, packing, ..Self::new(self.next) };
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
        let (stored, entry) = filled.compress(self.packing).map_err(failed)?;
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
            Some((_, before)) if at.0.saturating_sub(before.0) < self.mark_every => {
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
