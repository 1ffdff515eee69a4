//! Replacing a member: what to do next, pure.
//!
//! Each step is told from what the cluster lists and what lies on the member's host, so whoever was interrupted, or has
//! found what somebody else has begun, goes on by asking again. What may never happen here: a member taken out where the
//! others are no quorum; a member with an id that it has had before on a directory that does not know of that.

use std::collections::BTreeSet;

/// A member, as the cluster lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: u64,
    /// Its name; empty where it was added and has not started.
    pub name: String,
    /// It has started: it says where clients reach it. Its name says less, for those that begin a cluster have one at once.
    pub started: bool,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Whether it votes.
    pub votes: bool,
}

/// What lies in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// Nothing.
    Nothing,
    /// A member with this id.
    Member(u64),
    /// Something that does not say what it is.
    Unreadable,
    /// A fence stands there.
    Fenced,
}

/// All that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// All members that the cluster lists.
    pub members: Vec<Listed>,
    /// Those that serve.
    pub serving: BTreeSet<u64>,
    /// Where peers reach the member that is to be replaced.
    pub peer_urls: Vec<String>,
    /// What lies on its host.
    pub local: Local,
    /// Its etcd runs.
    pub runs: bool,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stop it, and fence its data directory: what was there is set aside.
    SetAside,
    /// Take it out of the cluster.
    Remove(u64),
    /// Add it as a learner.
    Add,
    /// Start it with nothing.
    Start(u64),
    /// Start it with what it has by now.
    StartAgain(u64),
    /// Make it vote, as soon as it has caught up.
    Promote(u64),
}

/// Why nothing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It serves.
    Serves,
    /// The others are no quorum.
    NoQuorum {
        /// Voting members that serve, without it.
        serving: usize,
        /// As many have to.
        quorum: usize,
    },
}

impl Situation {
    /// The member, as the cluster lists it: whoever has a peer URL of it.
    #[must_use]
    pub fn listed(&self) -> Option<&Listed> {
        let is_it = |it: &&Listed| it.peer_urls.iter().any(|url| self.peer_urls.contains(url));
        self.members.iter().find(is_it)
    }

    /// What is to be done next.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn next(&self) -> Result<Step, Refusal> {
        let fenced = self.local == Local::Fenced;
        let aside_or = |step| if fenced { step } else { Step::SetAside };
        let Some(listed) = self.listed() else {
            self.check_quorum(None)?;
            return Ok(aside_or(Step::Add));
        };
        let id = listed.id;
        if listed.votes {
            if self.serving.contains(&id) {
                return Err(Refusal::Serves);
            }
            self.check_quorum(Some(id))?;
            return Ok(aside_or(Step::Remove(id)));
        }
        match self.local {
            Local::Member(own) if own == id && self.runs => Ok(Step::Promote(id)),
            Local::Member(own) if own == id => Ok(Step::StartAgain(id)),
            // The others count on what it has acknowledged.
            _ if listed.started => Ok(aside_or(Step::Remove(id))),
            _ => Ok(aside_or(Step::Start(id))),
        }
    }

    /// Taking it out needs a quorum of all that vote now, and so does adding it.
    fn check_quorum(&self, without: Option<u64>) -> Result<(), Refusal> {
        let voters = self.members.iter().filter(|member| member.votes);
        let quorum = voters.clone().count() / 2 + 1;
        let others = voters.filter(|member| Some(member.id) != without);
        let serving = others.filter(|member| self.serving.contains(&member.id)).count();
        match serving >= quorum {
            true => Ok(()),
            false => Err(Refusal::NoQuorum { serving, quorum }),
        }
    }

    /// All that is to be done, if nothing fails meanwhile.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn plan(&self) -> Result<Vec<Step>, Refusal> {
        let (mut now, mut steps) = (self.clone(), Vec::new());
        loop {
            match now.next() {
                Err(Refusal::Serves) if !steps.is_empty() => return Ok(steps),
                next => {
                    let step = next?;
                    steps.push(step);
                    now.take(step);
                }
            }
        }
    }

    /// What comes of a step.
    fn take(&mut self, step: Step) {
        /// Nobody has it.
        const NEW: u64 = 0;
        match step {
            Step::SetAside => (self.local, self.runs) = (Local::Fenced, false),
            Step::Remove(id) => self.members.retain(|member| member.id != id),
            Step::Add => {
                let (name, peer_urls) = (String::new(), self.peer_urls.clone());
                let started = false;
                self.members.push(Listed { id: NEW, name, started, peer_urls, votes: false });
            }
            Step::Start(id) | Step::StartAgain(id) => {
                (self.local, self.runs) = (Local::Member(id), true);
            }
            Step::Promote(id) => {
                let learner = self.members.iter_mut().find(|member| member.id == id);
                learner.into_iter().for_each(|learner| learner.votes = true);
                self.serving.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 3;

    fn listed(id: u64) -> Listed {
        let (name, peer_urls) = (format!("m{id}"), vec![format!("http://h{id}:2380")]);
        Listed { id, name, started: true, peer_urls, votes: true }
    }

    /// Three members, of which the third does not serve.
    fn situation(local: Local) -> Situation {
        let members = [1, 2, OWN].map(listed).to_vec();
        let (serving, peer_urls) = (BTreeSet::from([1, 2]), listed(OWN).peer_urls);
        Situation { members, serving, peer_urls, local, runs: false }
    }

    fn learner(started: bool) -> Listed {
        Listed { id: 9, started, votes: false, ..listed(OWN) }
    }

    #[test]
    fn it_goes_on_from_wherever_it_was_interrupted() {
        use Step::{Add, Promote, Remove, SetAside, Start, StartAgain};
        let all = [SetAside, Remove(OWN), Add, Start(0), Promote(0)];
        for local in [Local::Nothing, Local::Member(OWN), Local::Unreadable] {
            assert_eq!(situation(local).plan(), Ok(all.to_vec()), "{local:?}");
        }
        assert_eq!(situation(Local::Fenced).plan(), Ok(all[1..].to_vec()));
        let mut now = situation(Local::Fenced);
        now.members.pop();
        assert_eq!(now.plan(), Ok(all[2..].to_vec()));
        now.local = Local::Nothing;
        assert_eq!(now.plan(), Ok(vec![SetAside, Add, Start(0), Promote(0)]));
        now.members.push(learner(false));
        assert_eq!(now.plan(), Ok(vec![SetAside, Start(9), Promote(9)]));
        now.local = Local::Fenced;
        assert_eq!(now.plan(), Ok(vec![Start(9), Promote(9)]));
        now.local = Local::Member(9);
        assert_eq!(now.plan(), Ok(vec![StartAgain(9), Promote(9)]));
        now.runs = true;
        assert_eq!(now.plan(), Ok(vec![Promote(9)]));
    }

    /// One that has started, and whose data are gone, must not come again with the same id.
    #[test]
    fn a_learner_that_has_forgotten_is_taken_out() {
        let mut now = situation(Local::Nothing);
        now.members.pop();
        now.members.push(learner(true));
        for local in [Local::Nothing, Local::Unreadable, Local::Member(OWN)] {
            now.local = local;
            let steps = now.plan().unwrap();
            assert_eq!(steps[..3], [Step::SetAside, Step::Remove(9), Step::Add], "{local:?}");
        }
    }

    #[test]
    fn who_serves_is_not_replaced_and_neither_is_one_without_a_quorum_of_others() {
        let mut now = situation(Local::Member(OWN));
        now.serving.insert(OWN);
        assert_eq!(now.plan(), Err(Refusal::Serves));
        let mut now = situation(Local::Nothing);
        now.serving.remove(&2);
        assert_eq!(now.plan(), Err(Refusal::NoQuorum { serving: 1, quorum: 2 }));
        // The only one of two: to take it out takes both.
        now.members.remove(1);
        assert_eq!(now.plan(), Err(Refusal::NoQuorum { serving: 1, quorum: 2 }));
        // A second one to be added to one that serves.
        now.members.pop();
        assert_eq!(now.plan().unwrap()[..2], [Step::SetAside, Step::Add]);
    }
}
