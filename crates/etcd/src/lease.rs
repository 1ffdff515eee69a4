//! Leases as the `lease` bucket has them (etcd `server/lease/leasepb/lease.proto`,
//! `server/storage/schema/lease.go`). Which keys hang on one is not written there.

use crate::wire;

mod field {
    pub const ID: u32 = 1;
    pub const TTL: u32 = 2;
}

/// A lease as it was granted: it lives for all of its time from the next start of etcd on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: i64,
    /// The seconds that it lives when nobody keeps it alive.
    pub ttl_s: i64,
}

impl Lease {
    /// The key of its pair.
    #[must_use]
    pub fn key(&self) -> [u8; 8] {
        self.id.to_be_bytes()
    }

    /// The value of its pair, as etcd writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, value) in [(field::ID, self.id), (field::TTL, self.ttl_s)] {
            if value != 0 {
                wire::put_uint64(&mut out, number, value.cast_unsigned());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_as_etcd_writes_them() {
        let lease = Lease { id: 0x694d_7d7f_3c6c_5806, ttl_s: 600 };
        assert_eq!(lease.key(), *b"\x69\x4d\x7d\x7f\x3c\x6c\x58\x06");
        assert_eq!(lease.to_bytes(), b"\x08\x86\xb0\xb1\xe3\xf3\xaf\xdf\xa6\x69\x10\xd8\x04");
    }
}
