//! Revisions between bases: what the log has behind one is brought back as it was.

mod keyspaces;

use keyspaces::{
    Keyspace, Pairs, Saving, advance, all_of, forget, now, now_is, read_back, seeds, verdict,
};
use rekindle_archive::format::base::Base;
use rekindle_archive::format::header::Moment;
use rekindle_archive::{Archive, BaseEntry, BaseRecords, Earlier, Error, Tail, read_base};
use rekindle_etcd::{Backend, HashRequest, Records, Revision};
use std::collections::BTreeMap;

const HOUR: i64 = 3_600_000;

fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

/// A base, and what follows it up to a revision.
fn up_to(archive: &Archive, entry: &BaseEntry, to: i64) -> Result<(Base, Tail), Error> {
    archive.following(entry)?.up_to(read_base(archive, entry)?, revision(to))
}

fn records(archive: &Archive, entry: &BaseEntry, base: &Base, tail: &Tail) -> Pairs {
    let mut records = BaseRecords::with_tail(archive, entry, base, Some(tail)).unwrap();
    let mut pairs = Vec::new();
    while let Some(pair) = records.next_record().unwrap() {
        pairs.push((pair.key.to_vec(), pair.value.to_vec()));
    }
    pairs
}

/// The archive brings back what the keyspace was, with its revision and its HashKV.
fn check(archive: &Archive, entry: &BaseEntry, want: &Keyspace) {
    let (base, tail) = up_to(archive, entry, want.revision).unwrap();
    assert!(records(archive, entry, &base, &tail) == want.pairs(), "revision {}", want.revision);
    let backend = Backend::open(base.frame.as_slice()).unwrap();
    assert_eq!(backend.facts().unwrap().revision().get(), want.revision);
    let mut read = BaseRecords::with_tail(archive, entry, &base, Some(&tail)).unwrap();
    let hash = backend.hash_kv_of(&mut read, &HashRequest::default()).unwrap();
    assert_eq!(hash, want.backend().hash_kv(&HashRequest::default()).unwrap());
    assert!(tail.records >= (want.revision - entry.header.facts.last.get()).unsigned_abs());
}

/// Bases with several revisions between them, each of which is known.
struct History {
    saving: Saving,
    keyspace: Keyspace,
    /// What the keyspace was at each revision.
    states: BTreeMap<i64, Keyspace>,
}

impl History {
    fn new(seed: u64) -> Self {
        let (saving, keyspace) = (Saving::new(), Keyspace::new());
        let mut this = Self { saving, keyspace, states: BTreeMap::new() };
        for round in 0..6 {
            for n in 0..10 {
                let number = (seed * 7 + n * 3 + round) % 9;
                let names = [format!("/key/{number}"), format!("/other/{}", number % 4)];
                let changes = [(&*names[0], number == 5), (&*names[1], false), ("/always", n == 4)];
                this.write(&changes[..1 + (number as usize) % 3], 300);
            }
            // Not beyond the last base.
            let compact = this.keyspace.revision - 10;
            this.keyspace.compact(compact.max(1));
            this.save();
        }
        this
    }

    fn write(&mut self, changes: &[(&str, bool)], len: usize) {
        self.keyspace.write(changes, len);
        self.states.insert(self.keyspace.revision, self.keyspace.clone());
    }

    fn save(&mut self) {
        self.saving.save(&self.keyspace);
        self.states.insert(self.keyspace.revision, self.keyspace.clone());
        advance(HOUR);
    }

    fn bases(&self) -> Vec<BaseEntry> {
        self.saving.archive.list().unwrap().bases
    }
}

#[test]
fn every_revision_between_two_bases() {
    for seed in seeds(10) {
        let history = History::new(seed);
        let bases = history.bases();
        for pair in bases.windows(2) {
            let [from, to] = [0, 1].map(|place: usize| pair[place].header.facts.last.get());
            let following = history.saving.archive.following(&pair[0]).unwrap();
            assert!(following.last().get() >= to);
            // That of the later base has compacted more: it is another state of the same revision.
            for (_, want) in history.states.range(from + 1..to) {
                check(&history.saving.archive, &pair[0], want);
            }
        }
        let last = history.saving.archive.following(bases.last().unwrap()).unwrap();
        assert_eq!(last.last(), bases.last().unwrap().header.facts.last, "nothing follows");
    }
}

/// What was compacted away before the later base was saved is not there, and nothing else is given for it.
#[test]
fn a_gap_is_named() {
    let mut history = History::new(1);
    let before = history.bases().pop().unwrap();
    let begin = history.keyspace.revision;
    (0..10).for_each(|_| history.write(&[("/key/1", false)], 100));
    history.keyspace.compact(begin + 4);
    history.save();
    let archive = &history.saving.archive;
    assert_eq!(archive.following(&before).unwrap().last(), before.header.facts.last);
    for to in [begin + 1, begin + 4, begin + 5, begin + 10, begin + 100] {
        let refused = up_to(archive, &before, to).unwrap_err();
        let Error::LogMissing { missing, .. } = refused else { panic!("{refused}") };
        assert_eq!(missing.get(), begin + 1);
    }
    let refused = up_to(archive, &before, begin).unwrap_err();
    assert!(matches!(refused, Error::LogMissing { .. }), "that is the base itself");
}

/// Between two bases nobody saw when a revision came: it is reckoned, and said to be.
#[test]
fn times_mean_revisions() {
    let mut history = History::new(2);
    let archive = history.saving.archive.clone();
    let from = history.bases().pop().unwrap();
    let begin = history.keyspace.revision;
    (0..100).for_each(|_| history.write(&[("/key/1", false)], 100));
    history.save();
    let to = history.bases().pop().unwrap();
    let following = archive.following(&from).unwrap();
    let [before, after] = [&from, &to].map(|base| base.header.facts.state.0);
    let at = |ms: i64| {
        let instant = following.at(Moment(ms)).unwrap();
        instant.map(|it| (it.revision.get() - begin, it.at.0 - ms, it.reckoned))
    };
    assert_eq!(at(before - 1), None);
    assert_eq!(at(before), None, "that is the base itself");
    assert_eq!(at(before + (after - before) / 2), Some((50, 0, true)));
    assert_eq!(at(after - 1), Some((99, 0, true)));
    assert_eq!(at(after), Some((100, 0, false)));
    assert_eq!(at(after + 1000), Some((100, -1000, false)));
    let (_, tail) = up_to(&archive, &from, begin + 25).unwrap();
    assert_eq!((tail.at.0, tail.reckoned), (before + (after - before) / 4, true));
}

/// A log of several segments, of which one is damaged or gone.
#[test]
fn a_damaged_log_is_named() {
    let mut history = History::new(3);
    let before = history.bases().pop().unwrap();
    let begin = history.keyspace.revision;
    (0..40).for_each(|_| history.write(&[("/key/1", false)], 1 << 19));
    history.save();
    let archive = history.saving.archive.clone();
    let want = &history.states[&(begin + 35)];
    check(&archive, &before, want);
    let log = archive.store().list("timelines").unwrap().into_iter();
    let mut log: Vec<_> = log.filter(|it| it.name.ends_with(".seg")).collect();
    let middle = log.swap_remove(log.len() - 2);
    let mut bytes = archive.store().read(&middle.name, middle.bytes).unwrap().to_vec();
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    archive.store().remove(&middle.name).unwrap();
    let missing = up_to(&archive, &before, begin + 35).unwrap_err();
    assert!(matches!(missing, Error::LogMissing { .. }), "{missing}");
    archive.store().create(&middle.name, bytes).unwrap();
    let (base, tail) = up_to(&archive, &before, begin + 35).unwrap();
    let mut records = BaseRecords::with_tail(&archive, &before, &base, Some(&tail)).unwrap();
    let damaged = loop {
        match records.next_record() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it was read to its end"),
            Err(fault) => break fault.to_string(),
        }
    };
    assert!(damaged.contains(&middle.name), "{damaged}");
    let verdict = verdict(&archive, now_is()).unwrap();
    assert!(verdict.findings.iter().any(|found| found.object == middle.name), "{verdict:?}");
}

/// A mark says what was erased from the log: where one is damaged, bases come back, and nothing else.
#[test]
fn a_damaged_mark_is_no_damage_of_bases() {
    let history = History::new(5);
    let archive = &history.saving.archive;
    let [first, second, ..] = &history.bases()[..] else { panic!("there are six") };
    let facts = |base: &BaseEntry| base.header.facts.last;
    assert!(archive.following(first).unwrap().last() >= facts(second));
    archive.store().create("prune/x.json", b"{".to_vec()).unwrap();
    assert_eq!(archive.following(first).unwrap().last(), facts(first));
    read_back(archive, second).unwrap();
}

/// The log has it until a prune comes; nothing is brought back from there.
#[test]
fn what_was_forgotten_stays_so() {
    let mut history = History::new(4);
    let begin = history.keyspace.revision;
    history.write(&[("/secret", false)], 40);
    history.write(&[("/key/1", false)], 40);
    history.save();
    let archive = history.saving.archive.clone();
    let of = |place: usize| history.bases()[place].clone();
    let count = history.bases().len();
    check(&archive, &of(count - 2), &history.states[&(begin + 1)]);
    forget(&archive, &all_of("/secret"), &now).unwrap();
    let (base, tail) = up_to(&archive, &of(count - 2), begin + 1).unwrap();
    let of_log = records(&archive, &of(count - 2), &base, &tail);
    assert_eq!(tail.to, revision(begin + 1));
    assert!(of_log.iter().all(|(_, value)| !value.windows(7).any(|it| it == b"/secret")));
    let left = read_back(&archive, &of(count - 1)).unwrap();
    assert!(left.iter().all(|(_, value)| !value.windows(7).any(|it| it == b"/secret")));
}

/// Of a revision between that at which a base was compacted and its own the base has everything: where no log
/// leads there, nothing was brought back.
#[test]
fn revisions_before_a_base_that_compaction_has_left() {
    for seed in seeds(4) {
        let mut history = History::new(seed);
        let before = history.bases().pop().unwrap();
        let begin = history.keyspace.revision;
        for n in 0..20 {
            let names = [format!("/key/{}", (seed + n) % 5), format!("/more/{}", n % 3)];
            let changes = [(&*names[0], n % 7 == 3), (&*names[1], n == 8)];
            history.write(&changes[..1 + (n as usize) % 2], 200);
        }
        let compact = begin + 8;
        history.keyspace.compact(compact);
        history.save();
        let archive = &history.saving.archive;
        let later = history.bases().pop().unwrap();
        let as_of = |to: i64| {
            let base = read_base(archive, &later).unwrap();
            archive.as_of(&later, base, revision(to), Some(&before))
        };
        for number in compact + 1..history.keyspace.revision {
            let mut want = history.states[&number].clone();
            want.compact(compact);
            let Earlier { entry, base, .. } = as_of(number).unwrap();
            let facts = &entry.header.facts;
            assert!(
                facts.state > before.header.facts.state && facts.state < later.header.facts.state
            );
            let mut records = BaseRecords::new(archive, &entry, &base).unwrap();
            let mut pairs = Vec::new();
            while let Some(pair) = records.next_record().unwrap() {
                pairs.push((pair.key.to_vec(), pair.value.to_vec()));
            }
            assert!(pairs == want.pairs(), "revision {number} of seed {seed}");
            let backend = Backend::open(base.frame.as_slice()).unwrap();
            assert_eq!(backend.facts().unwrap().revision(), facts.last);
            let mut records = BaseRecords::new(archive, &entry, &base).unwrap();
            let hash = backend.hash_kv_of(&mut records, &HashRequest::default()).unwrap();
            assert_eq!(hash, want.backend().hash_kv(&HashRequest::default()).unwrap());
        }
        for number in [begin + 1, compact, history.keyspace.revision] {
            let refused = as_of(number).unwrap_err();
            assert!(matches!(refused, Error::LogMissing { .. }), "{number}: {refused}");
        }
    }
}

/// The last record of a revision tells that it was there: where it was erased, nothing else stands for it.
#[test]
fn a_revision_before_a_base_of_which_the_last_record_was_erased() {
    let mut history = History::new(2);
    let before = history.bases().pop().unwrap();
    let begin = history.keyspace.revision;
    for _ in 0..6 {
        history.write(&[("/key/1", false), ("/secret", false)], 40);
    }
    history.keyspace.compact(begin + 2);
    history.save();
    let archive = &history.saving.archive;
    forget(archive, &all_of("/secret"), &now).unwrap();
    let later = history.bases().pop().unwrap();
    let to = begin + 4;
    let base = read_base(archive, &later).unwrap();
    let Earlier { entry, base, .. } =
        archive.as_of(&later, base, revision(to), Some(&before)).unwrap();
    let mut records = BaseRecords::new(archive, &entry, &base).unwrap();
    let mut last = None;
    while let Some(pair) = records.next_record().unwrap() {
        assert!(!pair.value.windows(7).any(|it| it == b"/secret"));
        last = Some((pair.key.to_vec(), pair.value.len()));
    }
    let backend = Backend::open(base.frame.as_slice()).unwrap();
    assert_eq!(backend.facts().unwrap().revision(), revision(to));
    let told = backend.facts().unwrap().last_record.unwrap().to_bytes().to_vec();
    assert_eq!(last, Some((told, 0)));
}
