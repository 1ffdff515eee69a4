//! The world around the machine: what the driver does, done by chance.

use crate::chance::Chance;
use crate::cluster::{Cluster, Content, revision};
use rekindle_agent::capture::{Action, Event, Machine, Notice, Now, Settings, Tail};
use rekindle_archive::format::header::Moment;
use rekindle_archive::format::{run, segment};
use rekindle_archive::{Cut, Witness};
use rekindle_etcd::{KeyValue, RecordKey, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const ARCHIVES: usize = 2;
/// Steps with faults.
const STEPS: usize = 400;
/// Steps in which all must come right.
const GOOD_STEPS: usize = 4000;

/// What happened at all, so that it shows when something is tried no more.
#[derive(Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u64>);

impl Seen {
    fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }

    /// Each of these happened in a thousand worlds.
    pub(crate) fn check(&self) {
        let all = [
            "fed",
            "beat",
            "base",
            "another timeline",
            "behind",
            "lost",
            "another history",
            "gap",
            "missing",
            "killed",
            "resumed",
            "witness",
            "life",
        ];
        for what in all {
            assert!(self.0.contains_key(what), "{what}: {:?}", self.0);
        }
    }
}

/// An archive.
#[derive(Default)]
struct Archive {
    /// What a restore would find at each revision, from 2 on; none where nothing is known.
    log: BTreeMap<i64, Content>,
    /// The revision of its newest base; 0 before there is one.
    base: i64,
    timeline: u64,
    /// Up to where it was said to be written.
    end: i64,
    open: bool,
    /// The timeline that the journal feeds.
    fed: Option<u64>,
    /// The cluster is known to be another one.
    left: bool,
    /// What it was given, and has not answered.
    order: Option<Order>,
    /// A base is being made of it.
    making: bool,
    /// What it has is said to be of the cluster's history, when that began.
    followed: bool,
    /// Nobody here can read what it has.
    sealed: bool,
    /// Something of its log was erased since its last base.
    has_hole: bool,
    /// Up to the base behind that.
    erased_to: i64,
}

enum Order {
    Write(Cut),
    Beat,
    ShowLife,
}

/// A snapshot: its revision and all that the cluster had then.
struct Snapshot {
    revision: i64,
    compact: i64,
    contents: Vec<Content>,
    /// Archives that a base was made of it for, or was to be.
    tried: BTreeSet<usize>,
}

pub(crate) struct World {
    chance: Chance,
    wild: bool,
    machine: Machine,
    cluster: Cluster,
    wall: i64,
    passed: Duration,
    journal: Vec<Cut>,
    archives: Vec<Archive>,
    timelines: u64,
    /// One was asked for.
    asked: bool,
    snapshot: Option<Snapshot>,
    /// Members were asked for their HashKV; what they had when they answered.
    hashing: bool,
    hashed: Vec<Content>,
    good: bool,
    ended: bool,
    pub(crate) seen: Seen,
}

/// In wild worlds everything happens more often.
fn settings(wild: bool) -> Settings {
    Settings {
        flush_every: Duration::from_secs(1),
        flush_bytes: 2000,
        behind_max: 200,
        behind_time: Duration::from_secs(2),
        snapshots_every: Duration::from_secs(if wild { 1 } else { 20 }),
        bases_every: Duration::from_secs(if wild { 3 } else { 60 }),
        witnesses_every: Some(Duration::from_secs(2)),
    }
}

impl World {
    pub(crate) fn new(mut chance: Chance) -> Self {
        let wild = chance.once_in(2);
        let mut cluster = Cluster::new(wild);
        let count = chance.below(30);
        cluster.write(count, &mut chance);
        Self {
            chance,
            machine: Machine::new(settings(wild), ARCHIVES, None),
            wild,
            cluster,
            wall: 1_790_000_000_000,
            passed: Duration::ZERO,
            journal: Vec::new(),
            archives: (0..ARCHIVES)
                .map(|number| Archive { sealed: number % 2 == 1, ..Archive::default() })
                .collect(),
            timelines: 0,
            asked: false,
            snapshot: None,
            hashing: false,
            hashed: Vec::new(),
            good: false,
            ended: false,
            seen: Seen::default(),
        }
    }

    pub(crate) fn live(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        (self.good, self.cluster.good) = (true, true);
        for _ in 0..GOOD_STEPS {
            self.step();
        }
        self.hear(Event::Stop);
        for _ in 0..GOOD_STEPS {
            if self.ended {
                break;
            }
            self.passed += Duration::from_millis(20);
            self.go_on();
            self.hear(Event::Tick);
        }
        assert!(self.ended, "it does not end");
        let head = self.cluster.head();
        for archive in 0..ARCHIVES {
            let end = self.archives[archive].end;
            // What came in the very last moment may have been too late.
            assert!(end + 20 >= head, "archive {archive} has {end} of {head}");
            self.check(archive);
        }
    }

    fn bad(&mut self, times: i64) -> bool {
        !self.good && self.chance.once_in(times)
    }

    fn step(&mut self) {
        let time = self.chance.below(100) * self.chance.below(4);
        let time = if self.bad(300) { 100_000 } else { time };
        self.passed += Duration::from_millis(time.unsigned_abs());
        self.wall += time;
        match self.chance.below(12) {
            0 => {
                let many = if self.bad(60) { 400 } else { 6 };
                let count = self.chance.below(many);
                // In the end it is quiet now and then, too.
                if !self.good || self.chance.once_in(8) {
                    self.cluster.write(count, &mut self.chance);
                }
            }
            1 if self.bad(10) => {
                self.cluster.compact =
                    self.cluster.compact.max(self.chance.below(self.cluster.head() + 1));
            }
            2 if self.bad(if self.wild { 5 } else { 40 }) => self.cluster.go_back(&mut self.chance),
            3 if self.bad(if self.wild { 6 } else { 40 }) => self.kill(),
            4 if self.bad(2) => self.lose_some_journal(),
            _ => {}
        }
        self.go_on();
        self.hear(Event::Tick);
    }

    /// What is under way goes on, in some order.
    fn go_on(&mut self) {
        if let Some((watch, said)) = self.cluster.say(&mut self.chance) {
            self.hear(Event::Watch { watch, said });
        }
        for archive in 0..ARCHIVES {
            if self.good || self.chance.once_in(2) {
                self.serve(archive);
            }
        }
        if self.hashing && self.chance.once_in(3) {
            self.hashing = false;
            self.hash();
        }
        if self.asked && (self.good || self.chance.once_in(4)) {
            self.asked = false;
            self.take_snapshot();
        }
    }

    fn hash(&mut self) {
        if self.bad(4) {
            return self.hear(Event::NotHashed);
        }
        self.hashed = self.cluster.histories.last().unwrap().clone();
        let took = Duration::from_micros(10);
        self.hear(Event::Hashed { revision: revision(self.cluster.head()), took });
    }

    fn take_snapshot(&mut self) {
        if self.bad(4) {
            return self.hear(Event::NoSnapshot);
        }
        let contents = self.cluster.histories.last().unwrap().clone();
        let (taken, compact) = (self.cluster.head(), self.cluster.compact);
        let tried = BTreeSet::new();
        self.snapshot = Some(Snapshot { revision: taken, compact, contents, tried });
        let compact = Revision::new(compact).filter(|it| it.get() > 0);
        self.hear(Event::Snapshot { revision: revision(taken), compact });
    }

    fn serve(&mut self, number: usize) {
        let (close, fail) = (self.bad(60), self.bad(4));
        let archive = &mut self.archives[number];
        if !archive.open {
            if !fail {
                self.open(number);
            }
            return;
        }
        if archive.making && !fail {
            archive.making = false;
            return self.make_base(number);
        }
        if close {
            // Another one had its turn; what was under way is not answered.
            (archive.open, archive.order) = (false, None);
            let overtaken = self.chance.once_in(2);
            return self.hear(Event::Closed { archive: number, overtaken });
        }
        match archive.order.take() {
            Some(order) if fail => archive.order = Some(order),
            Some(Order::ShowLife) => {
                self.seen.count("life");
                self.hear(Event::LifeShown { archive: number });
            }
            Some(Order::Beat) => {
                let last = revision(archive.end);
                self.seen.count("beat");
                self.hear(Event::Written { archive: number, last });
            }
            Some(Order::Write(cut)) => {
                for (at, content) in contents(&cut) {
                    // What the log had before stays beside it; a base stands for what it holds.
                    if at > archive.end {
                        archive.log.insert(at, content);
                    }
                }
                archive.end = archive.end.max(cut.last.get());
                self.seen.count("fed");
                self.check(number);
                self.hear(Event::Written { archive: number, last: cut.last });
            }
            None => {}
        }
    }

    fn open(&mut self, number: usize) {
        let archive = &mut self.archives[number];
        (archive.open, archive.order) = (true, None);
        let end = (archive.base > 0).then(|| revision(archive.end));
        let ours = archive.fed == Some(archive.timeline) && archive.base > 0;
        let base_age = Duration::from_secs(30);
        let has_hole = archive.has_hole || end.is_some() && self.bad(20);
        self.archives[number].has_hole = has_hole;
        self.hear(Event::Opened { archive: number, end, has_hole, ours, base_age });
    }

    /// What the archive is said to have is what the cluster had, in one history, without a hole.
    fn check(&self, number: usize) {
        let archive = &self.archives[number];
        let is_it = |history: &&Vec<Content>| {
            (archive.base + 1..=archive.end)
                .all(|at| history.get((at - 2) as usize) == archive.log.get(&at))
                && archive.log.iter().all(|(at, it)| history.get((at - 2) as usize) == Some(it))
        };
        let (base, end) = (archive.base, archive.end);
        assert!(
            self.cluster.histories.iter().any(|history| is_it(&history)),
            "archive {number}: no history has what it has from {base} to {end}"
        );
    }

    /// As the archive crate does it: what contradicts what was there begins a timeline of its own.
    fn make_base(&mut self, number: usize) {
        let Some(snapshot) =
            self.snapshot.as_ref().filter(|_| self.good || !self.chance.once_in(5))
        else {
            return self.hear(Event::Base { archive: number, revision: None, moved: false });
        };
        let archive = &mut self.archives[number];
        let at = |at: i64| snapshot.contents.get((at - 2) as usize);
        // What its log has behind its last base is read, or is known to be what the journal has, or it is not
        // known at all.
        let last = archive.end.min(snapshot.revision);
        let is_fed = |at: i64| {
            let kept = having(&self.journal, revision(at)).map(contents);
            kept.is_some_and(|kept| kept.get(&at) == archive.log.get(&at))
        };
        let is_known = !archive.sealed || (archive.base + 1..=archive.end).all(is_fed);
        let compared = if is_known && !archive.left { last } else { archive.base };
        let mut seen = archive.log.range(..=compared.min(snapshot.revision));
        let agrees = seen.all(|(number, it)| at(*number) == Some(it));
        let went_back = archive.base > snapshot.revision;
        let may_go_on = match (archive.end > archive.base, is_known) {
            (false, _) => true,
            (true, true) => archive.followed || archive.end <= snapshot.revision,
            (true, false) => archive.followed,
        };
        let moved = archive.base == 0 || !agrees || went_back || archive.left || !may_go_on;
        let mut there = archive.log.range(..=snapshot.revision);
        let is_one = there.all(|(number, it)| at(*number) == Some(it));
        assert!(moved || is_one, "archive {number}: one timeline, two histories");
        if moved {
            self.timelines += 1;
            (archive.timeline, archive.end) = (self.timelines, 0);
            archive.log.clear();
            self.seen.count("another timeline");
        }
        for number in 2..=snapshot.revision {
            archive.log.insert(number, snapshot.contents[(number - 2) as usize].clone());
        }
        archive.base = snapshot.revision;
        let was_erased = std::mem::take(&mut archive.has_hole);
        match (moved, was_erased) {
            (true, _) => archive.erased_to = 0,
            (false, true) => archive.erased_to = snapshot.revision,
            (false, false) => {}
        }
        archive.end = archive.end.max(snapshot.revision);
        let made = Some(revision(snapshot.revision));
        self.seen.count("base");
        self.check(number);
        self.hear(Event::Base { archive: number, revision: made, moved });
        if moved {
            self.archives[number].open = false;
            self.hear(Event::Closed { archive: number, overtaken: false });
        }
    }

    /// The process dies, and comes again with what lies on its disk.
    fn kill(&mut self) {
        self.seen.count("killed");
        if self.chance.once_in(4) {
            self.clear_journal();
        }
        // What does not go on to the newest is taken away.
        let breaks = |pair: &[Cut]| pair[0].last.later(1) != Some(pair[1].first);
        if let Some(last) = self.journal.windows(2).rposition(breaks) {
            self.journal.drain(..=last);
        }
        let tail = self.journal.last().map(|cut| {
            let records = records(cut).into_iter().filter(|(key, _)| key.revision == cut.last);
            Tail::new((self.journal[0].first, cut.last), cut.witness, records.collect())
        });
        if tail.is_some() {
            self.seen.count("resumed");
        }
        self.machine = Machine::new(settings(self.wild), ARCHIVES, tail);
        self.cluster.end_watch();
        (self.asked, self.snapshot, self.hashing) = (false, None, false);
        for archive in &mut self.archives {
            (archive.open, archive.making, archive.order) = (false, false, None);
        }
        self.passed = Duration::ZERO;
    }

    fn clear_journal(&mut self) {
        self.journal.clear();
        self.archives.iter_mut().for_each(|archive| archive.fed = None);
    }

    /// It is bounded.
    fn lose_some_journal(&mut self) {
        let len = self.journal.len() as i64;
        if len > 1 {
            self.journal.drain(..self.chance.below(len) as usize);
        }
    }

    fn hear(&mut self, event: Event) {
        let now = Now { wall: Moment(self.wall), passed: self.passed };
        for action in self.machine.step(event, now).unwrap() {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Watch { watch, from, .. } => self.cluster.open_watch(watch, from),
            Action::EndWatch => self.cluster.end_watch(),
            Action::AskProgress => self.cluster.ask(),
            Action::LookUp { .. } => {}
            Action::Keep(cut) => {
                if self.journal.last().is_some_and(|last| cut.first <= last.last) {
                    self.clear_journal();
                }
                self.journal.push(cut);
            }
            Action::ClearJournal => {
                self.archives.iter_mut().for_each(|archive| archive.left = true);
                self.clear_journal();
            }
            Action::Mark { archive } => {
                let archive = &mut self.archives[archive];
                (archive.fed, archive.left) = (Some(archive.timeline), false);
            }
            Action::UnmarkAll => self.archives.iter_mut().for_each(|archive| archive.fed = None),
            Action::Unmark { archive } => self.archives[archive].fed = None,
            Action::Write { archive, from } => self.write(archive, from),
            Action::ShowLife { archive } => {
                assert!(self.archives[archive].order.is_none(), "one thing after the other");
                self.archives[archive].order = Some(Order::ShowLife);
            }
            Action::Beat { archive, cut } => {
                assert!(cut.is_empty());
                assert_eq!(cut.last.get(), self.archives[archive].end);
                self.archives[archive].order = Some(Order::Beat);
            }
            Action::TakeSnapshot => self.asked = true,
            Action::MakeBase { archive, followed, .. } => {
                let snapshot = self.snapshot.as_mut().unwrap();
                assert!(
                    snapshot.tried.insert(archive),
                    "one that fails is not tried at once again"
                );
                let archive = &mut self.archives[archive];
                (archive.making, archive.followed) = (true, followed);
            }
            Action::DropSnapshot => self.snapshot = None,
            Action::AskMembers => self.hashing = true,
            Action::Testify { archive } => {
                self.seen.count("witness");
                let archive = &self.archives[archive];
                let to = self.hashed.len() as i64 + 1;
                assert!(archive.end >= to, "it has not come so far");
                for (at, content) in archive.log.range(..=to) {
                    assert_eq!(
                        self.hashed.get((at - 2) as usize),
                        Some(content),
                        "another history"
                    );
                }
            }
            Action::Tell(notice) => self.note(&notice),
            Action::End => self.ended = true,
        }
    }

    fn write(&mut self, archive: usize, from: Revision) {
        let there = &self.archives[archive];
        assert!(there.order.is_none(), "one thing after the other");
        let is_erased = there.has_hole || from.get() <= there.erased_to;
        assert!(!is_erased, "what was erased must not come back");
        match having(&self.journal, from) {
            Some(cut) => self.archives[archive].order = Some(Order::Write(cut.clone())),
            None => {
                self.seen.count("missing");
                self.hear(Event::Missing { archive });
            }
        }
    }

    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Following { .. } => {}
            Notice::Behind { .. } => self.seen.count("behind"),
            Notice::Lost { .. } => self.seen.count("lost"),
            Notice::AnotherHistory { .. } => self.seen.count("another history"),
            Notice::Gap { archive, first, last } => {
                self.seen.count("gap");
                let of_snapshot = |it: &Snapshot| it.compact.min(it.revision - 1);
                let compact = self.snapshot.as_ref().map_or(0, of_snapshot);
                let archive = &self.archives[*archive];
                assert!(last.get() == compact || last.get() + 1 == archive.base);
                assert!(first <= last && first.get() <= archive.end + 1);
            }
        }
    }
}

fn having(journal: &[Cut], revision: Revision) -> Option<&Cut> {
    journal.iter().find(|cut| cut.first <= revision && cut.last >= revision)
}

fn records(cut: &Cut) -> Vec<(RecordKey, Vec<u8>)> {
    let (_, content) = segment::parse(&cut.content).unwrap();
    let run = run::Run::parse_index(content).unwrap();
    let mut found = Vec::new();
    for (range, entry) in run.blocks() {
        let mut records = run::Run::open(content, &range, entry).unwrap();
        while let Some(key) = records.advance() {
            found.push((key, records.value().to_vec()));
        }
    }
    found
}

/// Its revisions, put into words as the cluster's are.
fn contents(cut: &Cut) -> BTreeMap<i64, Content> {
    let mut contents: BTreeMap<i64, Content> = BTreeMap::new();
    for (key, value) in records(cut) {
        let name = String::from_utf8(KeyValue::parse(&value).unwrap().key.to_vec()).unwrap();
        let sign = if key.tombstone { '-' } else { '+' };
        let content = contents.entry(key.revision.get()).or_default();
        let parted = if content.is_empty() { "" } else { " " };
        *content += &format!("{parted}{sign}{name}");
    }
    let _: Witness = cut.witness;
    contents
}
