//! What is to be done with a cluster that is looked at again and again: what its members say, and what this host knows of its own.

use crate::args::ConnectArgs;
use crate::member::{Here, MemberArgs, local};
use rekindle_datadir::{RealDisk, fence_at};
use rekindle_recovery::decide::{Decision, Member, Policy, Situation, State, Step, decide};
use rekindle_recovery::health::{Fate, Health, History, Observed, ObservedMember, Thresholds};
use rekindle_recovery::replace::Local;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What fences of replacements are called.
const REPLACEMENT: &str = "replace-";
/// Whoever carries it out counts how often he has.
const RESTARTS_MAX: u32 = 1;

/// It, in words and for programs.
pub(super) struct Next {
    decision: Decision,
    /// The member of this host, if it is about that one.
    is_here: bool,
}

/// Decides it, as if all that loses nothing were to be done unasked.
pub(super) fn next(
    connect: &ConnectArgs,
    observed: &Observed,
    health: &Health,
    history: &History,
    thresholds: Thresholds,
) -> Next {
    let here = MemberArgs::default().find_place(connect).ok();
    let found = |name: &str| health.findings.iter().any(|finding| finding.name == name);
    let members = observed.members.iter().map(|member| {
        let streak = history.streak(&member.label());
        let times = match streak.fate {
            Fate::Fails => thresholds.fails,
            Fate::Well => streak.against,
        };
        let is_believed = times >= thresholds.fails;
        let own = here.as_ref().filter(|here| is_it(here, member));
        let state = state(member, health, own.filter(|_| is_believed));
        Member { name: member.label(), votes: member.votes, state, times }
    });
    let mut members: Vec<_> = members.collect();
    members.extend(here.as_ref().and_then(|here| taken_out(here, observed, thresholds)));
    let versions: BTreeSet<_> =
        observed.members.iter().filter_map(|it| Some(&it.status()?.version)).collect();
    let situation = Situation {
        members,
        upgrading: versions.len() > 1,
        clocks_differ: found("Clock"),
        elections: found("Elections"),
        ..Situation::default()
    };
    let policy = Policy { automatic: true, times: thresholds.fails, restarts_max: RESTARTS_MAX };
    let decision = decide(&situation, policy);
    let subject = match &decision {
        Decision::Do(step) | Decision::Ask(_, step) => whose(step),
        Decision::Nothing | Decision::Wait(_) => None,
    };
    let is_here = here.is_some_and(|here| subject.is_some_and(|name| name == here.name));
    Next { decision, is_here }
}

fn is_it(here: &Here, member: &ObservedMember) -> bool {
    member.peer_urls.iter().any(|url| here.peer_urls.contains(url))
}

/// A replacement that was interrupted between taking it out and adding it again: nobody lists it.
fn taken_out(here: &Here, observed: &Observed, thresholds: Thresholds) -> Option<Member> {
    let fence = fence_at(&RealDisk, &here.place).ok().flatten();
    let is_ours = fence.is_some_and(|id| id.starts_with(REPLACEMENT));
    let is_listed = observed.members.iter().any(|member| is_it(here, member));
    let is_it = is_ours && !is_listed && observed.unlisted.is_none();
    let (name, times) = (here.name.clone(), thresholds.fails);
    is_it.then_some(Member { name, votes: true, state: State::Lost, times })
}

fn state(member: &ObservedMember, health: &Health, own: Option<&Here>) -> State {
    let label = member.label();
    let found = |name: &str| {
        let mut findings = health.findings.iter();
        findings.any(|it| it.name == name && it.member.as_ref() == Some(&label))
    };
    let own = || own.and_then(here_state);
    match member.serves() {
        _ if found("Corrupt") => State::Corrupt,
        true if found("Slow") => State::Slow,
        true => State::Serves,
        false if found("NotStarted") => own().unwrap_or(State::NeverStarted),
        false => own().unwrap_or(State::Silent),
    }
}

/// What only its own host can say; none where its etcd runs.
fn here_state(here: &Here) -> Option<State> {
    if local::runs(&here.place).ok()? {
        return None;
    }
    Some(match local::look(&here.place).ok()? {
        Local::Member(_) if local::check(&here.place).is_ok() => State::Crashed { here: Some(0) },
        Local::Member(_) | Local::Unreadable | Local::Nothing => State::Lost,
        // By a replacement; everything else is somebody's business already.
        Local::Fenced => {
            let fence = fence_at(&RealDisk, &here.place).ok()??;
            fence.starts_with(REPLACEMENT).then_some(State::Lost)?
        }
    })
}

fn whose(step: &Step) -> Option<&str> {
    match step {
        Step::Restart(name) | Step::Replace(name) | Step::Finish(name) | Step::Remove(name) => {
            Some(name)
        }
        Step::Recover => None,
    }
}

impl Next {
    pub(super) fn json(&self) -> Value {
        let (word, why, step) = match &self.decision {
            Decision::Nothing => ("nothing", None, None),
            Decision::Wait(why) => ("wait", Some(*why), None),
            Decision::Do(step) => ("do", None, Some(step)),
            Decision::Ask(why, step) => ("ask", Some(*why), Some(step)),
        };
        let verb = step.map(|step| match step {
            Step::Restart(_) => "restart",
            Step::Replace(_) | Step::Finish(_) => "replace",
            Step::Remove(_) => "remove",
            Step::Recover => "recover",
        });
        json!({
            "decision": word, "why": why, "step": verb, "member": step.and_then(whose),
            "here": self.is_here, "command": step.map(|step| self.command(step)),
        })
    }

    /// What to type, and where.
    fn command(&self, step: &Step) -> String {
        let on = |name: &str| match self.is_here {
            true => "on this host: ".to_owned(),
            false => format!("on the host of {name}: "),
        };
        match step {
            Step::Restart(name) => {
                format!("{}start its etcd again, with the data that it has", on(name))
            }
            Step::Replace(name) | Step::Finish(name) => format!("{}rekindle replace", on(name)),
            Step::Remove(name) => {
                format!("etcdctl member remove, with the id that rekindle check says of {name}")
            }
            Step::Recover => {
                "rekindle recover ARCHIVE --host ... (--dry-run shows what is lost)".to_owned()
            }
        }
    }

    /// A line, where there is anything to be done.
    pub(super) fn text(&self) -> String {
        match &self.decision {
            Decision::Nothing => String::new(),
            Decision::Wait(why) => format!("nothing is to be done yet: {why}\n"),
            Decision::Do(step) => format!("next: {}\n", self.command(step)),
            Decision::Ask(why, step) => format!("next, and {why}: {}\n", self.command(step)),
        }
    }
}
