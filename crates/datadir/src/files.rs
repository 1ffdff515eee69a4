//! Writing large files at the speed of the disk and leaving them in the page cache.
//!
//! Bytes go through the page cache: one thread writes full buffers while the next is filled, another
//! keeps syncing behind it, so that little is left to do at the end and the kernel never has to slow
//! the writer down. Beside O_DIRECT this was as fast here, and an etcd that boots on the file finds
//! it in memory. Several files can be written from the same bytes.

use crate::disk::NewFile;
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Bytes that the writing thread gets at once.
const BUFFER: usize = 2 << 20;
/// Bytes of one write. Larger ones get pieces of the page cache of 2 MiB, which a virtual machine's
/// host may have taken back while they were free: written so, a file took five times as long.
const WRITE: usize = 64 << 10;
/// Buffers: one is filled, one waits, one is written.
const BUFFERS: usize = 3;
/// Bytes after which the syncing thread is called.
const SYNC_EVERY: u64 = 16 << 20;

/// Files that are written from the same bytes.
pub(crate) struct Files {
    files: Vec<File>,
    buffer: Vec<u8>,
    /// Bytes handed to the files or their writer.
    written: u64,
    called_at: u64,
    writer: Option<Writer>,
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
        Ok(Self::of(paths.iter().map(create).collect::<io::Result<_>>()?))
    }

    fn of(files: Vec<File>) -> Self {
        Self { files, buffer: Vec::new(), written: 0, called_at: 0, writer: None, syncer: None }
    }

    /// Hands a full buffer to the writing thread and goes on with an empty one.
    fn hand_over(&mut self) -> io::Result<()> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => Writer::start(&self.files)?,
        };
        let full = std::mem::take(&mut self.buffer);
        let length = full.len();
        match writer.exchange(full) {
            Some(empty) => self.buffer = empty,
            None => return writer.end(),
        }
        self.writer = Some(writer);
        self.call_syncer(length)
    }

    /// Brings everything to the files.
    fn settle(&mut self) -> io::Result<()> {
        self.writer.take().map_or(Ok(()), Writer::end)?;
        let rest = std::mem::take(&mut self.buffer);
        self.files.iter_mut().try_for_each(|file| file.write_all(&rest))?;
        self.call_syncer(rest.len())
    }

    fn call_syncer(&mut self, written: usize) -> io::Result<()> {
        self.written += written as u64;
        if self.written - self.called_at >= SYNC_EVERY {
            self.called_at = self.written;
            let syncer = match self.syncer.take() {
                Some(syncer) => syncer,
                None => Syncer::start(&self.files)?,
            };
            self.syncer.insert(syncer).call();
        }
        Ok(())
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
            self.hand_over()?;
        }
        Ok(taken)
    }

    /// Takes all pieces, here and now, each with a write of its own.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.settle()?;
        for piece in pieces {
            self.files.iter_mut().try_for_each(|file| file.write_all(piece))?;
        }
        let written = pieces.iter().map(|piece| piece.len()).sum();
        self.call_syncer(written)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.settle()
    }
}

impl NewFile for Files {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.settle()?;
        self.files.iter().try_for_each(|file| file.write_all_at(bytes, offset))
    }

    fn reserve(&mut self, length: u64) -> io::Result<()> {
        self.settle()?;
        self.files.iter().try_for_each(|file| reserve(file, length))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.settle()?;
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

/// The thread that writes full buffers.
struct Writer {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    fn start(files: &[File]) -> io::Result<Self> {
        let mut files = clones(files)?;
        let (full, to_write) = sync_channel::<Vec<u8>>(BUFFERS);
        let (written, empty) = sync_channel(BUFFERS);
        for _ in 1..BUFFERS {
            // It holds as many.
            let _ = written.send(Vec::with_capacity(BUFFER));
        }
        let write = move || {
            for mut buffer in to_write {
                for part in buffer.chunks(WRITE) {
                    files.iter_mut().try_for_each(|file| file.write_all(part))?;
                }
                buffer.clear();
                // Nobody wants it back at the end.
                let _ = written.send(buffer);
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("write".to_owned()).spawn(write)?;
        Ok(Self { full, empty, thread })
    }

    /// An empty buffer for a full one; none once a write has failed.
    fn exchange(&self, full: Vec<u8>) -> Option<Vec<u8>> {
        self.full.send(full).ok()?;
        self.empty.recv().ok()
    }

    fn end(self) -> io::Result<()> {
        drop(self.full);
        self.thread.join().map_err(|_| io::Error::other("the writing thread has panicked"))?
    }
}

fn clones(files: &[File]) -> io::Result<Vec<File>> {
    files.iter().map(File::try_clone).collect()
}

/// The thread that syncs behind the writer.
struct Syncer {
    calls: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncer {
    fn start(files: &[File]) -> io::Result<Self> {
        let files = clones(files)?;
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
        let mut files = Files::of(vec![full.try_clone().unwrap()]);
        files.write_all(b"x").unwrap();
        assert_eq!(files.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut files = Files::of(vec![full]);
        let piece = vec![0; 2 * BUFFERS * BUFFER];
        assert_eq!(files.write_all(&piece).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
