//! Records in the order of their revisions: the content of a pack.
//!
//! ```text
//! run
//!    blocks, one behind the other
//!    index
//!       varint  blocks
//!       one a block
//!          varint  revision of its first record
//!          varint  2 x sub-revision of it, + 1 for a tombstone
//!          the same two of its last record
//!          varint  records
//!          varint  bytes as stored
//!          varint  bytes before compression
//!          32      BLAKE3 of the bytes as stored
//!          varint  bytes of the filter
//!          filter
//!    8   bytes of the index
//!    32  BLAKE3 of the index
//! ```

use super::block::{self, Entry};
use super::cursor::{Cursor, Put};
use super::digest::{DIGEST, Domain};
use super::fault::FormatFault;
use super::header::Facts;
use rekindle_etcd::RecordKey;
use std::ops::Range;

const WHAT: &str = "the index of a run";

/// A run that is being written.
#[derive(Debug, Default)]
pub struct Builder {
    content: Vec<u8>,
    index: Vec<Entry>,
}

impl Builder {
    /// Adds a block, which must come behind those before it.
    pub fn add(&mut self, stored: &[u8], entry: Entry) {
        self.content.extend_from_slice(stored);
        self.index.push(entry);
    }

    /// Bytes of the blocks so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.content.len()
    }

    /// The blocks that were added.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.index
    }

    /// The content of the run, and the digest of its index.
    #[must_use]
    pub fn finish(self) -> (Vec<u8>, [u8; DIGEST]) {
        let Self { mut content, index } = self;
        let blocks = content.len();
        content.put_varint(index.len() as u64);
        index.iter().for_each(|entry| entry.put(&mut content));
        let bytes = (content.len() - blocks) as u64;
        let digest = Domain::Index.digest(&[content.get(blocks..).unwrap_or_default()]);
        content.extend_from_slice(&bytes.to_le_bytes());
        content.extend_from_slice(&digest);
        (content, digest)
    }
}

/// A run's index, which was checked as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    blocks: Vec<(Range<usize>, Entry)>,
    index_digest: [u8; DIGEST],
}

impl Run {
    /// Reads the index of a run's content, which must be what the header says.
    ///
    /// # Errors
    /// Whatever no writer writes, and what contradicts the header.
    pub fn parse(content: &[u8], facts: &Facts) -> Result<Self, FormatFault> {
        let run = Self::parse_index(content)?;
        let span = run.span().map(|(first, last)| (first.revision, last.revision));
        let own = Some((facts.first, facts.last)).filter(|(first, last)| first <= last);
        match run.records() == facts.records && span == own {
            true => Ok(run),
            false => Err(FormatFault::Senseless { what: WHAT }),
        }
    }

    /// Reads the index of a run's content.
    ///
    /// # Errors
    /// Whatever no writer writes.
    pub fn parse_index(content: &[u8]) -> Result<Self, FormatFault> {
        let senseless = FormatFault::Senseless { what: WHAT };
        let ends = FormatFault::Ends { what: WHAT };
        let (rest, index_digest) = content.split_last_chunk::<DIGEST>().ok_or(ends.clone())?;
        let (rest, length) = rest.split_last_chunk::<8>().ok_or(ends.clone())?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok();
        let start = length.and_then(|length| rest.len().checked_sub(length));
        let start = start.ok_or(ends)?;
        let index = rest.get(start..).unwrap_or_default();
        if Domain::Index.digest(&[index]) != *index_digest {
            return Err(FormatFault::Digest { what: WHAT });
        }
        let mut cursor = Cursor::new(index, WHAT);
        let mut blocks: Vec<(Range<usize>, Entry)> = Vec::new();
        let mut at = 0_usize;
        for _ in 0..cursor.varint()? {
            let entry = Entry::parse(&mut cursor)?;
            if blocks.last().is_some_and(|(_, before)| before.last >= entry.first) {
                return Err(senseless);
            }
            let end = at.checked_add(entry.stored).filter(|end| *end <= start);
            let end = end.ok_or_else(|| senseless.clone())?;
            blocks.push((at..end, entry));
            at = end;
        }
        cursor.end()?;
        let run = Self { blocks, index_digest: *index_digest };
        let sum = run.blocks.iter().try_fold(0_u64, |sum, (_, e)| sum.checked_add(e.records));
        match at == start && sum.is_some() {
            true => Ok(run),
            false => Err(senseless),
        }
    }

    /// BLAKE3 of its index, by which a base knows it.
    #[must_use]
    pub fn index_digest(&self) -> &[u8; DIGEST] {
        &self.index_digest
    }

    /// Records in it.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.blocks.iter().map(|(_, entry)| entry.records).sum()
    }

    /// First and last record.
    #[must_use]
    pub fn span(&self) -> Option<(RecordKey, RecordKey)> {
        let (_, first) = self.blocks.first()?;
        let (_, last) = self.blocks.last()?;
        Some((first.first, last.last))
    }

    /// The blocks in order: where in the content each lies, and what the index says of it.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = (Range<usize>, &Entry)> {
        self.blocks.iter().map(|(range, entry)| (range.clone(), entry))
    }

    /// The records of a block out of the run's content, whose digest was compared.
    ///
    /// # Errors
    /// Whatever no writer writes.
    pub fn open(
        content: &[u8],
        range: &Range<usize>,
        entry: &Entry,
    ) -> Result<block::Records, FormatFault> {
        let stored = content.get(range.clone()).ok_or(FormatFault::Ends { what: "a block" })?;
        entry.open_unchecked(stored)
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::Packing;
    use super::super::block::tests::a_key;
    use super::super::header::tests::some_facts;
    use super::super::header::{Facts, Kind};
    use super::*;
    use rekindle_etcd::Revision;

    /// A run of blocks of two records each.
    fn a_run(blocks: i64) -> (Vec<u8>, Facts) {
        let mut run = Builder::default();
        for n in 0..blocks {
            let mut block = block::Builder::default();
            block.add(a_key(10 + n, 0, false), &[n as u8; 100], b"a").unwrap();
            block.add(a_key(10 + n, 1, false), &[n as u8; 200], b"b").unwrap();
            let (stored, entry) = block.take().unwrap().compress(Packing::QUICK).unwrap();
            run.add(&stored, entry);
        }
        let revision = |number| Revision::new(number).unwrap();
        let (first, last) = (revision(10), revision(9 + blocks));
        let records = blocks as u64 * 2;
        (run.finish().0, Facts { first, last, records, ..some_facts(Kind::Pack) })
    }

    #[test]
    fn what_is_written_is_read() {
        let (content, facts) = a_run(5);
        let run = Run::parse(&content, &facts).unwrap();
        assert_eq!(run.span(), Some((a_key(10, 0, false), a_key(14, 1, false))));
        let mut keys = Vec::new();
        for (range, entry) in run.blocks() {
            let mut records = Run::open(&content, &range, entry).unwrap();
            while let Some(key) = records.advance() {
                keys.push(key);
            }
        }
        let want = (10..15).flat_map(|n| [a_key(n, 0, false), a_key(n, 1, false)]);
        assert_eq!(keys, want.collect::<Vec<_>>());
    }

    #[test]
    fn a_run_that_contradicts_its_header_is_refused() {
        let (content, facts) = a_run(2);
        let senseless = Err(FormatFault::Senseless { what: WHAT });
        let later = facts.last.later(1).unwrap();
        assert_eq!(Run::parse(&content, &Facts { records: 3, ..facts.clone() }), senseless);
        assert_eq!(Run::parse(&content, &Facts { last: later, ..facts.clone() }), senseless);
        assert_eq!(Run::parse(&content, &Facts { first: later, ..facts.clone() }), senseless);
        let extra = [&[0], &content[..]].concat();
        assert_eq!(Run::parse(&extra, &facts), senseless, "a byte before the blocks");
    }

    #[test]
    fn no_cut_of_a_run_is_a_run() {
        let (content, facts) = a_run(3);
        for length in 0..content.len() {
            assert!(Run::parse(&content[..length], &facts).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn blocks_in_another_order_are_refused() {
        let block = |n| {
            let mut block = block::Builder::default();
            block.add(a_key(n, 0, false), b"value", b"a").unwrap();
            block.take().unwrap().compress(Packing::QUICK).unwrap()
        };
        let mut run = Builder::default();
        for n in [8, 7] {
            let (stored, entry) = block(n);
            run.add(&stored, entry);
        }
        let facts = Facts { records: 2, ..some_facts(Kind::Pack) };
        let senseless = Err(FormatFault::Senseless { what: WHAT });
        assert_eq!(Run::parse(&run.finish().0, &facts), senseless);
    }
}
