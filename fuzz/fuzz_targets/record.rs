//! Any bytes as records of bucket `key`: an accepted key is the one way to write it and sorts as
//! its bytes do; an accepted value reads the same once etcd's own way of writing it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_bolt::Pair;
use rekindle_etcd::{KeyValue, RecordKey, read_record};

fuzz_target!(|bytes: &[u8]| {
    let Some((lengths, rest)) = bytes.split_first() else { return };
    // Keys have 17 or 18 bytes; every other length is tried, too.
    let (first, rest) = rest.split_at(usize::from(lengths & 0x1f).min(rest.len()));
    let (second, value) = rest.split_at((17 + usize::from(lengths >> 7)).min(rest.len()));
    if let (Some(a), Some(b)) = (key(first), key(second)) {
        assert_eq!(a.cmp(&b), first.cmp(second), "{a} and {b}");
    }
    if let Ok(kv) = KeyValue::parse(value) {
        assert_eq!(KeyValue::parse(&kv.to_bytes()), Ok(kv));
        assert!(kv.to_bytes().len() <= value.len(), "etcd's is the shortest");
    }
    if let Ok((key, kv)) = read_record(Pair { key: second, value, is_bucket: false }) {
        assert_eq!(Some(key), RecordKey::parse(second).ok());
        assert!(key.tombstone || value.is_empty() || kv.mod_revision == key.revision.get());
    }
});

fn key(bytes: &[u8]) -> Option<RecordKey> {
    let key = RecordKey::parse(bytes).ok()?;
    assert_eq!(key.to_bytes(), bytes);
    Some(key)
}
