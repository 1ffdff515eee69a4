//! The door through which a file's bytes come in.

use std::io;

/// Positioned reads of a file that does not change while it is read.
///
/// Not a memory map on purpose: a file cut short under a map kills the process.
pub trait ReadAt {
    /// Bytes in the file.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`; fails with [`io::ErrorKind::UnexpectedEof`] where the file ends
    /// before.
    ///
    /// # Errors
    /// Whatever the medium reports.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Fills `buf` with these pieces, one behind the other; its old content is lost, and it may
    /// come back as another buffer.
    ///
    /// # Errors
    /// As [`Self::read_exact_at`].
    fn read_pieces(&self, buf: &mut Vec<u8>, pieces: &[Piece]) -> io::Result<()> {
        read_one_by_one(self, buf, pieces)
    }

    /// These pieces will very likely be read next, or next but a few, with [`Self::read_pieces`]: a
    /// medium may begin.
    fn will_read(&self, _pieces: &[Piece]) {}
}

/// What [`ReadAt::read_pieces`] does where nothing better is known.
///
/// # Errors
/// As [`ReadAt::read_exact_at`].
pub fn read_one_by_one<S: ReadAt + ?Sized>(
    source: &S,
    buf: &mut Vec<u8>,
    pieces: &[Piece],
) -> io::Result<()> {
    let len = Piece::sum(pieces);
    match buf.capacity() < len {
        // The allocator has zeros at hand; an unoptimised program writes them one by one.
        true => *buf = vec![0; len],
        false => buf.resize(len, 0),
    }
    let mut rest = buf.as_mut_slice();
    for piece in pieces {
        let (part, behind) = rest.split_at_mut_checked(piece.len).unwrap_or_default();
        source.read_exact_at(part, piece.offset)?;
        rest = behind;
    }
    Ok(())
}

/// A part of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
}

impl Piece {
    /// Bytes of all these.
    #[must_use]
    pub fn sum(pieces: &[Self]) -> usize {
        pieces.iter().map(|piece| piece.len).sum()
    }

    /// The first byte behind it.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.len as u64)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }

    fn read_pieces(&self, buf: &mut Vec<u8>, pieces: &[Piece]) -> io::Result<()> {
        (**self).read_pieces(buf, pieces)
    }

    fn will_read(&self, pieces: &[Piece]) {
        (**self).will_read(pieces);
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(part);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}
