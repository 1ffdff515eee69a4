//! Looking at a cluster's members again and again; and where it is configured, bringing this host's member back.

use super::keeping;
use super::{Level, Ward};
use crate::child::{Program, is_of_an_error, reason};
use crate::health::{Next, Report, Times};
use crate::records::{Outcome, Record, Run, now};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One that hangs is ended: it asks within seconds.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// A member with a large database takes its time to catch up.
const REPAIR_MAX: Duration = Duration::from_secs(2 * 3600);
/// What has failed is not tried again sooner, and of several agents one replaces a member in so long.
const REPAIR_EVERY: Duration = Duration::from_secs(3600);
/// An etcd that crashes so often within that time is no matter of starting it again.
const RESTARTS_MAX: usize = 3;
const JOB: &str = "repair";

pub(super) fn run(ward: &Arc<Ward>) {
    let mut repairing = Repairing { ward, restarts: Vec::new(), failed: None };
    loop {
        let began = Instant::now();
        if let Some(next) = look(ward) {
            repairing.consider(&next);
        }
        let every = ward.cluster.check.every.0;
        if ward.stop.wait(every.saturating_sub(began.elapsed()).max(Duration::from_millis(100))) {
            return;
        }
    }
}

fn look(ward: &Ward) -> Option<Next> {
    let check = &ward.cluster.check;
    let words = [
        "check".to_owned(),
        format!("--state={}", ward.directory.join("health.json").display()),
        format!("--fails-after={}", check.fails_after),
        format!("--well-after={}", check.well_after),
    ];
    let ended = ward.program.run(&words, &ward.stop, LOOK_MAX, |_| ());
    if ward.stop.is_set() {
        return None;
    }
    let fault = match ended {
        Ok(ended) => match serde_json::from_str::<Report>(ended.stdout.trim()) {
            Ok(report) => {
                let times = Times { fails: check.fails_after, well: check.well_after };
                let next = report.next.clone();
                ward.state(|state| state.health.hear(report, now(), times));
                return Some(next);
            }
            Err(_) if ended.too_long => "it hangs".to_owned(),
            Err(error) => reason(&ended.said).unwrap_or_else(|| error.to_string()),
        },
        Err(error) => format!("starting it: {error}"),
    };
    ward.state(|state| state.health.fail(fault, now()));
    None
}

struct Repairing<'a> {
    ward: &'a Arc<Ward>,
    restarts: Vec<Instant>,
    failed: Option<Instant>,
}

impl Repairing<'_> {
    /// Does what may be done unasked, or says why not.
    fn consider(&mut self, next: &Next) {
        let is_ours = next.decision == "do" && next.here;
        if !is_ours || !self.ward.cluster.check.repair {
            return;
        }
        let hindrance = match next.step.as_deref() {
            _ if self.ward.state(|state| state.paused.is_some()) => Some("it is paused".to_owned()),
            _ if self.failed.is_some_and(|at| at.elapsed() < REPAIR_EVERY) => return,
            Some("restart") => self.restart(),
            Some("replace") => self.replace(),
            _ => return,
        };
        self.ward.state(|state| state.health.hindrance = hindrance);
    }

    fn restart(&mut self) -> Option<String> {
        self.restarts.retain(|at| at.elapsed() < REPAIR_EVERY);
        if self.restarts.len() >= RESTARTS_MAX {
            return Some(format!("it was started {RESTARTS_MAX} times within an hour"));
        }
        self.restarts.push(Instant::now());
        self.make(now(), &["on-host", "start"])
    }

    /// One agent at a time, and none where nobody can be asked.
    fn replace(&mut self) -> Option<String> {
        let Some(archive) = self.ward.cluster.archives.first() else {
            return Some("there is no archive in which agents could agree on it".to_owned());
        };
        let slot = hour(now());
        let run = self.run_of(slot);
        let claimed = self.ward.open(archive).and_then(|archive| {
            run.claim(archive.store(), &self.ward.agent, now()).map_err(|it| it.to_string())
        });
        match claimed {
            Ok(true) => self.make(slot, &["replace", "--yes"]),
            Ok(false) => {
                Some("this or another agent has replaced a member within the hour".to_owned())
            }
            Err(fault) => Some(format!("other agents cannot be asked: {fault}")),
        }
    }

    fn run_of(&self, slot: Timestamp) -> Run {
        Run { cluster: self.ward.cluster.name.clone(), job: JOB.to_owned(), slot, attempt: 1 }
    }

    /// Does it, and keeps the record; why it failed.
    fn make(&mut self, slot: Timestamp, words: &[&str]) -> Option<String> {
        let ward = self.ward;
        let (run, began) = (self.run_of(slot), now());
        ward.say(Level::Warning, Some(JOB), format!("rekindle {}", words.join(" ")));
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let also = ward.program.also.iter().filter(|it| !it.starts_with("--write-out")).cloned();
        let program = Program { path: ward.program.path.clone(), also: also.collect() };
        let heard = Arc::clone(ward);
        let hear = move |line: &str| {
            if !is_of_an_error(line) {
                heard.say(Level::Info, Some(JOB), line);
            }
        };
        let ended = program.run(&words, &ward.stop, REPAIR_MAX, hear);
        let (outcome, why) = match ended {
            Ok(ended) if ended.code == Some(0) => (Outcome::Done, None),
            Ok(_) if ward.stop.is_set() => (Outcome::Interrupted, None),
            Ok(ended) => (Outcome::of_code(ended.code), reason(&ended.said)),
            Err(error) => (Outcome::Failed, Some(error.to_string())),
        };
        let command = [vec!["rekindle".to_owned()], words, program.also].concat();
        let record = Record::new(&run, &ward.agent, began, now(), outcome);
        let record = Record { command, reason: why.clone(), ..record };
        keeping::keep(ward, &record);
        if outcome == Outcome::Failed || outcome == Outcome::Refused {
            self.failed = Some(Instant::now());
            let why = why.unwrap_or_else(|| "it said nothing of why".to_owned());
            ward.say(Level::Warning, Some(JOB), &*why);
            return Some(format!("it has failed: {why}"));
        }
        ward.say(Level::Info, Some(JOB), outcome.name());
        None
    }
}

/// The hour that a moment is in.
fn hour(at: Timestamp) -> Timestamp {
    let over = at.as_second().rem_euclid(i64::try_from(REPAIR_EVERY.as_secs()).unwrap_or(1));
    let whole = at.checked_sub(SignedDuration::from_secs(over)).unwrap_or(at);
    Timestamp::from_second(whole.as_second()).unwrap_or(whole)
}
