//! A snapshot stream into a file and perhaps a store, digested on the way.
//!
//! Receiving, digesting, writing and uploading run beside each other: blocks go to all of them without being
//! copied, many at once so that threads seldom wake each other, and a few such batches may wait.

use crate::archive::now;
use crate::failure::{Code, Failure};
use crate::terminal::Calls;
use bytes::Bytes;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{StoreFault, Upload};
use rekindle_client::{Error, SnapshotStream};
use rekindle_datadir::NewSnapshot;
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
pub(super) struct Received {
    pub digest: Sha256Digest,
    /// When its first bytes had come: what it holds is of then or before.
    pub state: Moment,
}

/// Where a snapshot goes while it comes.
pub(super) struct Sinks<'a, 'd> {
    pub snapshot: &'a mut NewSnapshot<'d>,
    pub upload: Option<&'a mut Upload>,
}

/// Receives a whole snapshot, and proves that it is whole. The outer failure is the member's or of
/// the way to it, the inner one the store's.
pub(super) fn receive(
    calls: &Calls,
    stream: &mut SnapshotStream,
    sinks: Sinks<'_, '_>,
    received: &AtomicU64,
) -> Result<Result<Received, Failure>, Failure> {
    let Sinks { snapshot, upload } = sinks;
    std::thread::scope(|threads| {
        let (to_digest, batches) = sync_channel::<Batch>(WAITING);
        let digest = threads.spawn(move || {
            let mut digest = SnapshotDigest::new();
            batches.iter().for_each(|batch| batch.iter().for_each(|block| digest.update(block)));
            digest.finish()
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
        let streamed = hand_out(calls, stream, &consumers, received);
        drop(consumers);
        // A disk that is full ends the stream, too: what it says comes first.
        joined(written)?.map_err(Failure::from)?;
        if let Err(fault) = uploaded.map_or(Ok(Ok(())), joined)? {
            return Ok(Err(fault.into()));
        }
        let state = streamed?;
        let digest = joined(digest)?.map_err(|fault| {
            let what = format!("the snapshot came damaged or not whole: {fault}");
            Failure::new(Code::Transient, what)
        })?;
        Ok(Ok(Received { digest, state }))
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::new(Code::Failed, "a thread of the save has panicked"))
}

fn hand_out(
    calls: &Calls,
    stream: &mut SnapshotStream,
    consumers: &[SyncSender<Batch>],
    received: &AtomicU64,
) -> Result<Moment, Failure> {
    let mut state = None;
    loop {
        let batch = Arc::new(calls.wait(next_batch(stream))?);
        let state = *state.get_or_insert_with(now);
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
async fn next_batch(stream: &mut SnapshotStream) -> Result<Vec<Bytes>, Error> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH {
        let Some(chunk) = stream.next().await? else { break };
        bytes += chunk.blob.len();
        batch.push(chunk.blob);
    }
    Ok(batch)
}
