//! `rekindle recover`: a whole cluster, from what loses least.

mod backup;
mod carried;
mod hosts;
mod left_out;
mod text;

use crate::archive::ReadKeys;
use crate::args::{ConnectArgs, PointArgs, SpoolArgs, StoreArgs};
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::member::{HostStepWords, MemberArgs, Seen, Staged};
use crate::output;
use crate::terminal::{self, Calls, confirm};
use crate::time::{self, parse_duration};
use backup::Backup;
use clap::Args as ClapArgs;
use hosts::Reach;
use rekindle_client::{Client, Error, EtcdFault};
use rekindle_recovery::health::{Health, Observed, judge, observe};
use rekindle_recovery::recover::{From, Hopeless, HostFacts, choose, went_back};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long all members have to say how they are.
const OBSERVE_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Bring a whole cluster back: from the data of its members where a quorum of them is good, else from what loses least.
///
/// Looks at what each host has and at the backup, says what would be lost, and asks once; ARCHIVE@POINT, or a flag that says the
/// same, goes back to that point whatever the hosts have. Then every etcd is stopped and its data directory fenced, each member is
/// restored beside it, all are put in place and started, and looked at until they serve and have the HashKV of what was
/// restored; kube-apiserver, controllers and schedulers of static pods are stopped with them, and run again then. What was there is set aside, and nothing is deleted. Whatever fails before the first member is put in place is taken
/// back; later, the same command with --id goes on, or with --id and --undo takes all back.
#[derive(Debug, ClapArgs)]
pub(crate) struct RecoverArgs {
    /// The backup: ARCHIVE[@POINT], or a snapshot file.
    pub source: Option<PathBuf>,
    /// A host of the cluster, as ssh knows it; `here` is this one. Without any it is this one alone.
    #[arg(long = "host", value_name = "TARGET", help_heading = "Hosts")]
    pub hosts: Vec<String>,
    /// What reaches the others.
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "ssh -o BatchMode=yes",
        help_heading = "Hosts"
    )]
    pub ssh: String,
    /// What is run there: its configuration has the host's member.
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "rekindle --config /etc/rekindle/agent.yaml",
        help_heading = "Hosts"
    )]
    pub remote_command: String,
    /// Bring it back from this, and not from what loses least: start, backup, or a member's name.
    #[arg(long, value_name = "WHAT")]
    pub from: Option<String>,
    /// An etcd of the cluster's version, where it is on a host that is restored from: it applies to a copy what the log has
    /// committed and the database has not [default: etcd, in PATH there]
    #[arg(long, value_name = "FILE")]
    pub etcd: Option<PathBuf>,
    /// No host is reached: a directory for each member, DIR/NAME, to be carried there by hand, and DIR/NAME.txt with what is to be
    /// typed on its host. Needs --initial-cluster.
    #[arg(long, value_name = "DIR", requires = "initial_cluster",
          conflicts_with_all = ["hosts", "from", "id"], help_heading = "Hosts")]
    pub members: Option<PathBuf>,
    /// All members as NAME=PEER-URL,...: with --members.
    #[arg(long, value_name = "MEMBERS", requires = "members", help_heading = "Hosts")]
    pub initial_cluster: Option<String>,
    /// Go on without a member whose host is not among these: its etcd does not run, and never will again. By its name.
    #[arg(long, value_name = "NAME", help_heading = "Hosts")]
    pub without: Vec<String>,
    /// Also where it serves: what it has now is set aside.
    #[arg(long)]
    pub although_it_serves: bool,
    /// Most time until all serve.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2m")]
    pub serves_within: Duration,
    /// Go on with one that was interrupted.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Take one back that was interrupted, or has failed.
    #[arg(long, requires = "id")]
    pub undo: bool,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub member: MemberArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub point: PointArgs,
    #[command(flatten)]
    pub spool: SpoolArgs,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(crate) fn run(args: &RecoverArgs) -> Result<(), Failure> {
    if let Some(folder) = &args.members {
        return carried::write(args, folder);
    }
    let id = args.id.clone().unwrap_or_else(|| format!("recover-{}", time::for_names()));
    let hosts = args.reach()?;
    let calls = Calls::new(terminal::stop_flag()?)?;
    let client = connect(&args.connect)?.client;
    let begun = AtomicBool::new(args.id.is_some());
    let stopped_to_look = AtomicBool::new(false);
    let recovery = Recovery { args, id, hosts, calls, client, begun, stopped_to_look };
    if args.undo {
        return recovery.undo_all();
    }
    let has_backup = args.source.is_some() || args.store.storage_provider.is_some();
    let backup = has_backup.then(|| Backup::find(args)).transpose()?;
    let backup = backup.as_ref();
    let seen = recovery.look(backup)?;
    recovery.check_it_does_not_serve(&seen, backup)?;
    let seen = recovery.stop_first(seen, backup);
    seen.and_then(|seen| recovery.bring_back(&seen, backup))
        .map_err(|failure| recovery.with_id(failure))
}

impl RecoverArgs {
    fn reach(&self) -> Result<Vec<Reach>, Failure> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
        let here = Reach::Here { program, words: self.member_words() };
        let ssh: Vec<_> = self.ssh.split_whitespace().map(str::to_owned).collect();
        if ssh.is_empty() {
            return Err(Failure::usage("--ssh is empty"));
        }
        let there = |target: &String| match &**target {
            "here" => here.clone(),
            _ => Reach::There {
                ssh: ssh.clone(),
                target: target.clone(),
                command: self.remote_command.clone(),
            },
        };
        Ok(if self.hosts.is_empty() { vec![here] } else { self.hosts.iter().map(there).collect() })
    }

    /// This host's member, as this command was told of it.
    fn member_words(&self) -> Vec<OsString> {
        let MemberArgs { name, data_dir, wal_dir, initial_advertise_peer_urls, .. } = &self.member;
        let MemberArgs { unit, start_command, stop_command, .. } = &self.member;
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.clone().into_os_string());
        let text = |text: &Option<String>| text.as_ref().map(OsString::from);
        let manifest = path(&self.connect.from_manifest);
        let flags = [
            ("--name", text(name)),
            ("--data-dir", path(data_dir)),
            ("--wal-dir", path(wal_dir)),
            ("--initial-advertise-peer-urls", text(initial_advertise_peer_urls)),
            ("--unit", text(unit)),
            ("--start-command", text(start_command)),
            ("--stop-command", text(stop_command)),
            ("--from-manifest", manifest),
        ];
        let mut words = crate::configured::words();
        for (flag, value) in flags {
            if let Some(value) = value {
                let mut word = OsString::from(format!("{flag}="));
                word.push(value);
                words.push(word);
            }
        }
        words
    }
}

struct Recovery<'a> {
    args: &'a RecoverArgs,
    id: String,
    hosts: Vec<Reach>,
    calls: Calls,
    client: Client,
    /// Something was done already, and can be gone on with or taken back.
    begun: AtomicBool,
    /// This run has stopped members to look at what they have.
    stopped_to_look: AtomicBool,
}

impl Recovery<'_> {
    /// Does something on all hosts at once; the first failure, if there is one, once all have ended.
    fn on_all<T: Send>(
        &self,
        what: impl Fn(usize, &Reach) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, Failure> {
        let what = &what;
        let all = std::thread::scope(|threads| {
            let hosts = self.hosts.iter().enumerate();
            let begun: Vec<_> =
                hosts.map(|(at, host)| threads.spawn(move || what(at, host))).collect();
            let panicked = |_| Err(Failure::new(Code::Failed, "a thread has panicked"));
            begun.into_iter().map(|it| it.join().unwrap_or_else(panicked)).collect::<Vec<_>>()
        });
        all.into_iter().collect()
    }

    /// The same, and says of each host that it is done.
    fn say_on_all<T: Send>(
        &self,
        done: &str,
        what: impl Fn(usize, &Reach) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, Failure> {
        self.on_all(|at, host| {
            let result = what(at, host)?;
            eprintln!("{}: {done}", host.name());
            Ok(result)
        })
    }

    fn step<const N: usize>(&self, words: [&str; N]) -> HostStepWords {
        let id = ["--id", &self.id];
        HostStepWords::new(words.into_iter().chain(id))
    }

    fn look(&self, backup: Option<&Backup>) -> Result<Vec<Seen>, Failure> {
        let mut words = self.step(["look"]);
        if let Some(backup) = backup {
            words.add(["--since", &backup.revision.to_string()]);
        }
        let seen: Vec<Seen> = self.on_all(|_, host| host.ask(&words))?;
        let mut names: Vec<_> = seen.iter().map(|it| &*it.name).collect();
        names.sort_unstable();
        names.dedup();
        match names.len() == seen.len() {
            true => Ok(seen),
            false => Err(Failure::usage("two hosts say that they have the same member")
                .remedy("look at member in their configurations: name and peerUrls")),
        }
    }

    fn observe(&self) -> Result<(Observed, Health), Failure> {
        let observed = observe(&self.client, OBSERVE_WITHIN, false);
        let observed = self.calls.wait(async { Ok::<_, Failure>(observed.await) })?;
        let health = judge(&observed);
        Ok((observed, health))
    }

    fn check_it_does_not_serve(
        &self,
        seen: &[Seen],
        backup: Option<&Backup>,
    ) -> Result<(), Failure> {
        let begun = seen.iter().any(|it| it.restored_from.is_some());
        if begun || self.args.although_it_serves {
            return Ok(());
        }
        let (observed, Health { serving, .. }) = self.observe()?;
        if serving == 0 {
            return check_it_can_be_asked(seen, &observed);
        }
        let revisions = observed.members.iter().filter_map(|it| Some(it.status()?.header.revision));
        let revision = revisions.max().unwrap_or_default();
        Err(match backup.filter(|backup| backup.revision > revision) {
            Some(backup) => Failure::refused(format!(
                "the cluster serves, and is at revision {revision}, where the backup has {}: it was started empty, or from \
                 something older",
                backup.revision
            ))
            .remedy("to bring it back from the backup, pass --although-it-serves"),
            None => Failure::refused(format!("the cluster serves ({serving} of its members)")).remedy(
                "where one member is lost, rekindle replace brings it back and loses nothing; to go back to a \
                 backup all the same, pass --although-it-serves",
            ),
        })
    }

    /// What an etcd has is known once it has ended.
    fn stop_first(&self, seen: Vec<Seen>, backup: Option<&Backup>) -> Result<Vec<Seen>, Failure> {
        let is_named = backup.is_some_and(|backup| backup.is_named);
        let is_chosen = self.args.from.as_deref().map_or(is_named, |from| from != "start");
        let running: Vec<_> = seen.iter().filter(|it| it.runs && !it.opened).collect();
        if running.is_empty() || is_chosen || self.args.dry_run {
            return Ok(seen);
        }
        self.check_who_lists_others(&seen)?;
        let names: Vec<_> = running.iter().map(|it| &*it.name).collect();
        let question = format!("{} runs, and is stopped to look at its data.", names.join(", "));
        if !self.args.yes {
            confirm(&question)?;
        }
        self.fence()?;
        self.stopped_to_look.store(true, Ordering::Relaxed);
        self.look(backup)
    }

    fn fence(&self) -> Result<(), Failure> {
        self.begun.store(true, Ordering::Relaxed);
        let fence = |_: usize, host: &Reach| host.take(&self.step(["fence"]), None);
        self.or_undo(self.say_on_all("its etcd is stopped, and its data are fenced", fence))
            .map(drop)
    }

    fn or_undo<T>(&self, done: Result<T, Failure>) -> Result<T, Failure> {
        let failure = match done {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        eprintln!("{}", failure.what);
        eprintln!("all is taken back");
        match self.undo_all() {
            Ok(()) => Err(failure.and("all was taken back")),
            Err(undo) => {
                Err(self
                    .with_id(failure.and(&format!("taking it back failed, too: {}", undo.what))))
            }
        }
    }

    /// As long as no member serves, nobody has written anything to what was restored.
    fn or_undo_unserved<T>(&self, done: Result<T, Failure>) -> Result<T, Failure> {
        match done {
            Err(failure) if failure.code == Code::Interrupted => Err(failure),
            Err(failure) if self.observe()?.1.serving == 0 => self.or_undo(Err(failure)),
            done => done,
        }
    }

    fn undo_all(&self) -> Result<(), Failure> {
        let undo = |_: usize, host: &Reach| host.take(&self.step(["undo"]), None);
        self.say_on_all("taken back", undo)?;
        self.begun.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn with_id(&self, failure: Failure) -> Failure {
        if !self.begun.load(Ordering::Relaxed) {
            return failure;
        }
        let id = &self.id;
        failure.and(&format!("--id {id} goes on with it, and --id {id} --undo takes it back"))
    }

    fn bring_back(&self, seen: &[Seen], backup: Option<&Backup>) -> Result<(), Failure> {
        let from = self.choose(seen, backup)?;
        let left_out = match from {
            From::Start => Vec::new(),
            From::Host(_) | From::Backup => {
                let checked = self.check_who_is_left_out(seen, backup);
                checked.or_else(|failure| self.start_those_stopped(seen).and(Err(failure)))?
            }
        };
        let plan = text::Plan {
            id: &self.id,
            left_out: &left_out,
            seen,
            hosts: &self.hosts,
            from,
            backup,
            etcd: self.args.etcd.as_deref(),
            went_back: went_back(&facts(seen), backup.map(Backup::facts)),
        };
        output::print(&plan.text())?;
        if self.args.dry_run {
            return Ok(());
        }
        if !self.args.yes
            && let Err(failure) = confirm("The cluster is brought back so.")
        {
            return self.start_those_stopped(seen).and(Err(failure));
        }
        let began = Instant::now();
        let staged = match from {
            From::Start => self.start(seen).map(|()| None)?,
            From::Host(at) => Some(self.restore(seen, &self.of_host(seen, at)?)?),
            From::Backup => Some(self.restore(seen, backup.ok_or_else(no_backup)?)?),
        };
        let served = self.wait_until_it_serves(from, seen);
        let (observed, health) = match from {
            From::Start => served?,
            From::Host(_) | From::Backup => self.or_undo_unserved(served)?,
        };
        let took = began.elapsed().as_secs_f64();
        let proof = staged.as_ref().map(|staged| self.prove(staged)).transpose()?;
        output::print(&text::result(&observed, &health, took, &self.id))?;
        if let Some((staged, proven)) = staged.zip(proof) {
            let all = self.client.members().len();
            output::print(&text::restored(&staged, proven, all))?;
        }
        self.on_all(|at, host| match from == From::Start && seen[at].data.is_none() {
            // Where nothing was started, those that would read it have nothing to read.
            true => Ok(()),
            false => host.take(&self.step(["finish"]), None).map(drop),
        })
        .map(drop)
    }

    /// Those that were stopped to look at what they have, and not restored yet.
    fn start_those_stopped(&self, seen: &[Seen]) -> Result<(), Failure> {
        let restored = seen.iter().any(|it| it.restored_from.is_some());
        let stopped = self.stopped_to_look.load(Ordering::Relaxed);
        if stopped && !restored { self.undo_all() } else { Ok(()) }
    }

    /// Each member has what was restored, as it says itself; how many have said so.
    fn prove(&self, staged: &Staged) -> Result<usize, Failure> {
        let mut proven = 0;
        for member in self.client.members() {
            let asked = member.hash_kv(staged.revision);
            match self.calls.wait(async { Ok::<_, Failure>(asked.await) })? {
                Ok(said) if said.hash == staged.hash => proven += 1,
                Ok(said) if said.compact_revision == staged.compact_revision => {
                    let what = format!(
                        "{} has HashKV {} at revision {}, and what was restored has {}",
                        member.endpoint(),
                        said.hash,
                        staged.revision,
                        staged.hash
                    );
                    return Err(Failure::new(Code::BadData, what).remedy(
                        "do not let anything use it: keep what was set aside, and restore from another point",
                    ));
                }
                // Somebody has compacted meanwhile, or it takes a password.
                Ok(_)
                | Err(Error::Etcd {
                    fault: EtcdFault::Compacted | EtcdFault::PermissionDenied,
                    ..
                }) => {}
                Err(error) => {
                    eprintln!("warning: {}: its HashKV is not known: {error}", member.endpoint());
                }
            }
        }
        Ok(proven)
    }

    fn choose(&self, seen: &[Seen], backup: Option<&Backup>) -> Result<From, Failure> {
        if let Some(before) = seen.iter().find_map(|it| it.restored_from.as_deref()) {
            // Members of one cluster come from one source.
            let is_host = |it: &Seen| before == text::member(&it.name);
            return match backup {
                Some(backup) if backup.name == before => Ok(From::Backup),
                _ => seen.iter().position(is_host).map(From::Host).ok_or_else(|| {
                    Failure::refused(format!("it was begun from {before}"))
                        .remedy("name the same again, or --undo it")
                }),
            };
        }
        match self.args.from.as_deref() {
            None => choose(&facts(seen), backup.map(Backup::facts)).map_err(hopeless),
            Some("start") => Ok(From::Start),
            Some("backup") => backup.map(|_| From::Backup).ok_or_else(no_backup),
            Some(name) => {
                seen.iter().position(|it| it.name == name).map(From::Host).ok_or_else(|| {
                    Failure::usage(format!("--from {name}: no host has a member of that name"))
                })
            }
        }
    }

    fn start(&self, seen: &[Seen]) -> Result<(), Failure> {
        self.say_on_all("started, where it has data", |at, host| match &seen[at].data {
            // Where it was fenced to look at it, it is put back.
            Some(_) => host.take(&self.step(["undo"]), None).map(drop),
            None => Ok(()),
        })
        .map(drop)
    }

    /// The data of a host, brought over.
    fn of_host(&self, seen: &[Seen], at: usize) -> Result<Backup, Failure> {
        let data = seen[at].data.as_ref();
        self.fence()?;
        let name = text::member(&seen[at].name);
        let place = self.args.spool.directory().map_or_else(std::env::temp_dir, Path::to_owned);
        let file = place.join(format!("{}.db", self.id));
        let mut send = self.step(["send"]);
        let beyond = data.map_or(0, |data| data.beyond);
        if let Some(etcd) =
            text::etcd_of(&seen[at], self.args.etcd.as_deref()).filter(|_| beyond > 0)
        {
            send.0.extend(["--etcd".into(), etcd.into_os_string()]);
        }
        let fetched = self.hosts[at].fetch(&send, &file);
        self.or_undo(fetched)?;
        Ok(Backup::of_host(name, data.map_or(0, |data| data.revision), file))
    }

    fn restore(&self, seen: &[Seen], backup: &Backup) -> Result<Staged, Failure> {
        self.fence()?;
        self.or_undo(self.calls.go_on())?;
        let initial_cluster = text::initial_cluster(seen);
        if let Some(file) = &backup.file {
            let receive = |_: usize, host: &Reach| host.take(&self.step(["receive"]), Some(file));
            self.or_undo(self.say_on_all("has what is restored", receive))?;
        }
        let mut words = self.step(["stage"]);
        words.add(["--from", &backup.name, "--initial-cluster", &initial_cluster, "--"]);
        words.0.extend(backup.words.iter().cloned());
        let staged = self.say_on_all("restored, beside the fence", |_, host| host.ask(&words));
        let staged = self.or_undo(staged.and_then(all_alike))?;
        self.or_undo(self.calls.go_on())?;
        // From here on it is a new cluster.
        let mut words = self.step(["open"]);
        words.add(["--initial-cluster", &initial_cluster]);
        let open = |_: usize, host: &Reach| host.take(&words, None);
        self.or_undo_unserved(self.say_on_all("in place, and started", open))?;
        if backup.name.starts_with(text::MEMBER)
            && let Some(file) = &backup.file
        {
            let _ = std::fs::remove_file(file);
        }
        Ok(staged)
    }

    fn wait_until_it_serves(
        &self,
        from: From,
        seen: &[Seen],
    ) -> Result<(Observed, Health), Failure> {
        let until = Instant::now() + self.args.serves_within;
        loop {
            let (observed, health) = self.observe()?;
            let is_well = match from {
                From::Start => health.serving > health.voters / 2,
                // A certificate that expires soon, say, was nothing that this could have mended.
                From::Host(_) | From::Backup => {
                    health.leader.is_some() && health.serving == seen.len()
                }
            };
            if is_well {
                return Ok((observed, health));
            }
            if Instant::now() >= until {
                let worst = health.findings.first().map(|it| it.what.clone()).unwrap_or_default();
                let what = format!(
                    "{} of {} members serve after {} s: {worst}",
                    health.serving,
                    seen.len(),
                    self.args.serves_within.as_secs()
                );
                return Err(Failure::new(Code::Failed, what)
                    .remedy("look at the logs of those that do not; rekindle check says more"));
            }
            self.calls.wait(async {
                tokio::time::sleep(LOOK_EVERY).await;
                Ok::<_, Failure>(())
            })?;
        }
    }
}

/// Members that run, and do not let themselves be asked, may serve all others well.
fn check_it_can_be_asked(seen: &[Seen], observed: &Observed) -> Result<(), Failure> {
    let barred = observed.members.iter().flat_map(|it| &it.seen).find(|it| it.barred);
    let Some((barred, running)) = barred.zip(seen.iter().find(|it| it.runs)) else { return Ok(()) };
    let why = barred.read.as_ref().err().map_or("", String::as_str);
    let name = &running.name;
    Err(Failure::refused(format!("{name} runs, and whether the cluster serves cannot be asked: {why}"))
        .remedy(
            "mend what it says (--cacert, --cert, --key, --user; rekindle doctor says more); where nobody can ask it, pass \
             --although-it-serves",
        ))
}

fn facts(seen: &[Seen]) -> Vec<HostFacts> {
    let facts = |it: &Seen| HostFacts {
        name: it.name.clone(),
        data: it.data.as_ref().map(crate::member::SeenData::facts),
        runs: it.runs,
        peer_urls: it.peer_urls.clone(),
    };
    seen.iter().map(facts).collect()
}

/// All hosts have restored the same.
fn all_alike(staged: Vec<Staged>) -> Result<Staged, Failure> {
    let first = staged.first().cloned();
    match first.filter(|first| staged.iter().all(|it| it == first)) {
        Some(first) => Ok(first),
        None => Err(Failure::new(Code::BadData, "the hosts have not restored the same")),
    }
}

fn hopeless(hopeless: Hopeless) -> Failure {
    match hopeless {
        Hopeless::SeveralClusters => Failure::refused("the hosts have data of several clusters")
            .remedy(
                "rekindle status DATA-DIR says of which; choose with --from, or leave hosts out",
            ),
        Hopeless::NothingLeft => Failure::refused("no host has good data, and no backup is named")
            .remedy("name one: rekindle recover ARCHIVE, or a snapshot file"),
    }
}

fn no_backup() -> Failure {
    Failure::usage("no backup is named").remedy("rekindle recover ARCHIVE[@POINT]")
}
