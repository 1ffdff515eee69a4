//! Any messages as the records of a WAL that is framed as etcd frames it, over several segments:
//! only a record itself can be wrong, and the log's state keeps to what is committed.
#![no_main]

use crc_fast::{CrcAlgorithm, Digest};
use libfuzzer_sys::fuzz_target;
use rekindle_etcd::wal::{Chain, SegmentReader, WalReason};
use rekindle_etcd::{LogState, RaftIndex};

/// walpb: the type of a record that carries only the CRC.
const CRC: u8 = 4;

fuzz_target!(|bytes: &[u8]| {
    let mut log = LogState::default();
    let mut chain = Chain::start();
    for (segment, pushed) in segments(bytes) {
        let mut reader = SegmentReader::new(segment.as_slice(), "segment", chain);
        let mut records = 0;
        loop {
            match reader.next_record() {
                Ok(Some(record)) => log.add(&record),
                Ok(None) => break assert_eq!(records, pushed),
                Err(damage) => {
                    let of_record =
                        matches!(damage.reason, WalReason::Wire(_) | WalReason::Type { .. });
                    return assert!(of_record, "{damage}");
                }
            }
            records += 1;
        }
        chain = reader.into_chain();
    }
    let commit = log.hard_state.commit;
    assert_eq!(log.committed_beyond(commit), 0);
    assert!(log.committed_beyond(RaftIndex(0)) <= commit.0);
    assert!(log.snapshot().is_none_or(|mark| mark.index <= commit));
});

/// Segments with the number of their records. The bytes are records: a type, which begins a new
/// segment where it is that of the CRC, two bytes of length, and as many of data.
fn segments(mut bytes: &[u8]) -> Vec<(Vec<u8>, usize)> {
    let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let mut segments = vec![(frame(CRC, &crc, None), 0)];
    while let Some(([kind, low, high], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (data, rest) = rest.split_at(length);
        bytes = rest;
        if *kind == CRC {
            segments.push((frame(CRC, &crc, None), 0));
        } else if let Some((segment, records)) = segments.last_mut() {
            crc.update(data);
            segment.extend(frame(*kind, &crc, Some(data)));
            *records += 1;
        }
    }
    segments
}

/// A frame with a walpb.Record: 1 type, 2 crc, 3 data.
fn frame(kind: u8, crc: &Digest, data: Option<&[u8]>) -> Vec<u8> {
    let mut record = vec![0x08];
    varint(&mut record, kind.into());
    record.push(0x10);
    varint(&mut record, crc.finalize());
    if let Some(data) = data {
        record.push(0x1a);
        varint(&mut record, data.len() as u64);
        record.extend_from_slice(data);
    }
    let padding = record.len().next_multiple_of(8) - record.len();
    let mark = if padding > 0 { (0x80 | padding as u64) << 56 } else { 0 };
    let mut frame = (record.len() as u64 | mark).to_le_bytes().to_vec();
    frame.extend(record);
    frame.extend(vec![0; padding]);
    frame
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
