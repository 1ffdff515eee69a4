//! Where objects are kept. Those of an archive are created once; nothing here changes one.
//!
//! What may never happen here: a secret in a message; an object that is seen before it is whole.

mod fault;
mod folders;
mod http;
mod lock;
mod open;
mod pace;
mod place;
mod probe;
mod reader;
mod root;
mod staged;
mod upload;

pub use fault::{StoreFault, StoreFaultKind};
pub use lock::{Retention, RetentionMode};
pub use open::StoreOptions;
pub use place::{Place, Provider};
pub use probe::{Finding, Probe, Wanted};
pub use reader::Reader;
pub use upload::Upload;

use crate::format::header::Moment;
use bytes::Bytes;
use fault::fault;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::runtime::Runtime;

/// Requests that are under way at once.
const PARALLEL: usize = 16;
/// Threads that requests run on beside those that wait for them.
const WORKERS: usize = 2;
/// Files are read and written at a time. With as many threads as there are requests the allocator keeps
/// what each of them once had.
const BLOCKING: usize = 4;

/// A place for objects, by their names. Its calls wait, and may be made from any thread that is not
/// of an async runtime.
#[derive(Clone)]
pub struct Store {
    objects: Objects,
    runtime: Arc<Runtime>,
}

/// The runtime of all stores that there are: threads are begun once, however many there are, and end with
/// the last.
fn shared_runtime() -> io::Result<Arc<Runtime>> {
    static SHARED: Mutex<Weak<Runtime>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = shared.upgrade() {
        return Ok(runtime);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).max_blocking_threads(BLOCKING).enable_all();
    let runtime = Arc::new(builder.build()?);
    *shared = Arc::downgrade(&runtime);
    Ok(runtime)
}

/// What a request needs. It must not hold the runtime that it runs on, which would end with it.
#[derive(Clone)]
struct Objects {
    store: Arc<dyn ObjectStore>,
    place: Arc<str>,
    /// What no message may show.
    secrets: Arc<[String]>,
    /// Where what is created is locked.
    lock: Option<lock::Lock>,
    /// The directory that it is.
    root: Option<root::Root>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.place()).finish()
    }
}

/// An object that was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
}

impl Store {
    /// A directory of this machine, or one that is mounted. Everything is synced before it counts.
    ///
    /// # Errors
    /// [`StoreFaultKind::NotFound`] where it is not there.
    pub fn directory(path: &std::path::Path) -> Result<Self, StoreFault> {
        let place = path.display().to_string();
        if path.metadata().is_ok_and(|found| !found.is_dir()) {
            let (kind, cause) = (StoreFaultKind::Place, "it is a file, not a directory".to_owned());
            return Err(StoreFault { doing: "opening", object: place, kind, cause });
        }
        let objects = LocalFileSystem::new_with_prefix(path);
        let objects = objects.map_err(|error| fault("opening", place.clone(), &error))?;
        let mut store = Self::new(Arc::new(objects.with_fsync(true)), place, Vec::new(), None)?;
        store.objects.root = Some(root::Root::new(path));
        Ok(store)
    }

    /// In memory, for tests.
    ///
    /// # Errors
    /// The machine gives no threads.
    pub fn memory() -> Result<Self, StoreFault> {
        Self::from_objects(Arc::new(InMemory::new()), "memory")
    }

    /// Any store of `object_store`, such as one that fails on purpose. It is shown as `place`.
    ///
    /// # Errors
    /// The machine gives no threads.
    pub fn from_objects(objects: Arc<dyn ObjectStore>, place: &str) -> Result<Self, StoreFault> {
        Self::new(objects, place.to_owned(), Vec::new(), None)
    }

    fn new(
        objects: Arc<dyn ObjectStore>,
        place: String,
        secrets: Vec<String>,
        lock: Option<lock::Lock>,
    ) -> Result<Self, StoreFault> {
        let runtime = shared_runtime().map_err(|error| StoreFault {
            doing: "starting a runtime for",
            object: place.clone(),
            kind: StoreFaultKind::Failed,
            cause: error.to_string(),
        })?;
        let (store, place, secrets) = (objects, place.into(), secrets.into());
        let objects = Objects { store, place, secrets, lock, root: None };
        Ok(Self { objects, runtime })
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.objects.place
    }

    /// An object's name with the place.
    #[must_use]
    pub fn full_name(&self, name: &str) -> String {
        self.objects.full_name(name)
    }

    /// Creates an object. Where the same one is there already, an answer was lost, and all is well.
    ///
    /// # Errors
    /// [`StoreFaultKind::Exists`] where another one is there.
    pub fn create(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreFault> {
        self.create_later(name, bytes).wait()
    }

    /// Begins to create an object.
    #[must_use]
    pub fn create_later(&self, name: &str, bytes: Vec<u8>) -> Pending<()> {
        let (objects, name) = (self.objects.clone(), name.to_owned());
        let object = self.full_name(&name);
        self.later(object, async move { objects.create(&name, bytes.into()).await })
    }

    /// A whole object of at most so many bytes.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn read(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreFault> {
        self.read_later(name, bytes_max).wait()
    }

    /// Begins to read a whole object of at most so many bytes.
    #[must_use]
    pub fn read_later(&self, name: &str, bytes_max: u64) -> Pending<Bytes> {
        let (objects, name) = (self.objects.clone(), name.to_owned());
        let object = self.full_name(&name);
        self.later(object, async move { objects.get(&name, bytes_max).await })
    }

    /// Removes an object; one that is not there is removed already.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn remove(&self, name: &str) -> Result<(), StoreFault> {
        let path = Path::from(name);
        let removed = self.runtime.block_on(self.objects.store.delete(&path));
        match removed.map_err(|error| self.objects.fault("removing", name, &error)) {
            Err(fault) if fault.kind == StoreFaultKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The first bytes of many objects, at most `len` of each, in their order.
    #[must_use]
    pub fn read_starts(&self, names: Vec<Listed>, len: u64) -> Vec<Result<Bytes, StoreFault>> {
        let read = |listed: Listed| async move {
            if listed.bytes == 0 {
                // No range of it can be asked for.
                return Ok(Bytes::new());
            }
            let path = Path::from(listed.name.as_str());
            let len = len.min(listed.bytes);
            let read = self.objects.store.get_range(&path, 0..len).await;
            let read = read.map_err(|error| self.objects.fault("reading", &listed.name, &error))?;
            self.objects.whole(&listed.name, read, len)
        };
        self.runtime.block_on(stream::iter(names).map(read).buffered(PARALLEL).collect())
    }

    /// The objects whose names begin with `folder/`, sorted by name.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreFault> {
        let prefix = Path::from(folder);
        self.objects.check_root("listing", folder)?;
        let listed = self
            .objects
            .store
            .list(Some(&prefix))
            .map_ok(|found| Listed { name: found.location.to_string(), bytes: found.size });
        let listed: Result<Vec<_>, _> = self.runtime.block_on(listed.try_collect());
        let mut listed = listed.map_err(|error| self.objects.fault("listing", folder, &error))?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// When an object was created, by the store's own clock.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn modified(&self, name: &str) -> Result<Moment, StoreFault> {
        let path = Path::from(name);
        let head = self.runtime.block_on(self.objects.store.head(&path));
        let head = head.map_err(|error| self.objects.fault("looking at", name, &error))?;
        Ok(Moment(head.last_modified.timestamp_millis()))
    }

    /// Whether nothing at all is there.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn is_empty(&self) -> Result<bool, StoreFault> {
        self.has_only(|_| false)
    }

    /// Whether nothing is there but objects of such names.
    pub(crate) fn has_only(&self, such: impl Fn(&str) -> bool) -> Result<bool, StoreFault> {
        self.objects.check_root("listing", "")?;
        let other = |found: &object_store::Result<ObjectMeta>| {
            std::future::ready(!found.as_ref().is_ok_and(|it| such(it.location.as_ref())))
        };
        let mut others = self.objects.store.list(None).filter(other);
        match self.runtime.block_on(others.next()) {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(error)) => Err(self.objects.fault("listing", "", &error)),
        }
    }

    fn later<T: Send + 'static>(
        &self,
        object: String,
        work: impl Future<Output = Result<T, StoreFault>> + Send + 'static,
    ) -> Pending<T> {
        let (send, answer) = sync_channel(1);
        self.runtime.spawn(async move {
            // Nobody may want it any more.
            let _ = send.send(work.await);
        });
        Pending { answer, object }
    }
}

impl Objects {
    fn full_name(&self, name: &str) -> String {
        format!("{}/{name}", self.place.trim_end_matches('/'))
    }

    fn fault(&self, doing: &'static str, name: &str, error: &object_store::Error) -> StoreFault {
        let fault = fault(doing, self.full_name(name), error);
        StoreFault { cause: without(&self.secrets, &fault.cause), ..fault }
    }

    async fn create(&self, name: &str, bytes: Bytes) -> Result<(), StoreFault> {
        let (path, len) = (Path::from(name), bytes.len() as u64);
        self.check_root("creating", name)?;
        let put = self.store.put_opts(&path, bytes.clone().into(), PutMode::Create.into());
        match put.await.map_err(|error| self.fault("creating", name, &error)) {
            Err(fault) if fault.kind == StoreFaultKind::Exists => match self.get(name, len).await {
                Ok(there) if there == bytes => Ok(()),
                Ok(_) => Err(fault),
                Err(unread) if unread.kind == StoreFaultKind::TooLarge => Err(fault),
                // It may be this very object: a lost answer, and a second try of the client's.
                Err(unread) => {
                    let cause = format!("something is there, and not to be read: {}", unread.cause);
                    Err(StoreFault { kind: StoreFaultKind::Failed, cause, ..fault })
                }
            },
            put => put.map(drop),
        }
    }

    async fn get(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreFault> {
        let failed = |error| self.fault("reading", name, &error);
        let found = self.store.get(&Path::from(name)).await.map_err(failed)?;
        let (size, range) = (found.meta.size, found.range.clone());
        if size > bytes_max {
            return Err(StoreFault {
                doing: "reading",
                object: self.full_name(name),
                kind: StoreFaultKind::TooLarge,
                cause: format!("it has {size} bytes, where {bytes_max} are the most"),
            });
        }
        let bytes = match found.payload {
            // The store's own way writes zeros first.
            GetResultPayload::File(file, _) if range == (0..size) => {
                read_file(file, size).await.map_err(failed)?
            }
            payload => GetResult { payload, ..found }.bytes().await.map_err(failed)?,
        };
        self.whole(name, bytes, size)
    }

    /// What a store hands over without an error is not always all of it.
    fn whole(&self, name: &str, bytes: Bytes, want: u64) -> Result<Bytes, StoreFault> {
        let got = bytes.len() as u64;
        if got == want {
            return Ok(bytes);
        }
        Err(StoreFault {
            doing: "reading",
            object: self.full_name(name),
            kind: StoreFaultKind::Failed,
            cause: format!("{got} bytes came instead of {want}"),
        })
    }
}

/// All of a file that should have so many bytes.
async fn read_file(mut file: File, size: u64) -> object_store::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        file.by_ref().take(size).read_to_end(&mut bytes).map(|_| bytes.into())
    });
    let read = read.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    read.map_err(|error| object_store::Error::Generic {
        store: "LocalFileSystem",
        source: Box::new(error),
    })
}

/// An answer that is to come.
#[derive(Debug)]
pub struct Pending<T> {
    answer: Receiver<Result<T, StoreFault>>,
    object: String,
}

impl<T> Pending<T> {
    /// Waits for it.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn wait(self) -> Result<T, StoreFault> {
        self.answer.recv().unwrap_or_else(|_| {
            Err(StoreFault {
                doing: "waiting for",
                object: self.object,
                kind: StoreFaultKind::Failed,
                cause: "the request was dropped: this is a fault of rekindle".to_owned(),
            })
        })
    }
}

/// A text without these secrets.
fn without(secrets: &[String], text: &str) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_testkit::fault_store::{Fault, FaultStore, When};

    pub(super) fn faulty() -> (Arc<FaultStore>, Store) {
        let objects = FaultStore::new(Arc::new(InMemory::new()));
        let store = Store::from_objects(objects.clone(), "faulty").unwrap();
        (objects, store)
    }

    #[test]
    fn what_is_cut_short_is_no_object() {
        let (objects, store) = faulty();
        store.create("a/1", b"object".to_vec()).unwrap();
        objects.fail(Fault::Truncated, When::From(2));
        let cut = store.read("a/1", 100).unwrap_err();
        assert_eq!(cut.to_string(), "reading faulty/a/1: 3 bytes came instead of 6");
        let starts = store.read_starts(vec![Listed { name: "a/1".to_owned(), bytes: 6 }], 4);
        let cut = starts.into_iter().next().unwrap().unwrap_err();
        assert_eq!(cut.to_string(), "reading faulty/a/1: 2 bytes came instead of 4");
    }

    #[test]
    fn faults_are_told_apart() {
        let check = |fault: Fault, want: StoreFaultKind| {
            let (objects, store) = faulty();
            objects.fail(fault, When::From(1));
            assert_eq!(store.read("a", 100).unwrap_err().kind, want, "{fault:?}");
        };
        check(Fault::Denied, StoreFaultKind::Denied);
        check(Fault::NotFound, StoreFaultKind::NotFound);
        check(Fault::Unauthenticated, StoreFaultKind::Credentials);
        check(Fault::Throttled, StoreFaultKind::Throttled);
        check(Fault::Timeout, StoreFaultKind::Unavailable);
        check(Fault::Error, StoreFaultKind::Failed);
    }

    #[test]
    fn an_answer_that_was_lost_is_no_other_object() {
        let (objects, store) = faulty();
        objects.fail(Fault::LostAnswer, When::Once(1));
        store.create("a", b"object".to_vec()).unwrap_err();
        store.create("a", b"object".to_vec()).expect("it is the same");
        objects.fail(Fault::Exists, When::Once(4));
        let unknown = store.create("b", b"object".to_vec()).unwrap_err();
        assert!(unknown.may_be_done(), "what is there was not seen: {unknown:?}");
        let exists = store.create("a", b"another".to_vec()).unwrap_err();
        assert!(exists.kind == StoreFaultKind::Exists && !exists.may_be_done());
    }

    /// Once it was taken for another object, and a base that was there lost its packs.
    #[test]
    fn what_is_there_and_cannot_be_read_may_be_ours() {
        let (objects, store) = faulty();
        objects.fail(Fault::Retried, When::Once(1));
        store.create("a", b"object".to_vec()).expect("it is the same");
        objects.fail(Fault::Retried, When::From(3));
        let unknown = store.create("b", b"object".to_vec()).unwrap_err();
        assert!(unknown.may_be_done(), "{unknown:?}");
    }
}
