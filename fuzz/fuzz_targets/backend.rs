//! Any bytes as an etcd database: what its status calls sound can be hashed, and the hash is that
//! of a plain reading of the rule, at any revision and compact revision.
#![no_main]

use crc_fast::{CrcAlgorithm, Digest};
use libfuzzer_sys::fuzz_target;
use rekindle_bolt::{ReadAt, Scan};
use rekindle_etcd::{
    Backend, Error, HashRequest, KeyCount, RecordKey, Revision, TombstonesAtCompaction, read_record,
};
use std::collections::HashMap;

fuzz_target!(|bytes: &[u8]| {
    let Ok(backend) = Backend::open(bytes) else { return };
    let status = backend.status(KeyCount::Remembered).expect("memory does not fail");
    let kubernetes = backend.holds_kubernetes();
    let Ok(facts) = backend.facts() else { return };
    let request = request(bytes);
    let hash = backend.hash_kv(&request);
    if !status.is_sound() {
        return;
    }
    assert_eq!(
        status.revision,
        facts.last_record.map_or_else(Revision::default, |key| key.revision)
    );
    assert!(!kubernetes.expect("no damage") || status.kubernetes.records > 0);
    let revision = request.revision.unwrap_or(facts.revision());
    let own = facts.compaction.revision();
    let compact_revision = request.compact_revision.or(own);
    match hash {
        Ok(hash) => {
            assert_eq!((hash.revision, hash.compact_revision), (revision, compact_revision));
            let records = records(&backend, revision);
            assert_eq!(hash.hash, model(&records, compact_revision, request.tombstones));
        }
        Err(Error::FutureRevision { .. }) => assert!(revision > facts.revision()),
        Err(Error::CompactRevision { .. }) => assert!(compact_revision < own),
        Err(Error::Compacted { .. }) => assert!(Some(revision) < compact_revision),
        Err(error) => panic!("{error}"),
    }
});

/// What to hash stands in the last five bytes, where bbolt allows any.
fn request(bytes: &[u8]) -> HashRequest {
    let [which, revision @ .., a, b] = bytes.last_chunk::<5>().copied().unwrap_or_default();
    let number = |bytes| Revision::new(u16::from_le_bytes(bytes).into());
    let tombstones = match which & 4 {
        0 => TombstonesAtCompaction::Skipped,
        _ => TombstonesAtCompaction::Hashed,
    };
    HashRequest {
        revision: number(revision).filter(|_| which & 1 != 0),
        compact_revision: number([a, b]).filter(|_| which & 2 != 0),
        tombstones,
    }
}

/// A record: its key, the bytes of that and of its value, and the key of the keyspace.
struct Record {
    key: RecordKey,
    bytes: Vec<u8>,
    name: Vec<u8>,
}

fn records<S: ReadAt>(backend: &Backend<S>, until: Revision) -> Vec<Record> {
    let bucket = backend.bucket(b"key").expect("sound").expect("it is etcd's");
    let mut scan = Scan::new(backend.db(), &bucket);
    let mut records = Vec::new();
    while let Some(leaf) = scan.next_leaf().expect("sound") {
        for pair in leaf.pairs() {
            let (key, kv) = read_record(pair).expect("sound");
            let bytes = [pair.key, pair.value].concat();
            records.push(Record { key, bytes, name: kv.key.to_vec() });
        }
    }
    records.retain(|record| record.key.revision <= until);
    records
}

/// etcd's `unsafeHashByRev`, with what its index would keep at the compact revision.
fn model(records: &[Record], compact: Option<Revision>, tombstones: TombstonesAtCompaction) -> u32 {
    let mut newest = HashMap::new();
    for (place, record) in records.iter().enumerate() {
        match record.key.tombstone {
            true => newest.remove(&record.name),
            false => newest.insert(&record.name, place),
        };
    }
    let mut crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
    crc.update(b"key");
    for (place, record) in records.iter().enumerate() {
        let kept = newest.is_empty() || newest.get(&record.name) == Some(&place);
        let skipped = record.key.tombstone
            && compact == Some(record.key.revision)
            && tombstones == TombstonesAtCompaction::Skipped;
        if (compact.is_none_or(|compact| record.key.revision > compact) || kept) && !skipped {
            crc.update(&record.bytes);
        }
    }
    crc.finalize() as u32
}
