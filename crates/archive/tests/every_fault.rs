//! Every operation of a store fails, one after the other, in every way, once and from then on: what
//! was listed before stays and restores, what was interrupted is absent or whole, and the next one
//! goes on.
//!
//! A process that is killed at an operation is one of which that and all that follow fail, those of
//! its cleaning up, too: whoever comes next opens the archive anew, in a store that is whole.

mod keyspaces;

use keyspaces::{
    HOST, Keyspace, Pairs, a_spool, all_of, cut, forget, forget_in, now, now_is, prepare,
    read_back, verdict,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rekindle_archive::format::header::{Facts, Moment};
use rekindle_archive::{
    Archive, BaseRecords, Error, Identity, Level, Policy, Protection, PruneRequest, Pruned,
    RekeyRequest, Sealing, Store, Transfer, VerifyProgress, VerifyRequest, Word, plan_prune,
    read_base,
};
use rekindle_etcd::Revision;
use rekindle_etcd::restore::Records;
use rekindle_testkit::fault_store::{Fault, FaultStore, Op, When};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use tempfile::TempDir;

const FAULTS: [Fault; 9] = [
    Fault::Error,
    Fault::Timeout,
    Fault::LostAnswer,
    Fault::Throttled,
    Fault::Denied,
    Fault::Exists,
    Fault::Retried,
    Fault::NotFound,
    Fault::Truncated,
];

/// An archive, a copy of it or an empty place, and a host that saves a keyspace into the archive.
struct World {
    objects: Arc<InMemory>,
    other: Arc<InMemory>,
    spool: TempDir,
    /// What is saved next.
    keyspace: Keyspace,
    owners: Vec<Identity>,
    /// The bases that there are, and what each brings back.
    points: BTreeMap<String, Pairs>,
    /// Of them those that a prune keeps.
    kept: usize,
    /// Marks that there are.
    marks: Vec<String>,
    /// Keys that may be gone from them.
    forgotten: Option<&'static str>,
    /// What the log brings back behind the newest base, if it was followed.
    tail: Option<Pairs>,
}

fn store_of(objects: &Arc<InMemory>) -> Store {
    Store::from_objects(objects.clone(), "place").unwrap()
}

impl World {
    /// Nothing yet.
    fn empty() -> Self {
        Self {
            objects: Arc::default(),
            other: Arc::default(),
            spool: a_spool(),
            keyspace: Keyspace::new(),
            owners: Vec::new(),
            points: BTreeMap::new(),
            kept: 0,
            marks: Vec::new(),
            forgotten: None,
            tail: None,
        }
    }

    /// An archive without a base.
    fn unencrypted() -> Self {
        let mut world = Self::empty();
        Archive::init_unencrypted(store_of(&world.objects), Moment(0)).unwrap();
        world.go_on();
        world
    }

    fn sealed() -> Self {
        let mut world = Self::empty();
        world.owners = vec![Identity::generate(), Identity::generate()];
        Archive::init(store_of(&world.objects), Moment(0), &world.protection()).unwrap();
        world.go_on();
        world
    }

    fn protection(&self) -> Protection {
        let owners = self.owners.iter().map(Identity::public).collect();
        Protection { sealing: Sealing::To(owners), signers: Vec::new() }
    }

    /// So many bases are saved, with compactions, and the keyspace goes on behind the last.
    fn with_bases(mut self, bases: usize) -> Self {
        for _ in 0..bases {
            self.save(&self.archive()).unwrap();
            self.go_on();
        }
        let archive = self.archive();
        for entry in archive.list().unwrap().bases {
            let pairs = read_back(&archive, &entry).unwrap();
            self.points.insert(entry.name, pairs);
        }
        self.kept = self.points.len();
        self
    }

    /// With what came behind the last base in the log.
    fn followed(mut self) -> Self {
        let archive = self.archive();
        let newest = archive.list().unwrap().bases.pop().unwrap();
        let Facts { timeline, last, .. } = newest.header.facts;
        let mut writer = archive.claim(timeline, HOST, "here", now()).unwrap();
        let (first, end) = (last.get() + 1, self.keyspace.revision);
        for from in (first..=end).step_by(5) {
            writer.append(&cut(&self.keyspace, from, end.min(from + 4)), now()).unwrap();
        }
        let mut pairs = self.points[&newest.name].clone();
        let is_behind = |key: &[u8]| key[..8] >= first.to_be_bytes()[..];
        pairs.extend(self.keyspace.pairs().into_iter().filter(|(key, _)| is_behind(key)));
        self.tail = Some(pairs);
        self
    }

    /// The end of the log is a restore point as it was, or without what may be gone.
    fn check_tail(&self) {
        let Some(whole) = &self.tail else { return };
        let archive = self.archive();
        let newest = archive.list().unwrap().bases.into_iter();
        let newest = newest.max_by_key(|it| (it.header.facts.last, it.header.facts.erased));
        let (entry, end) = (newest.unwrap(), Revision::new(self.keyspace.revision).unwrap());
        if entry.header.facts.last == end {
            // A base was made of it since, and a prune may have come by.
            return;
        }
        let base = read_base(&archive, &entry).unwrap();
        let (base, tail) = archive.following(&entry).unwrap().up_to(base, end).unwrap();
        let mut records = BaseRecords::with_tail(&archive, &entry, &base, Some(&tail)).unwrap();
        let mut pairs = Pairs::new();
        while let Some(pair) = records.next_record().unwrap() {
            pairs.push((pair.key.to_vec(), pair.value.to_vec()));
        }
        let (mut less, mut least) = (whole.clone(), whole.clone());
        if let Some(forgotten) = self.forgotten {
            // From the base it goes first.
            let own = less.partition_point(|(key, _)| {
                key[..8] <= entry.header.facts.last.get().to_be_bytes()[..]
            });
            let behind = less.split_off(own);
            less.push(behind[0].clone());
            forget_in(&mut less, forgotten);
            less.pop();
            less.extend(behind);
            forget_in(&mut least, forgotten);
        }
        assert!([whole, &less, &least].contains(&&pairs), "the log brings back something else");
    }

    /// With a whole copy beside it.
    fn with_copy(self) -> Self {
        copy(&self, &store_of(&self.objects), &store_of(&self.other)).unwrap();
        self
    }

    /// The keyspace goes on by some transactions and a compaction.
    fn go_on(&mut self) {
        let before = self.keyspace.revision;
        for n in 0..12 {
            let names = [format!("/key/{}", n % 7), format!("/lease/{n}")];
            self.keyspace.write(&[(&names[0], n % 5 == 4), (&names[1], false)], 60);
        }
        self.keyspace.compact(before);
    }

    /// The same once more, to be harmed.
    fn fork(&self) -> Self {
        let spool = a_spool();
        for found in std::fs::read_dir(self.spool.path()).unwrap() {
            let found = found.unwrap();
            std::fs::copy(found.path(), spool.path().join(found.file_name())).unwrap();
        }
        Self {
            objects: Arc::new(self.objects.fork()),
            other: Arc::new(self.other.fork()),
            spool,
            keyspace: self.keyspace.clone(),
            owners: self.owners.clone(),
            points: self.points.clone(),
            kept: self.kept,
            marks: self.marks.clone(),
            forgotten: self.forgotten,
            tail: self.tail.clone(),
        }
    }

    /// Opened by somebody new, in the store that is whole.
    fn archive(&self) -> Archive {
        self.open(&store_of(&self.objects)).unwrap()
    }

    fn open(&self, store: &Store) -> Result<Archive, Error> {
        Archive::open(store.clone())?.with_identities(&self.owners)
    }

    fn save(&self, archive: &Archive) -> Result<(), Error> {
        let tables: Option<&Path> = Some(self.spool.path());
        prepare(archive, &self.keyspace, tables, &now, |prepared| prepared.publish(now()))?;
        Ok(())
    }

    /// What was listed before is there and restores, but for what a prune may have taken; whatever
    /// else is listed restores as what was to be saved. Nothing is lost.
    fn check_sound(&self) {
        let archive = self.archive();
        let listing = archive.list().unwrap();
        assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
        let listed: Vec<_> = listing.bases.iter().map(|entry| of_point(&entry.name)).collect();
        let must = self.points.keys().rev().take(self.kept);
        must.for_each(|name| assert!(listed.contains(&of_point(name)), "{name} is gone"));
        for entry in &listing.bases {
            let pairs = read_back(&archive, entry).unwrap();
            let new = || self.keyspace.pairs();
            let mut same = self.points.iter().filter(|it| of_point(it.0) == of_point(&entry.name));
            let mut want = same.next().map_or_else(new, |it| it.1.clone());
            if entry.header.facts.erased {
                forget_in(&mut want, self.forgotten.unwrap());
            }
            assert!(pairs == want, "{} brings back something else", entry.name);
        }
        let verdict = verdict(&archive, now_is()).unwrap();
        let harmless = |word: &Word| matches!(word, Word::Uploading | Word::Orphan);
        assert!(verdict.findings.iter().all(|it| harmless(&it.word)), "{:?}", verdict.findings);
        let proven = |level: &Option<Level>| *level == Some(Level::Proven);
        assert!(verdict.points.iter().all(|point| proven(&point.level)), "{:?}", verdict.points);
        self.check_tail();
    }

    /// The next base is made, and once the grace is over nothing is left that nobody needs.
    fn check_goes_on(&self) {
        let archive = self.archive();
        self.save(&archive).unwrap();
        self.check_sound();
        for _ in 0..2 {
            let held = prune(&archive, 1000).unwrap().held;
            assert_eq!(held, []);
        }
        self.check_sound();
        let left = verdict(&archive, now_is()).unwrap().findings;
        assert_eq!(left, [], "left over");
        assert_eq!(archive.store().list("prune").unwrap(), [], "marks");
    }
}

/// The name of a base, but for its id: another one may stand for it.
fn of_point(name: &str) -> &str {
    name.rsplit_once('-').unwrap().0
}

/// What is done while a store fails, and what must hold of it then.
struct Scenario {
    name: &'static str,
    given: World,
    act: fn(&World, &Store) -> Result<(), Error>,
    /// It is the other place that fails.
    fails_elsewhere: bool,
    then: fn(&World),
}

/// Lets every operation of a scenario fail in every way that it can.
fn every_fault(scenario: &Scenario) {
    let (log, outcome) = interrupted(scenario, &scenario.given.fork(), Fault::Error, When::Once(0));
    outcome.unwrap();
    assert!(log.len() > 2, "{}: nothing was done", scenario.name);
    for fault in FAULTS {
        // Some more than there were: what several threads do is not always as much.
        for number in 1..log.len() + 3 {
            if log.get(number - 1).is_some_and(|(op, _)| !fault.fits(*op)) {
                continue;
            }
            for when in [When::Once(number as u64), When::From(number as u64)] {
                let world = scenario.given.fork();
                let (log, outcome) = interrupted(scenario, &world, fault, when);
                let hit = log.get(number - 1);
                // It stands on the test's output, before whatever went wrong.
                println!("{}: {fault:?} {when:?}: {hit:?}: {outcome:?}", scenario.name);
                assert!(hit.is_some() || outcome.is_ok(), "it fails in a store that is whole");
                (scenario.then)(&world);
            }
        }
    }
}

/// Runs a scenario in a store that fails. Tells what was asked of it, and what came of it.
fn interrupted(
    scenario: &Scenario,
    world: &World,
    fault: Fault,
    when: When,
) -> (Vec<(Op, String)>, Result<(), Error>) {
    let inner = if scenario.fails_elsewhere { &world.other } else { &world.objects };
    let faulty = FaultStore::new(inner.clone() as Arc<dyn ObjectStore>);
    faulty.fail(fault, when);
    let store = Store::from_objects(faulty.clone(), "place").unwrap();
    let outcome = (scenario.act)(world, &store);
    (faulty.log(), outcome)
}

fn prune(archive: &Archive, last: usize) -> Result<Pruned, Error> {
    let policy = Policy { last, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 1000, grace: 0, now: now_is() };
    plan_prune(archive, &request)?.carry_out(archive)
}

fn everything() -> VerifyRequest {
    VerifyRequest { level: Level::Proven, only: None, now: now_is() }
}

fn run(transfer: Transfer<'_>) -> Result<(), Error> {
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    transfer.run(progress).map(drop)
}

fn copy(world: &World, from: &Store, to: &Store) -> Result<(), Error> {
    let from = world.open(from)?;
    let to = from.begin_copy(to.clone())?;
    run(Transfer::copy(&from, to.store(), &everything())?)
}

fn repair(world: &World, broken: &Store) -> Result<(), Error> {
    let (archive, from) = (world.open(broken)?, world.open(&store_of(&world.other))?);
    let verdict = verdict(&archive, now_is())?;
    run(Transfer::repair(&archive, &verdict, &from, &everything())?)
}

fn all_objects(objects: &Arc<InMemory>) -> Vec<(String, Vec<u8>)> {
    let store = store_of(objects);
    let folders = ["keys", "timelines"].iter().flat_map(|folder| store.list(folder).unwrap());
    let read = |name: String| (name.clone(), store.read(&name, 1 << 20).unwrap().to_vec());
    folders.map(|found| read(found.name)).collect()
}

fn save(world: &World, store: &Store) -> Result<(), Error> {
    world.save(&world.open(store)?)
}

fn goes_on(world: &World) {
    world.check_sound();
    world.check_goes_on();
}

fn check_save(name: &'static str, given: World) {
    every_fault(&Scenario { name, given, act: save, fails_elsewhere: false, then: goes_on });
}

#[test]
fn a_first_base() {
    check_save("first base", World::unencrypted());
}

#[test]
fn a_later_base() {
    check_save("later base", World::unencrypted().with_bases(2));
}

#[test]
fn a_sealed_base() {
    check_save("sealed base", World::sealed().with_bases(1));
}

/// A base that shares nothing, for the host's table is gone.
#[test]
fn a_base_in_full() {
    let world = World::unencrypted().with_bases(1);
    std::fs::remove_dir_all(world.spool.path()).unwrap();
    std::fs::create_dir(world.spool.path()).unwrap();
    check_save("base in full", world);
}

/// A base that contradicts the last one begins a timeline.
#[test]
fn a_base_that_contradicts() {
    let mut world = World::unencrypted().with_bases(2);
    let ((_, value), compact) = (world.keyspace.records.values_mut().next().unwrap(), 1);
    value.push(compact);
    check_save("contradiction", world);
}

#[test]
fn a_prune() {
    let mut given = World::unencrypted().with_bases(5);
    given.kept = 2;
    let act = |world: &World, store: &Store| prune(&world.open(store)?, 2).map(drop);
    every_fault(&Scenario { name: "prune", given, act, fails_elsewhere: false, then: goes_on });
}

/// There is a mark of an earlier one. What a killed one leaves of it names nothing that a base needed
/// when it began: that has still to wait for its whole grace.
#[test]
fn a_prune_that_collects() {
    let mut given = World::unencrypted().with_bases(5);
    prune(&given.archive(), 3).unwrap();
    given.kept = 2;
    let act = |world: &World, store: &Store| prune(&world.open(store)?, 2).map(drop);
    let name = "prune that collects";
    every_fault(&Scenario { name, given, act, fails_elsewhere: false, then: goes_on });
}

/// A base needs again what a mark names; it goes, and the mark does not outlive it.
#[test]
fn a_prune_of_what_was_needed_again() {
    let mut given = World::unencrypted().with_bases(3);
    let archive = given.archive();
    let old = std::fs::read(table(&given)).unwrap();
    // The table of the last base; two bases in full, then the others go, and all is marked.
    for _ in 0..2 {
        std::fs::remove_file(table(&given)).unwrap();
        given.save(&archive).unwrap();
    }
    let names = |archive: &Archive| -> Vec<_> {
        archive.list().unwrap().bases.into_iter().map(|base| base.name).collect()
    };
    let (before, store) = (names(&archive), archive.store());
    let third = (before[2].clone(), store.read(&before[2], 1 << 20).unwrap());
    prune(&archive, 2).unwrap();
    assert_eq!(store.list("prune").unwrap().len(), 1);
    // As one comes that was made at the same time.
    store.create(&third.0, third.1.to_vec()).unwrap();
    std::fs::write(table(&given), old).unwrap();
    given.points.retain(|name, _| names(&archive).contains(name));
    given.kept = 0;
    let act = |world: &World, store: &Store| prune(&world.open(store)?, 2).map(drop);
    let then = |world: &World| {
        let archive = world.archive();
        let marks = archive.store().list("prune").unwrap();
        let bases = archive.list().unwrap().bases.len();
        let is_old = marks.iter().any(|mark| world.marks.contains(&mark.name));
        assert!(bases == 3 || !is_old, "{bases} bases, and an old mark");
        goes_on(world);
    };
    given.marks = store.list("prune").unwrap().into_iter().map(|mark| mark.name).collect();
    let name = "prune of what was needed again";
    every_fault(&Scenario { name, given, act, fails_elsewhere: false, then });
}

/// Each restore point stays as it is, or loses the records; the next run erases the rest.
#[test]
fn a_forgetting() {
    let mut given = World::unencrypted().with_bases(2).followed();
    given.forgotten = Some("/key/3");
    fn act(world: &World, store: &Store) -> Result<(), Error> {
        forget(&world.open(store)?, &all_of("/key/3"), &now).map(drop)
    }
    let then = |world: &World| {
        world.check_sound();
        act(world, &store_of(&world.objects)).unwrap();
        assert!(world.archive().list().unwrap().bases.iter().all(|it| it.header.facts.erased));
        // Of what was made twice one goes.
        prune(&world.archive(), 1000).unwrap();
        assert_eq!(world.archive().list().unwrap().bases.len(), 2);
        world.check_goes_on();
    };
    every_fault(&Scenario { name: "forget", given, act, fails_elsewhere: false, then });
}

fn table(world: &World) -> std::path::PathBuf {
    std::fs::read_dir(world.spool.path()).unwrap().next().unwrap().unwrap().path()
}

/// What has come over restores, and the next copy brings the rest.
fn copy_goes_on(world: &World) {
    if Archive::open(store_of(&world.other)).is_ok() {
        let copied = World { objects: world.other.clone(), kept: 0, ..world.fork() };
        copied.check_sound();
    }
    copy(world, &store_of(&world.objects), &store_of(&world.other)).unwrap();
    assert!(all_objects(&world.other) == all_objects(&world.objects), "the copy is not whole");
    world.check_sound();
}

#[test]
fn a_copy_into_a_place_that_fails() {
    for given in [World::unencrypted(), World::sealed()] {
        let given = given.with_bases(2);
        let act = |world: &World, to: &Store| copy(world, &store_of(&world.objects), to);
        let name = "copy to";
        every_fault(&Scenario { name, given, act, fails_elsewhere: true, then: copy_goes_on });
    }
}

#[test]
fn a_copy_from_a_place_that_fails() {
    let given = World::sealed().with_bases(2);
    let act = |world: &World, from: &Store| copy(world, from, &store_of(&world.other));
    let name = "copy from";
    every_fault(&Scenario { name, given, act, fails_elsewhere: false, then: copy_goes_on });
}

/// Nothing of what is damaged goes without a good one in its place, and the next repair mends all.
fn repair_goes_on(world: &World) {
    let names = |objects| all_objects(objects).into_iter().map(|it| it.0).collect::<Vec<_>>();
    let (there, whole) = (names(&world.objects), names(&world.other));
    let gone: Vec<_> = whole.iter().filter(|name| !there.contains(name)).collect();
    assert!(gone.iter().all(|name| name.ends_with(".seg")), "{gone:?}");
    repair(world, &store_of(&world.objects)).unwrap();
    assert!(all_objects(&world.other) == all_objects(&world.objects), "it is not whole");
    goes_on(world);
}

#[test]
fn a_repair() {
    let given = World::unencrypted().with_bases(3).with_copy();
    let store = store_of(&given.objects);
    let name_of = |end: &str| {
        let listed = store.list("timelines").unwrap();
        listed.into_iter().map(|it| it.name).find(|name| name.ends_with(end)).unwrap()
    };
    for end in [".pack", ".base"] {
        let name = name_of(end);
        let mut bytes = store.read(&name, 1 << 20).unwrap().to_vec();
        bytes[300] ^= 1;
        store.remove(&name).unwrap();
        store.create(&name, bytes).unwrap();
    }
    store.remove(&name_of(".seg")).unwrap();
    let name = "repair";
    let then = repair_goes_on;
    every_fault(&Scenario { name, given, act: repair, fails_elsewhere: false, then });
}

/// Whoever may read then reads all; nobody loses what he could read.
fn rekey_goes_on(world: &World) {
    world.check_sound();
    // The first owner stays, whatever became of it.
    let first = World { owners: world.owners[..1].to_vec(), ..world.fork() };
    first.check_sound();
    rekey(&first, &store_of(&first.objects), Identity::generate()).unwrap();
    first.check_goes_on();
}

fn rekey(world: &World, store: &Store, who: Identity) -> Result<(), Error> {
    let archive = world.open(store)?;
    let second = world.owners.get(1).map(Identity::public);
    let remove = second.filter(|who| archive.recipients().contains(who)).into_iter().collect();
    let request = RekeyRequest { add: vec![who.public()], remove, ..RekeyRequest::default() };
    let plan = archive.plan_rekey(&request)?;
    archive.rekey(&plan, now()).map(drop)
}

#[test]
fn a_rekey() {
    let given = World::sealed().with_bases(2);
    let act = |world: &World, store: &Store| rekey(world, store, Identity::generate());
    let then = rekey_goes_on;
    every_fault(&Scenario { name: "rekey", given, act, fails_elsewhere: false, then });
}

/// There is an archive, or one can be made.
fn init_goes_on(world: &World) {
    let store = store_of(&world.objects);
    let made = match world.open(&store) {
        Err(Error::NoArchive { .. }) => {
            Archive::init(store.clone(), now(), &world.protection()).map(drop)
        }
        opened => opened.map(drop),
    };
    made.unwrap();
    let mut world = world.fork();
    world.go_on();
    world.check_goes_on();
}

#[test]
fn an_init() {
    let mut given = World::empty();
    given.owners = vec![Identity::generate()];
    let init = |world: &World, store: &Store| {
        Archive::init(store.clone(), now(), &world.protection()).map(drop)
    };
    let then = init_goes_on;
    every_fault(&Scenario { name: "init", given, act: init, fails_elsewhere: false, then });
}
