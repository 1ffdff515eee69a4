//! A file of this machine as the pure crates read it.

use crate::read_ahead::ReadAhead;
use rekindle_bolt::{Piece, ReadAt, read_one_by_one};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A regular file.
#[derive(Debug)]
pub struct FileSource {
    file: Arc<File>,
    size: u64,
    ahead: Option<ReadAhead>,
}

impl FileSource {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// Whatever the medium reports; a directory or device is refused as invalid input.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    /// A file that is open already, and may have no name any more.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of(file: File) -> io::Result<Self> {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { file: Arc::new(file), size: found.len(), ahead: None })
    }

    /// The same with a thread that reads in the background what will be read next. That pays where
    /// the reader leaves a core idle; without a thread, which a machine may refuse, it does nothing.
    #[must_use]
    pub fn reading_ahead(mut self) -> Self {
        self.ahead = ReadAhead::start(self.shared()).ok();
        self
    }

    /// Another one of the same open file.
    #[must_use]
    pub fn shared(&self) -> Self {
        Self { file: Arc::clone(&self.file), size: self.size, ahead: None }
    }

    /// The handle.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn read_pieces(&self, buf: &mut Vec<u8>, pieces: &[Piece]) -> io::Result<()> {
        match &self.ahead {
            Some(ahead) if ahead.take(buf, pieces) => Ok(()),
            _ => read_one_by_one(self, buf, pieces),
        }
    }

    fn will_read(&self, pieces: &[Piece]) {
        if let Some(ahead) = &self.ahead {
            ahead.ask(pieces);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn a_source(bytes: &[u8]) -> FileSource {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        FileSource::open(file.path()).unwrap().reading_ahead()
    }

    /// Stretches that were told and read, told and never read, read and never told, in any order.
    #[test]
    fn what_was_read_ahead_is_what_stands_there() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n / 7) as u8).collect();
        let source = a_source(&bytes);
        let mut buffer = Vec::new();
        let mut chance = 1_u64;
        let mut next = |below: u64| {
            chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (chance >> 33) % below
        };
        for _ in 0..2000 {
            let mut piece = || Piece { offset: next(900_000), len: next(9_000) as usize };
            let mut told: Vec<Vec<_>> = (0..4).map(|_| vec![piece(), piece(), piece()]).collect();
            told.iter().for_each(|pieces| source.will_read(pieces));
            told.retain(|_| next(3) > 0);
            for mut pieces in told {
                pieces.truncate(2 + next(2) as usize);
                source.read_pieces(&mut buffer, &pieces).unwrap();
                let there = pieces.iter().map(|p| &bytes[p.offset as usize..][..p.len]);
                assert!(buffer == there.collect::<Vec<_>>().concat(), "{pieces:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_ahead_fails_where_it_is_read() {
        let source = a_source(&[1; 1000]);
        let pieces = |len| [Piece { offset: 0, len: 10 }, Piece { offset: 500, len }];
        source.will_read(&pieces(501));
        let failed = source.read_pieces(&mut Vec::new(), &pieces(501)).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::UnexpectedEof);
        source.read_pieces(&mut Vec::new(), &pieces(500)).unwrap();
    }
}
