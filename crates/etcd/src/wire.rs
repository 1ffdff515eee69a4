//! Protocol buffers, as much of them as etcd's own files need: fields in, fields out.
//!
//! Reading borrows and never allocates. Groups, which no etcd message has, are refused.

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireFault {
    /// The message ends inside a field.
    #[error("the message ends inside a field")]
    Ends,
    /// A number has more than 64 bits.
    #[error("a varint has more than 64 bits")]
    Varint,
    /// A field number or wire type that does not exist.
    #[error("tag {tag:#x} is none")]
    Tag {
        /// The tag as it stands there.
        tag: u64,
    },
    /// A known field has another wire type.
    #[error("field {field} has wire type {got}")]
    Type {
        /// The field's number.
        field: u32,
        /// The wire type that stands there.
        got: u8,
    },
}

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed64(u64),
    Fixed32(u32),
}

/// A field with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
}

impl<'a> Field<'a> {
    fn wrong_type<T>(self) -> Result<T, WireFault> {
        let got = match self.value {
            Value::Varint(_) => 0,
            Value::Fixed64(_) => 1,
            Value::Bytes(_) => 2,
            Value::Fixed32(_) => 5,
        };
        Err(WireFault::Type { field: self.number, got })
    }

    pub(crate) fn uint64(self) -> Result<u64, WireFault> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => self.wrong_type(),
        }
    }

    /// int64 and enums: negative numbers are the two's complement in ten bytes.
    pub(crate) fn int64(self) -> Result<i64, WireFault> {
        self.uint64().map(u64::cast_signed)
    }

    /// uint32: a wider varint is cut to its low 32 bits, as every decoder does.
    pub(crate) fn uint32(self) -> Result<u32, WireFault> {
        let low = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
        self.uint64().map(low)
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], WireFault> {
        match self.value {
            Value::Bytes(value) => Ok(value),
            _ => self.wrong_type(),
        }
    }
}

/// The fields of a message, in the order in which they stand there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn varint(&mut self) -> Result<u64, WireFault> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(WireFault::Ends)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireFault::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireFault::Varint)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireFault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireFault::Ends)?;
        self.rest = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], WireFault> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(WireFault::Ends)?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn field(&mut self) -> Result<Field<'a>, WireFault> {
        let tag = self.varint()?;
        // Field numbers have 29 bits.
        let number = u32::try_from(tag >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or(WireFault::Tag { tag })?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.chunk()?)),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| WireFault::Ends)?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.chunk()?)),
            _ => return Err(WireFault::Tag { tag }),
        };
        Ok(Field { number, value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Appends a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while let Some(low) = u8::try_from(value & 0x7f).ok().filter(|_| value >= 0x80) {
        out.push(low | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// Appends a varint field, zero included.
pub(crate) fn put_uint64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a field of bytes, also of none.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_fault(bytes: &[u8], want: WireFault) {
        assert_eq!(Fields::of(bytes).find_map(Result::err), Some(want), "{bytes:02x?}");
    }

    #[test]
    fn what_is_no_message() {
        check_fault(&[0x0a], WireFault::Ends);
        check_fault(&[0x0a, 2, 1], WireFault::Ends);
        check_fault(&[0x08, 0xff], WireFault::Ends);
        check_fault(&[0x09, 1, 2, 3], WireFault::Ends);
        check_fault(&[0x0d, 1, 2, 3], WireFault::Ends);
        check_fault(
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            WireFault::Ends,
        );
        check_fault(
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            WireFault::Varint,
        );
        check_fault(
            &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
            WireFault::Varint,
        );
        check_fault(&[0x00, 0], WireFault::Tag { tag: 0 });
        check_fault(&[0x0b], WireFault::Tag { tag: 0x0b });
        check_fault(&[0x0e, 0], WireFault::Tag { tag: 0x0e });
    }

    #[test]
    fn types_are_held_to() {
        let field = |bytes: &'static [u8]| Fields::of(bytes).next().unwrap().unwrap();
        assert_eq!(field(&[0x08, 1]).bytes(), Err(WireFault::Type { field: 1, got: 0 }));
        assert_eq!(field(&[0x12, 1, 7]).uint64(), Err(WireFault::Type { field: 2, got: 2 }));
        assert_eq!(field(&[0x15, 1, 0, 0, 0]).uint64(), Err(WireFault::Type { field: 2, got: 5 }));
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(number in 1_u32..1 << 29, value: u64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_uint64(&mut out, number, value);
            put_bytes(&mut out, number, &bytes);
            let fields: Result<Vec<_>, _> = Fields::of(&out).collect();
            prop_assert_eq!(fields.unwrap(), vec![
                Field { number, value: Value::Varint(value) },
                Field { number, value: Value::Bytes(&bytes) },
            ]);
        }
    }
}
