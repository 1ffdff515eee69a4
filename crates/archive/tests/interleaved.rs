//! Several at once on one archive, in every order: a seed says whose operation is next.
//!
//! `REKINDLE_SEEDS` says how many orders each test tries; there are few without it.

mod keyspaces;

use keyspaces::{
    Keyspace, Pairs, a_spool, all_of, forget, forget_in, prepare, read_back, seeds, verdict,
};
use object_store::memory::InMemory;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{
    Archive, BaseWritten, Error, GRACE, Level, Policy, PruneRequest, Pruned, Store, Transfer,
    Transferred, VerifyProgress, VerifyRequest, Word, plan_prune,
};
use rekindle_etcd::KeyValue;
use rekindle_testkit::fault_store::Op;
use rekindle_testkit::turns::{Pace, Turns};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use tempfile::TempDir;

const HOUR: i64 = 3_600_000;

/// Nobody waits for a store for longer than what lies between half of the grace and the grace.
const SLOW: Pace =
    Pace { begins: 1_790_000_000_000, step: 1000, jump_max: 6 * HOUR, wait_max: 8 * HOUR };

/// An archive with some bases, as it was before anything began.
struct Given {
    objects: InMemory,
    spool: TempDir,
    keyspace: Keyspace,
}

impl Given {
    fn new(bases: usize) -> Self {
        let objects = Arc::new(InMemory::new());
        let store = Store::from_objects(objects.clone(), "given").unwrap();
        let archive = Archive::init_unencrypted(store, Moment(0)).unwrap();
        let spool = a_spool();
        let mut keyspace = Keyspace::new();
        let at = AtomicU64::new(1_780_000_000_000);
        let now = || Moment(at.fetch_add(1000, std::sync::atomic::Ordering::Relaxed).cast_signed());
        for _ in 0..bases {
            go_on(&mut keyspace);
            let tables = Some(spool.path());
            prepare(&archive, &keyspace, tables, &now, |prepared| prepared.publish(now())).unwrap();
        }
        go_on(&mut keyspace);
        Self { objects: objects.fork(), spool, keyspace }
    }
}

fn go_on(keyspace: &mut Keyspace) {
    let before = keyspace.revision;
    for n in 0..6 {
        keyspace.write(&[(&format!("/key/{n}"), n == 3), ("/lease", false)], 40);
    }
    keyspace.compact(before);
}

/// One order of what several do.
struct Round {
    turns: Turns,
    objects: Arc<InMemory>,
}

impl Round {
    fn new(given: &Given, seed: u64, actors: usize, pace: Pace) -> Self {
        Self { turns: Turns::new(seed, actors, pace), objects: Arc::new(given.objects.fork()) }
    }

    /// The archive as an actor sees it.
    fn archive(&self, actor: usize) -> Result<Archive, Error> {
        let objects = self.turns.store(actor, self.objects.clone());
        Archive::open(Store::from_objects(objects, "turns").unwrap())
    }

    /// The archive as it is when everybody has finished.
    fn after(&self) -> Archive {
        Archive::open(Store::from_objects(self.objects.clone(), "after").unwrap()).unwrap()
    }

    fn now(&self) -> Moment {
        Moment(self.turns.now())
    }

    /// Does something as an actor, and finishes whatever comes of it.
    fn act<T>(&self, actor: usize, work: impl FnOnce() -> T) -> T {
        struct Finish<'a>(&'a Turns, usize);
        impl Drop for Finish<'_> {
            fn drop(&mut self) {
                self.0.finish(self.1);
            }
        }
        let _finish = Finish(&self.turns, actor);
        work()
    }

    fn save(&self, actor: usize, spool: &Path, keyspace: &Keyspace) -> Result<BaseWritten, Error> {
        let archive = self.archive(actor)?;
        let now = || self.now();
        prepare(&archive, keyspace, Some(spool), &now, |prepared| prepared.publish(now()))
    }

    fn prune(&self, archive: &Archive, last: usize, grace: i64) -> Result<Pruned, Error> {
        let policy = Policy { last, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 1000, grace, now: self.now() };
        plan_prune(archive, &request)?.carry_out(archive)
    }

    /// Prunes some times, as one that is called again and again.
    fn prune_often(&self, actor: usize, grace: i64) {
        for last in [3, 2, 1, 1] {
            let archive = self.archive(actor).unwrap();
            let done = self.prune(&archive, last, grace);
            assert!(done.as_ref().err().is_none_or(was_gone), "{done:?}");
        }
    }

    /// Every base there is is proven. Tells their records by their names.
    fn check_sound(&self) -> Vec<(String, Pairs)> {
        let archive = self.after();
        let verdict = verdict(&archive, self.now()).unwrap();
        let harmless = |word: &Word| matches!(word, Word::Uploading | Word::Orphan);
        assert!(verdict.findings.iter().all(|it| harmless(&it.word)), "{:?}", verdict.findings);
        assert!(verdict.points.iter().all(|point| point.level == Some(Level::Proven)));
        let bases = archive.list().unwrap().bases.into_iter();
        bases.map(|it| (it.name.clone(), read_back(&archive, &it).unwrap())).collect()
    }

    /// What nobody needs goes when everybody has finished and the grace is over.
    fn check_collects(&self) {
        let archive = self.after();
        for _ in 0..2 {
            self.prune(&archive, 1000, 0).unwrap();
        }
        assert_eq!(verdict(&archive, self.now()).unwrap().findings, [], "left over");
    }
}

/// It says which object is not there.
fn was_gone(error: &Error) -> bool {
    match error {
        Error::Store(fault) => fault.kind == rekindle_archive::StoreFaultKind::NotFound,
        Error::Missing { .. } | Error::LogMissing { .. } => true,
        _ => false,
    }
}

/// A spool of another host, or of the one that has saved so far.
fn spool(given: &Given, is_same: bool) -> TempDir {
    let spool = a_spool();
    for found in std::fs::read_dir(given.spool.path()).unwrap().filter(|_| is_same) {
        let found = found.unwrap();
        std::fs::copy(found.path(), spool.path().join(found.file_name())).unwrap();
    }
    spool
}

/// Each order on its own; which one it was stands before whatever went wrong.
fn every_order(name: &str, few: u64, check: impl Fn(u64)) {
    for seed in seeds(few) {
        println!("{name}: seed {seed}");
        check(seed);
    }
}

#[test]
fn two_writers() {
    let givens = [Given::new(0), Given::new(2)];
    every_order("two writers", 50, |seed| {
        let given = &givens[(seed % 2) as usize];
        let round = Round::new(given, seed / 2, 2, Pace::default());
        // The second one's member is ahead, or compacts at another pace.
        let mut ahead = given.keyspace.clone();
        if seed % 3 != 0 {
            ahead.write(&[("/ahead", false)], 10);
        }
        if seed % 5 == 0 {
            ahead.compact(ahead.revision - 2);
        }
        let spools = [spool(given, true), spool(given, seed % 7 != 0)];
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(|| round.act(1, || round.save(1, spools[1].path(), &ahead)));
            let one = round.act(0, || round.save(0, spools[0].path(), &given.keyspace));
            (one, other.join().unwrap())
        });
        let points = round.check_sound();
        for (written, keyspace) in [(one.unwrap(), &given.keyspace), (two.unwrap(), &ahead)] {
            let found = points.iter().find(|(name, _)| *name == written.name).unwrap();
            assert!(found.1 == keyspace.pairs());
        }
        round.check_collects();
    });
}

/// With the real grace, and with a store that may take hours for an answer.
#[test]
fn a_writer_with_a_pruner() {
    let given = Given::new(4);
    every_order("a writer with a pruner", 250, |seed| {
        let round = Round::new(&given, seed, 2, SLOW);
        let spool = spool(&given, seed.is_multiple_of(2));
        let written = std::thread::scope(|scope| {
            scope.spawn(|| round.act(1, || round.prune_often(1, GRACE)));
            round.act(0, || {
                let mut keyspace = given.keyspace.clone();
                for _ in 0..3 {
                    match round.save(0, spool.path(), &keyspace) {
                        Ok(_) | Err(Error::TooLate) => {}
                        Err(error) => panic!("{error}"),
                    }
                    go_on(&mut keyspace);
                }
                round.save(0, spool.path(), &keyspace).ok().map(|it| (it, keyspace))
            })
        });
        let points = round.check_sound();
        if let Some((written, keyspace)) = written {
            let found = points.iter().find(|(name, _)| *name == written.name).unwrap();
            assert!(found.1 == keyspace.pairs());
        }
        round.check_collects();
    });
}

/// Without a grace a prune may take what a base is being made of: then there is no such base. What
/// else is listed is whole.
#[test]
fn a_writer_with_a_pruner_that_does_not_wait() {
    let given = Given::new(3);
    every_order("a writer with a hasty pruner", 250, |seed| {
        let round = Round::new(&given, seed, 2, Pace::default());
        let spool = spool(&given, seed.is_multiple_of(2));
        let written = std::thread::scope(|scope| {
            scope.spawn(|| round.act(1, || round.prune_often(1, 0)));
            round.act(0, || round.save(0, spool.path(), &given.keyspace))
        });
        match written {
            Ok(written) => check_lost_later(&round, &written),
            Err(Error::Vanished { object }) => {
                let store = round.after().store().clone();
                let name = object.trim_start_matches("turns/");
                let gone = !store.list("timelines").unwrap().iter().any(|it| it.name == name);
                assert!(gone, "{name} is there");
                let points = round.check_sound();
                // Where the prune took what is older for the sake of that base, none is left: that
                // is what the grace is for.
                if !points.is_empty() {
                    round.check_collects();
                }
            }
            Err(error) => panic!("{error}"),
        }
    });
}

/// Whatever a base lacks went after its writer had looked for the last time.
fn check_lost_later(round: &Round, written: &BaseWritten) {
    let log = round.turns.log();
    let looked = log.iter().rposition(|(actor, ..)| *actor == 0).unwrap();
    let archive = round.after();
    let verdict = verdict(&archive, round.now()).unwrap();
    for found in verdict.findings.iter().filter(|found| found.word == Word::Lost) {
        let removed = |it: &(usize, Op, String)| it.1 == Op::Remove && it.2 == found.object;
        let removed = |it: &_| removed(it) || found.is_gap;
        assert!(log[looked..].iter().any(removed), "{found:?}");
    }
    let lost = |level: Option<Level>| level.is_none();
    let others = verdict.points.iter().filter(|point| point.entry.name != written.name);
    assert!(others.into_iter().all(|point| !lost(point.level)), "{verdict:?}");
}

/// Who saves while something is forgotten may bring it along; forgotten once more it is gone, and
/// every base is whole at any time.
#[test]
fn a_writer_with_one_who_forgets_and_a_pruner() {
    let given = Given::new(3);
    let what = all_of("/key/2");
    every_order("a writer, one who forgets, a pruner", 150, |seed| {
        let round = Round::new(&given, seed, 3, SLOW);
        let spool = spool(&given, seed.is_multiple_of(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                round.act(1, || {
                    let archive = round.archive(1).unwrap();
                    match forget(&archive, &what, &|| round.now()) {
                        Ok(_) | Err(Error::TooLate | Error::Vanished { .. }) => {}
                        Err(error) => assert!(was_gone(&error), "{error}"),
                    }
                });
            });
            scope.spawn(|| round.act(2, || round.prune_often(2, GRACE)));
            round.act(0, || {
                let mut keyspace = given.keyspace.clone();
                for _ in 0..2 {
                    match round.save(0, spool.path(), &keyspace) {
                        Ok(_) | Err(Error::TooLate | Error::Vanished { .. }) => {}
                        Err(error) => assert!(was_gone(&error), "{error}"),
                    }
                    go_on(&mut keyspace);
                }
            });
        });
        round.check_sound();
        forget(&round.after(), &what, &|| round.now()).unwrap();
        let gone = |(_, value): &(Vec<u8>, Vec<u8>)| {
            !KeyValue::parse(value).unwrap().key.starts_with(&what.key)
        };
        assert!(round.check_sound().iter().all(|(_, pairs)| pairs.iter().all(gone)));
        round.check_collects();
    });
}

/// Two at once, of the same key or of two, and a prune beside them: once restore points were lost.
#[test]
fn two_who_forget_and_a_pruner() {
    let given = Given::new(2);
    let before = Round::new(&given, 0, 0, Pace::default()).check_sound();
    let (one, other) = (all_of("/key/2"), all_of("/key/4"));
    every_order("two who forget, a pruner", 150, |seed| {
        let whats = [&one, if seed.is_multiple_of(2) { &one } else { &other }];
        let round = Round::new(&given, seed, 3, SLOW);
        let erase = |actor: usize| {
            round.act(actor, || {
                let archive = round.archive(actor).unwrap();
                match forget(&archive, whats[actor], &|| round.now()) {
                    Ok(_) | Err(Error::TooLate | Error::Vanished { .. }) => {}
                    Err(error) => assert!(was_gone(&error), "{error}"),
                }
            });
        };
        let policy = Policy { last: 1000, ..Policy::default() };
        let prune = |archive: &Archive, grace| {
            let request =
                PruneRequest { policy: policy.clone(), bases_max: 1000, grace, now: round.now() };
            plan_prune(archive, &request)?.carry_out(archive)
        };
        std::thread::scope(|scope| {
            scope.spawn(|| erase(1));
            scope.spawn(|| {
                round.act(2, || {
                    for _ in 0..4 {
                        let done = prune(&round.archive(2).unwrap(), GRACE);
                        assert!(done.as_ref().err().is_none_or(was_gone), "{done:?}");
                    }
                });
            });
            erase(0);
        });
        round.check_sound();
        for what in whats {
            forget(&round.after(), what, &|| round.now()).unwrap();
        }
        (0..2).for_each(|_| drop(prune(&round.after(), 0).unwrap()));
        let left = round.check_sound();
        assert_eq!(left.len(), before.len(), "each restore point, once");
        for ((_, pairs), (_, whole)) in left.iter().zip(&before) {
            let mut want = whole.clone();
            for what in whats {
                forget_in(&mut want, std::str::from_utf8(&what.key).unwrap());
            }
            assert!(*pairs == want);
        }
    });
}

/// A restore gives everything, or says what is gone.
#[test]
fn a_restore_with_a_pruner() {
    let given = Given::new(4);
    let want = Round::new(&given, 0, 0, Pace::default()).check_sound();
    every_order("a restore with a pruner", 50, |seed| {
        let round = Round::new(&given, seed, 2, Pace::default());
        std::thread::scope(|scope| {
            scope.spawn(|| round.act(1, || round.prune_often(1, 0)));
            round.act(0, || {
                let archive = round.archive(0).unwrap();
                let listing = archive.list().unwrap();
                assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
                for entry in &listing.bases {
                    match read_back(&archive, entry) {
                        Ok(pairs) => assert!(want.contains(&(entry.name.clone(), pairs))),
                        Err(error) => assert!(was_gone(&error), "{error}"),
                    }
                }
            });
        });
        round.check_sound();
    });
}

/// What comes over is whole; what does not is told.
#[test]
fn a_copy_with_a_pruner() {
    let given = Given::new(4);
    every_order("a copy with a pruner", 50, |seed| {
        let round = Round::new(&given, seed, 2, Pace::default());
        let to = Arc::new(InMemory::new());
        let done = std::thread::scope(|scope| {
            scope.spawn(|| round.act(1, || round.prune_often(1, 0)));
            round.act(0, || -> Result<_, Error> {
                let from = round.archive(0)?;
                let to = from.begin_copy(Store::from_objects(to.clone(), "to").unwrap())?;
                copy(&from, to.store(), round.now())
            })
        });
        assert!(done.as_ref().err().is_none_or(was_gone), "{done:?}");
        round.check_sound();
        let copied = Round { turns: round.turns.clone(), objects: to };
        let points = copied.check_sound();
        let newest = round.check_sound().pop().unwrap();
        assert!(points.contains(&newest) || done.is_err_and(|error| was_gone(&error)));
    });
}

/// What has come over may be pruned there before the bases that need it come: then these do not stay.
#[test]
fn a_copy_with_a_pruner_where_it_goes() {
    let given = Given::new(3);
    let from = Round::new(&given, 0, 0, Pace::default()).after();
    every_order("a copy to a pruner", 50, |seed| {
        let to = Arc::new(InMemory::new());
        from.begin_copy(Store::from_objects(to.clone(), "to").unwrap()).unwrap();
        let round = Round { turns: Turns::new(seed, 2, Pace::default()), objects: to };
        let done = std::thread::scope(|scope| {
            scope.spawn(|| round.act(1, || round.prune_often(1, 0)));
            round.act(0, || copy(&from, round.archive(0).unwrap().store(), round.now()))
        });
        done.unwrap();
        let log = round.turns.log();
        let looked = log.iter().rposition(|(actor, ..)| *actor == 0).unwrap();
        if log[looked..].iter().all(|(_, op, _)| *op != Op::Remove) {
            round.check_sound();
        }
    });
}

fn copy(from: &Archive, to: &Store, now: Moment) -> Result<Transferred, Error> {
    let request = VerifyRequest { level: Level::Read, only: None, now };
    let transfer = Transfer::copy(from, to, &request)?;
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    transfer.run(progress)
}
