//! The log as it is followed: whose turn it is to write it, what the journal keeps of it, and bases that
//! are compared with it.

mod keyspaces;

use keyspaces::{Keyspace, Saving, a_spool, advance, now, now_is, seeds, verdict};
use rekindle_archive::format::header::Moment;
use rekindle_archive::format::segment::LeaseGrant;
use rekindle_archive::format::witness::Testimony;
use rekindle_archive::format::{ObjectId, TimelineId};
use rekindle_archive::{
    Archive, BaseRecords, BaseRequest, BaseWritten, Change, Comparison, Cut, Cutter, Error,
    ForgetRequest, Forgotten, GRACE, Identity, Journal, Level, LogView, LogWriter, MemberHash,
    Merging, Origin, Policy, Progress, Protection, PruneRequest, Sealing, Store, VerifyProgress,
    Witness, Word, Written, plan_forget, plan_prune, prepare_base, read_base,
};
use rekindle_bolt::Db;
use rekindle_etcd::{
    ClusterId, HashRequest, KeyValue, Lease, MemberId, RaftTerm, Records, Revision, schema,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};

const CLUSTER: ClusterId = ClusterId(1);
const HOST: ObjectId = ObjectId([7; 16]);

fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

fn witness() -> Witness {
    Witness { cluster: CLUSTER, member: MemberId(2), term: RaftTerm(5) }
}

/// What came of a keyspace from one revision to another, as it was told.
fn cut(keyspace: &Keyspace, first: i64, last: i64) -> Cut {
    let mut cutter = Cutter::new(revision(first));
    for number in first..=last {
        let records = keyspace.records.range((number, 0, false)..(number + 1, 0, false));
        let changes: Vec<_> = records
            .map(|((_, _, is_delete), (name, value))| {
                let key = name.as_bytes();
                let kv = match is_delete {
                    true => KeyValue { key, mod_revision: number, ..KeyValue::default() },
                    false => KeyValue { key, value, mod_revision: number, ..KeyValue::default() },
                };
                Change { kv, is_delete: *is_delete }
            })
            .collect();
        cutter.add(&changes, now()).unwrap();
    }
    cutter.cut(witness(), now()).unwrap()
}

/// A cluster that is followed into an archive.
struct Following {
    saving: Saving,
    keyspace: Keyspace,
    journal: Journal,
    writer: LogWriter,
    /// Up to where it was followed.
    end: i64,
}

impl Following {
    fn new() -> Self {
        Self::into(Saving::new())
    }

    fn into(saving: Saving) -> Self {
        let mut keyspace = Keyspace::new();
        for number in 0..20 {
            keyspace.write(&[(&format!("/key/{}", number % 7), false)], 200);
        }
        let base = saving.save(&keyspace);
        let journal =
            Journal::open(&saving.spool.path().join("journal"), 1 << 30, now_is()).unwrap();
        let writer = saving.archive.claim(base.facts.timeline, HOST, "here", now()).unwrap();
        let end = keyspace.revision;
        Self { saving, keyspace, journal, writer, end }
    }

    fn write(&mut self, count: i64) {
        for number in 0..count {
            let number = self.keyspace.revision + number;
            let changes = [
                (&*format!("/key/{}", number % 7), number % 5 == 0),
                ("/always", false),
                (&*format!("/other/{}", number % 3), number % 4 == 0),
            ];
            self.keyspace.write(&changes[..1 + (number as usize) % 3], 300);
        }
    }

    /// Writes what has come into the log.
    fn follow(&mut self) -> Written {
        let cut = cut(&self.keyspace, self.end + 1, self.keyspace.revision);
        self.end = self.keyspace.revision;
        self.journal.add(&cut).unwrap();
        self.writer.append(&cut, now()).unwrap()
    }

    fn view(&self) -> LogView {
        self.journal.view(self.writer.timeline(), revision(self.end))
    }

    fn try_save(&self, keyspace: &Keyspace, log: Option<&LogView>) -> Result<BaseWritten, Error> {
        save(&self.saving.archive, keyspace, self.saving.spool.path(), log)
    }
}

fn save(
    archive: &Archive,
    keyspace: &Keyspace,
    tables: &Path,
    log: Option<&LogView>,
) -> Result<BaseWritten, Error> {
    save_as(archive, keyspace, tables, (log, true))
}

/// With what is known of the archive's log: what a journal has, and whether it is said to be of this history.
fn save_as(
    archive: &Archive,
    keyspace: &Keyspace,
    tables: &Path,
    (log, followed): (Option<&LogView>, bool),
) -> Result<BaseWritten, Error> {
    let (cluster, member) = (CLUSTER, MemberId(2));
    let (etcd, state) = ("3.6.16".to_owned(), now());
    let origin = Origin { cluster, member, etcd, state, current: true };
    let progress = Progress { walked: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let at = now();
    let clock = move || at;
    let plain = BaseRequest::new(archive, &origin, &clock, progress);
    let request = BaseRequest { tables: Some(tables), log, followed, ..plain };
    prepare_base(&request, &keyspace.backend())?.publish(now())
}

fn agreed(base: &BaseWritten) -> rekindle_archive::Counts {
    match &base.comparison {
        Comparison::Agreed { counts, .. } => *counts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_base_is_compared_with_what_was_followed_and_writes_nothing_of_it() {
    for seed in seeds(20) {
        let mut following = Following::new();
        following.write(10 + seed.cast_signed() % 7);
        following.follow();
        following.write(9);
        following.follow();
        // Of what the snapshot is of, the log may have more.
        let at = following.keyspace.clone();
        following.write(5);
        following.follow();
        for (keyspace, compacted) in
            [(at, 0), (following.keyspace.clone(), seed.cast_signed() % 30)]
        {
            let mut keyspace = keyspace;
            if compacted > 0 {
                keyspace.compact(compacted + 5);
            }
            let base = following.try_save(&keyspace, Some(&following.view())).unwrap();
            let counts = agreed(&base);
            assert_eq!((counts.new, base.objects), (0, 0), "seed {seed}: all of it was there");
            let saved = following.saving.archive.list().unwrap().bases;
            let entry = saved.iter().find(|it| it.name == base.name).unwrap();
            let back = keyspaces::read_back(&following.saving.archive, entry).unwrap();
            assert!(back == keyspace.pairs(), "seed {seed}");
        }
        let verdict = verdict(&following.saving.archive, now_is()).unwrap();
        assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
        assert!(verdict.points.iter().all(|point| point.level == Some(Level::Proven)));
    }
}

/// Where the snapshot is ahead of what was written, the rest comes from the snapshot.
#[test]
fn what_was_not_followed_yet_comes_from_the_snapshot() {
    let mut following = Following::new();
    following.write(10);
    following.follow();
    following.write(4);
    let base = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    assert!(agreed(&base).new > 0);
    let entry = following.saving.archive.list().unwrap().bases.pop().unwrap();
    let back = keyspaces::read_back(&following.saving.archive, &entry).unwrap();
    assert!(back == following.keyspace.pairs());
    // And the next one goes on from both.
    following.end = following.keyspace.revision;
    following.write(3);
    following.follow();
    let base = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    assert_eq!(agreed(&base).new, 0);
}

/// Any record of the log that the snapshot has otherwise, or not at all, is an alarm.
#[test]
fn a_log_that_differs_from_the_snapshot_is_an_alarm() {
    let mut following = Following::new();
    following.write(12);
    following.follow();
    let whole = following.keyspace.clone();
    let places: Vec<_> = whole.records.keys().copied().filter(|key| key.0 > 21).collect();
    for place in places {
        let mut changed = whole.clone();
        let (name, mut value) = changed.records.remove(&place).unwrap();
        let is_last_of_all = *whole.records.keys().next_back().unwrap() == place;
        if !is_last_of_all {
            let base = following.try_save(&changed, Some(&following.view())).unwrap();
            let contradicted = matches!(base.comparison, Comparison::Contradicted { .. });
            assert!(contradicted, "{place:?} is gone: {:?}", base.comparison);
            following = again(&whole);
        }
        value.push(b'!');
        changed.records.insert(place, (name + "?", value));
        let base = following.try_save(&changed, Some(&following.view())).unwrap();
        let contradicted = matches!(base.comparison, Comparison::Contradicted { .. });
        assert!(contradicted, "{place:?} is changed: {:?}", base.comparison);
        following = again(&whole);
    }
}

/// The same, followed into another archive.
fn again(keyspace: &Keyspace) -> Following {
    let mut following = Following::new();
    following.keyspace = keyspace.clone();
    following.follow();
    following
}

#[test]
fn the_turn_is_one_writers_at_a_time() {
    let mut following = Following::new();
    let archive = following.saving.archive.clone();
    let timeline = following.writer.timeline();
    let seen = archive.activity(timeline).unwrap();
    assert_eq!(seen.claim.as_ref().unwrap().host, "here");
    following.write(3);
    let first = cut(&following.keyspace, following.end + 1, following.end + 2);
    following.writer.append(&first, now()).unwrap();
    let later = archive.activity(timeline).unwrap();
    assert_ne!(later, seen, "who writes is not silent");
    assert_eq!(archive.activity(timeline).unwrap(), later);

    // Another one claims the turn while this one has something on its way.
    let other = ObjectId([8; 16]);
    let mut theirs = archive.claim(timeline, other, "there", now()).unwrap();
    let second = cut(&following.keyspace, following.end + 3, following.end + 3);
    for _ in 0..2 {
        let refused = following.writer.append(&second, now()).unwrap_err();
        assert!(matches!(&refused, Error::Overtaken { host, .. } if host == "there"), "{refused}");
    }
    let end = archive.log_end(CLUSTER).unwrap().unwrap();
    assert!(end.last.get() >= following.end + 2, "what was called written is there");
    theirs.append(&second, now()).unwrap();
    assert_eq!(archive.log_end(CLUSTER).unwrap().unwrap().last.get(), following.end + 3);
    let claim = archive.activity(timeline).unwrap().claim.unwrap();
    assert_eq!((claim.writer, claim.epoch.0), (other, 2));
    let verdict = verdict(&archive, now_is()).unwrap();
    assert!(verdict.findings.is_empty(), "claims are no rubbish: {:?}", verdict.findings);
}

#[test]
fn claims_of_which_one_cannot_be_read() {
    let following = Following::new();
    let (archive, timeline) = (&following.saving.archive, following.writer.timeline());
    let name = format!("timelines/{timeline}/writers/{:020}.json", 2);
    archive.store().create(&name, b"{}".to_vec()).unwrap();
    // Whoever it is: somebody has the turn.
    let refused = following.writer.check_turn().unwrap_err();
    assert!(matches!(refused, Error::Overtaken { .. }), "{refused}");
    assert!(matches!(archive.activity(timeline), Err(Error::Json { .. })));
    let writer = archive.claim(timeline, HOST, "here", now()).unwrap();
    writer.check_turn().unwrap();
}

/// What tells that nothing had come is kept as long as the log is, and is in nobody's way.
#[test]
fn heartbeats() {
    let mut following = Following::new();
    following.write(5);
    following.follow();
    let archive = following.saving.archive.clone();
    let mut idle = Cutter::new(revision(following.end + 1));
    for _ in 0..3 {
        let beat = idle.cut(witness(), now()).unwrap();
        following.writer.append(&beat, now()).unwrap();
    }
    let end = archive.log_end(CLUSTER).unwrap().unwrap();
    assert_eq!(end.last.get(), following.end);
    let verdict = verdict(&archive, now_is()).unwrap();
    assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
    let segments = |archive: &Archive| {
        let listed = archive.store().list("timelines").unwrap();
        listed.into_iter().filter(|it| it.name.ends_with(".seg")).count()
    };
    assert_eq!(segments(&archive), 2, "only the last one says anything");
    let grace = 1000;
    let prune = |log| {
        let policy = Policy { log: Some(log), last: 1, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap()
    };
    prune(3_600_000);
    assert_eq!(segments(&archive), 2, "the log is kept");
    following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    advance(7_200_000);
    assert_eq!(prune(3_600_000).marked, 1, "the base needs what has records");
}

#[test]
fn leases_of_the_log_come_back() {
    let mut following = Following::new();
    following.write(2);
    let mut cutter = Cutter::new(revision(following.end + 1));
    let kv = KeyValue { key: b"leased", lease: 77, ..KeyValue::default() };
    cutter.add(&[Change { kv, is_delete: false }], now()).unwrap();
    cutter.add_lease(LeaseGrant { id: 77, ttl_s: 600 });
    let mut merging = Merging::default();
    let archive = following.saving.archive.clone();
    for cut in [cutter.cut(witness(), now()).unwrap(), {
        let kv = KeyValue { key: b"leased", lease: 77, ..KeyValue::default() };
        cutter.add(&[Change { kv, is_delete: false }], now()).unwrap();
        cutter.cut(witness(), now()).unwrap()
    }] {
        following.journal.add(&cut).unwrap();
        let written = following.writer.append(&cut, now()).unwrap();
        merging.wrote(following.journal.newest().unwrap().clone(), written);
    }
    let check = |archive: &Archive| {
        let entry = archive.list().unwrap().bases.pop().unwrap();
        let base = read_base(archive, &entry).unwrap();
        let behind = archive.following(&entry).unwrap();
        let (base, _) = behind.up_to(base, revision(following.end + 1)).unwrap();
        let frame = Db::open(base.frame.as_slice()).unwrap();
        let bucket = frame.bucket(&frame.root(), schema::LEASE).unwrap().unwrap();
        let lease = Lease { id: 77, ttl_s: 600 };
        assert_eq!(frame.get(&bucket, &lease.key()).unwrap(), Some(lease.to_bytes()));
    };
    check(&archive);
    advance(600_000);
    let merge = merging.due(now_is()).unwrap();
    assert_eq!(following.writer.merger().merge(&merge, now).unwrap().objects(), 1);
    let small: Vec<_> = segments(&archive).into_iter().filter(|it| it.contains("/0/")).collect();
    assert_eq!(small.len(), 2);
    small.iter().for_each(|name| archive.store().remove(name).unwrap());
    check(&archive);
}

#[test]
fn a_journal_is_kept() {
    let (directory, keyspace) = (a_spool(), {
        let mut keyspace = Keyspace::new();
        (0..40).for_each(|number| keyspace.write(&[("k", number % 3 == 0)], 500));
        keyspace
    });
    let path = directory.path().join("journal");
    let cuts: Vec<_> = (0..4).map(|n| cut(&keyspace, 2 + n * 10, 11 + n * 10)).collect();
    let id = {
        let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
        let other = Journal::open(&path, 1 << 30, now_is()).unwrap_err();
        assert!(other.to_string().contains("another capture on this host uses it"), "{other}");
        cuts.iter().for_each(|cut| journal.add(cut).unwrap());
        journal.writer().unwrap()
    };
    let archive = following_id();
    let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
    assert_eq!(journal.writer().unwrap(), id);
    assert_eq!((journal.first(), journal.last()), (Some(revision(2)), Some(revision(41))));
    for (number, cut) in cuts.iter().enumerate() {
        let at = revision(5 + 10 * number as i64);
        assert_eq!(journal.having(at).unwrap().read().unwrap(), *cut);
    }
    assert!(journal.having(revision(1)).is_none() && journal.having(revision(42)).is_none());
    let newest = journal.newest().unwrap().last_records().unwrap();
    assert_eq!(newest.iter().map(|(key, _)| key.revision.get()).collect::<Vec<_>>(), [41]);

    let timeline = TimelineId([3; 16]);
    assert_eq!(journal.feeds(archive), None);
    journal.feed(archive, timeline).unwrap();
    drop(journal);
    let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
    assert_eq!(journal.feeds(archive), Some(timeline));
    journal.clear().unwrap();
    assert_eq!((journal.first(), journal.feeds(archive)), (None, None));

    // It is bounded, and what does not go on from it stands beside it.
    drop(journal);
    let bytes = cuts[0].content.len() as u64;
    let mut journal = Journal::open(&path, bytes * 2 + bytes / 2, now_is()).unwrap();
    [0, 1, 3].iter().for_each(|n| journal.add(&cuts[*n]).unwrap());
    assert_eq!((journal.first(), journal.last()), (Some(revision(12)), Some(revision(41))));
    assert!(journal.having(revision(25)).is_none());
    // What goes back takes all before away: it is of another history.
    journal.feed(archive, timeline).unwrap();
    journal.add(&cuts[1]).unwrap();
    assert_eq!((journal.first(), journal.last()), (Some(revision(12)), Some(revision(21))));
    assert_eq!(journal.feeds(archive), None);
}

fn following_id() -> rekindle_archive::format::ArchiveId {
    rekindle_archive::format::ArchiveId([5; 16])
}

/// Of a journal that a host left when it went down, what is damaged is none.
#[test]
fn a_damaged_journal_is_none() {
    let directory = a_spool();
    let path = directory.path().join("journal");
    let mut keyspace = Keyspace::new();
    (0..20).for_each(|_| keyspace.write(&[("k", false)], 100));
    let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
    let names = |path: &Path| {
        let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|it| it.extension().is_some_and(|it| it == "cut")).collect();
        files.sort();
        files
    };
    let cuts = [cut(&keyspace, 2, 11), cut(&keyspace, 12, 21)];
    cuts.iter().for_each(|cut| journal.add(cut).unwrap());
    drop(journal);
    let newest = names(&path).pop().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    for at in (0..whole.len()).step_by(7) {
        for change in [true, false] {
            let mut bytes = whole.clone();
            if change {
                bytes[at] ^= 1;
            } else {
                bytes.truncate(at);
            }
            std::fs::write(&newest, bytes).unwrap();
            let journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
            assert_eq!(journal.last(), Some(revision(11)), "byte {at}");
        }
    }
    // An older one is found out when it is read, or not needed.
    let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
    journal.add(&cuts[1]).unwrap();
    let oldest = names(&path).remove(0);
    let mut bytes = std::fs::read(&oldest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&oldest, bytes).unwrap();
    assert!(matches!(journal.having(revision(3)).unwrap().read(), Err(Error::Journal { .. })));
}

/// A segment went into a directory that had the name of the archive while that was away; when it was back,
/// the segment was called written, for it had been created.
#[test]
fn a_segment_that_went_elsewhere_is_not_called_written() {
    let directory = a_spool();
    let place = directory.path().join("archive");
    std::fs::create_dir(&place).unwrap();
    let store = Store::directory(&place).unwrap();
    let archive = Archive::init_unencrypted(store, now()).unwrap();
    let mut keyspace = Keyspace::new();
    (0..9).for_each(|_| keyspace.write(&[("k", false)], 10));
    let base = save(&archive, &keyspace, directory.path(), None).unwrap();
    let mut writer = archive.claim(base.facts.timeline, HOST, "here", now()).unwrap();
    let away = directory.path().join("away");
    std::fs::rename(&place, &away).unwrap();
    keyspace.write(&[("k", false)], 10);
    let cut = cut(&keyspace, 11, 11);
    let refused = writer.append(&cut, now()).unwrap_err();
    assert!(matches!(refused, Error::ClaimGone { .. }), "{refused}");
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    writer.append(&cut, now()).unwrap();
    assert_eq!(archive.log_end(CLUSTER).unwrap().unwrap().last.get(), 11);
}

/// The newest of all that can be brought back once went, for no base needed it: what was followed behind
/// the last base, before the disaster.
#[test]
fn what_follows_the_last_base_is_not_pruned() {
    let mut following = Following::new();
    following.write(5);
    following.follow();
    following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    following.write(5);
    following.follow();
    let archive = following.saving.archive.clone();
    let end = || archive.log_end(CLUSTER).unwrap().unwrap().last.get();
    let last = following.keyspace.revision;
    assert_eq!(end(), last);
    for _ in 0..3 {
        advance(72 * 3_600_000);
        let policy = Policy { last: 1, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
        assert_eq!(end(), last);
    }
    // A later base that was made in full needs it no more.
    following.keyspace.compact(last);
    following.write(1);
    save(&archive, &following.keyspace, a_spool().path(), None).unwrap();
    let policy = Policy { last: 1, ..Policy::default() };
    let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
    assert!(!plan_prune(&archive, &request).unwrap().marked.is_empty());
}

/// Follows for some hours, merging what is due. When each revision came.
fn follow_and_merge(following: &mut Following, hours: i64) -> BTreeMap<i64, Moment> {
    let (mut merging, mut came) = (Merging::default(), BTreeMap::new());
    for _ in 0..hours * 60 {
        following.write(1);
        let written = following.follow();
        let kept = following.journal.newest().unwrap().clone();
        came.insert(kept.last.get(), kept.state);
        merging.wrote(kept, written);
        advance(60_000);
        while let Some(merge) = merging.due(now_is()) {
            let merged = following.writer.merger().merge(&merge, now);
            merging.done(&merge, merged, now_is());
        }
    }
    came
}

/// Names of all segments.
fn segments(archive: &Archive) -> BTreeSet<String> {
    let listed = archive.store().list("timelines").unwrap().into_iter().map(|it| it.name);
    listed.filter(|name| name.ends_with(".seg")).collect()
}

fn of_level(segments: &BTreeSet<String>, level: u8) -> usize {
    segments.iter().filter(|name| name.contains(&format!("/log/{level}/"))).count()
}

/// Brings back some of all revisions, and compares them with what the cluster was then.
fn compare(following: &Following, came: &BTreeMap<i64, Moment>) {
    let archive = &following.saving.archive;
    let entry = archive.list().unwrap().bases.remove(0);
    let behind = archive.following(&entry).unwrap();
    assert_eq!(behind.last().get(), following.end);
    for (number, at) in came.iter().step_by(97).chain(came.last_key_value()) {
        let base = read_base(archive, &entry).unwrap();
        let (base, tail) = behind.up_to(base, revision(*number)).unwrap();
        assert_eq!((tail.at, tail.reckoned), (*at, false), "{number}");
        let mut records = BaseRecords::with_tail(archive, &entry, &base, Some(&tail)).unwrap();
        let mut then = following.keyspace.clone();
        then.records.retain(|(revision, ..), _| revision <= number);
        for (key, value) in then.pairs() {
            let pair = records.next_record().unwrap().unwrap();
            assert_eq!((pair.key, pair.value), (&key[..], &value[..]), "{number}");
        }
        assert!(records.next_record().unwrap().is_none(), "{number}");
        let found = behind.at(*at).unwrap().unwrap();
        assert_eq!((found.revision.get(), found.at), (*number, *at));
    }
}

/// A day of segments becomes a few, and a prune takes away what they were made of: every revision comes
/// back with its time, and so do bases that were made meanwhile.
#[test]
fn a_log_is_merged() {
    let mut following = Following::new();
    let mut came = follow_and_merge(&mut following, 20);
    let middle = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    assert_eq!((agreed(&middle).new, middle.objects), (0, 0));
    came.append(&mut follow_and_merge(&mut following, 6));
    let archive = following.saving.archive.clone();
    let before = segments(&archive);
    assert_eq!(of_level(&before, 0), came.len());
    assert!(of_level(&before, 1) > 26 * 12 - 5, "{}", of_level(&before, 1));
    assert!(of_level(&before, 2) >= 24 && of_level(&before, 3) == 1);
    compare(&following, &came);
    for log in [Some(30 * 24 * 3_600_000), None] {
        for _ in 0..2 {
            let policy = Policy { log, last: 10, ..Policy::default() };
            let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
            plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
            advance(2000);
        }
        let left = segments(&archive);
        // Of a day, an hour and five minutes, each at both ends of what was followed in two runs.
        assert!(left.len() < 2 * (24 + 12 + 5), "{} of {}", left.len(), before.len());
        compare(&following, &came);
        for entry in archive.list().unwrap().bases {
            let mut then = following.keyspace.clone();
            then.records.retain(|(it, ..), _| *it <= entry.header.facts.last.get());
            assert!(keyspaces::read_back(&archive, &entry).unwrap() == then.pairs());
        }
        let verdict = verdict(&archive, now_is()).unwrap();
        assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
        assert!(verdict.points.iter().all(|point| point.level == Some(Level::Proven)));
    }
}

/// Where the journal has it no more, it stays as it was written.
#[test]
fn what_the_journal_has_lost_is_not_merged() {
    let mut following = Following::new();
    let directory = following.saving.spool.path().join("small");
    following.journal = Journal::open(&directory, 2000, now_is()).unwrap();
    follow_and_merge(&mut following, 2);
    let segments = segments(&following.saving.archive);
    assert_eq!(of_level(&segments, 0), 120);
    assert_eq!(of_level(&segments, 2), 0, "an hour of it is more than the journal keeps");
    let archive = &following.saving.archive;
    assert_eq!(archive.log_end(CLUSTER).unwrap().unwrap().last.get(), following.end);
}

/// What was erased from a log comes back by none of: a merge of what the journal has, the next base, whoever
/// begins to write anew.
#[test]
fn what_was_erased_does_not_come_back_from_the_journal() {
    let mut following = Following::new();
    let mut merging = Merging::default();
    for number in 0..4 {
        let key = if number == 1 { "/secret" } else { "/other" };
        following.keyspace.write(&[(key, false)], 300);
        let written = following.follow();
        merging.wrote(following.journal.newest().unwrap().clone(), written);
    }
    let archive = following.saving.archive.clone();
    assert!(!archive.log_end(CLUSTER).unwrap().unwrap().has_hole);
    let what = Forgotten { key: b"/secret".to_vec(), prefix: false, to: None };
    let progress = VerifyProgress { done: &AtomicU64::new(0), stop: &AtomicBool::new(false) };
    let request = ForgetRequest { what: &what, now: &now, progress };
    let plan = || plan_forget(&archive, &request).unwrap();
    plan().carry_out(&archive, &request).unwrap();
    assert!(archive.log_end(CLUSTER).unwrap().unwrap().has_hole);

    let before = segments(&archive);
    assert_eq!(of_level(&before, 0), 4);
    advance(600_000);
    let merge = merging.due(now_is()).unwrap();
    let refused = following.writer.merger().merge(&merge, now).unwrap_err();
    assert!(matches!(refused, Error::Vanished { .. }), "{refused}");
    merging.done(&merge, Err(refused), now_is());
    assert_eq!(segments(&archive), before);
    assert!(merging.due(now_is()).is_none(), "it is not tried again and again");

    // The cluster has forgotten it, too.
    following.keyspace.write(&[("/secret", true)], 1);
    following.keyspace.write(&[("/other", false)], 10);
    following.journal.add(&cut(&following.keyspace, following.end + 1, following.end + 2)).unwrap();
    following.end += 2;
    following.keyspace.compact(following.keyspace.revision);
    let base = following.try_save(&following.keyspace, Some(&following.view())).unwrap();
    let entry = archive.list().unwrap().bases.into_iter().find(|it| it.name == base.name).unwrap();
    let back = keyspaces::read_back(&archive, &entry).unwrap();
    assert!(back == following.keyspace.pairs());
    let plan = plan();
    let points: Vec<_> = plan.points().collect();
    assert!(plan.is_empty(), "{points:?}");
    assert!(!archive.log_end(CLUSTER).unwrap().unwrap().has_hole, "the base stands behind it");
    for _ in 0..2 {
        let policy = Policy { log: Some(1 << 40), last: 10, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
        advance(1);
    }
    let gone: Vec<_> = before.difference(&segments(&archive)).cloned().collect();
    assert_eq!(gone.len(), 1, "what has the secret goes: {gone:?}");
}

/// Nobody can say any more what was erased meanwhile.
#[test]
fn an_old_journal_begins_anew() {
    let mut following = Following::new();
    following.write(3);
    following.follow();
    let path = following.saving.spool.path().join("journal");
    drop(following.journal);
    advance(GRACE / 2);
    assert!(Journal::open(&path, 1 << 30, now_is()).unwrap().newest().is_some());
    advance(GRACE / 2);
    assert!(Journal::open(&path, 1 << 30, now_is()).unwrap().newest().is_none());
}

/// What a member says of its keyspace at a revision, as if compacted at another.
fn said(keyspace: &Keyspace, at: i64, compact: i64) -> MemberHash {
    let mut then = keyspace.clone();
    then.records.retain(|(it, ..), _| *it <= at);
    if compact > 0 {
        then.compact(compact);
    }
    let hash = then.backend().hash_kv(&HashRequest::default()).unwrap();
    assert_eq!(hash.revision.get(), at);
    MemberHash {
        cluster: CLUSTER,
        member: MemberId(2),
        term: RaftTerm(5),
        etcd: "3.6.16".to_owned(),
        revision: revision(at),
        compact: Revision::new(compact).filter(|it| it.get() > 0),
        at: now(),
        said: Testimony { hash: hash.hash, took_ms: 3 },
    }
}

/// What members say is compared with the archive at the same revision, compacted alike, merged or not;
/// what contradicts it is an alarm, and what cannot be compared is none.
#[test]
fn witnesses() {
    let mut following = Following::new();
    let archive = following.saving.archive.clone();
    let timeline = following.writer.timeline();
    for _ in 0..3 {
        following.write(5);
        following.follow();
    }
    let end = following.end;
    let keyspace = &following.keyspace;
    let prove = || verdict(&archive, now_is()).unwrap();
    for (at, compact) in [(end - 3, 0), (end - 3, end - 7), (end - 3, end - 3)] {
        archive.add_witness(timeline, &said(keyspace, at, compact), now()).unwrap();
    }
    let proven = prove();
    assert!(proven.findings.is_empty(), "{:?}", proven.findings);
    assert_eq!(proven.witnesses, 3);
    // One that is of what the archive does not have yet, or no more.
    let late = MemberHash { revision: revision(end + 9), ..said(keyspace, end, 0) };
    archive.add_witness(timeline, &late, now()).unwrap();
    let proven = prove();
    assert!(proven.findings.is_empty() && proven.witnesses == 0, "{proven:?}");
    let base = following.try_save(keyspace, Some(&following.view())).unwrap();
    assert_eq!(base.facts.last.get(), end);

    let other = Testimony { hash: 1, took_ms: 3 };
    let wrong = MemberHash { said: other, ..said(keyspace, end - 3, end - 7) };
    let name = archive.add_witness(timeline, &wrong, now()).unwrap();
    let proven = prove();
    let [found] = &proven.findings[..] else { panic!("{:?}", proven.findings) };
    assert_eq!((found.word, &found.object), (Word::Contradicts, &name));
    assert_eq!(proven.witnesses, 3, "the others agree still");

    // It is not wrong by chance: each bit counts.
    let entry = archive.witnesses().unwrap().into_iter().find(|it| it.name == name).unwrap();
    let bytes = archive.store().read(&name, entry.bytes).unwrap().to_vec();
    for at in 0..bytes.len() {
        archive.store().remove(&name).unwrap();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        archive.store().create(&name, flipped).unwrap();
        let found = match verdict(&archive, now_is()) {
            Err(Error::Damaged { fault, .. }) if fault.is_too_new() => continue,
            found => found.unwrap().findings,
        };
        let of_it = found.iter().filter(|it| it.object == name && it.word == Word::Lost);
        assert_eq!((of_it.count(), found.len()), (1, 1), "byte {at}: {found:?}");
    }
    archive.store().remove(&name).unwrap();

    // They go with the last restore point that they speak of.
    let policy = Policy { last: 1, ..Policy::default() };
    for _ in 0..2 {
        let policy = policy.clone();
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
        advance(1);
    }
    let left: Vec<_> = archive.witnesses().unwrap().iter().map(|it| it.facts.last.get()).collect();
    assert_eq!(left, [end + 9]);
    assert!(prove().findings.is_empty());
}

/// A machine whose disk went back has written other revisions under the same numbers into the journal than
/// the archive's log has. Once a base was made of the journal that named the archive's: it could not be
/// brought back.
#[test]
fn a_base_names_no_log_that_is_not_its_own() {
    let owner = Identity::generate();
    let sealing = Sealing::To(vec![owner.public()]);
    let sealed = Protection { sealing, signers: Vec::new() };
    let open = Protection { sealing: Sealing::Unencrypted, signers: Vec::new() };
    for (protection, followed) in [(&open, false), (&open, true), (&sealed, false), (&sealed, true)]
    {
        let mut saving = Saving::new();
        saving.archive = Archive::init(Store::memory().unwrap(), now_is(), protection).unwrap();
        let mut following = Following::into(saving);
        following.write(2);
        following.follow();
        let case = format!("sealed {}, followed {followed}", following.saving.archive.is_sealed());
        // What the journal was fed from is what it goes on from, be it sealed or not.
        let (archive, spool) = (&following.saving.archive, following.saving.spool.path());
        let view = following.view();
        let base = save_as(archive, &following.keyspace, spool, (Some(&view), false)).unwrap();
        assert_eq!((agreed(&base).new, base.objects), (0, 0), "{case}");
        assert_eq!(base.facts.timeline, following.writer.timeline(), "{case}");
        let mut other = following.keyspace.clone();
        following.write(3);
        following.follow();
        let timeline = following.writer.timeline();
        // As many revisions, and as many records.
        for (number, records) in [(0, 3), (1, 1), (2, 2)] {
            let names = ["a", "b", "c"].map(|name| format!("/new/{number}/{name}"));
            let changes: Vec<_> = names.iter().map(|name| (&**name, false)).collect();
            other.write(&changes[..records], 100);
        }
        let path = following.saving.spool.path().join("another");
        let mut journal = Journal::open(&path, 1 << 30, now_is()).unwrap();
        let first = base.facts.last.get() + 1;
        journal.add(&cut(&other, first, other.revision)).unwrap();
        let view = journal.view(timeline, revision(other.revision));
        let (archive, spool) = (&following.saving.archive, following.saving.spool.path());
        let base = save_as(archive, &other, spool, (Some(&view), followed)).unwrap();
        let goes_on = archive.is_sealed() && followed;
        assert_eq!(base.facts.timeline == timeline, goes_on, "{case}");
        let archive = archive.clone().with_identities(std::slice::from_ref(&owner)).unwrap();
        let entry = archive.list().unwrap().bases.into_iter().find(|it| it.name == base.name);
        let back = keyspaces::read_back(&archive, &entry.unwrap()).unwrap();
        assert!(back == other.pairs(), "{case}");
        let found = verdict(&archive, now_is()).unwrap().findings;
        assert!(found.is_empty(), "{case}: {found:?}");
    }
}

/// The archive's log goes on beyond the snapshot: it came while that was taken, or the cluster went back.
#[test]
fn a_snapshot_that_is_behind_the_log() {
    for followed in [true, false] {
        let mut following = Following::new();
        following.write(1);
        let at = following.keyspace.clone();
        following.write(2);
        following.follow();
        let (archive, spool) = (&following.saving.archive, following.saving.spool.path());
        let view = following.view();
        let base = save_as(archive, &at, spool, (Some(&view), followed)).unwrap();
        assert_eq!(base.facts.timeline == following.writer.timeline(), followed);
        let entry = archive.list().unwrap().bases.into_iter().find(|it| it.name == base.name);
        assert!(keyspaces::read_back(archive, &entry.unwrap()).unwrap() == at.pairs());
    }
}

/// Whoever takes over on another host has no digests of the last base. What he can read shows whether the
/// cluster is the same; otherwise a history begins.
#[test]
fn whoever_takes_over_looks_at_the_log() {
    let owner = Identity::generate();
    let sealing = Sealing::To(vec![owner.public()]);
    let sealed = Protection { sealing, signers: Vec::new() };
    let open = Protection { sealing: Sealing::Unencrypted, signers: Vec::new() };
    for (protection, is_same) in [(&open, true), (&open, false), (&sealed, true), (&sealed, false)]
    {
        let mut saving = Saving::new();
        saving.archive = Archive::init(Store::memory().unwrap(), now_is(), protection).unwrap();
        let mut following = Following::into(saving);
        following.write(2);
        following.follow();
        let mut other = following.keyspace.clone();
        following.write(3);
        following.follow();
        let now = match is_same {
            true => {
                following.write(2);
                &mut following.keyspace
            }
            false => {
                // It differs in the last record only.
                other.records = following.keyspace.records.clone();
                let mut last = other.records.last_entry().unwrap();
                last.get_mut().1.push(b'!');
                other.revision = following.keyspace.revision;
                &mut other
            }
        };
        let (archive, elsewhere) = (&following.saving.archive, a_spool());
        for compacted in [0, following.end - 1, following.end] {
            if compacted > 0 {
                now.compact(compacted);
            }
            let before = archive.list().unwrap().bases.len();
            let base = save_as(archive, now, elsewhere.path(), (None, false)).unwrap();
            let goes_on = is_same && !archive.is_sealed() && compacted < following.end;
            let timeline = following.writer.timeline();
            let case = format!("{}, {is_same}, {compacted}", archive.is_sealed());
            assert_eq!(base.facts.timeline == timeline, goes_on, "{case}");
            assert_eq!(archive.list().unwrap().bases.len(), before + 1);
            archive.store().remove(&base.name).unwrap();
            std::fs::remove_dir_all(elsewhere.path()).unwrap();
        }
    }
}

/// What cannot be read of the log is said, and the base needs none of it.
#[test]
fn a_damaged_log_ends_no_base() {
    let mut following = Following::new();
    following.write(4);
    following.follow();
    let archive = following.saving.archive.clone();
    let [name] = &segments(&archive).into_iter().collect::<Vec<_>>()[..] else { panic!() };
    let mut bytes = archive.store().read(name, 1 << 20).unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last - 40] ^= 1;
    archive.store().remove(name).unwrap();
    archive.store().create(name, bytes).unwrap();
    for view in [None, Some(following.view())] {
        following.write(1);
        let base = following.try_save(&following.keyspace, view.as_ref()).unwrap();
        let entry = archive.list().unwrap().bases.into_iter().find(|it| it.name == base.name);
        let back = keyspaces::read_back(&archive, &entry.unwrap());
        match view {
            None => assert!(back.unwrap() == following.keyspace.pairs()),
            // Nobody has looked at what the journal was fed to.
            Some(_) => _ = back,
        }
    }
}

/// The clock of whoever began the newest history may be behind: it is the newest nevertheless.
#[test]
fn a_clock_that_went_back_does_not_bring_the_old_history_back() {
    let following = Following::new();
    let (archive, spool) = (following.saving.archive.clone(), following.saving.spool.path());
    let first = following.writer.timeline();
    advance(-3_600_000);
    let mut other = following.keyspace.clone();
    other.records.last_entry().unwrap().get_mut().1.push(b'!');
    other.write(&[("/a", false)], 10);
    let second = save(&archive, &other, spool, None).unwrap().facts.timeline;
    assert_ne!(second, first);
    assert_eq!(archive.log_end(CLUSTER).unwrap().unwrap().timeline, second);
    other.write(&[("/a", false)], 10);
    let third = save(&archive, &other, spool, None).unwrap();
    assert_eq!(third.facts.timeline, second, "{:?}", third.comparison);
}

fn a_place() -> (tempfile::TempDir, std::path::PathBuf, Saving) {
    let directory = a_spool();
    let place = directory.path().join("archive");
    std::fs::create_dir(&place).unwrap();
    let mut saving = Saving::new();
    let store = Store::directory(&place).unwrap();
    saving.archive = Archive::init_unencrypted(store, now()).unwrap();
    (directory, place, saving)
}

/// Where a mount is gone, a directory takes its name, and once took bases, which were called written.
#[test]
fn a_base_that_went_elsewhere_is_not_called_written() {
    let (directory, place, saving) = a_place();
    let mut following = Following::into(saving);
    let away = directory.path().join("away");
    std::fs::rename(&place, &away).unwrap();
    following.write(3);
    let archive = following.saving.archive.clone();
    for _ in 0..2 {
        let refused = following.try_save(&following.keyspace, None).unwrap_err();
        assert!(matches!(refused, Error::NoArchive { .. }), "{refused}");
        assert!(matches!(archive.log_end(CLUSTER), Err(Error::NoArchive { .. })));
        let timeline = following.writer.timeline();
        assert!(matches!(
            archive.claim(timeline, HOST, "here", now()),
            Err(Error::NoArchive { .. })
        ));
        assert!(matches!(following.writer.check_turn(), Err(Error::ClaimGone { .. })));
        std::fs::create_dir_all(&place).unwrap();
    }
    // Another archive's directory is no better.
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir(&place).unwrap();
    Archive::init_unencrypted(Store::directory(&place).unwrap(), now()).unwrap();
    let refused = following.try_save(&following.keyspace, None).unwrap_err();
    assert!(matches!(refused, Error::Stranger { .. }), "{refused}");
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&away, &place).unwrap();
    following.writer.check_turn().unwrap();
    following.try_save(&following.keyspace, None).unwrap();
}

/// What a damaged segment was merged of is all that there is.
#[test]
fn a_prune_keeps_what_a_damaged_merge_was_made_of() {
    let (_directory, place, saving) = a_place();
    let mut following = Following::into(saving);
    follow_and_merge(&mut following, 1);
    let archive = following.saving.archive.clone();
    let before = segments(&archive);
    for name in before.iter().filter(|name| !name.contains("/log/0/")) {
        let path = place.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0);
        std::fs::write(&path, bytes).unwrap();
    }
    for _ in 0..2 {
        let policy = Policy { last: 10, ..Policy::default() };
        let request = PruneRequest { policy, bases_max: 10, grace: 0, now: now_is() };
        plan_prune(&archive, &request).unwrap().carry_out(&archive).unwrap();
        advance(2000);
    }
    assert_eq!(of_level(&segments(&archive), 0), of_level(&before, 0));
}

/// Whoever has the turn and nothing to write is not taken for silent, and leaves nothing behind.
#[test]
fn signs_of_life() {
    let mut following = Following::new();
    let (archive, timeline) = (following.saving.archive.clone(), following.writer.timeline());
    let mut seen = archive.activity(timeline).unwrap();
    for _ in 0..3 {
        following.writer.show_life().unwrap();
        let now = archive.activity(timeline).unwrap();
        assert_ne!(now, seen);
        seen = now;
    }
    let listed = archive.store().list("timelines").unwrap().into_iter();
    assert_eq!(listed.filter(|it| it.name.ends_with(".alive")).count(), 1);
    let verdict = verdict(&archive, now_is()).unwrap();
    assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
    archive.claim(timeline, ObjectId([8; 16]), "there", now()).unwrap();
    assert!(matches!(following.writer.show_life(), Err(Error::Overtaken { .. })));
}
