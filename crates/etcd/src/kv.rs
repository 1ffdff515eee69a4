//! The value of a record: `mvccpb.KeyValue` (etcd `api/mvccpb/kv.proto`), read without copying.

use crate::wire::{self, Fields, WireFault};

/// One version of one key. A tombstone has only the key; a bump record (`etcdutl snapshot restore
/// --bump-revision`) has nothing at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision at which the key was created last.
    pub create_revision: i64,
    /// The revision of this version.
    pub mod_revision: i64,
    /// How many versions since the creation, from 1.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The lease that the key hangs on; 0 = none.
    pub lease: i64,
}

mod field {
    pub const KEY: u32 = 1;
    pub const CREATE_REVISION: u32 = 2;
    pub const MOD_REVISION: u32 = 3;
    pub const VERSION: u32 = 4;
    pub const VALUE: u32 = 5;
    pub const LEASE: u32 = 6;
}

impl<'a> KeyValue<'a> {
    /// Reads a message; fields that etcd has not are passed over.
    ///
    /// # Errors
    /// [`WireFault`] where it is none.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireFault> {
        let mut kv = Self::default();
        for found in Fields::of(message) {
            let found = found?;
            match found.number {
                field::KEY => kv.key = found.bytes()?,
                field::CREATE_REVISION => kv.create_revision = found.int64()?,
                field::MOD_REVISION => kv.mod_revision = found.int64()?,
                field::VERSION => kv.version = found.int64()?,
                field::VALUE => kv.value = found.bytes()?,
                field::LEASE => kv.lease = found.int64()?,
                _ => {}
            }
        }
        Ok(kv)
    }

    /// The bytes that every etcd writes: fields ascending, zeros left out.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.key.len() + self.value.len() + 48);
        let put_bytes = |out: &mut Vec<u8>, number, bytes: &[u8]| {
            if !bytes.is_empty() {
                wire::put_bytes(out, number, bytes);
            }
        };
        let put_int = |out: &mut Vec<u8>, number, value: i64| {
            if value != 0 {
                wire::put_uint64(out, number, value.cast_unsigned());
            }
        };
        put_bytes(&mut out, field::KEY, self.key);
        put_int(&mut out, field::CREATE_REVISION, self.create_revision);
        put_int(&mut out, field::MOD_REVISION, self.mod_revision);
        put_int(&mut out, field::VERSION, self.version);
        put_bytes(&mut out, field::VALUE, self.value);
        put_int(&mut out, field::LEASE, self.lease);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_as_etcd_writes_them() {
        // Put aa=2 at revision 5, and the tombstone of m5: read off a real file.
        let put = b"\x0a\x02aa\x10\x05\x18\x05\x20\x01\x2a\x012";
        let kv = KeyValue {
            key: b"aa",
            create_revision: 5,
            mod_revision: 5,
            version: 1,
            value: b"2",
            lease: 0,
        };
        assert_eq!(KeyValue::parse(put), Ok(kv));
        assert_eq!(kv.to_bytes(), put);
        let tombstone = KeyValue { key: b"m5", ..KeyValue::default() };
        assert_eq!(tombstone.to_bytes(), b"\x0a\x02m5");
        assert_eq!(KeyValue::parse(b""), Ok(KeyValue::default()));
    }

    #[test]
    fn an_unknown_field_is_passed_over() {
        let kv = KeyValue::parse(b"\x0a\x01k\x72\x02??\x18\x09").unwrap();
        assert_eq!((kv.key, kv.mod_revision), (b"k".as_slice(), 9));
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(
            key: Vec<u8>, create_revision: i64, mod_revision: i64,
            version: i64, value: Vec<u8>, lease: i64,
        ) {
            let kv = KeyValue {
                key: &key, create_revision, mod_revision, version, value: &value, lease,
            };
            let bytes = kv.to_bytes();
            prop_assert_eq!(KeyValue::parse(&bytes), Ok(kv));
        }
    }
}
