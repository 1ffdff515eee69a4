//! `rekindle replace`: this host's member by a new one, while the others serve.

use super::{Here, MemberArgs, local};
use crate::args::ConnectArgs;
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::output;
use crate::terminal::{self, Calls, confirm};
use crate::time::{self, parse_duration};
use clap::Args as ClapArgs;
use rekindle_client::{Client, Error, EtcdFault, MemberInfo, Role};
use rekindle_datadir::{Fence, RealDisk, fence_at};
use rekindle_recovery::health::{Observed, observe};
use rekindle_recovery::host::Settings;
use rekindle_recovery::replace::{Listed, Refusal, Situation, Step};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// How often is tried whether a learner has caught up.
const PROMOTE_EVERY: Duration = Duration::from_millis(300);
/// How long all members have to say how they are.
const OBSERVE_WITHIN: Duration = Duration::from_secs(4);
/// And one that was just promoted, before it is asked again.
const PROMOTED_WITHIN: Duration = Duration::from_millis(700);
/// How long a cluster may take to accept a change of its members.
const CHANGES_WITHIN: Duration = Duration::from_secs(60);
/// How long one that was promoted may take to serve.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
/// What the ids of our fences begin with.
const FENCE: &str = "replace-";

/// Replace this host's etcd member by a new one, while the others serve.
///
/// Run it on the member's host. Its etcd is stopped, its data directory is set aside and fenced, the member is taken out
/// and added again as a learner, started with nothing, and promoted once it has caught up. Nothing is deleted. Whoever is
/// interrupted runs it again: it goes on where it was, also with a learner that somebody else has left.
#[derive(Debug, ClapArgs)]
pub(crate) struct ReplaceArgs {
    #[command(flatten)]
    pub member: MemberArgs,
    /// Most time for the new member to catch up.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1h")]
    pub catch_up: Duration,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(crate) fn run(args: &ReplaceArgs) -> Result<(), Failure> {
    let here = args.member.find(&args.connect)?;
    let calls = Calls::new(terminal::stop_flag()?)?;
    let replacing = Replacing { here, calls, client: connect(&args.connect)?.client, args };
    let situation = replacing.look()?;
    if let (Err(Refusal::Serves), true) = (situation.plan(), replacing.here.host.is_unfinished()) {
        replacing.here.host.finish()?;
        return output::print("it serves; whoever was stopped with it runs again\n");
    }
    let plan = situation.plan().map_err(|refusal| replacing.refused(refusal))?;
    output::print(&replacing.text(&situation, &plan)?)?;
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        confirm("The member is replaced.")?;
    }
    replacing.carry_out()
}

struct Replacing<'a> {
    here: Here,
    calls: Calls,
    client: Client,
    args: &'a ReplaceArgs,
}

impl Replacing<'_> {
    fn members(&self) -> Result<Vec<MemberInfo>, Failure> {
        Ok(self.calls.wait(self.client.member_list())?.members)
    }

    fn look(&self) -> Result<Situation, Failure> {
        let list = self.members().map_err(|failure| match failure.code {
            Code::Transient => failure.remedy(
                "without a quorum no member can be replaced: rekindle check says how the cluster is",
            ),
            _ => failure,
        })?;
        let observed = self.observe(OBSERVE_WITHIN)?;
        let serving = observed.members.iter().filter(|member| member.serves());
        let members = list.into_iter().map(|it| Listed {
            id: it.id,
            started: !it.client_urls.is_empty(),
            name: it.name,
            peer_urls: it.peer_urls,
            votes: it.role == Role::Voter,
        });
        Ok(Situation {
            members: members.collect(),
            serving: serving.filter_map(|member| member.id).collect(),
            peer_urls: self.here.peer_urls.clone(),
            local: local::look(&self.here.place)?,
            runs: local::runs(&self.here.place)?,
        })
    }

    fn observe(&self, within: Duration) -> Result<Observed, Failure> {
        let observed = observe(&self.client, within, false);
        self.calls.wait(async { Ok::<_, Failure>(observed.await) })
    }

    fn carry_out(&self) -> Result<(), Failure> {
        let mut done = 0;
        loop {
            let situation = self.look()?;
            let step = match situation.next() {
                Err(Refusal::Serves) if done > 0 => break,
                next => next.map_err(|refusal| self.refused(refusal))?,
            };
            eprintln!("{}", self.words(step, &situation)?);
            self.take(step, &situation)?;
            done += 1;
        }
        let Here { name, host, .. } = &self.here;
        host.finish()?;
        output::print(&format!("{name} is replaced, votes and serves\n"))
    }

    fn take(&self, step: Step, situation: &Situation) -> Result<(), Failure> {
        let Self { here, calls, client, .. } = self;
        match step {
            Step::SetAside => here.fence(&self.fence_id()?, "Its member is being replaced."),
            Step::Remove(id) => self.change(
                || calls.wait(client.member_remove(id)),
                |members| members.iter().all(|it| it.id != id),
            ),
            Step::Add => {
                let urls = &here.peer_urls;
                let add = || {
                    let added = client.member_add(urls.clone(), Role::Learner);
                    let added = calls.wait(async { Ok::<_, Failure>(added.await) })?;
                    added.map_err(|error| match error {
                        // Its id is made of its peer URLs and the second: one that was taken out had the same.
                        Error::Etcd { fault: EtcdFault::MemberNotFound, .. } => {
                            Failure::new(Code::Transient, error.to_string())
                        }
                        error => error.into(),
                    })
                };
                self.change(
                    || add().map(drop),
                    |members| members.iter().any(|it| it.peer_urls == *urls),
                )
            }
            Step::Start(_) => {
                Fence::new(&here.place, &self.fence_id()?)?.open_empty(&RealDisk)?;
                self.start(situation)
            }
            Step::StartAgain(_) => self.start(situation),
            Step::Promote(id) => {
                self.promote(id)?;
                self.wait_until_it_serves(id)
            }
        }
    }

    /// Changes the membership: a cluster takes that only once its members know for some seconds that they are connected.
    fn change(
        &self,
        change: impl Fn() -> Result<(), Failure>,
        is_so: impl Fn(&[MemberInfo]) -> bool,
    ) -> Result<(), Failure> {
        let until = Instant::now() + CHANGES_WITHIN;
        loop {
            match change() {
                Err(failure) if failure.code == Code::Transient && Instant::now() < until => {
                    // Somebody else was faster, or an answer was lost.
                    if self.members().is_ok_and(|members| is_so(&members)) {
                        return Ok(());
                    }
                }
                Err(_) if is_so(&self.members()?) => return Ok(()),
                changed => return changed,
            }
            self.rest()?;
        }
    }

    /// That of the fence that stands, if it is ours; else a new one.
    fn fence_id(&self) -> Result<String, Failure> {
        match fence_at(&RealDisk, &self.here.place)? {
            Some(id) if id.starts_with(FENCE) => Ok(id),
            Some(id) => Err(Failure::refused(format!(
                "{} is fenced by {id}, which is something else than a replacement",
                self.here.place.data_dir.display()
            ))
            .remedy("finish or take back what that was put up for first")),
            None => Ok(format!("{FENCE}{}", time::for_names())),
        }
    }

    /// What the new member is told.
    fn settings(&self, situation: &Situation) -> Settings {
        let Here { name, peer_urls, .. } = &self.here;
        let others = situation.members.iter().filter(|it| it.peer_urls != *peer_urls);
        let others = others.flat_map(|it| {
            // The others' names are not looked at; one that has never started has none.
            let name = if it.name.is_empty() { format!("m{:x}", it.id) } else { it.name.clone() };
            it.peer_urls.iter().map(move |url| format!("{name}={url}"))
        });
        let own = peer_urls.iter().map(|url| format!("{name}={url}"));
        Settings::from([
            ("initial-cluster", others.chain(own).collect::<Vec<_>>().join(",")),
            ("initial-cluster-state", "existing".to_owned()),
        ])
    }

    /// Starts it, and goes on at once: whoever asks all members how they are waits for one that takes a snapshot in.
    fn start(&self, situation: &Situation) -> Result<(), Failure> {
        self.here.host.start(&self.settings(situation))?;
        self.wait_until_it_runs()?;
        let members = self.members()?;
        let own = members.iter().find(|it| it.peer_urls == self.here.peer_urls);
        match own.filter(|own| own.role == Role::Learner).map(|own| Step::Promote(own.id)) {
            Some(step) => {
                eprintln!("{}", self.words(step, situation)?);
                self.take(step, situation)
            }
            None => Ok(()),
        }
    }

    fn wait_until_it_runs(&self) -> Result<(), Failure> {
        self.wait_until(SERVES_WITHIN, "it did not start", || {
            Ok(local::runs(&self.here.place)?
                && local::metadata(&local::log_directory(&self.here.place)).is_some())
        })
    }

    fn wait_until_it_serves(&self, id: u64) -> Result<(), Failure> {
        self.wait_until(SERVES_WITHIN, "it was promoted, and does not serve", || {
            // Whatever comes to it too early hangs, and what comes next is answered.
            let observed = self.observe(PROMOTED_WITHIN)?;
            Ok(observed.members.iter().any(|member| member.id == Some(id) && member.serves()))
        })
    }

    fn promote(&self, id: u64) -> Result<(), Failure> {
        let until = Instant::now() + self.args.catch_up;
        loop {
            let promoted = self
                .calls
                .wait(async { Ok::<_, Failure>(self.client.member_promote(id).await) })?;
            match promoted {
                Ok(()) | Err(Error::Etcd { fault: EtcdFault::NotLearner, .. }) => return Ok(()),
                Err(Error::Etcd { fault: EtcdFault::LearnerNotReady, .. }) => {}
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= until {
                let what = format!("the learner has not caught up within {:?}", self.args.catch_up);
                return Err(Failure::new(Code::Transient, what).remedy(
                    "look at its log; run the same command again: it goes on where it was",
                ));
            }
            self.rest()?;
        }
    }

    fn wait_until(
        &self,
        within: Duration,
        else_told: &str,
        mut is_so: impl FnMut() -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let until = Instant::now() + within;
        while !is_so()? {
            if Instant::now() >= until {
                let what = format!("{}: {else_told} within {} s", self.here.name, within.as_secs());
                return Err(Failure::new(Code::Failed, what).remedy(
                    "look at its log; run the same command again: it goes on where it was",
                ));
            }
            self.rest()?;
        }
        Ok(())
    }

    fn rest(&self) -> Result<(), Failure> {
        self.calls.wait(async {
            tokio::time::sleep(PROMOTE_EVERY).await;
            Ok::<_, Failure>(())
        })
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        let name = &self.here.name;
        match refusal {
            Refusal::Serves => Failure::refused(format!("{name} serves: there is nothing to replace"))
                .remedy("to replace it all the same, stop its etcd first"),
            Refusal::NoQuorum { serving, quorum } => Failure::refused(format!(
                "{serving} other members serve, and {quorum} have to: without a quorum no member can be replaced"
            ))
            .remedy("bring crashed members with good data back first; else rekindle recover brings the cluster back"),
        }
    }

    fn text(&self, situation: &Situation, plan: &[Step]) -> Result<String, Failure> {
        let Here { name, place, .. } = &self.here;
        let mut text = format!("Replace member {name} ({}):\n", place.data_dir.display());
        for (number, step) in plan.iter().enumerate() {
            let _ = writeln!(text, "  {}. {}", number + 1, self.words(*step, situation)?);
        }
        Ok(text)
    }

    fn words(&self, step: Step, situation: &Situation) -> Result<String, Failure> {
        let (stop, start) = self.here.host.words();
        Ok(match step {
            Step::SetAside => {
                let id = self.fence_id()?;
                let fence = Fence::new(&self.here.place, &id)?;
                format!(
                    "stop it ({stop}); what it has is set aside as {}",
                    fence.set_aside().display()
                )
            }
            Step::Remove(id) => format!("take member {id:x} out of the cluster"),
            Step::Add => format!("add {} as a learner", self.here.peer_urls.join(",")),
            Step::Start(_) => {
                let settings = self.settings(situation);
                format!(
                    "start it with nothing ({start}), initial-cluster-state {}",
                    settings["initial-cluster-state"]
                )
            }
            Step::StartAgain(_) => format!("start it again ({start})"),
            Step::Promote(_) => "wait until it has caught up, and let it vote".to_owned(),
        })
    }
}
