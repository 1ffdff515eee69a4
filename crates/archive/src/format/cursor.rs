//! Reading and writing the parts of a body. All integers are little-endian; a *varint* is a LEB128
//! of at most 10 bytes, in its shortest form.

use super::fault::FormatFault;

/// Bytes that are read from front to back.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// What is being read, for the errors.
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], FormatFault> {
        let (taken, rest) =
            self.rest.split_at_checked(len).ok_or(FormatFault::Ends { what: self.what })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatFault> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or(FormatFault::Ends { what: self.what })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, FormatFault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                // A longer form than needed would make two encodings of one thing.
                return match byte {
                    0 if shift > 0 => break,
                    _ => Ok(value),
                };
            }
        }
        Err(self.senseless())
    }

    /// A varint that counts or measures what is in memory.
    pub(crate) fn length(&mut self) -> Result<usize, FormatFault> {
        let value = self.varint()?;
        usize::try_from(value).map_err(|_| self.senseless())
    }

    /// A varint that is a revision or a sub-revision.
    pub(crate) fn signed(&mut self) -> Result<i64, FormatFault> {
        let value = self.varint()?;
        i64::try_from(value).map_err(|_| self.senseless())
    }

    /// A length, and so many bytes.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], FormatFault> {
        let len = self.length()?;
        self.bytes(len)
    }

    pub(crate) fn end(self) -> Result<(), FormatFault> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(FormatFault::Extra { what: self.what, extra }),
        }
    }

    pub(crate) fn senseless(&self) -> FormatFault {
        FormatFault::Senseless { what: self.what }
    }
}

/// What [`Cursor`] reads.
pub(crate) trait Put {
    fn put_varint(&mut self, value: u64);
    fn put_sized(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.push(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.push(low);
    }

    fn put_sized(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_form() {
        for value in
            [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX >> 1, u64::MAX]
        {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            let mut cursor = Cursor::new(&bytes, "x");
            assert_eq!(cursor.varint(), Ok(value));
            assert_eq!(cursor.end(), Ok(()));
            for len in 0..bytes.len() {
                let ends = Err(FormatFault::Ends { what: "x" });
                assert_eq!(Cursor::new(&bytes[..len], "x").varint(), ends);
            }
        }
        let nine = [0xff; 9];
        for bad in [&[0x80, 0][..], &[0xff, 0x80, 0], &[&nine[..], &[2]].concat(), &[0xff; 11]] {
            let senseless = Err(FormatFault::Senseless { what: "x" });
            assert_eq!(Cursor::new(bad, "x").varint(), senseless, "{bad:x?}");
        }
    }
}
