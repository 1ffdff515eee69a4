//! What the machine says in situations that have names.

use rekindle_agent::capture::{Action, Event, Machine, Now, Said, Settings};
use rekindle_archive::Witness;
use rekindle_archive::format::header::Moment;
use rekindle_etcd::{ClusterId, MemberId, RaftTerm, Revision};
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
