//! What is to be done with a cluster: pure.
//!
//! What may never happen here: a member replaced whose data are good, or of which only this host does not know whether it is
//! there; two at a time; anything but a question to a human where the quorum is lost and data may be.

use std::fmt;

/// A member, as far as deciding needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is called.
    pub name: String,
    /// Whether it votes.
    pub votes: bool,
    /// How it is.
    pub state: State,
    /// It was seen so, so many times in a row.
    pub times: u32,
}

/// How a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers a read as of now.
    Serves,
    /// It does, slowly.
    Slow,
    /// It answers nothing, and nobody knows why.
    Silent,
    /// Others see it; this host does not.
    Unseen,
    /// Its process does not run, and its data are good; on this host, where it was started anew so many times without
    /// success, or elsewhere.
    Crashed {
        /// See there.
        here: Option<u32>,
    },
    /// Its data are gone, or damaged.
    Lost,
    /// It says itself that its data differ from the others'.
    Corrupt,
    /// It is listed, and has never started.
    NeverStarted,
}

/// The newest backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backup {
    /// It is proven, and as new as it should be.
    #[default]
    Good,
    /// It is older than it should be.
    Stale,
    /// Nothing has proven it.
    Unproven,
    /// There is none.
    Missing,
}

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// All that the cluster lists.
    pub members: Vec<Member>,
    /// Somebody has paused it.
    pub paused: bool,
    /// A member is being replaced or restored already, here or elsewhere.
    pub busy: bool,
    /// Members are of two versions.
    pub upgrading: bool,
    /// Clocks of hosts differ by more than they may.
    pub clocks_differ: bool,
    /// The leader changes again and again.
    pub elections: bool,
    /// The last replacement has failed not long ago.
    pub replacement_failed: bool,
    /// The newest backup.
    pub backup: Backup,
}

/// What may be done unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Members are started anew and replaced unasked.
    pub automatic: bool,
    /// How many times in a row something must be seen.
    pub times: u32,
    /// How often a member is started anew that crashes again.
    pub restarts_max: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All is well.
    Nothing,
    /// Nothing yet, and why.
    Wait(&'static str),
    /// This.
    Do(Step),
    /// This, once a human has said so; and why he is asked.
    Ask(&'static str, Step),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start a member's etcd anew, with the data that it has.
    Restart(String),
    /// Take a member out, and put a new one in its place.
    Replace(String),
    /// End a replacement: promote the learner that it has left.
    Finish(String),
    /// Take a member out.
    Remove(String),
    /// Bring the whole cluster back.
    Recover,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart(name) => write!(f, "restart {name}"),
            Self::Replace(name) => write!(f, "replace {name}"),
            Self::Finish(name) => write!(f, "finish {name}"),
            Self::Remove(name) => write!(f, "remove {name}"),
            Self::Recover => f.write_str("recover"),
        }
    }
}

/// Decides it.
#[must_use]
pub fn decide(situation: &Situation, policy: Policy) -> Decision {
    let Situation { members, .. } = situation;
    let is_well = |member: &Member| matches!(member.state, State::Serves | State::Slow);
    let voters = members.iter().filter(|member| member.votes);
    let (alive, all) = (voters.clone().filter(|member| is_well(member)).count(), voters.count());
    if all == 0 {
        return Decision::Wait("nobody says who is in the cluster");
    }
    if members.iter().all(|member| is_well(member) && member.votes) {
        return Decision::Nothing;
    }
    let believed = |member: &&Member| !is_well(member) && member.times >= policy.times;
    let believed: Vec<_> = members.iter().filter(believed).collect();
    let learns = members.iter().any(|member| !member.votes && is_well(member));
    if believed.is_empty() && !(learns && alive == all) {
        return Decision::Wait("it does not go on for long enough yet");
    }
    let case = Case { situation, policy, believed };
    match alive > all / 2 {
        true => case.degraded(),
        false => case.without_quorum(alive, all),
    }
}

struct Case<'a> {
    situation: &'a Situation,
    policy: Policy,
    /// Members of which it is believed that they are not well.
    believed: Vec<&'a Member>,
}

impl Case<'_> {
    /// The cluster serves.
    fn degraded(&self) -> Decision {
        let Situation { paused, busy, upgrading, .. } = *self.situation;
        if paused {
            return Decision::Wait("it is paused");
        }
        if busy {
            return Decision::Wait("a member is being replaced already");
        }
        if upgrading {
            return Decision::Wait("an upgrade is under way");
        }
        if let Some(decision) = self.restart() {
            return decision;
        }
        if let Some(decision) = self.learner() {
            return decision;
        }
        if let Some(member) = self.first(|state| state == State::NeverStarted) {
            let why = "it was added, and never started";
            return Decision::Ask(why, Step::Remove(member.name.clone()));
        }
        let worst = [State::Lost, State::Corrupt, State::Silent];
        let worst = worst.into_iter().find_map(|state| self.first(|it| it == state));
        let Some(member) = worst else {
            return match self.first(|state| state == State::Unseen) {
                Some(_) => Decision::Wait("only this host does not see it"),
                None => self.crashed_elsewhere(),
            };
        };
        self.replace(member)
    }

    fn replace(&self, member: &Member) -> Decision {
        let Situation { clocks_differ, elections, replacement_failed, .. } = *self.situation;
        let step = Step::Replace(member.name.clone());
        if elections {
            return Decision::Wait("the leader changes again and again");
        }
        if replacement_failed {
            return Decision::Ask("the last replacement has failed", step);
        }
        if clocks_differ {
            return Decision::Ask("clocks differ", step);
        }
        self.unasked(step)
    }

    /// A crashed member of this host, with good data.
    fn restart(&self) -> Option<Decision> {
        let here = |member: &&Member| match member.state {
            State::Crashed { here: Some(times) } => Some(times),
            _ => None,
        };
        let (member, times) = self.believed.iter().find_map(|it| Some((it, here(it)?)))?;
        let step = Step::Restart(member.name.clone());
        Some(match times < self.policy.restarts_max {
            true => self.unasked(step),
            false => Decision::Ask("it crashes again and again, with good data", step),
        })
    }

    fn crashed_elsewhere(&self) -> Decision {
        let crashed = self.first(|state| matches!(state, State::Crashed { here: None }));
        match crashed {
            Some(_) => Decision::Wait("whoever is on its host starts it anew"),
            None => Decision::Wait("nothing is known to be done"),
        }
    }

    /// What an interrupted replacement has left.
    fn learner(&self) -> Option<Decision> {
        let learner = self.situation.members.iter().find(|member| !member.votes)?;
        let is_well = matches!(learner.state, State::Serves | State::Slow);
        let name = learner.name.clone();
        Some(match (is_well, learner.times >= self.policy.times) {
            (true, _) => self.unasked(Step::Finish(name)),
            (false, true) => Decision::Ask("a learner does not come up", Step::Remove(name)),
            (false, false) => Decision::Wait("a learner is coming up"),
        })
    }

    /// Nobody serves. Whatever is done unasked keeps all data.
    fn without_quorum(&self, alive: usize, all: usize) -> Decision {
        let Situation { busy, backup, .. } = *self.situation;
        if busy {
            return Decision::Wait("the cluster is being brought back already");
        }
        if let Some(decision @ Decision::Do(_)) = self.restart() {
            return decision;
        }
        let voters = || self.situation.members.iter().filter(|member| member.votes);
        let may_come = |member: &&Member| {
            matches!(member.state, State::Crashed { .. } | State::Unseen)
                || (member.state == State::Silent && member.times < self.policy.times)
        };
        let unseen = voters().filter(|member| member.state == State::Unseen).count();
        if alive + unseen > all / 2 {
            return Decision::Wait(
                "the others have a quorum among themselves: this host is cut off",
            );
        }
        if alive + voters().filter(may_come).count() > all / 2 {
            let crashed = voters().find(|it| matches!(it.state, State::Crashed { .. }));
            return match crashed {
                Some(member) => {
                    let why = "the quorum is lost, and comes back with what has crashed";
                    Decision::Ask(why, Step::Restart(member.name.clone()))
                }
                None => Decision::Wait("it does not go on for long enough yet"),
            };
        }
        let why = match backup {
            Backup::Good => "the quorum is lost",
            Backup::Stale => "the quorum is lost, and the newest backup is old",
            Backup::Unproven => "the quorum is lost, and nothing has proven the newest backup",
            Backup::Missing => {
                "the quorum is lost, and there is no backup: only the members' own data are left"
            }
        };
        Decision::Ask(why, Step::Recover)
    }

    /// Of those of which it is believed the one that was seen so for longest.
    fn first(&self, is_it: impl Fn(State) -> bool) -> Option<&Member> {
        let mut found = self.believed.iter().filter(|member| member.votes && is_it(member.state));
        let first = found.next()?;
        Some(found.fold(first, |longest, it| if it.times > longest.times { it } else { longest }))
    }

    fn unasked(&self, step: Step) -> Decision {
        match (self.situation.paused, self.policy.automatic) {
            (false, true) => Decision::Do(step),
            (true, _) => Decision::Ask("it is paused", step),
            (false, false) => Decision::Ask("nothing is done unasked", step),
        }
    }
}

#[cfg(test)]
mod tests;
