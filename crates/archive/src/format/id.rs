//! Names of 16 bytes, written as 32 hexadecimal digits.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// From its 32 hexadecimal digits, in lower case.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// An archive; chosen by chance when it is made.
    ArchiveId
}
id! {
    /// A timeline; follows from the cluster and from where its history begins.
    TimelineId
}
id! {
    /// An object whose name says nothing else.
    ObjectId
}

pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Two hexadecimal digits of each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    // Of a secret, too: a text that grows would leave a part of it behind.
    let mut text = String::with_capacity(bytes.len() * 2);
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text
}

/// Bytes from two hexadecimal digits each, in lower case; none where they are more or fewer.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut digits = pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?));
    let mut bytes = [0; N];
    for byte in &mut bytes {
        *byte = digits.next()??;
    }
    digits.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_digits() {
        let text = "000102030405060708090a0b0c0d0eff";
        assert_eq!(ArchiveId::parse(text).unwrap().to_string(), text);
        for bad in ["", "00", &text[1..], &format!("{text}0"), &format!("{text}00")] {
            assert_eq!(ArchiveId::parse(bad), None, "{bad}");
        }
        assert_eq!(ArchiveId::parse(&text.to_uppercase()), None);
        assert_eq!(ArchiveId::parse(&text.replace("ff", "é")), None);
    }
}
