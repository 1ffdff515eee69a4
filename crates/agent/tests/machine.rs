//! What the machine says in situations that have names.

use rekindle_agent::capture::{Action, Event, Machine, Notice, Now, Said, Settings, Tail};
use rekindle_archive::Witness;
use rekindle_archive::format::header::Moment;
use rekindle_etcd::{ClusterId, KeyValue, MemberId, RaftTerm, RecordKey, Revision};
use std::time::Duration;

fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

/// A machine with one archive, and a clock.
struct Scene {
    machine: Machine,
    passed: Duration,
}

impl Scene {
    fn new() -> Self {
        Self { machine: Machine::new(Settings::default(), 1, None), passed: Duration::ZERO }
    }

    fn hear(&mut self, event: Event) -> Vec<Action> {
        let now = Now { wall: Moment(1), passed: self.passed };
        self.machine.step(event, now).unwrap().into()
    }

    fn tick(&mut self, passed: Duration) -> Vec<Action> {
        self.passed += passed;
        self.hear(Event::Tick)
    }

    /// The watch that it asked for has begun, and nothing had come behind that.
    fn begin(&mut self, asked: &[Action], from: i64) -> Vec<Action> {
        let watch = asked.iter().find_map(|action| match action {
            Action::Watch { watch, .. } => Some(*watch),
            _ => None,
        });
        let (watch, from) = (watch.unwrap(), revision(from));
        self.say(watch, Said::Began { from, witness: witness(), newest: from });
        self.say(watch, Said::Progress { revision: from })
    }

    fn say(&mut self, watch: u64, said: Said) -> Vec<Action> {
        self.hear(Event::Watch { watch, said })
    }
}

fn witness() -> Witness {
    Witness { cluster: ClusterId(1), member: MemberId(2), term: RaftTerm(3) }
}

/// Under more writes than etcd tells anybody of, each watch falls behind before it has outlived a snapshot:
/// then no base was made at all.
#[test]
fn watches_that_never_last_keep_no_base_away() {
    let mut scene = Scene::new();
    let asked = scene.tick(Duration::ZERO);
    scene.begin(&asked, 5);
    let base_age = Duration::ZERO;
    let opened = Event::Opened { archive: 0, end: None, has_hole: false, ours: false, base_age };
    assert!(scene.hear(opened).contains(&Action::TakeSnapshot));
    let newest = revision(100);
    scene.say(0, Said::Changes { events: Vec::new(), witness: witness(), newest });
    let ended = scene.tick(Duration::from_secs(3));
    assert!(ended.contains(&Action::EndWatch), "{ended:?}");
    let asked = scene.tick(Duration::ZERO);
    scene.begin(&asked, 100);
    let told = scene.hear(Event::Snapshot { revision: revision(90), compact: None });
    let base = Action::MakeBase { archive: 0, end: None, followed: false };
    assert!(told.contains(&base), "{told:?}");
}

/// So many revisions are a blink of a busy cluster: once that ended its watch, and left a hole in the log.
#[test]
fn a_watch_may_be_thousands_of_revisions_behind_for_a_moment() {
    let mut scene = Scene::new();
    let asked = scene.tick(Duration::ZERO);
    scene.begin(&asked, 5);
    let changes = |newest| {
        let newest = revision(newest);
        Said::Changes { events: Vec::new(), witness: witness(), newest }
    };
    let told = scene.say(0, changes(20_000));
    assert!(!told.contains(&Action::EndWatch), "{told:?}");
    assert!(!scene.tick(Duration::from_secs(1)).contains(&Action::EndWatch));
    assert!(scene.tick(Duration::from_secs(1)).contains(&Action::EndWatch));

    let mut scene = Scene::new();
    let asked = scene.tick(Duration::ZERO);
    scene.begin(&asked, 5);
    assert!(scene.say(0, changes(20_010)).contains(&Action::EndWatch));
}

/// Changes of one revision: puts of these keys.
fn puts(number: i64, keys: &[&str]) -> Said {
    let event = |key: &&str| {
        let kv = rekindle_client::KeyValue {
            key: (*key).to_owned().into(),
            mod_revision: number,
            version: 1,
            ..rekindle_client::KeyValue::default()
        };
        let kind = rekindle_client::EventType::Put as i32;
        rekindle_client::Event { r#type: kind, kv: Some(kv), prev_kv: None }
    };
    let events = keys.iter().map(event).collect();
    Said::Changes { events, witness: witness(), newest: revision(number) }
}

fn tells(actions: &[Action], notice: &Notice) -> bool {
    actions.contains(&Action::Tell(notice.clone()))
}

/// A machine that knows a revision from its journal, in which a key was put, or else deleted; and what its first watch
/// was asked for.
fn with_a_tail(is_delete: bool) -> (Scene, Vec<Action>) {
    let mut other = Scene::new();
    let asked = other.tick(Duration::ZERO);
    other.begin(&asked, 9);
    let key = RecordKey { revision: revision(10), sub: 0, tombstone: is_delete };
    let kv = KeyValue { key: b"a", mod_revision: 10, ..KeyValue::default() };
    let bounds = (revision(3), revision(10));
    let tail = Tail::new(bounds, witness(), vec![(key, kv.to_bytes())]);
    let machine = Machine::new(Settings::default(), 1, Some(tail));
    let mut scene = Scene { machine, passed: Duration::ZERO };
    let asked = scene.tick(Duration::ZERO);
    (scene, asked)
}

fn began(witness: Witness, newest: i64) -> Said {
    Said::Began { from: revision(10), witness, newest: revision(newest) }
}

/// What a cluster is known by before it has said anything: its id, its term, its revision.
#[test]
fn another_cluster_is_known_by_how_it_begins() {
    let left = Notice::AnotherHistory { at: revision(10) };
    let begins = |witness, newest| {
        let (mut scene, _) = with_a_tail(false);
        scene.say(0, began(witness, newest))
    };
    assert!(!tells(&begins(witness(), 12), &left));
    assert!(tells(&begins(Witness { cluster: ClusterId(7), ..witness() }, 12), &left));
    assert!(tells(&begins(Witness { term: RaftTerm(2), ..witness() }, 12), &left));
    assert!(!tells(&begins(Witness { term: RaftTerm(4), ..witness() }, 12), &left));
    let back = Notice::AnotherHistory { at: revision(9) };
    let told = begins(witness(), 9);
    assert!(tells(&told, &back) && told.contains(&Action::ClearJournal), "{told:?}");
}

/// That all was said, where what is known was not: it is another history, unless that may be gone.
#[test]
fn progress_in_place_of_what_is_known() {
    let left = Notice::AnotherHistory { at: revision(10) };
    for (is_delete, leaves) in [(false, true), (true, false)] {
        let (mut scene, _) = with_a_tail(is_delete);
        scene.say(0, began(witness(), 10));
        let told = scene.say(0, Said::Progress { revision: revision(10) });
        assert_eq!(tells(&told, &left), leaves, "{told:?}");
    }
}

/// That all was said up to a revision that never came.
#[test]
fn progress_beyond_what_has_come_is_a_loss() {
    let mut scene = Scene::new();
    let asked = scene.tick(Duration::ZERO);
    scene.begin(&asked, 5);
    let told = scene.say(0, Said::Progress { revision: revision(5) });
    assert!(!told.contains(&Action::EndWatch), "{told:?}");
    let told = scene.say(0, Said::Progress { revision: revision(7) });
    assert!(tells(&told, &Notice::Lost { first: revision(6) }), "{told:?}");
    assert!(told.contains(&Action::EndWatch), "{told:?}");
}

fn opened(end: Option<i64>) -> Event {
    let (end, base_age) = (end.map(revision), Duration::ZERO);
    Event::Opened { archive: 0, end, has_hole: false, ours: false, base_age }
}

fn base_of(number: i64) -> Event {
    Event::Base { archive: 0, revision: Some(revision(number)), moved: false }
}

fn makes_base(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::MakeBase { .. }))
}

/// An answer to what was asked before a snapshot was there does not show that the watch has outlived it.
#[test]
fn an_answer_from_before_a_snapshot_says_nothing_of_it() {
    let mut scene = Scene::new();
    let asked = scene.tick(Duration::ZERO);
    let watch = asked.iter().find_map(|action| match action {
        Action::Watch { watch, .. } => Some(*watch),
        _ => None,
    });
    let began = Said::Began { from: revision(5), witness: witness(), newest: revision(5) };
    let asks = scene.say(watch.unwrap(), began);
    assert!(asks.contains(&Action::AskProgress), "{asks:?}");
    assert!(scene.hear(opened(None)).contains(&Action::TakeSnapshot));
    let taken = scene.hear(Event::Snapshot { revision: revision(5), compact: None });
    assert!(taken.contains(&Action::AskProgress) && !makes_base(&taken), "{taken:?}");
    let first = scene.say(0, Said::Progress { revision: revision(5) });
    assert!(!makes_base(&first), "{first:?}");
    let second = scene.say(0, Said::Progress { revision: revision(5) });
    assert!(makes_base(&second), "{second:?}");
}

/// A base of a snapshot that a watch did not outlive shows nothing: the archive is not said to go on from it.
#[test]
fn a_base_of_a_stale_snapshot_is_no_proof() {
    let base = |outlived: bool| {
        let mut scene = Scene::new();
        let asked = scene.tick(Duration::ZERO);
        scene.begin(&asked, 5);
        assert!(scene.hear(opened(None)).contains(&Action::TakeSnapshot));
        if !outlived {
            scene.say(0, Said::Ended { compacted: true });
            let asked = scene.tick(Duration::from_secs(60));
            scene.begin(&asked, 5);
        }
        scene.hear(Event::Snapshot { revision: revision(5), compact: None });
        if outlived {
            scene.say(0, Said::Progress { revision: revision(5) });
        }
        scene.hear(base_of(5))
    };
    assert!(base(true).contains(&Action::Mark { archive: 0 }));
    assert!(!base(false).contains(&Action::Mark { archive: 0 }));
}

/// Where the cluster became another one, no base is made of a snapshot that was taken before.
#[test]
fn a_snapshot_of_a_history_that_ended_becomes_no_base() {
    let mut scene = Scene::new();
    let asked = scene.tick(Duration::ZERO);
    scene.begin(&asked, 5);
    scene.say(0, puts(6, &["a"]));
    assert!(scene.hear(opened(None)).contains(&Action::TakeSnapshot));
    scene.hear(Event::Snapshot { revision: revision(6), compact: None });
    scene.say(0, Said::Ended { compacted: false });
    let asked = scene.tick(Duration::from_secs(10));
    let watch = asked.iter().find_map(|action| match action {
        Action::Watch { watch, .. } => Some(*watch),
        _ => None,
    });
    let other = Witness { cluster: ClusterId(7), ..witness() };
    let began = Said::Began { from: revision(6), witness: other, newest: revision(6) };
    let told = scene.say(watch.unwrap(), began);
    assert!(tells(&told, &Notice::AnotherHistory { at: revision(6) }), "{told:?}");
    let mut told = scene.begin(&told, 6);
    told.extend(scene.tick(Duration::from_secs(1)));
    assert!(!makes_base(&told), "{told:?}");
}

/// A watch that begins anew at or before what the journal has does not go on from it.
#[test]
fn a_journal_that_is_ahead_of_a_new_watch_is_cleared() {
    for (from, clears) in [(6, true), (7, false)] {
        let mut scene = Scene::new();
        let asked = scene.tick(Duration::ZERO);
        scene.begin(&asked, 5);
        scene.say(0, puts(6, &["a"]));
        let kept = scene.tick(Duration::from_secs(6));
        assert!(kept.iter().any(|action| matches!(action, Action::Keep(_))), "{kept:?}");
        scene.say(0, Said::Ended { compacted: true });
        let asked = scene.tick(Duration::from_secs(10));
        let watch = asked.iter().find_map(|action| match action {
            Action::Watch { watch, .. } => Some(*watch),
            _ => None,
        });
        let from = revision(from);
        let began = Said::Began { from, witness: witness(), newest: from };
        let told = scene.say(watch.unwrap(), began);
        assert_eq!(told.contains(&Action::ClearJournal), clears, "{told:?}");
    }
}

/// What an archive lacks before a base of it, and the journal has not, is told as a gap: it goes on from the base.
#[test]
fn what_is_missing_before_a_base_is_a_gap() {
    let mut scene = Scene::new();
    let asked = scene.tick(Duration::ZERO);
    scene.begin(&asked, 5);
    scene.hear(opened(Some(2)));
    scene.hear(Event::Snapshot { revision: revision(5), compact: None });
    scene.say(0, Said::Progress { revision: revision(5) });
    scene.hear(base_of(5));
    scene.hear(opened(Some(2)));
    let told = scene.hear(Event::Missing { archive: 0 });
    let gap = Notice::Gap { archive: 0, first: revision(3), last: revision(4) };
    assert!(tells(&told, &gap), "{told:?}");
}

/// With an archive that has revision 5.
fn a_minute_after_a_base() -> Scene {
    let mut scene = Scene::new();
    let asked = scene.tick(Duration::ZERO);
    scene.begin(&asked, 5);
    assert!(scene.hear(opened(None)).contains(&Action::TakeSnapshot));
    scene.hear(Event::Snapshot { revision: revision(5), compact: None });
    scene.say(0, Said::Progress { revision: revision(5) });
    scene.hear(base_of(5));
    scene.passed += Duration::from_secs(60);
    scene.say(0, Said::Progress { revision: revision(5) });
    scene
}

/// The archive was away, and has what it had.
fn back_at(end: i64) -> Event {
    let (end, base_age) = (Some(revision(end)), Duration::ZERO);
    Event::Opened { archive: 0, end, has_hole: false, ours: true, base_age }
}

/// Whoever has written into an archive meanwhile may have followed something else: a base has to show what is there.
#[test]
fn an_archive_that_another_has_written_into_is_trusted_no_more() {
    let takes_snapshot = |overtaken: bool| {
        let mut scene = a_minute_after_a_base();
        scene.hear(Event::Closed { archive: 0, overtaken });
        scene.hear(back_at(5)).contains(&Action::TakeSnapshot)
    };
    assert!(takes_snapshot(true));
    assert!(!takes_snapshot(false));
}

/// Somebody asked while the store was away: that was forgotten when it came back, and he waited for ever.
#[test]
fn a_base_that_was_asked_for_while_an_archive_was_away_is_made_when_it_is_back() {
    let takes_snapshot = |is_asked: bool| {
        let mut scene = a_minute_after_a_base();
        scene.hear(Event::Closed { archive: 0, overtaken: false });
        if is_asked {
            scene.hear(Event::BaseWanted);
        }
        scene.hear(back_at(5)).contains(&Action::TakeSnapshot)
    };
    assert!(takes_snapshot(true));
    assert!(!takes_snapshot(false));
}

/// A host that stood by and was started anew since: what its journal has from before that is of the same history. Once the
/// log of whoever died before it was left with a hole.
#[test]
fn who_takes_over_writes_what_its_journal_has_from_before_it_was_started() {
    for (end, from) in [(5, 6), (1, 12)] {
        let (mut scene, _) = with_a_tail(false);
        scene.say(0, began(witness(), 11));
        let known = rekindle_client::KeyValue {
            key: "a".into(),
            mod_revision: 10,
            ..rekindle_client::KeyValue::default()
        };
        let kind = rekindle_client::EventType::Put as i32;
        let events = vec![rekindle_client::Event { r#type: kind, kv: Some(known), prev_kv: None }];
        scene.say(0, Said::Changes { events, witness: witness(), newest: revision(11) });
        scene.say(0, puts(11, &["b"]));
        assert!(scene.hear(opened(Some(end))).contains(&Action::TakeSnapshot));
        scene.hear(Event::Snapshot { revision: revision(11), compact: None });
        scene.say(0, Said::Progress { revision: revision(11) });
        let mut told = scene.hear(base_of(11));
        told.extend(scene.say(0, puts(12, &["c"])));
        told.extend(scene.tick(Duration::from_secs(6)));
        let writes = told.iter().find_map(|action| match action {
            Action::Write { from, .. } => Some(from.get()),
            _ => None,
        });
        // What is before the journal's first revision, 3, it has not: it goes on from the base.
        assert_eq!(writes, Some(from), "{told:?}");
    }
}
