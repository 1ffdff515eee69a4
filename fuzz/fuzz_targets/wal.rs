//! Any bytes as a WAL segment: it reads the same in whatever parts they come; cut off, or behind
//! another segment, it says less, never something else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_etcd::wal::{Chain, SegmentReader, WalDamage};
use std::io::{self, Read};

fuzz_target!(|bytes: &[u8]| {
    let (records, damage, chain) = read(bytes, Chain::start());
    let (in_parts, same_damage, _) = read(Crumbs(bytes), Chain::start());
    assert_eq!((&in_parts, same_damage), (&records, damage));
    let (cut_off, ..) = read(&bytes[..bytes.len() / 2], Chain::start());
    assert!(records.starts_with(&cut_off));
    let (behind_itself, ..) = read(bytes, chain);
    assert!(records.starts_with(&behind_itself));
});

/// All records as text, and what ends them.
fn read(input: impl Read, chain: Chain) -> (Vec<String>, Option<WalDamage>, Chain) {
    let mut reader = SegmentReader::new(input, "segment", chain);
    let mut records = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some(record)) => records.push(format!("{record:?}")),
            Ok(None) => return (records, None, reader.into_chain()),
            Err(damage) => return (records, Some(damage), reader.into_chain()),
        }
    }
}

/// Hands out five bytes at a time.
struct Crumbs<'a>(&'a [u8]);

impl Read for Crumbs<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let crumb = buf.len().min(5);
        self.0.read(&mut buf[..crumb])
    }
}
