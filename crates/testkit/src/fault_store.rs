//! A store that fails where a test wants it to.
//!
//! [`FaultStore`] wraps any store of `object_store`, counts what is asked of it, and lets one
//! operation fail, or all from one on. Faults are answered at once: a timeout takes no time.
//!
//! ```
//! use object_store::memory::InMemory;
//! use rekindle_testkit::fault_store::{Fault, FaultStore, When};
//! use std::sync::Arc;
//!
//! let store = FaultStore::new(Arc::new(InMemory::new()));
//! store.fail(Fault::LostAnswer, When::Once(2));
//! // … give `store` (an `Arc`) to what is tested, look at `store.operations()`, then
//! store.heal();
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// An object in one piece.
    Put,
    /// An upload in parts begins.
    Begin,
    /// A part of it.
    Part,
    /// It becomes an object.
    Complete,
    /// It is given up.
    Abort,
    /// A whole object, a range of it, or what is known of it.
    Read,
    /// Names.
    List,
    /// One object goes.
    Remove,
    /// A copy within the store.
    Copy,
}

/// How an operation fails. Where a fault makes no sense for an operation, it is an [`Fault::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing was done.
    Error,
    /// No answer came, and nothing was done.
    Timeout,
    /// It was done, and then no answer came.
    LostAnswer,
    /// The store wants to be asked less often; nothing was done.
    Throttled,
    /// One may not; nothing was done.
    Denied,
    /// The credentials are no good any more; nothing was done.
    Unauthenticated,
    /// Of what is put: something of that name is there already, although nothing is.
    Exists,
    /// Of what is put: it was done and no answer came; a second try of the client's own finds it.
    Retried,
    /// Of what is read: it is not there, although it is.
    NotFound,
    /// Of what is read: half of it comes, and no error.
    Truncated,
}

/// Which operations fail; they are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// That one.
    Once(u64),
    /// That one and all behind it.
    From(u64),
}

impl When {
    fn hits(self, number: u64) -> bool {
        match self {
            Self::Once(at) => number == at,
            Self::From(at) => number >= at,
        }
    }
}

/// The wrapper. It is given away as an `Arc<dyn ObjectStore>`, and steered by its clones.
#[derive(Debug, Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    log: Vec<(Op, String)>,
    plan: Option<(Fault, When)>,
    /// Listings leave out what was put within that many operations.
    lag: u64,
    put_at: BTreeMap<Path, u64>,
}

impl FaultStore {
    /// One that does what `inner` does, until it is told to fail.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, script: Arc::default() })
    }

    /// One of its own, in memory.
    pub fn in_memory() -> Arc<Self> {
        Self::new(Arc::new(object_store::memory::InMemory::new()))
    }

    /// Lets operations fail, in place of what was planned before.
    pub fn fail(&self, fault: Fault, when: When) {
        self.script().plan = Some((fault, when));
    }

    /// Lets everything succeed again. The count goes on.
    pub fn heal(&self) {
        self.script().plan = None;
    }

    /// Lets listings leave out what was put in the last `operations` operations.
    pub fn lag_listings(&self, operations: u64) {
        self.script().lag = operations;
    }

    /// How many operations were asked for, those that failed included.
    pub fn operations(&self) -> u64 {
        self.script().log.len() as u64
    }

    /// Each operation and its object, in order.
    pub fn log(&self) -> Vec<(Op, String)> {
        self.script().log.clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, and says how it is to fail.
    fn begin(&self, op: Op, name: &Path) -> Option<Fault> {
        let mut script = self.script();
        script.log.push((op, name.to_string()));
        let number = script.log.len() as u64;
        if matches!(op, Op::Put | Op::Complete) {
            script.put_at.insert(name.clone(), number);
        }
        script.plan.filter(|(_, when)| when.hits(number)).map(|(fault, _)| fault)
    }

    /// Does something that changes the store, or fails as planned.
    async fn change<T>(
        &self,
        op: Op,
        name: &Path,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match self.begin(op, name) {
            None => work.await,
            Some(fault @ (Fault::LostAnswer | Fault::Retried)) => {
                work.await?;
                Err(fault.error(op, name))
            }
            Some(fault) => Err(fault.error(op, name)),
        }
    }
}

impl Fault {
    /// Whether it is another one than an [`Fault::Error`] in such an operation.
    #[must_use]
    pub fn fits(self, op: Op) -> bool {
        match self {
            Self::Exists | Self::Retried => op == Op::Put,
            Self::NotFound | Self::Truncated => op == Op::Read,
            Self::LostAnswer => !matches!(op, Op::Read | Op::List),
            _ => true,
        }
    }

    fn error(self, op: Op, name: &Path) -> Error {
        let source = |kind: io::ErrorKind| {
            let text = format!("injected: {self:?} in {op:?} of {name}");
            Box::new(io::Error::new(kind, text))
        };
        let path = name.to_string();
        match self {
            Self::Denied => {
                Error::PermissionDenied { path, source: source(io::ErrorKind::PermissionDenied) }
            }
            Self::Unauthenticated => {
                Error::Unauthenticated { path, source: source(io::ErrorKind::PermissionDenied) }
            }
            Self::Exists | Self::Retried if op == Op::Put => {
                Error::AlreadyExists { path, source: source(io::ErrorKind::AlreadyExists) }
            }
            Self::NotFound if op == Op::Read => {
                Error::NotFound { path, source: source(io::ErrorKind::NotFound) }
            }
            Self::Timeout | Self::LostAnswer | Self::Retried => {
                Error::Generic { store: "fault", source: source(io::ErrorKind::TimedOut) }
            }
            Self::Throttled => {
                Error::Generic { store: "fault", source: source(io::ErrorKind::ResourceBusy) }
            }
            _ => Error::Generic { store: "fault", source: source(io::ErrorKind::Other) },
        }
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, name: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.change(Op::Put, name, self.inner.put_opts(name, data, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        name: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.inner.put_multipart_opts(name, opts);
        let inner = self.change(Op::Begin, name, begun).await?;
        Ok(Box::new(FaultyUpload { inner, store: self.clone(), name: name.clone() }))
    }

    async fn get_opts(&self, name: &Path, options: GetOptions) -> Result<GetResult> {
        match self.begin(Op::Read, name) {
            None => self.inner.get_opts(name, options).await,
            Some(Fault::Truncated) => cut(self.inner.get_opts(name, options).await?).await,
            Some(fault) => Err(fault.error(Op::Read, name)),
        }
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let remove = move |name: Result<Path>| {
            let store = store.clone();
            async move {
                let name = name?;
                let one = stream::iter([Ok(name.clone())]).boxed();
                let mut removed = store.inner.delete_stream(one);
                let work = async { removed.next().await.unwrap_or(Ok(name.clone())) };
                store.change(Op::Remove, &name, work).await
            }
        };
        names.then(remove).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let name = prefix.cloned().unwrap_or_default();
        if let Some(fault) = self.begin(Op::List, &name) {
            return stream::iter([Err(fault.error(Op::List, &name))]).boxed();
        }
        let script = self.script();
        let (lag, now) = (script.lag, script.log.len() as u64);
        let put_at = script.put_at.clone();
        drop(script);
        let is_seen = move |found: &ObjectMeta| {
            put_at.get(&found.location).is_none_or(|at| at.saturating_add(lag) < now)
        };
        let listed = self.inner.list(prefix);
        listed
            .filter(move |found| {
                let seen = found.as_ref().map_or(true, &is_seen);
                async move { seen }
            })
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let name = prefix.cloned().unwrap_or_default();
        self.change(Op::List, &name, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.change(Op::Copy, to, self.inner.copy_opts(from, to, options)).await
    }
}

/// Half of what was read.
async fn cut(found: GetResult) -> Result<GetResult> {
    let (meta, range) = (found.meta.clone(), found.range.clone());
    let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
    let mut bytes = found.bytes().await?;
    bytes.truncate(bytes.len() / 2);
    let payload = GetResultPayload::Stream(stream::iter([Ok::<Bytes, Error>(bytes)]).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    store: FaultStore,
    name: Path,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, name) = (self.store.clone(), self.name.clone());
        let part = self.inner.put_part(data);
        Box::pin(async move { store.change(Op::Part, &name, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let work = self.inner.complete();
        self.store.change(Op::Complete, &self.name, work).await
    }

    async fn abort(&mut self) -> Result<()> {
        let work = self.inner.abort();
        self.store.change(Op::Abort, &self.name, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn the_nth_operation_fails_once_or_from_then_on() {
        run(async {
            let store = FaultStore::new(Arc::new(InMemory::new()));
            let put = |name: &'static str| store.put_opts_of(name);
            store.fail(Fault::Error, When::Once(2));
            put("a").await.unwrap();
            put("b").await.unwrap_err();
            put("c").await.unwrap();
            store.fail(Fault::LostAnswer, When::From(4));
            put("d").await.unwrap_err();
            store.get(&Path::from("a")).await.unwrap_err();
            store.heal();
            store.get(&Path::from("b")).await.unwrap_err();
            store.get(&Path::from("d")).await.expect("it was done, only its answer was lost");
            assert_eq!(store.operations(), 7);
            assert_eq!(store.log()[3], (Op::Put, "d".to_owned()));
        });
    }

    #[test]
    fn reads_are_cut_and_listings_lag() {
        run(async {
            let store = FaultStore::new(Arc::new(InMemory::new()));
            store.put_opts_of("a").await.unwrap();
            store.fail(Fault::Truncated, When::Once(2));
            let cut = store.get(&Path::from("a")).await.unwrap();
            assert_eq!(cut.meta.size, 4);
            assert_eq!(cut.bytes().await.unwrap(), "by");
            store.put_opts_of("b").await.unwrap();
            store.lag_listings(2);
            let listed = async || store.list(None).count().await;
            assert_eq!(listed().await, 1);
            assert_eq!(listed().await, 1);
            assert_eq!(listed().await, 2);
        });
    }

    #[test]
    fn uploads_fail_in_every_step() {
        run(async {
            let store = FaultStore::new(Arc::new(InMemory::new()));
            store.fail(Fault::Error, When::Once(2));
            let name = Path::from("a");
            let mut upload = store.put_multipart(&name).await.unwrap();
            upload.put_part("part".into()).await.unwrap_err();
            upload.abort().await.unwrap();
            let ops: Vec<_> = store.log().into_iter().map(|(op, _)| op).collect();
            assert_eq!(ops, [Op::Begin, Op::Part, Op::Abort]);
            store.get(&name).await.unwrap_err();
        });
    }

    impl FaultStore {
        async fn put_opts_of(&self, name: &str) -> Result<PutResult> {
            self.put(&Path::from(name), "byte".into()).await
        }
    }
}
