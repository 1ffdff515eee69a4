//! Any bytes as a `.snap` file, and as the body of one whose CRC fits: what is accepted reads the
//! same once written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_etcd::raft::SnapshotMark;
use rekindle_etcd::snap::{SnapFault, decode, encode, file_name};

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // The body alone tells what its CRC is; with it, it gets past the first door.
    if let Err(SnapFault::Crc { want, .. }) = decode(&file(1, bytes)) {
        check(&file(want, bytes));
    }
});

fn check(file: &[u8]) {
    if let Ok((mark, data)) = decode(file) {
        assert_eq!(decode(&encode(&mark, data)), Ok((mark.clone(), data)));
        assert_eq!(file_name(&mark).len(), file_name(&SnapshotMark::empty()).len());
    }
}

/// snappb.Snapshot: 1 crc, 2 data.
fn file(crc: u32, body: &[u8]) -> Vec<u8> {
    let mut file = vec![0x08];
    varint(&mut file, crc as usize);
    file.push(0x12);
    varint(&mut file, body.len());
    file.extend_from_slice(body);
    file
}

fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
