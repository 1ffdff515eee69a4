//! Where objects are kept. Each is created once; nothing here changes one.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use tokio::runtime::Runtime;

/// Requests that are under way at once.
const PARALLEL: usize = 16;

/// A place for objects, by their names. Its calls wait, and may be made from any thread that is not
/// of an async runtime.
#[derive(Clone)]
pub struct Store {
    objects: Objects,
    runtime: Arc<Runtime>,
}

/// What a request needs. It must not hold the runtime that it runs on, which would end with it.
#[derive(Clone)]
struct Objects {
    store: Arc<dyn ObjectStore>,
    place: Arc<str>,
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

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing} {object}: {cause}")]
pub struct StoreFault {
    /// What was being done.
    pub doing: &'static str,
    /// With which object, with the place.
    pub object: String,
    /// What kind of fault it is.
    pub kind: StoreFaultKind,
    /// What the store says.
    pub cause: String,
}

/// What to make of a store's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFaultKind {
    /// It is not there, definitely.
    NotFound,
    /// Another object has that name.
    Exists,
    /// One may not.
    Denied,
    /// There is no room.
    Full,
    /// It is larger than any object of its kind: it was damaged.
    TooLarge,
    /// Anything else.
    Failed,
}

impl Store {
    /// A directory of this machine, or one that is mounted. Everything is synced before it counts.
    ///
    /// # Errors
    /// [`StoreFaultKind::NotFound`] where it is not there.
    pub fn directory(path: &std::path::Path) -> Result<Self, StoreFault> {
        let place = path.display().to_string();
        let objects = LocalFileSystem::new_with_prefix(path);
        let objects = objects.map_err(|error| fault("opening", place.clone(), &error))?;
        Self::new(Arc::new(objects.with_fsync(true)), place)
    }

    /// In memory, for tests.
    ///
    /// # Errors
    /// The machine gives no threads.
    pub fn memory() -> Result<Self, StoreFault> {
        Self::new(Arc::new(InMemory::new()), "memory".to_owned())
    }

    fn new(objects: Arc<dyn ObjectStore>, place: String) -> Result<Self, StoreFault> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).build().map_err(|error| StoreFault {
            doing: "starting a runtime for",
            object: place.clone(),
            kind: StoreFaultKind::Failed,
            cause: error.to_string(),
        })?;
        let objects = Objects { store: objects, place: place.into() };
        Ok(Self { objects, runtime: Arc::new(runtime) })
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
        match self.runtime.block_on(self.objects.store.delete(&path)) {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            removed => removed.map_err(|error| self.objects.fault("removing", name, &error)),
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
            let read = self.objects.store.get_range(&path, 0..len.min(listed.bytes)).await;
            read.map_err(|error| self.objects.fault("reading", &listed.name, &error))
        };
        self.runtime.block_on(stream::iter(names).map(read).buffered(PARALLEL).collect())
    }

    /// The objects whose names begin with `folder/`, sorted by name.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreFault> {
        let prefix = Path::from(folder);
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

    /// Whether nothing at all is there.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn is_empty(&self) -> Result<bool, StoreFault> {
        let mut listed = self.objects.store.list(None);
        match self.runtime.block_on(listed.next()) {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(error)) => Err(fault("listing", self.place().to_owned(), &error)),
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
        fault(doing, self.full_name(name), error)
    }

    async fn create(&self, name: &str, bytes: Bytes) -> Result<(), StoreFault> {
        let (path, len) = (Path::from(name), bytes.len() as u64);
        let put = self.store.put_opts(&path, bytes.clone().into(), PutMode::Create.into());
        match put.await {
            Ok(_) => Ok(()),
            Err(error @ object_store::Error::AlreadyExists { .. }) => {
                match self.get(name, len).await {
                    Ok(there) if there == bytes => Ok(()),
                    _ => Err(self.fault("creating", name, &error)),
                }
            }
            Err(error) => Err(self.fault("creating", name, &error)),
        }
    }

    async fn get(&self, name: &str, bytes_max: u64) -> Result<Bytes, StoreFault> {
        let failed = |error| self.fault("reading", name, &error);
        let found = self.store.get(&Path::from(name)).await.map_err(failed)?;
        let size = found.meta.size;
        if size > bytes_max {
            return Err(StoreFault {
                doing: "reading",
                object: self.full_name(name),
                kind: StoreFaultKind::TooLarge,
                cause: format!("it has {size} bytes, where {bytes_max} are the most"),
            });
        }
        found.bytes().await.map_err(failed)
    }
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

fn fault(doing: &'static str, object: String, error: &object_store::Error) -> StoreFault {
    use object_store::Error as E;
    // The innermost cause: what is around it repeats the name.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let kind = match (error, cause.downcast_ref().map(io::Error::kind)) {
        (E::NotFound { .. }, _) | (_, Some(io::ErrorKind::NotFound)) => StoreFaultKind::NotFound,
        (E::AlreadyExists { .. }, _) => StoreFaultKind::Exists,
        (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _)
        | (_, Some(io::ErrorKind::PermissionDenied)) => StoreFaultKind::Denied,
        (_, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) => {
            StoreFaultKind::Full
        }
        _ => StoreFaultKind::Failed,
    };
    StoreFault { doing, object, kind, cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(store: &Store) {
        assert_eq!(store.is_empty(), Ok(true));
        let names = ["a/2", "a/10", "b/1", "aa/1"];
        names.iter().for_each(|name| store.create(name, name.as_bytes().to_vec()).unwrap());
        assert_eq!(store.is_empty(), Ok(false));
        assert_eq!(store.read("a/10", 4).unwrap(), "a/10");

        let listed = store.list("a").unwrap();
        let listed: Vec<_> = listed.into_iter().map(|found| (found.name, found.bytes)).collect();
        assert_eq!(listed, [("a/10".to_owned(), 4), ("a/2".to_owned(), 3)]);

        store.create("a/2", b"a/2".to_vec()).expect("the same again: an answer was lost");
        let exists = store.create("a/2", b"other".to_vec()).unwrap_err();
        assert_eq!(exists.kind, StoreFaultKind::Exists);
        assert_eq!(store.read("a/2", 100).unwrap(), "a/2", "never changed");

        let missing = store.read("a/3", 100).unwrap_err();
        assert_eq!(missing.kind, StoreFaultKind::NotFound);
        assert!(missing.object.ends_with("/a/3"), "{missing}");

        let large = store.read("a/10", 3).unwrap_err();
        assert_eq!(large.kind, StoreFaultKind::TooLarge, "{large}");
        store.remove("aa/1").unwrap();
        store.remove("aa/1").expect("it is gone");
        assert!(store.list("aa").unwrap().is_empty());

        let starts = store.read_starts(store.list("a").unwrap(), 2);
        assert!(starts.iter().all(|start| start.as_ref().unwrap() == "a/"));
        store.create("empty/1", Vec::new()).unwrap();
        let empty = store.read_starts(store.list("empty").unwrap(), 2);
        assert!(empty[0].as_ref().unwrap().is_empty());
        let long = store.read_starts(store.list("b").unwrap(), 100);
        assert_eq!(long[0].as_ref().unwrap(), "b/1");
    }

    #[test]
    fn in_memory() {
        check(&Store::memory().unwrap());
    }

    #[test]
    fn in_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        check(&Store::directory(directory.path()).unwrap());
        let missing = Store::directory(&directory.path().join("not there")).unwrap_err();
        assert_eq!(missing.kind, StoreFaultKind::NotFound, "{missing}");
    }
}
