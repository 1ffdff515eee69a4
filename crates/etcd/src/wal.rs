//! The write-ahead log: frames in segment files, chained by a running CRC.
//!
//! ```text
//! frame
//!    0  7  record length, little-endian
//!    7  1  0x80 + padding, or 0
//!    8  .  record (walpb.Record: 1 type, 2 crc, 3 data), then padding to a multiple of 8
//! ```
//!
//! A frame of length 0, or the end of the file, ends a segment. The CRC-32C runs over the `data` of
//! all records of all segments; each record carries the value behind its own data, and the first
//! record of a segment the value that the segment before has left. Source: etcd
//! `server/storage/wal/{wal,encoder,decoder,util}.go`, `walpb/record.proto`.

use crate::crc::Crc32c;
use crate::ids::RaftIndex;
use crate::raft::{Entry, HardState, Metadata, SnapshotMark};
use crate::wire::{self, Fields, WireFault};
use std::io::{self, Read};

/// Bytes of a frame's header.
const FRAME_HEADER: usize = 8;
/// A torn write leaves whole sectors of zeros behind (`decoder.go`, minSectorSize).
const SECTOR: usize = 512;
/// Most bytes of one record. etcd's own writers stay below 10 MB unless an operator raises the
/// limit on requests.
const RECORD_MAX: usize = 512 << 20;
/// Bytes that etcd gives a new segment at once (`wal.go`, SegmentSizeBytes).
pub const SEGMENT_BYTES: u64 = 64 * 1000 * 1000;

mod record_type {
    pub const METADATA: i64 = 1;
    pub const ENTRY: i64 = 2;
    pub const HARD_STATE: i64 = 3;
    pub const CRC: i64 = 4;
    pub const SNAPSHOT: i64 = 5;
}

/// The name of a segment file: its number and the index of its first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// Counts segments from 0.
    pub sequence: u64,
    /// The first entry that may lie in it.
    pub first: RaftIndex,
}

impl SegmentName {
    /// Reads `0000000000000000-0000000000000000.wal`; `None` for every other name, also for one
    /// in capitals: what is read prints as it was.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (sequence, first) = name.strip_suffix(".wal")?.split_once('-')?;
        let number = |text: &str| {
            let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let hex = text.len() == 16 && text.bytes().all(digit);
            hex.then(|| u64::from_str_radix(text, 16).ok())?
        };
        Some(Self { sequence: number(sequence)?, first: RaftIndex(number(first)?) })
    }
}

impl std::fmt::Display for SegmentName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.sequence, self.first.0)
    }
}

/// A record of a WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Who writes it.
    Metadata(Metadata),
    /// An entry of the raft log.
    Entry(Entry<'a>),
    /// Term, vote and commit from here on.
    HardState(HardState),
    /// A snapshot was made.
    Snapshot(SnapshotMark),
}

/// Why a WAL cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} at offset {offset}: {reason}")]
pub struct WalDamage {
    /// The segment's file name.
    pub segment: String,
    /// Byte offset of the frame.
    pub offset: u64,
    /// What is wrong.
    pub reason: WalReason,
}

/// The reasons for a [`WalDamage`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalReason {
    /// The medium failed.
    #[error("reading failed: {0}")]
    Read(io::ErrorKind),
    /// The file ends inside a frame, or the frame's rest is zeros: a write that was cut off. etcd
    /// mends that in its last segment.
    #[error("the last write was cut off")]
    Torn,
    /// A record longer than any etcd writes.
    #[error("a record of {got} bytes")]
    RecordLength {
        /// What the frame says.
        got: u64,
    },
    /// A record whose CRC does not fit.
    #[error("a record has CRC {got:#010x}, its bytes give {want:#010x}")]
    Crc {
        /// What stands there.
        got: u32,
        /// What the bytes give.
        want: u32,
    },
    /// A record that is no message.
    #[error("a record is no message: {0}")]
    Wire(#[from] WireFault),
    /// A kind of record that etcd does not have.
    #[error("a record of type {got}")]
    Type {
        /// What stands there.
        got: i64,
    },
}

/// The running CRC, from one segment to the next.
#[derive(Clone, Debug)]
pub struct Chain(Option<Crc32c>);

impl Chain {
    /// Before the first segment that is there; earlier ones may have been purged.
    #[must_use]
    pub fn start() -> Self {
        Self(None)
    }

    fn check(&mut self, record: &RawRecord<'_>) -> Result<(), WalReason> {
        let got = record.crc;
        let want = if record.kind == record_type::CRC {
            // A segment begins with the value that the one before has left; the first that is
            // there is taken at its word.
            let left = self.0.as_ref().map_or(got, Crc32c::value);
            self.0 = Some(Crc32c::resume(got));
            left
        } else {
            let crc = self.0.get_or_insert_with(Crc32c::new);
            crc.update(record.data);
            crc.value()
        };
        if got == want { Ok(()) } else { Err(WalReason::Crc { got, want }) }
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::start()
    }
}

/// Reads one segment.
#[derive(Debug)]
pub struct SegmentReader<R> {
    input: R,
    segment: String,
    offset: u64,
    frame: Vec<u8>,
    chain: Chain,
}

/// walpb.Record: what a frame holds.
struct RawRecord<'a> {
    kind: i64,
    crc: u32,
    data: &'a [u8],
}

impl<'a> RawRecord<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, WireFault> {
        let mut record = Self { kind: 0, crc: 0, data: &[] };
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => record.kind = field.int64()?,
                2 => record.crc = field.uint32()?,
                3 => record.data = field.bytes()?,
                _ => {}
            }
        }
        Ok(record)
    }
}

impl<R: Read> SegmentReader<R> {
    /// Reads a segment from its start; `chain` comes from the segment before.
    pub fn new(input: R, segment: impl Into<String>, chain: Chain) -> Self {
        Self { input, segment: segment.into(), offset: 0, frame: Vec::new(), chain }
    }

    /// The running CRC behind this segment.
    #[must_use]
    pub fn into_chain(self) -> Chain {
        self.chain
    }

    /// The next record; `None` at the end of the segment.
    ///
    /// # Errors
    /// [`WalDamage`]; nothing can be read behind it.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, WalDamage> {
        let start = loop {
            let start = self.offset;
            let kind = match self.next_frame() {
                Ok(false) => return Ok(None),
                Ok(true) => self.check_crc(),
                Err(reason) => Err(reason),
            };
            match kind {
                Ok(record_type::CRC) => {}
                Ok(_) => break start,
                Err(reason) => return Err(self.damage(start, reason)),
            }
        };
        let record = RawRecord::parse(&self.frame).map_err(WalReason::from);
        let record = record.and_then(|raw| parse_record(raw.kind, raw.data));
        record.map(Some).map_err(|reason| self.damage(start, reason))
    }

    fn damage(&self, offset: u64, reason: WalReason) -> WalDamage {
        WalDamage { segment: self.segment.clone(), offset, reason }
    }

    /// Reads a frame's record into `self.frame`; false at the end of the segment.
    fn next_frame(&mut self) -> Result<bool, WalReason> {
        let mut header = [0; FRAME_HEADER];
        if self.fill(&mut header)? < FRAME_HEADER || header == [0; FRAME_HEADER] {
            return Ok(false);
        }
        let field = u64::from_le_bytes(header);
        let length = field & ((1 << 56) - 1);
        let padding = if field >> 63 == 1 { field >> 56 & 7 } else { 0 };
        let record = usize::try_from(length).ok().filter(|length| *length <= RECORD_MAX);
        let record = record.ok_or(WalReason::RecordLength { got: length })?;
        let whole = length + padding;
        // The vector grows only as far as there are bytes.
        self.frame.clear();
        let read = (&mut self.input).take(whole).read_to_end(&mut self.frame);
        let got = read.map_err(|error| WalReason::Read(error.kind()))? as u64;
        self.offset += got;
        self.frame.truncate(record);
        if got < whole { Err(WalReason::Torn) } else { Ok(true) }
    }

    /// Holds the record in `self.frame` to the running CRC, and returns its type.
    fn check_crc(&mut self) -> Result<i64, WalReason> {
        let fault = match RawRecord::parse(&self.frame) {
            Ok(record) => match self.chain.check(&record) {
                Ok(()) => return Ok(record.kind),
                Err(fault) => fault,
            },
            Err(fault) => fault.into(),
        };
        Err(if self.is_torn() { WalReason::Torn } else { fault })
    }

    /// Some sector of the record is all zeros: it never reached the disk (`decoder.go`,
    /// isTornEntry).
    fn is_torn(&self) -> bool {
        let end = usize::try_from(self.offset % SECTOR as u64).unwrap_or_default();
        let padded = self.frame.len().next_multiple_of(8);
        let start = (SECTOR + end - padded % SECTOR) % SECTOR;
        let (first, rest) = self.frame.split_at((SECTOR - start).min(self.frame.len()));
        let zeros = |part: &[u8]| part.iter().all(|byte| *byte == 0);
        (!first.is_empty() && zeros(first)) || rest.chunks(SECTOR).any(zeros)
    }

    /// Reads until `buf` is full or the file ends.
    fn fill(&mut self, buf: &mut [u8]) -> Result<usize, WalReason> {
        let mut got = 0;
        while let Some(rest) = buf.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(bytes) => got += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(WalReason::Read(error.kind())),
            }
        }
        self.offset += got as u64;
        Ok(got)
    }
}

fn parse_record(kind: i64, data: &[u8]) -> Result<Record<'_>, WalReason> {
    Ok(match kind {
        record_type::METADATA => Record::Metadata(Metadata::parse(data)?),
        record_type::ENTRY => Record::Entry(Entry::parse(data)?),
        record_type::HARD_STATE => Record::HardState(HardState::parse(data)?),
        record_type::SNAPSHOT => Record::Snapshot(SnapshotMark::parse(data)?),
        got => return Err(WalReason::Type { got }),
    })
}

/// Writes the first segment of a log.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    out: Vec<u8>,
    crc: Crc32c,
}

impl SegmentWriter {
    /// Begins with the CRC record of a log without a past.
    pub(crate) fn new() -> Self {
        let mut writer = Self { out: Vec::new(), crc: Crc32c::new() };
        writer.frame(record_type::CRC, None);
        writer
    }

    pub(crate) fn push(&mut self, record: &Record<'_>) {
        let (kind, data) = match record {
            Record::Metadata(metadata) => (record_type::METADATA, metadata.to_bytes()),
            Record::Entry(entry) => (record_type::ENTRY, entry.to_bytes()),
            Record::HardState(state) => (record_type::HARD_STATE, state.to_bytes()),
            Record::Snapshot(mark) => (record_type::SNAPSHOT, mark.to_bytes()),
        };
        self.crc.update(&data);
        self.frame(kind, Some(&data));
    }

    fn frame(&mut self, kind: i64, data: Option<&[u8]>) {
        let mut record = Vec::new();
        wire::put_uint64(&mut record, 1, kind.cast_unsigned());
        wire::put_uint64(&mut record, 2, u64::from(self.crc.value()));
        if let Some(data) = data {
            wire::put_bytes(&mut record, 3, data);
        }
        let padding = record.len().next_multiple_of(8) - record.len();
        let mark = if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
        self.out.extend_from_slice(&(record.len() as u64 | mark).to_le_bytes());
        self.out.extend_from_slice(&record);
        self.out.resize(self.out.len() + padding, 0);
    }

    /// The segment's bytes; behind them only zeros may follow.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, MemberId, RaftTerm};
    use crate::raft::EntryKind;

    fn records() -> Vec<Record<'static>> {
        let entry = |index, data| {
            Record::Entry(Entry {
                kind: EntryKind::Normal,
                term: RaftTerm(2),
                index: RaftIndex(index),
                data,
            })
        };
        let commit = |commit| {
            Record::HardState(HardState { term: RaftTerm(2), vote: 1, commit: RaftIndex(commit) })
        };
        vec![
            Record::Metadata(Metadata { member: MemberId(7), cluster: ClusterId(9) }),
            Record::Snapshot(SnapshotMark::empty()),
            entry(1, b"one"),
            entry(2, &[0xab; 2000]),
            commit(2),
            entry(3, b""),
        ]
    }

    fn segment() -> Vec<u8> {
        let mut writer = SegmentWriter::new();
        records().iter().for_each(|record| writer.push(record));
        writer.into_bytes()
    }

    /// How many records come out, and what ends them.
    fn read(bytes: &[u8]) -> (usize, Option<WalReason>) {
        let mut reader = SegmentReader::new(bytes, "s", Chain::start());
        let mut count = 0;
        loop {
            match reader.next_record() {
                Ok(Some(_)) => count += 1,
                Ok(None) => return (count, None),
                Err(damage) => return (count, Some(damage.reason)),
            }
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let bytes = segment();
        assert_eq!(bytes.len() % 8, 0);
        let mut reader = SegmentReader::new(bytes.as_slice(), "s", Chain::start());
        for want in records() {
            assert_eq!(reader.next_record().unwrap(), Some(want));
        }
        assert_eq!(reader.next_record().unwrap(), None);
        let preallocated = [bytes, vec![0; 4096]].concat();
        assert_eq!(read(&preallocated), (6, None));
    }

    #[test]
    fn the_first_bytes_are_those_of_etcdutl() {
        let mut writer = SegmentWriter::new();
        writer.push(&Record::Metadata(Metadata {
            member: MemberId(0xca7a_34e1_6cff_9c1b),
            cluster: ClusterId(0x7821_85fd_d402_bd74),
        }));
        let want = "0400000000000084080410000000000\
                    01f00000000000081080110df9ca1d5071a15089bb8fee7969c8dbdca0110f4fa8aa0ddbfe1907800";
        let got: String = writer.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn the_chain_goes_over_segments() {
        let mut first = SegmentWriter::new();
        records().iter().for_each(|record| first.push(record));
        let mut second = SegmentWriter { out: Vec::new(), crc: first.crc.clone() };
        second.frame(record_type::CRC, None);
        second.push(&records()[2]);
        let (first, second) = (first.into_bytes(), second.into_bytes());

        let mut reader = SegmentReader::new(first.as_slice(), "1", Chain::start());
        while reader.next_record().unwrap().is_some() {}
        let mut reader = SegmentReader::new(second.as_slice(), "2", reader.into_chain());
        assert_eq!(reader.next_record().unwrap(), Some(records()[2].clone()));
        // The earlier segment may have been purged, but not be another one.
        assert_eq!(read(&second), (1, None));
        let mut other = Chain::start();
        let mut reader = SegmentReader::new(&first[..16], "1", other.clone());
        while reader.next_record().unwrap().is_some() {}
        other = reader.into_chain();
        let mut reader = SegmentReader::new(second.as_slice(), "2", other);
        let damage = reader.next_record().unwrap_err();
        assert!(matches!(damage.reason, WalReason::Crc { want: 0, .. }), "{damage}");
    }

    #[test]
    fn cut_off_anywhere_it_is_torn_or_ends_early() {
        let whole = segment();
        for len in 0..whole.len() {
            let (count, reason) = read(&whole[..len]);
            assert!(count < 6 || len > whole.len() - 8, "{len}");
            assert!(matches!(reason, None | Some(WalReason::Torn)), "{len}: {reason:?}");
        }
    }

    #[test]
    fn a_sector_of_zeros_is_a_torn_write() {
        let mut bytes = segment();
        bytes[1024..1536].fill(0);
        assert_eq!(read(&bytes), (3, Some(WalReason::Torn)));
    }

    #[test]
    fn a_flipped_bit_in_the_data_is_found() {
        let whole = segment();
        let first = whole.iter().position(|byte| *byte == 0xab).unwrap();
        for bit in first * 8..(first + 2000) * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (count, reason) = read(&bytes);
            assert!(count == 3 && matches!(reason, Some(WalReason::Crc { .. })), "bit {bit}");
        }
    }

    #[test]
    fn no_single_bit_makes_it_panic() {
        let whole = segment();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A record's type is not under its CRC, so the first one may become one too many.
            assert!(read(&bytes).0 <= 7, "bit {bit}");
        }
    }

    #[test]
    fn an_absurd_length_allocates_nothing() {
        let mut bytes = segment();
        bytes[16..24].copy_from_slice(&0x00ff_ffff_ffff_ffff_u64.to_le_bytes());
        assert_eq!(read(&bytes).1, Some(WalReason::RecordLength { got: 0x00ff_ffff_ffff_ffff }));
        bytes[16..24].copy_from_slice(&(500_u64 << 20).to_le_bytes());
        assert_eq!(read(&bytes).1, Some(WalReason::Torn));
    }

    #[test]
    fn segment_names() {
        let name = SegmentName { sequence: 1, first: RaftIndex(0x2a) };
        assert_eq!(name.to_string(), "0000000000000001-000000000000002a.wal");
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        for bad in [
            "0.tmp",
            "1-2.wal",
            "000000000000000+-0000000000000000.wal",
            "0000000000000001-000000000000002A.wal",
        ] {
            assert_eq!(SegmentName::parse(bad), None, "{bad}");
        }
    }
}
