//! Writing large files at the speed of the disk and leaving them in the page cache.
//!
//! Bytes go through the page cache, and a thread of its own keeps syncing behind the writer, so that
//! little is left to do at the end and the kernel never has to slow the writer down. Beside O_DIRECT
//! this was as fast here, and an etcd that boots on the file finds it in memory. Several files can
//! be written from the same bytes.

use crate::disk::NewFile;
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Bytes of one write. Large writes get large pieces of the page cache, which are cheaper.
const BUFFER: usize = 2 << 20;
/// Bytes after which the syncing thread is called.
const SYNC_EVERY: u64 = 16 << 20;

/// Files that are written from the same bytes.
pub(crate) struct Files {
    files: Vec<File>,
    buffer: Vec<u8>,
    /// Bytes written, without the buffer's.
    written: u64,
    called_at: u64,
    syncer: Option<Syncer>,
}

impl Files {
    pub(crate) fn create(paths: &[&Path], mode: u32) -> io::Result<Self> {
        let create = |path: &&Path| {
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
            // Whatever the umask has taken away.
            file.set_permissions(Permissions::from_mode(mode))?;
            // Tells other runs that this one is at work. Not every file system can.
            let _ = file.try_lock();
            Ok(file)
        };
        let files = paths.iter().map(create).collect::<io::Result<_>>()?;
        Ok(Self { files, buffer: Vec::new(), written: 0, called_at: 0, syncer: None })
    }

    fn write_out(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        for file in &mut self.files {
            write_all(file, pieces)?;
        }
        self.written += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if self.written - self.called_at >= SYNC_EVERY {
            self.called_at = self.written;
            if self.syncer.is_none() {
                self.syncer = Some(Syncer::start(&self.files)?);
            }
            if let Some(syncer) = &self.syncer {
                syncer.call();
            }
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let written = match buffer.is_empty() {
            true => Ok(()),
            false => self.write_out(&[IoSlice::new(&buffer)]),
        };
        self.buffer = buffer;
        self.buffer.clear();
        written
    }
}

impl Write for Files {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(BUFFER);
        }
        let taken = bytes.len().min(BUFFER - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == BUFFER {
            self.write_buffer()?;
        }
        Ok(taken)
    }

    /// Takes all pieces: together they should be worth a write of their own.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_buffer()?;
        self.write_out(pieces)?;
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_buffer()
    }
}

/// Writes all pieces where the file stands.
fn write_all(file: &mut File, pieces: &[IoSlice<'_>]) -> io::Result<()> {
    let mut pieces = pieces.to_vec();
    let mut left = pieces.as_mut_slice();
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl NewFile for Files {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_buffer()?;
        self.files.iter().try_for_each(|file| file.write_all_at(bytes, offset))
    }

    fn reserve(&mut self, length: u64) -> io::Result<()> {
        self.write_buffer()?;
        self.files.iter().try_for_each(|file| reserve(file, length))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.write_buffer()?;
        // A failure is reported once for a file: the thread may have been told of it.
        self.syncer.take().map_or(Ok(()), Syncer::end)?;
        self.files.iter().try_for_each(File::sync_all)
    }
}

/// Real room where the file system can give it, else a hole.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(length),
        done => Ok(done?),
    }
}

/// The thread that syncs behind the writer.
struct Syncer {
    calls: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncer {
    fn start(files: &[File]) -> io::Result<Self> {
        let files = files.iter().map(File::try_clone).collect::<io::Result<Vec<_>>>()?;
        let (calls, called): (_, Receiver<()>) = sync_channel(1);
        let sync_all = move || -> io::Result<()> {
            for () in called {
                files.iter().try_for_each(File::sync_data)?;
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("sync".to_owned()).spawn(sync_all)?;
        Ok(Self { calls, thread })
    }

    /// Wakes it; while it is at work one more call waits for it, and that is enough.
    fn call(&self) {
        match self.calls.try_send(()) {
            // Ended by an error, which comes out at the end.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    fn end(self) -> io::Result<()> {
        drop(self.calls);
        self.thread.join().map_err(|_| io::Error::other("the syncing thread has panicked"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(directory: &Path, length: usize) {
        let bytes: Vec<u8> = (0..length).map(|n| (n % 253) as u8).collect();
        let paths = [directory.join(format!("a{length}")), directory.join(format!("b{length}"))];
        let paths: Vec<&Path> = paths.iter().map(std::path::PathBuf::as_path).collect();
        let mut files = Files::create(&paths, 0o600).unwrap();
        for part in bytes.chunks(100_003) {
            files.write_all(part).unwrap();
        }
        files.sync().unwrap();
        files.write_at(b"head", 0).unwrap();
        files.sync().unwrap();
        let mut want = bytes;
        want.resize(want.len().max(4), 0);
        want[..4].copy_from_slice(b"head");
        for path in paths {
            assert!(std::fs::read(path).unwrap() == want, "{}", path.display());
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn files_hold_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        for length in [0, 1, BUFFER, BUFFER + 1, 40 * BUFFER, 40 * BUFFER - 1] {
            check(directory.path(), length);
        }
    }

    #[test]
    fn a_reserved_file_is_zeros_behind_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wal");
        let mut file = Files::create(&[&path], 0o600).unwrap();
        file.write_all(b"content").unwrap();
        file.reserve(100_000).unwrap();
        file.sync().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 100_000);
        assert!(bytes.starts_with(b"content") && bytes[7..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_full_disk_is_reported() {
        // /dev/full takes no byte.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut files =
            Files { files: vec![full], buffer: Vec::new(), written: 0, called_at: 0, syncer: None };
        files.write_all(b"x").unwrap();
        assert_eq!(files.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
