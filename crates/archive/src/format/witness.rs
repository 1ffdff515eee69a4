//! What a member has said of its keyspace: the content of a witness. Its header has the revision, up to where
//! the member had compacted, when it was asked, and its version.
//!
//! ```text
//! witness
//!    4       HashKV: CRC-32C
//!    varint  milliseconds that the member took
//! ```

use super::cursor::{Cursor, Put};
use super::fault::FormatFault;

/// What a witness holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// The member's HashKV.
    pub hash: u32,
    /// So many milliseconds it took; its writes waited meanwhile.
    pub took_ms: u64,
}

impl Testimony {
    /// The content of a witness.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut out = self.hash.to_le_bytes().to_vec();
        out.put_varint(self.took_ms);
        out
    }

    /// Reads the content of a witness.
    ///
    /// # Errors
    /// Whatever no writer writes.
    pub fn parse(content: &[u8]) -> Result<Self, FormatFault> {
        let mut cursor = Cursor::new(content, "a witness");
        let hash = u32::from_le_bytes(cursor.array()?);
        let took_ms = cursor.varint()?;
        cursor.end()?;
        Ok(Self { hash, took_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        for testimony in
            [Testimony { hash: 0, took_ms: 0 }, Testimony { hash: u32::MAX, took_ms: u64::MAX }]
        {
            let content = testimony.encode();
            assert_eq!(Testimony::parse(&content), Ok(testimony));
            for length in 0..content.len() {
                assert!(Testimony::parse(&content[..length]).is_err());
            }
            assert!(Testimony::parse(&[&content[..], &[0]].concat()).is_err());
        }
    }
}
