//! Stores that several use in turns: each operation waits until it is let go, by a seed.
//!
//! [`Turns::store`] gives each actor a store of its own over the same objects. One operation is let
//! go when everybody who has not finished waits for one: so what happens depends on the seed alone,
//! not on the machine. Time goes on only then, too, and the stores' clock is this one.
//!
//! ```
//! use object_store::memory::InMemory;
//! use rekindle_testkit::turns::{Pace, Turns};
//! use std::sync::Arc;
//!
//! let turns = Turns::new(7, 2, Pace::default());
//! let (one, two) = (turns.store(0, Arc::new(InMemory::new())), turns.store(1, Arc::new(InMemory::new())));
//! // … a thread each works with `one` and `two`, and ends with
//! turns.finish(0);
//! turns.finish(1);
//! ```

use crate::fault_store::Op;
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// How time goes on, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// When it begins, since 1970.
    pub begins: i64,
    /// With each operation.
    pub step: i64,
    /// With some operations, at most.
    pub jump_max: i64,
    /// No operation waits longer.
    pub wait_max: i64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { begins: 1_790_000_000_000, step: 1000, jump_max: 0, wait_max: i64::MAX }
    }
}

/// An operation that was done: by whom, what, and the object.
pub type Done = (usize, Op, String);

/// Whose turn it is. Clones are the same.
#[derive(Debug, Clone)]
pub struct Turns {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    chance: u64,
    /// Of so many turns one goes to somebody else.
    change: u64,
    pace: Pace,
    now: i64,
    actors: Vec<Actor>,
    last: usize,
    /// An operation is under way.
    busy: bool,
    created: BTreeMap<Path, i64>,
    log: Vec<Done>,
}

#[derive(Debug, Default)]
struct Actor {
    /// Since when operations wait, and how they are let go.
    waiting: VecDeque<(i64, oneshot::Sender<Turn>)>,
    finished: bool,
}

/// The right to do one operation.
#[derive(Debug)]
struct Turn {
    /// None where nobody waits for it.
    turns: Option<Turns>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.turns.take() {
            turns.state().busy = false;
            turns.go_on();
        }
    }
}

impl Turns {
    /// So many actors, and the order by this seed.
    #[must_use]
    pub fn new(seed: u64, actors: usize, pace: Pace) -> Self {
        let state = State {
            chance: seed,
            change: [1, 2, 8, 32][(seed % 4) as usize],
            pace,
            now: pace.begins,
            actors: (0..actors).map(|_| Actor::default()).collect(),
            last: 0,
            busy: false,
            created: BTreeMap::new(),
            log: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The store of an actor; all those of a set have the same objects.
    #[must_use]
    pub fn store(&self, actor: usize, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(TurnStore { turns: self.clone(), actor, inner })
    }

    /// An actor has done its work: nobody waits for it any more. What threads of its own still ask
    /// for is done at once.
    pub fn finish(&self, actor: usize) {
        let waiting = {
            let mut state = self.state();
            state.actors[actor].finished = true;
            std::mem::take(&mut state.actors[actor].waiting)
        };
        waiting.into_iter().for_each(|(_, waiting)| drop(waiting.send(Turn { turns: None })));
        self.go_on();
    }

    /// The clock, in milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.state().now
    }

    /// Lets time pass.
    pub fn advance(&self, ms: i64) {
        self.state().now += ms;
    }

    /// What was done so far.
    #[must_use]
    pub fn log(&self) -> Vec<Done> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to do an operation.
    async fn turn(&self, actor: usize, op: Op, name: &Path) -> Turn {
        let (waiting, let_go) = oneshot::channel();
        let at_once = {
            let mut state = self.state();
            let now = state.now;
            let actor = &mut state.actors[actor];
            match actor.finished {
                true => Some(waiting),
                false => {
                    actor.waiting.push_back((now, waiting));
                    None
                }
            }
        };
        match at_once {
            Some(waiting) => drop(waiting.send(Turn { turns: None })),
            None => self.go_on(),
        }
        let turn = let_go.await.expect("nobody forgets who waits");
        let mut state = self.state();
        state.log.push((actor, op, name.to_string()));
        if op == Op::Put {
            let now = state.now;
            state.created.insert(name.clone(), now);
        }
        drop(state);
        turn
    }

    /// Lets the next operation go, once everybody waits. One that is not wanted any more gives its
    /// turn back by dropping it.
    fn go_on(&self) {
        let next = self.state().next();
        if let Some(next) = next {
            drop(next.send(Turn { turns: Some(self.clone()) }));
        }
    }

    /// When an object was created by this clock, where it was created here.
    fn created(&self, name: &Path) -> Option<SystemTime> {
        let ms = *self.state().created.get(name)?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs()))
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let is_ready = |actor: &Actor| actor.finished || !actor.waiting.is_empty();
        if self.busy || !self.actors.iter().all(is_ready) {
            return None;
        }
        let waits = |number: &usize| !self.actors[*number].waiting.is_empty();
        let waiting: Vec<_> = (0..self.actors.len()).filter(waits).collect();
        if waiting.is_empty() {
            return None;
        }
        if self.below(self.change) == 0 || !waiting.contains(&self.last) {
            let chosen = self.below(waiting.len() as u64);
            self.last = waiting[usize::try_from(chosen).expect("a place")];
        }
        self.pass_time();
        self.busy = true;
        self.actors[self.last].waiting.pop_front().map(|(_, waiting)| waiting)
    }

    fn pass_time(&mut self) {
        self.now += self.pace.step;
        if self.pace.jump_max == 0 || self.below(8) != 0 {
            return;
        }
        let since = self.actors.iter().flat_map(|actor| &actor.waiting).map(|(since, _)| *since);
        let waited = since.min().map_or(0, |since| self.now - since);
        let room = self.pace.wait_max.saturating_sub(waited).clamp(0, self.pace.jump_max);
        self.now += self.below(room.unsigned_abs() + 1).cast_signed();
    }

    /// A number below that one: splitmix64.
    fn below(&mut self, end: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

#[derive(Debug)]
struct TurnStore {
    turns: Turns,
    actor: usize,
    inner: Arc<dyn ObjectStore>,
}

impl fmt::Display for TurnStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in turns", self.inner)
    }
}

#[async_trait]
impl ObjectStore for TurnStore {
    async fn put_opts(&self, name: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let _turn = self.turns.turn(self.actor, Op::Put, name).await;
        self.inner.put_opts(name, data, opts).await
    }

    async fn put_multipart_opts(
        &self,
        name: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let _turn = self.turns.turn(self.actor, Op::Begin, name).await;
        self.inner.put_multipart_opts(name, opts).await
    }

    async fn get_opts(&self, name: &Path, options: GetOptions) -> Result<GetResult> {
        let _turn = self.turns.turn(self.actor, Op::Read, name).await;
        let mut found = self.inner.get_opts(name, options).await?;
        if let Some(created) = self.turns.created(name) {
            found.meta.last_modified = created.into();
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (turns, actor, inner) = (self.turns.clone(), self.actor, Arc::clone(&self.inner));
        let remove = move |name: Result<Path>| {
            let (turns, inner) = (turns.clone(), Arc::clone(&inner));
            async move {
                let name = name?;
                let _turn = turns.turn(actor, Op::Remove, &name).await;
                let mut removed = inner.delete_stream(stream::iter([Ok(name.clone())]).boxed());
                removed.next().await.unwrap_or(Ok(name))
            }
        };
        names.then(remove).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        let (turns, actor, inner) = (self.turns.clone(), self.actor, Arc::clone(&self.inner));
        let listed = async move {
            let name = prefix.clone().unwrap_or_default();
            let _turn = turns.turn(actor, Op::List, &name).await;
            let listed: Vec<_> = inner.list(prefix.as_ref()).collect().await;
            stream::iter(listed)
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let name = prefix.cloned().unwrap_or_default();
        let _turn = self.turns.turn(self.actor, Op::List, &name).await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _turn = self.turns.turn(self.actor, Op::Copy, to).await;
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    /// Two that put three objects each; the order in which they did.
    fn order(seed: u64) -> Vec<Done> {
        let (turns, objects) = (Turns::new(seed, 2, Pace::default()), Arc::new(InMemory::new()));
        std::thread::scope(|scope| {
            for actor in 0..2 {
                let (turns, store) = (turns.clone(), turns.store(actor, objects.clone()));
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for number in 0..3 {
                        let name = Path::from(format!("{actor}/{number}"));
                        runtime.block_on(store.put(&name, "x".into())).unwrap();
                    }
                    turns.finish(actor);
                });
            }
        });
        turns.log()
    }

    #[test]
    fn the_order_is_the_seeds() {
        let orders: Vec<_> = (0..40).map(order).collect();
        assert!((0..40).all(|seed| order(seed) == orders[seed as usize]));
        let mut distinct = orders.clone();
        distinct.sort_by_key(|done| format!("{done:?}"));
        distinct.dedup();
        // Of twenty that there are.
        assert!(distinct.len() > 10, "{}", distinct.len());
        assert!(orders.iter().all(|done| done.len() == 6));
    }
}
