//! Why bytes are no object of an archive.

use super::header::{Kind, VERSION};

/// What is wrong with an object's bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatFault {
    /// Another magic.
    #[error("it is no object of an archive: it does not begin with \"rekindle\"")]
    NotOurs,
    /// Written by a later version of this program.
    #[error("its format version is {got}, and this rekindle knows those up to {VERSION}")]
    Version {
        /// What stands there.
        got: u16,
    },
    /// A kind of object that this version does not know.
    #[error("it is of kind {got}, which this rekindle does not know")]
    UnknownKind {
        /// What stands there.
        got: u8,
    },
    /// Another kind than its place says.
    #[error("it is a {got}, not a {want}")]
    Kind {
        /// What it is.
        got: Kind,
        /// What was wanted.
        want: Kind,
    },
    /// Flags that this version does not know.
    #[error("it has flags {got:#04x}, which this rekindle does not know")]
    Flags {
        /// What stands there.
        got: u8,
    },
    /// The key of its generation does not open it.
    #[error("its body does not open with the key that its header names: {cause}")]
    Sealed {
        /// What the opening came to.
        cause: String,
    },
    /// Something that only a later version of this program writes.
    #[error("it is {what}, which this rekindle cannot read yet")]
    NotYet {
        /// What it is.
        what: &'static str,
    },
    /// It ends too early.
    #[error("it ends within {what}")]
    Ends {
        /// What was being read.
        what: &'static str,
    },
    /// There is more than there should be.
    #[error("{extra} bytes too many stand behind {what}")]
    Extra {
        /// What should have been the end.
        what: &'static str,
        /// How many bytes are left.
        extra: usize,
    },
    /// A digest says that bytes were changed.
    #[error("{what} was changed: its digest is another")]
    Digest {
        /// What was digested.
        what: &'static str,
    },
    /// The body belongs to another header.
    #[error("its body belongs to another object")]
    Foreign,
    /// Something that no writer writes.
    #[error("{what} makes no sense")]
    Senseless {
        /// What it is.
        what: &'static str,
    },
    /// More than is ever written, and more than is read.
    #[error("{what} would have {got} bytes, more than {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// What stands there.
        got: u64,
        /// The most that there may be.
        max: u64,
    },
    /// Compressed bytes that do not come apart.
    #[error("{what} cannot be decompressed")]
    Compression {
        /// What it is.
        what: &'static str,
    },
}

impl FormatFault {
    /// Nothing is wrong with the object: a later version of this program has written it.
    #[must_use]
    pub fn is_too_new(&self) -> bool {
        match self {
            Self::Version { got } => *got > VERSION,
            Self::UnknownKind { .. } | Self::Flags { .. } | Self::NotYet { .. } => true,
            _ => false,
        }
    }
}
