//! Reading in the background: to copy out of the page cache takes as long as a digest over it.

use crate::source::FileSource;
use rekindle_bolt::{Piece, ReadAt};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Batches that may wait or be ready; the oldest goes when there are more.
const BATCHES_MAX: usize = 4;
/// Largest batch that is read ahead, in bytes: larger ones gain little. Memory is what the batches
/// of a scan take, some 128 KiB each.
const LEN_MAX: usize = 1 << 20;
/// Turns to wait for a batch without giving up the core: some 20 µs. To be woken takes longer.
const SPINS: usize = 2000;

/// A thread that reads parts of one file before they are wanted.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Reads nothing ahead itself.
    source: FileSource,
    queue: Mutex<Queue>,
    /// Something was asked for, or the end has come.
    asked: Condvar,
    /// A batch was read.
    read: Condvar,
    /// Batches that were read.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// Buffers that nobody uses.
    spare: Vec<Vec<u8>>,
    /// The number of the next batch.
    number: usize,
    /// Somebody waits for [`Shared::read`].
    waits: bool,
    ended: bool,
}

#[derive(Debug)]
struct Batch {
    number: usize,
    pieces: Vec<Piece>,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Reading,
    Ready(Vec<u8>),
}

impl ReadAhead {
    /// # Errors
    /// The machine gives no thread.
    pub(crate) fn start(source: FileSource) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            source,
            queue: Mutex::default(),
            asked: Condvar::new(),
            read: Condvar::new(),
            count: AtomicUsize::new(0),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn(move || theirs.work())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for a batch.
    pub(crate) fn ask(&self, pieces: &[Piece]) {
        if Piece::sum(pieces) > LEN_MAX {
            return;
        }
        let mut queue = self.shared.lock();
        let number = queue.number;
        queue.number += 1;
        queue.batches.push_back(Batch { number, pieces: pieces.to_vec(), state: State::Waiting });
        if queue.batches.len() > BATCHES_MAX {
            queue.drop_first();
        }
        self.shared.asked.notify_one();
    }

    /// Takes a batch, where it was asked for and could be read. What was asked for before it is not
    /// wanted any more.
    pub(crate) fn take(&self, buf: &mut Vec<u8>, pieces: &[Piece]) -> bool {
        let mut queue = self.shared.lock();
        let Some(place) = queue.batches.iter().position(|batch| batch.pieces == pieces) else {
            return false;
        };
        (0..place).for_each(|_| queue.drop_first());
        while let Some(mut batch) = queue.batches.pop_front_if(|first| first.pieces == pieces) {
            match batch.state {
                State::Ready(bytes) => {
                    let given = std::mem::replace(buf, bytes);
                    queue.keep(given);
                    return true;
                }
                State::Waiting => return false,
                State::Reading => {
                    batch.state = State::Reading;
                    queue.batches.push_front(batch);
                    queue = self.shared.wait(queue);
                }
            }
        }
        // It could not be read.
        false
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.asked.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Every state of the queue is whole, so that a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.lock();
        while !queue.ended {
            let waiting = |batch: &&mut Batch| matches!(batch.state, State::Waiting);
            let Some(next) = queue.batches.iter_mut().find(waiting) else {
                queue = self.asked.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            next.state = State::Reading;
            let (number, pieces) = (next.number, next.pieces.clone());
            let mut bytes = queue.spare.pop().unwrap_or_default();
            drop(queue);

            let read = self.source.read_pieces(&mut bytes, &pieces);

            queue = self.lock();
            queue.finish(number, read.is_ok(), bytes);
            self.count.fetch_add(1, Ordering::Release);
            if std::mem::take(&mut queue.waits) {
                self.read.notify_all();
            }
        }
    }

    /// Waits until one more batch was read.
    fn wait<'q>(&'q self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let count = self.count.load(Ordering::Acquire);
        drop(queue);
        for _ in 0..SPINS {
            if self.count.load(Ordering::Acquire) != count {
                return self.lock();
            }
            std::hint::spin_loop();
        }
        let mut queue = self.lock();
        while self.count.load(Ordering::Acquire) == count {
            queue.waits = true;
            queue = self.read.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue
    }
}

impl Queue {
    /// Keeps a buffer for the next batch, but none that one huge page has stretched.
    fn keep(&mut self, bytes: Vec<u8>) {
        if bytes.capacity() <= 2 * LEN_MAX && self.spare.len() < BATCHES_MAX {
            self.spare.push(bytes);
        }
    }

    fn drop_first(&mut self) {
        if let Some(Batch { state: State::Ready(bytes), .. }) = self.batches.pop_front() {
            self.keep(bytes);
        }
    }

    /// What was read goes to its batch, where that is still wanted. One that failed goes away: it
    /// fails again, with its error, where it is read.
    fn finish(&mut self, number: usize, read: bool, bytes: Vec<u8>) {
        match self.batches.iter().position(|batch| batch.number == number) {
            Some(place) if read => self.batches[place].state = State::Ready(bytes),
            Some(place) => {
                self.batches.remove(place);
                self.keep(bytes);
            }
            None => self.keep(bytes),
        }
    }
}
