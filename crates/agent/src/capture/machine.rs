//! What capture decides: when to watch and from where, what becomes a segment and when, which archive
//! is written into, when a snapshot is taken. Pure: it is told what has happened and at what time, and
//! says what is to be done.
//!
//! - Revisions come from the watch, one after the other, and are cut into the journal. Each archive is
//!   fed from it by itself: one that is slow or gone delays no other.
//! - What the watch cannot give (a slow start, an outage, an archive that is too far behind) comes from a
//!   snapshot, as a base. The watch is open before the snapshot is taken, so that nothing lies between.
//! - A watch begins at the last revision that is known, and what comes of it must be what is known: the
//!   ids of a cluster that was restored are the same.
//!
//! What may never happen here: a revision passed over without a word; the watch left open when it has
//! fallen behind, for etcd then reads everything again and again for it, while its clients wait.

use super::change::{change_of, revision_of};
use super::events::{Action, Event, From, Notice, Now, Said, Settings};
use super::tail::{Match, Tail};
use rekindle_archive::format::segment::LeaseGrant;
use rekindle_archive::{Cutter, Error, Witness};
use rekindle_client::Event as WatchEvent;
use rekindle_etcd::Revision;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Most leases of which is known that they were looked up.
const LEASES_MAX: usize = 100_000;
/// How long is waited before a watch that has failed is opened anew, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// So many times the revisions that a watch may begin behind are more than a blink of a busy cluster.
const BLINK: i64 = 10;
/// How long a member may leave a question for progress without an answer, beside the flush interval.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How often is asked when all is to end.
const ASK_AT_LAST: Duration = Duration::from_millis(100);
/// How long a snapshot waits until an archive's log has come to where it is.
const LOG_WAIT: Duration = Duration::from_secs(60);
/// How long is waited after a snapshot that could not be had.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(10);
/// How long what has come waits for the leases that it hangs on.
const LOOK_UP_WAIT: Duration = Duration::from_secs(1);
/// How long after the beginning members are asked for their HashKV first, at most.
const FIRST_WITNESS: Duration = Duration::from_secs(60);
/// How long is waited where they could not be asked.
const WITNESS_RETRY: Duration = Duration::from_secs(60);
/// They are asked so seldom that it takes at most one part in so many of their time.
const WITNESS_SHARE: u32 = 1000;
/// How long is waited for what the watch has still to say when all is to end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long is waited for archives then.
const FAREWELL: Duration = Duration::from_secs(20);

/// The watch.
#[derive(Debug)]
enum Watch {
    /// It is to be opened.
    Due { at: Duration },
    /// It was asked for.
    Opening { since: Duration },
    /// It is there.
    Open {
        /// When it spoke last.
        heard: Duration,
        /// When it was asked for progress, if it has not answered.
        asked: Option<Duration>,
    },
}

/// An archive.
#[derive(Debug, Default)]
struct Archive {
    /// It can be written into.
    open: bool,
    /// Its log goes up to there; none: it has no base.
    end: Option<Revision>,
    /// It is being written into.
    busy: bool,
    /// Only a base brings it on.
    wants_base: bool,
    /// When the next one is due.
    base_due: Duration,
    /// Somebody has asked for one.
    base_asked: bool,
    /// What was followed here goes on from what it has: a base has shown it, or the journal that was there
    /// at the beginning. Nobody else has written into it since.
    trusted: bool,
    /// When it was told anything last.
    told: Duration,
    /// The newest base that was made of it here, in the history that it has.
    base: Option<Revision>,
    /// Of its log some was erased or lost: what the journal has of that must not come back.
    has_hole: bool,
}

/// A snapshot, and what is made of it.
#[derive(Debug)]
struct Job {
    /// Once it is there.
    revision: Option<Revision>,
    /// Archives that wait for it.
    waiting: BTreeSet<usize>,
    /// Archives that get a base of it now.
    making: BTreeSet<usize>,
    /// Those, and those that had one or failed to: once is enough.
    tried: BTreeSet<usize>,
    /// Up to where it was compacted.
    compact: Option<Revision>,
    /// So many answers of the watch are still to come, until it is known that the watch outlived the
    /// snapshot: both are of one history then, for none survives that its cluster is restored.
    answers: u32,
    /// When it was asked last for one.
    asked: Duration,
    /// When it came.
    since: Duration,
    /// It is of before what is followed now.
    stale: bool,
}

/// What members say of their keyspaces, on its way.
#[derive(Debug)]
struct Asked {
    /// The watch that was open before they were asked.
    watch: u64,
    /// What it is of, once it is there.
    revision: Option<Revision>,
    /// As of a [`Job`].
    answers: u32,
    /// When it was asked for, or came.
    since: Duration,
    /// Archives that are still to have it.
    waiting: BTreeSet<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    watch: Watch,
    number: u64,
    /// How long is waited after the next failure of a watch.
    retry: Duration,
    failed: bool,
    /// When the cluster spoke last.
    heard: Option<Duration>,
    /// When it was asked for progress and has not answered: some versions of etcd leave out an answer, for
    /// example of a watch that has just begun.
    questions: VecDeque<Duration>,
    /// The last revision that is known, with which the next watch begins.
    tail: Option<Tail>,
    /// It has still to be seen that the watch goes on from there.
    checking: bool,
    /// It has said nothing yet, and the revision that it begins at may be compacted away.
    starting: bool,
    cutter: Option<Cutter>,
    /// The revision from which on nothing was passed over.
    run: Option<Revision>,
    /// When the first of what the cutter has came.
    since: Option<Duration>,
    /// The last revision in the journal.
    kept: Option<Revision>,
    /// Its first and last at the beginning, as long as what is followed is known to go on from there.
    start: Option<(Revision, Revision)>,
    /// The newest revision that any member was seen at, and when; until it has come.
    ahead: Option<(Revision, Duration)>,
    /// When it was last known that nothing more had come.
    fresh: Option<Now>,
    witness: Witness,
    /// Leases that were looked up, and those of which the answer is still to come.
    leases: BTreeSet<i64>,
    looking_up: BTreeSet<i64>,
    archives: Vec<Archive>,
    job: Option<Job>,
    /// When the next snapshot may be taken.
    next_snapshot: Duration,
    /// Snapshots and bases that have failed one after the other: etcd is to be spared when nothing comes of
    /// it.
    failures: u32,
    members: Option<Asked>,
    /// When they may be asked next.
    next_witness: Duration,
    /// When all was asked to end.
    stopping: Option<Duration>,
    /// So many answers of the watch are waited for then; none before it could be asked.
    last_answers: Option<u32>,
    ended: bool,
    actions: VecDeque<Action>,
}

impl Machine {
    /// One for so many archives, that goes on from what the journal has.
    #[must_use]
    pub fn new(settings: Settings, archives: usize, tail: Option<Tail>) -> Self {
        Self {
            settings,
            watch: Watch::Due { at: Duration::ZERO },
            number: 0,
            retry: RETRY_MIN,
            failed: false,
            questions: VecDeque::new(),
            kept: tail.as_ref().map(Tail::revision),
            start: tail.as_ref().map(Tail::journal),
            tail,
            checking: false,
            starting: false,
            cutter: None,
            run: None,
            since: None,
            ahead: None,
            fresh: None,
            witness: Witness::default(),
            leases: BTreeSet::new(),
            looking_up: BTreeSet::new(),
            archives: (0..archives).map(|_| Archive::default()).collect(),
            job: None,
            next_snapshot: Duration::ZERO,
            failures: 0,
            heard: None,
            members: None,
            next_witness: settings.witnesses_every.unwrap_or_default().min(FIRST_WITNESS),
            stopping: None,
            last_answers: None,
            ended: false,
            actions: VecDeque::new(),
        }
    }

    /// The last revision that has come.
    #[must_use]
    pub fn head(&self) -> Option<Revision> {
        let next = self.cutter.as_ref().map(Cutter::next);
        let come = next.and_then(|next| Revision::new(next.get() - 1));
        come.or(self.tail.as_ref().map(Tail::revision))
    }

    /// The last revision that an archive is known to have for good.
    #[must_use]
    pub fn written(&self, archive: usize) -> Option<Revision> {
        self.archives.get(archive)?.end
    }

    /// The last revision that was put into the journal.
    #[must_use]
    pub fn kept(&self) -> Option<Revision> {
        self.kept
    }

    /// Whether the watch has answered, after all was asked to end, that what has come is all.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.last_answers == Some(0)
    }

    /// How far the newest revision that was seen is ahead of what has come.
    #[must_use]
    pub fn behind(&self) -> i64 {
        let head = self.head().unwrap_or_default().get();
        self.ahead.map_or(0, |(newest, _)| newest.get().saturating_sub(head).max(0))
    }

    /// For how long the cluster has not said anything; none: it never has.
    #[must_use]
    pub fn silent_for(&self, passed: Duration) -> Option<Duration> {
        self.heard.map(|heard| passed.saturating_sub(heard))
    }

    /// For how long it has been behind, at least.
    #[must_use]
    pub fn behind_for(&self, passed: Duration) -> Duration {
        let since = self.ahead.filter(|_| self.behind() > 0).map(|(_, since)| since);
        since.map_or(Duration::ZERO, |since| passed.saturating_sub(since))
    }

    /// What is to be done now.
    ///
    /// # Errors
    /// A revision that no segment takes; there is no memory.
    pub fn step(&mut self, event: Event, now: Now) -> Result<VecDeque<Action>, Error> {
        self.hear(event, now)?;
        self.look_after_watch(now)?;
        self.cut_if_due(now)?;
        self.feed(now)?;
        self.look_after_bases(now);
        self.look_after_witnesses(now);
        self.end_if_done(now);
        Ok(std::mem::take(&mut self.actions))
    }

    fn hear(&mut self, event: Event, now: Now) -> Result<(), Error> {
        match event {
            Event::Tick => {}
            Event::Watch { watch, said } if watch == self.number => self.hear_watch(said, now)?,
            Event::Watch { .. } => {}
            Event::Lease { id, ttl_s } => self.hear_lease(id, ttl_s),
            Event::Opened { archive, end, has_hole, ours, base_age } => {
                let base_due = now.passed + self.settings.bases_every.saturating_sub(base_age);
                self.hear_opened(archive, end, (ours, has_hole), base_due, now);
            }
            Event::Closed { archive, overtaken } => self.of(archive, |it| {
                (it.open, it.busy, it.trusted) = (false, false, it.trusted && !overtaken);
            }),
            Event::Written { archive, last } => self.of(archive, |it| {
                (it.busy, it.told) = (false, now.passed);
                // What told that nothing had come ends before it began.
                it.end = it.end.max(Some(last));
            }),
            Event::LifeShown { archive } => self.of(archive, |it| {
                (it.busy, it.told) = (false, now.passed);
            }),
            Event::Missing { archive } => self.hear_missing(archive),
            Event::Snapshot { revision, compact } => self.hear_snapshot(revision, compact, now),
            Event::NoSnapshot => {
                self.job = None;
                self.next_snapshot = now.passed + self.patience(SNAPSHOT_RETRY);
                self.failures += 1;
            }
            Event::Base { archive, revision, moved } => {
                self.hear_base(archive, revision, moved, now);
            }
            Event::Hashed { revision, took } => self.hear_hashed(revision, took, now),
            Event::NotHashed => {
                self.members = None;
                self.next_witness = now.passed + WITNESS_RETRY;
            }
            Event::AuthChanged | Event::BaseWanted => {
                for it in &mut self.archives {
                    (it.base_due, it.base_asked) = (now.passed, true);
                }
            }
            Event::Stop => {
                self.stopping.get_or_insert(now.passed);
                self.ask_at_last(now);
            }
        }
        Ok(())
    }

    /// What has happened until now comes before the answer.
    fn ask_at_last(&mut self, now: Now) {
        if self.stopping.is_some()
            && self.last_answers.is_none()
            && matches!(self.watch, Watch::Open { .. })
        {
            self.last_answers = Some(self.unanswered(now) + 1);
            self.ask(now);
        }
    }

    /// Whether a revision came in this run, so that what comes next goes on from it.
    fn has_come(&self, revision: Revision) -> bool {
        self.run.is_some_and(|run| run <= revision) && Some(revision) <= self.head()
    }

    fn of(&mut self, archive: usize, change: impl FnOnce(&mut Archive)) {
        if let Some(archive) = self.archives.get_mut(archive) {
            change(archive);
        }
    }

    /// What an archive lacks is in the journal no more: only a base brings it on, if there is none yet.
    fn hear_missing(&mut self, archive: usize) {
        let mut gap = None;
        self.of(archive, |it| {
            it.busy = false;
            match it.base {
                Some(base) if it.base > it.end => {
                    gap = gap_between(it.end, base, base);
                    it.end = it.base;
                }
                _ => it.wants_base = true,
            }
        });
        if let Some((first, last)) = gap {
            self.actions.push_back(Action::Tell(Notice::Gap { archive, first, last }));
        }
    }

    fn hear_lease(&mut self, id: i64, ttl_s: Option<u64>) {
        self.looking_up.remove(&id);
        match (&mut self.cutter, ttl_s) {
            (Some(cutter), Some(ttl_s)) => cutter.add_lease(LeaseGrant { id, ttl_s }),
            // If it is there after all, the next record that hangs on it asks again.
            _ => _ = self.leases.remove(&id),
        }
    }

    fn hear_opened(
        &mut self,
        archive: usize,
        end: Option<Revision>,
        (ours, has_hole): (bool, bool),
        base_due: Duration,
        now: Now,
    ) {
        let has_come = end.is_some_and(|end| self.has_come(end));
        let is_old = ours && end.is_some() && end <= self.start.map(|(_, last)| last);
        let mut trusted = false;
        self.of(archive, |it| {
            // Of another history than the one that was followed into it nothing is known.
            trusted = ours && (it.trusted && (has_come || it.end == end) || is_old);
            it.wants_base |= !trusted | has_hole;
            (it.open, it.busy, it.end, it.told) = (true, false, end, now.passed);
            (it.trusted, it.has_hole) = (trusted, has_hole);
            it.base_due = if it.base_asked { it.base_due } else { base_due };
        });
        if ours && !trusted {
            self.actions.push_back(Action::Unmark { archive });
        }
    }

    fn hear_watch(&mut self, said: Said, now: Now) -> Result<(), Error> {
        if let Watch::Open { heard, asked } = &mut self.watch {
            (*heard, *asked) = (now.passed, None);
        }
        self.heard = Some(now.passed).filter(|_| !said.has_ended()).or(self.heard);
        match said {
            Said::Began { from, witness, newest } => {
                self.watch = Watch::Open { heard: now.passed, asked: None };
                self.questions.clear();
                self.void_job(now);
                (self.retry, self.failed) = (RETRY_MIN, false);
                self.begin(from, witness, newest, now);
                self.ask_at_last(now);
                Ok(())
            }
            Said::Changes { events, witness, newest } => {
                self.witness = witness;
                self.take(&events, now)?;
                self.see(newest, now);
                Ok(())
            }
            Said::Progress { revision } => {
                self.hear_progress(revision, now);
                Ok(())
            }
            Said::Ended { compacted } => {
                self.number += 1;
                self.last_answers = self.last_answers.filter(|answers| *answers == 0);
                self.watch = Watch::Due { at: now.passed + self.retry };
                (self.retry, self.failed) = ((self.retry * 2).min(RETRY_MAX), true);
                if compacted {
                    self.begin_anew();
                }
                Ok(())
            }
        }
    }

    fn begin(&mut self, from: Revision, witness: Witness, newest: Revision, now: Now) {
        self.witness = witness;
        self.checking = self.tail.is_some();
        if let Some(tail) = &self.tail
            && (tail.contradicts(witness) || newest < tail.revision())
        {
            let at = tail.revision().min(newest);
            return self.leave_history(at, now);
        }
        if self.cutter.is_none() {
            let next = self.tail.as_ref().map_or(Some(from), |tail| tail.revision().later(1));
            let first = self.start.filter(|_| self.tail.is_some()).map(|(first, _)| first);
            (self.cutter, self.run) = (next.map(Cutter::new), first.or(next));
        }
        self.starting = self.tail.is_none();
        if self.tail.is_none() {
            self.ask(now);
            // Nothing shows that it goes on from what any archive has, nor from what the journal has.
            self.distrust();
            if self.kept >= Some(from) {
                self.actions.push_back(Action::ClearJournal);
            }
            self.kept = None;
        }
        self.actions.push_back(Action::Tell(Notice::Following { from }));
        self.ahead = None;
        self.see(newest, now);
        // Later, so many are no more than a blink of a busy cluster: then it is time that counts first.
        if self.tail.is_some() && self.behind() > self.settings.behind_max {
            self.give_up();
        }
    }

    /// Takes in what the watch said, revision by revision.
    fn take(&mut self, events: &[WatchEvent], now: Now) -> Result<(), Error> {
        for changes in events.chunk_by(|one, next| revision_of(one) == revision_of(next)) {
            let revision = changes.first().map(revision_of).unwrap_or_default();
            match self.look(changes, revision) {
                Match::Same | Match::Before => {}
                Match::Other => {
                    self.leave_history(revision, now);
                    return Ok(());
                }
                Match::Gone => {
                    // Nothing shows that it is the same cluster: what comes next stands by itself.
                    self.actions.push_back(Action::EndWatch);
                    self.begin_anew();
                    self.watch = Watch::Due { at: Duration::ZERO };
                    self.number += 1;
                    return Ok(());
                }
            }
            self.pass_over_first(revision, 1);
            let Some(cutter) = &mut self.cutter else { return Ok(()) };
            if revision < cutter.next() {
                // It was said before.
                continue;
            }
            if revision > cutter.next() {
                let first = cutter.next();
                self.lose(first, now);
                return Ok(());
            }
            let records: Vec<_> = changes.iter().filter_map(change_of).collect();
            cutter.add(&records, now.wall)?;
            self.since.get_or_insert(now.passed);
            self.tail = Some(Tail::of(revision, self.witness, &records));
            self.look_up_leases(changes);
        }
        Ok(())
    }

    /// The revision that the watch begins at did not come: it was compacted away, or is the first of an
    /// empty cluster.
    fn pass_over_first(&mut self, revision: Revision, behind: u64) {
        if !std::mem::take(&mut self.starting) {
            return;
        }
        let first = self.cutter.as_ref().map(Cutter::next);
        if first.and_then(|first| first.later(behind)) == Some(revision)
            && let Some(next) = first.and_then(|first| first.later(1))
        {
            (self.cutter, self.run) = (Some(Cutter::new(next)), Some(next));
        }
    }

    /// Asks the watch how far it has come.
    fn ask(&mut self, now: Now) {
        if let Watch::Open { asked, .. } = &mut self.watch {
            asked.get_or_insert(now.passed);
        }
        self.questions.push_back(now.passed);
        self.actions.push_back(Action::AskProgress);
    }

    /// So many answers may come yet.
    fn unanswered(&mut self, now: Now) -> u32 {
        self.questions.retain(|asked| now.passed < *asked + ANSWER_MAX);
        u32::try_from(self.questions.len()).unwrap_or(u32::MAX - 1)
    }

    /// Whether what comes first is what is known of it.
    fn look(&mut self, changes: &[WatchEvent], revision: Revision) -> Match {
        let Some(tail) = self.tail.as_ref().filter(|_| self.checking) else { return Match::Same };
        let records: Vec<_> = changes.iter().filter_map(change_of).collect();
        let found = tail.matches(revision, &records);
        self.checking = found == Match::Before;
        found
    }

    fn look_up_leases(&mut self, changes: &[WatchEvent]) {
        for lease in changes.iter().filter_map(|event| Some(event.kv.as_ref()?.lease)) {
            if lease != 0 && self.leases.insert(lease) {
                self.looking_up.insert(lease);
                self.actions.push_back(Action::LookUp { lease });
            }
        }
        if self.leases.len() > LEASES_MAX {
            self.leases.clear();
        }
    }

    fn hear_progress(&mut self, revision: Revision, now: Now) {
        self.questions.pop_front();
        self.last_answers = self.last_answers.map(|answers| answers.saturating_sub(1));
        if let Some(job) = &mut self.job
            && job.revision.is_some()
            && !self.checking
        {
            job.answers = job.answers.saturating_sub(1);
        }
        if let Some(members) = self.members.as_mut().filter(|it| it.revision.is_some()) {
            members.answers = members.answers.saturating_sub(1);
        }
        self.pass_over_first(revision, 0);
        let head = self.head().unwrap_or_default();
        if self.checking {
            // The last revision that is known should have come first.
            if let Some(tail) = self.tail.as_ref().filter(|tail| !tail.may_be_gone()) {
                let at = tail.revision();
                return self.leave_history(at, now);
            }
            // It may be gone, or such an answer has overtaken it: what comes next shows it.
        }
        if revision > head {
            return self.lose(head.later(1).unwrap_or(head), now);
        }
        if revision == head {
            (self.fresh, self.ahead) = (Some(now), None);
        }
    }

    /// A member is at this revision.
    fn see(&mut self, newest: Revision, now: Now) {
        let head = self.head().unwrap_or_default();
        if self.ahead.is_none_or(|(ahead, _)| ahead <= head) {
            self.ahead = (newest > head).then_some((newest, now.passed));
        }
        if newest <= head {
            self.fresh = Some(now);
        }
        if self.behind() > self.settings.behind_max.saturating_mul(BLINK) {
            self.give_up();
        }
    }

    /// The watch is too far behind: what it has not said comes from a snapshot.
    fn give_up(&mut self) {
        let revisions = self.behind();
        self.actions.push_back(Action::Tell(Notice::Behind { revisions }));
        self.actions.push_back(Action::EndWatch);
        self.begin_anew();
        self.watch = Watch::Due { at: Duration::ZERO };
        self.number += 1;
    }

    /// Revisions did not come that should have: they are asked for again.
    fn lose(&mut self, first: Revision, now: Now) {
        self.actions.push_back(Action::Tell(Notice::Lost { first }));
        self.actions.push_back(Action::EndWatch);
        self.number += 1;
        self.watch = Watch::Due { at: now.passed + self.retry };
        (self.retry, self.failed) = ((self.retry * 2).min(RETRY_MAX), true);
    }

    /// The cluster is not what it was: nothing that is known of it counts any more.
    fn leave_history(&mut self, at: Revision, now: Now) {
        self.actions.push_back(Action::Tell(Notice::AnotherHistory { at }));
        self.actions.push_back(Action::EndWatch);
        self.actions.push_back(Action::ClearJournal);
        // Until there is a base nothing of it can be brought back.
        self.next_snapshot = self.next_snapshot.min(now.passed + SNAPSHOT_RETRY);
        (self.kept, self.cutter, self.since) = (None, None, None);
        if let Some(job) = &mut self.job {
            // It is of the history that ended.
            job.waiting.clear();
        }
        self.distrust();
        self.begin_anew();
        self.watch = Watch::Due { at: Duration::ZERO };
        self.number += 1;
    }

    /// A snapshot that was under way when the watch ended may be of another history than what is followed
    /// now: its base stands by itself, and another one has to follow. Of a cluster whose watches never last
    /// such bases are all there is.
    fn void_job(&mut self, now: Now) {
        if let Some(job) = self.job.as_mut().filter(|job| job.answers > 0 && !job.stale) {
            job.stale = true;
            self.next_snapshot = now.passed + self.patience(self.settings.snapshots_every);
        }
    }

    /// The longer nothing comes of it, the longer is waited for the next try.
    fn patience(&self, first: Duration) -> Duration {
        let longest = self.settings.bases_every.max(first);
        first.saturating_mul(1 << self.failures.min(16)).min(longest)
    }

    /// What archives have may not be what is followed now: a base of each has to show it.
    fn distrust(&mut self) {
        self.start = None;
        self.actions.push_back(Action::UnmarkAll);
        for archive in &mut self.archives {
            (archive.wants_base, archive.trusted, archive.base) = (true, false, None);
        }
        if let Some(job) = &mut self.job {
            // What is made of it is made; it shows nothing.
            job.stale = true;
        }
    }

    /// The next watch begins at the newest revision, and not at the last that is known.
    fn begin_anew(&mut self) {
        (self.tail, self.checking, self.ahead, self.fresh) = (None, false, None, None);
    }

    fn look_after_watch(&mut self, now: Now) -> Result<(), Error> {
        if self.is_over(now) {
            return Ok(());
        }
        let flush = self.settings.flush_every;
        match &mut self.watch {
            Watch::Due { at } if *at <= now.passed => {
                if self.tail.is_none() {
                    // What comes next does not go on from it.
                    self.cut(now)?;
                    self.cutter = None;
                }
                let tail = self.tail.as_ref().map(|tail| From::Revision(tail.revision()));
                let (watch, from) = (self.number, tail.unwrap_or(From::Newest));
                self.actions.push_back(Action::Watch { watch, from, elsewhere: self.failed });
                self.watch = Watch::Opening { since: now.passed };
            }
            Watch::Opening { since } if now.passed >= *since + SILENCE_MAX * 3 => self.silent(now),
            Watch::Open { asked: Some(asked), .. } if now.passed >= *asked + SILENCE_MAX => {
                self.silent(now);
            }
            Watch::Open { heard, asked } => {
                let is_last = self.stopping.is_some()
                    && self.questions.back().is_none_or(|last| now.passed >= *last + ASK_AT_LAST);
                let is_quiet = asked.is_none() && now.passed >= *heard + flush;
                // One that is busy is not asked otherwise.
                let job = self.job.as_mut().filter(|job| job.revision.is_some() && job.answers > 0);
                let job = job.filter(|job| now.passed >= job.asked + flush);
                if is_quiet || is_last || job.is_some() {
                    if let Some(job) = job {
                        job.asked = now.passed;
                    }
                    self.ask(now);
                }
            }
            _ => {}
        }
        let late = self.ahead.filter(|(_, at)| now.passed >= *at + self.settings.behind_time);
        let late = late.filter(|_| !self.starting);
        if let (Some(_), Watch::Open { .. }) = (late, &self.watch) {
            self.give_up();
        }
        Ok(())
    }

    /// The member does not answer.
    fn silent(&mut self, now: Now) {
        self.actions.push_back(Action::EndWatch);
        self.number += 1;
        self.watch = Watch::Due { at: now.passed };
        self.failed = true;
    }

    fn cut_if_due(&mut self, now: Now) -> Result<(), Error> {
        let Some(cutter) = &self.cutter else { return Ok(()) };
        // What it hangs on is told with it, where that is known soon.
        let wait = if self.looking_up.is_empty() { Duration::ZERO } else { LOOK_UP_WAIT };
        let due = self.since.map(|since| since + self.settings.flush_every + wait);
        let is_old = due.is_some_and(|due| now.passed >= due);
        let is_full = cutter.bytes() >= self.settings.flush_bytes;
        match is_old || is_full || self.is_over(now) {
            true => self.cut(now),
            false => Ok(()),
        }
    }

    /// All is to end, and what has happened until then has come.
    fn is_over(&self, now: Now) -> bool {
        let is_late = |at| now.passed >= at + LAST_WORDS;
        self.stopping.is_some_and(|at| self.is_complete() || is_late(at))
    }

    /// Puts what has come into the journal.
    fn cut(&mut self, now: Now) -> Result<(), Error> {
        self.since = None;
        let Some(cutter) = self.cutter.as_mut().filter(|cutter| !cutter.is_empty()) else {
            return Ok(());
        };
        let cut = cutter.cut(self.witness, now.wall)?;
        self.kept = Some(cut.last);
        self.actions.push_back(Action::Keep(cut));
        Ok(())
    }

    /// Gives each archive the next piece that it has not.
    fn feed(&mut self, now: Now) -> Result<(), Error> {
        for (number, archive) in self.archives.iter_mut().enumerate() {
            let Some(end) = archive.end.filter(|_| archive.open && !archive.busy) else { continue };
            if archive.wants_base {
                // Nobody is to take it for silent meanwhile.
                let is_fresh = self.fresh.is_some_and(|fresh| fresh.passed > archive.told);
                if is_fresh && now.passed >= archive.told + self.settings.flush_every {
                    archive.busy = true;
                    self.actions.push_back(Action::ShowLife { archive: number });
                }
                continue;
            }
            if let Some(from) = end.later(1).filter(|_| self.kept > Some(end)) {
                archive.busy = true;
                self.actions.push_back(Action::Write { archive: number, from });
                continue;
            }
            let Some(fresh) = self.fresh.filter(|fresh| fresh.passed > archive.told) else {
                continue;
            };
            let is_due = now.passed >= archive.told + self.settings.flush_every;
            let is_all = self
                .cutter
                .as_ref()
                .is_some_and(|cutter| cutter.is_empty() && Some(cutter.next()) == end.later(1));
            if is_due && is_all && self.stopping.is_none() {
                archive.busy = true;
                let next = end.later(1).unwrap_or(end);
                let cut = Cutter::new(next).cut(self.witness, fresh.wall)?;
                self.actions.push_back(Action::Beat { archive: number, cut });
            }
        }
        Ok(())
    }

    fn look_after_bases(&mut self, now: Now) {
        if self.stopping.is_none() {
            self.want_bases(now);
        }
        let Some(job) = &mut self.job else { return };
        let Some(revision) = job.revision.filter(|_| job.answers == 0 || job.stale) else { return };
        if now.passed >= job.since + LOG_WAIT {
            // Its log does not come on: the others do not wait for it.
            job.waiting.clear();
        }
        job.waiting.retain(|number| {
            let Some(archive) = self.archives.get(*number).filter(|archive| archive.open) else {
                return false;
            };
            let is_there = archive.end >= Some(revision);
            if !archive.wants_base && archive.end.is_some() && !is_there {
                // The log comes first, so that the base can be compared with it.
                return true;
            }
            let end = archive.end;
            let gap = job.compact.and_then(|compact| gap_between(end, compact, revision));
            if let Some((first, last)) = gap {
                let gap = Notice::Gap { archive: *number, first, last };
                self.actions.push_back(Action::Tell(gap));
            }
            let followed = archive.trusted && !job.stale;
            self.actions.push_back(Action::MakeBase { archive: *number, end, followed });
            job.making.insert(*number);
            job.tried.insert(*number);
            false
        });
        if job.waiting.is_empty() && job.making.is_empty() {
            self.job = None;
            self.actions.push_back(Action::DropSnapshot);
        }
    }

    /// Takes a snapshot where one is due; one that is there already serves archives that come later.
    fn want_bases(&mut self, now: Now) {
        let is_needed = |archive: &Archive| archive.wants_base || archive.end.is_none();
        let is_due = |archive: &Archive| is_needed(archive) || now.passed >= archive.base_due;
        let open = || self.archives.iter().enumerate().filter(|(_, archive)| archive.open);
        if let Some(job) = self.job.as_mut().filter(|job| !job.stale) {
            let late = open().filter(|(number, it)| is_needed(it) && !job.tried.contains(number));
            job.waiting.extend(late.map(|(number, _)| number));
            return;
        }
        let waiting: BTreeSet<_> =
            open().filter(|(_, it)| is_due(it)).map(|(number, _)| number).collect();
        let may = now.passed >= self.next_snapshot;
        let is_open = matches!(self.watch, Watch::Open { .. }) && !self.checking;
        if self.job.is_none() && is_open && may && !waiting.is_empty() {
            self.next_snapshot = now.passed + self.settings.snapshots_every;
            self.job = Some(Job {
                revision: None,
                waiting,
                making: BTreeSet::new(),
                tried: BTreeSet::new(),
                compact: None,
                answers: 1,
                asked: now.passed,
                since: now.passed,
                stale: false,
            });
            self.actions.push_back(Action::TakeSnapshot);
        }
    }

    fn hear_hashed(&mut self, revision: Revision, took: Duration, now: Now) {
        let every = self.settings.witnesses_every.unwrap_or_default();
        self.next_witness = now.passed + every.max(took.saturating_mul(WITNESS_SHARE));
        let before = self.unanswered(now);
        let Some(members) = &mut self.members else { return };
        (members.revision, members.since) = (Some(revision), now.passed);
        members.answers = before + 1;
        members.waiting = (0..self.archives.len()).collect();
        self.ask(now);
    }

    /// What members say counts where the watch outlived it, and only for archives that have what it is of.
    fn look_after_witnesses(&mut self, now: Now) {
        let is_open = matches!(self.watch, Watch::Open { .. }) && !self.checking;
        let Some(members) = &mut self.members else {
            let has_any = self.archives.iter().any(|it| it.open && it.trusted && !it.wants_base);
            let may =
                self.stopping.is_none() && self.job.is_none() && now.passed >= self.next_witness;
            if may && is_open && has_any && self.settings.witnesses_every.is_some() {
                let (watch, since) = (self.number, now.passed);
                let waiting = BTreeSet::new();
                self.members = Some(Asked { watch, revision: None, answers: 1, since, waiting });
                self.actions.push_back(Action::AskMembers);
            }
            return;
        };
        let Some(revision) = members.revision else { return };
        if members.watch != self.number || now.passed >= members.since + LOG_WAIT {
            self.members = None;
            return;
        }
        if members.answers > 0 || !is_open {
            return;
        }
        members.waiting.retain(|number| {
            let Some(archive) = self.archives.get(*number) else { return false };
            let has_it = archive.open && archive.trusted && !archive.wants_base;
            if has_it && archive.end >= Some(revision) {
                self.actions.push_back(Action::Testify { archive: *number });
                return false;
            }
            true
        });
        if members.waiting.is_empty() {
            self.members = None;
        }
    }

    fn hear_snapshot(&mut self, revision: Revision, compact: Option<Revision>, now: Now) {
        let before = self.unanswered(now);
        let Some(job) = &mut self.job else { return };
        job.revision = Some(revision);
        // Those that were asked for before say nothing of it.
        job.answers = before + 1;
        (job.asked, job.since, job.compact) = (now.passed, now.passed, compact);
        self.ask(now);
    }

    fn hear_base(&mut self, archive: usize, revision: Option<Revision>, moved: bool, now: Now) {
        let base_due = now.passed + self.settings.bases_every;
        let mut stale = false;
        if let Some(job) = &mut self.job {
            job.making.remove(&archive);
            stale = job.stale;
        }
        // One that has failed is tried again with a later snapshot.
        let Some(revision) = revision else {
            self.next_snapshot = now.passed + self.patience(self.settings.snapshots_every);
            self.failures += 1;
            return;
        };
        self.failures = 0;
        if !stale {
            self.actions.push_back(Action::Mark { archive });
        }
        let run = self.run;
        self.of(archive, |it| {
            if !stale {
                (it.base_due, it.base_asked) = (base_due, false);
                (it.wants_base, it.trusted) = (false, true);
            }
            // What came before it in this run lies in the journal, and is a restore point, too.
            let next = it.end.and_then(|end| end.later(1)).filter(|_| !stale && !it.has_hole);
            let follows = next.is_some() && run.is_some_and(|run| Some(run) <= next);
            it.base = Some(revision);
            match moved {
                true => (it.open, it.end) = (false, Some(revision)),
                false if follows => {}
                false => it.end = it.end.max(Some(revision)),
            }
            it.has_hole = false;
        });
    }

    fn end_if_done(&mut self, now: Now) {
        let Some(stopping) = self.stopping.filter(|_| !self.ended && self.is_over(now)) else {
            return;
        };
        let has_all = |archive: &Archive| {
            let waits = archive.open && archive.end.is_some() && !archive.wants_base;
            !archive.busy && (!waits || archive.end >= self.kept)
        };
        let is_whole = self.job.is_none() && self.archives.iter().all(has_all);
        if is_whole || now.passed >= stopping + FAREWELL {
            self.ended = true;
            self.actions.push_back(Action::EndWatch);
            self.actions.push_back(Action::End);
        }
    }
}

/// What an archive lacks behind its end, of what was compacted, where a base of `base` is there: that is a
/// restore point itself.
fn gap_between(
    end: Option<Revision>,
    compact: Revision,
    base: Revision,
) -> Option<(Revision, Revision)> {
    let before = Revision::new(base.get() - 1)?;
    let (first, last) = (end?.later(1)?, compact.min(before));
    (first <= last).then_some((first, last))
}
