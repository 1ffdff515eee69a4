//! A snapshot stream into a file and perhaps a store, digested on the way.
//!
//! Receiving, digesting, writing and uploading run beside each other: blocks go to all of them without being
//! copied, many at once so that threads seldom wake each other, and a few such batches may wait.

use bytes::Bytes;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{StoreFault, Upload};
use rekindle_client::{Error, SnapshotStream};
use rekindle_datadir::NewSnapshot;
use rekindle_etcd::Crc32c;
use rekindle_etcd::digest::{Sha256Digest, SnapshotDigest};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

/// Bytes of blocks (of 32 KiB each, as etcd sends them) that are handed on together.
const BATCH: usize = 2 << 20;
/// Batches that may wait for a thread.
const WAITING: usize = 4;

/// Blocks of a snapshot, in order.
type Batch = Arc<Vec<Bytes>>;

/// A snapshot that came whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// SHA-256 of the database, which the stream ended with.
    pub digest: Sha256Digest,
    /// CRC-32C of all that came.
    pub crc: u32,
    /// When its first bytes had come: what it holds is of then or before.
    pub state: Moment,
}

/// Where a snapshot goes while it comes.
pub struct Sinks<'a, 'd> {
    /// Into a file.
    pub snapshot: &'a mut NewSnapshot<'d>,
    /// Into a store.
    pub upload: Option<&'a mut Upload>,
}

/// Why a snapshot did not come.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveFault<E> {
    /// The member or the way to it failed.
    #[error("{0}")]
    Stream(E),
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] rekindle_datadir::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// What came is not what was sent.
    #[error("the snapshot came damaged or not whole: {0}")]
    Damaged(String),
    /// A thread has panicked.
    #[error("a thread of the save has panicked")]
    Panicked,
}

/// Receives a whole snapshot, batch by batch, and proves that it is whole. `next` gives a batch, an empty
/// one at the end; `now` is the clock.
///
/// # Errors
/// [`ReceiveFault`].
pub fn receive<E>(
    mut next: impl FnMut() -> Result<Vec<Bytes>, E>,
    now: impl Fn() -> Moment,
    sinks: Sinks<'_, '_>,
    received: &AtomicU64,
) -> Result<Received, ReceiveFault<E>> {
    let Sinks { snapshot, upload } = sinks;
    std::thread::scope(|threads| {
        let (to_digest, batches) = sync_channel::<Batch>(WAITING);
        let digest = threads.spawn(move || {
            let (mut digest, mut crc) = (SnapshotDigest::new(), Crc32c::new());
            for block in batches.iter().flat_map(|batch| batch.to_vec()) {
                digest.update(&block);
                crc.update(&block);
            }
            digest.finish().map(|digest| (digest, crc.value()))
        });
        let (to_file, batches) = sync_channel::<Batch>(WAITING);
        let written = threads.spawn(move || -> Result<(), rekindle_datadir::Error> {
            batches.iter().try_for_each(|batch| snapshot.write(&batch))
        });
        let mut consumers = vec![to_digest, to_file];
        let uploaded = upload.map(|upload| {
            let (to_store, batches) = sync_channel::<Batch>(WAITING);
            consumers.push(to_store);
            threads.spawn(move || -> Result<(), StoreFault> {
                let mut blocks = batches.iter().flat_map(|batch| batch.to_vec());
                blocks.try_for_each(|block| upload.write(block))
            })
        });
        let streamed = hand_out(&mut next, now, &consumers, received);
        drop(consumers);
        // A disk that is full ends the stream, too: what it says comes first.
        joined(written)??;
        uploaded.map_or(Ok(Ok(())), joined)??;
        let state = streamed.map_err(ReceiveFault::Stream)?;
        let digested = joined(digest)?;
        let (digest, crc) = digested.map_err(|fault| ReceiveFault::Damaged(fault.to_string()))?;
        Ok(Received { digest, crc, state })
    })
}

fn joined<T, E>(thread: ScopedJoinHandle<'_, T>) -> Result<T, ReceiveFault<E>> {
    thread.join().map_err(|_| ReceiveFault::Panicked)
}

fn hand_out<E>(
    next: &mut impl FnMut() -> Result<Vec<Bytes>, E>,
    now: impl Fn() -> Moment,
    consumers: &[SyncSender<Batch>],
    received: &AtomicU64,
) -> Result<Moment, E> {
    let mut state = None;
    loop {
        let batch = Arc::new(next()?);
        let state = *state.get_or_insert_with(&now);
        if batch.is_empty() {
            return Ok(state);
        }
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        received.fetch_add(bytes as u64, Ordering::Relaxed);
        // A consumer that is gone has failed, and says so when it is joined.
        if !consumers.iter().all(|consumer| consumer.send(Arc::clone(&batch)).is_ok()) {
            return Ok(state);
        }
    }
}

/// The next blocks; none at the end.
///
/// # Errors
/// The member's, or of the way to it.
pub async fn next_batch(stream: &mut SnapshotStream) -> Result<Vec<Bytes>, Error> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH {
        let Some(chunk) = stream.next().await? else { break };
        bytes += chunk.blob.len();
        batch.push(chunk.blob);
    }
    Ok(batch)
}
