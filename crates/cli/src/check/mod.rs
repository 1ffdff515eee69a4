//! `rekindle check`: how a cluster is, in a table and in an exit code.

mod next;
mod witness;

pub(crate) use witness::unlocked;

use crate::args::{ConnectArgs, OutputArgs};
use crate::connect::connect;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::terminal::{self, Calls};
use crate::time::parse_duration;
use clap::Args as ClapArgs;
use rekindle_client::Client;
use rekindle_recovery::health::{
    Fate, Finding, Health, History, Observed, ObservedMember, Severity, Thresholds, Verdict, judge,
    observe,
};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Say how a cluster is: which members serve, what is wrong, and what to do.
///
/// Each member is asked for its status, for a read as of now, which needs a quorum behind it, for its certificate and its
/// clock. All that the cluster lists are asked, at once. Exit code 0: healthy; 10: it serves, and something urgent is wrong; 11:
/// nobody serves.
#[derive(Debug, ClapArgs)]
pub(crate) struct CheckArgs {
    /// Have each member reckon the hash of its keyspace, too, and compare: it takes no writes meanwhile.
    #[arg(long)]
    pub deep: bool,
    /// Look again and again, so often, and print what has changed.
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "5s",
          value_parser = parse_duration, conflicts_with = "deep")]
    pub watch: Option<Duration>,
    /// Say also what each member has last said of its hash, as the first archive of --config has it: none is asked anew.
    #[arg(long)]
    pub witnesses: bool,
    /// Most time for all answers.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "4s")]
    pub timeout: Duration,
    /// Remember in this file what was seen: a member fails once it was seen to so often in a row, for timers.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// How often in a row it takes, with --state or --watch.
    #[arg(long, value_name = "N", default_value_t = Thresholds::default().fails)]
    pub fails_after: u32,
    /// And how often until it is well again.
    #[arg(long, value_name = "N", default_value_t = Thresholds::default().well)]
    pub well_after: u32,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let calls = Calls::new(terminal::stop_flag()?)?;
    let client = connect(&args.connect)?.client;
    if let Some(every) = args.watch {
        return watch(args, &calls, &client, every);
    }
    let (observed, mut health) = look(args, &calls, &client)?;
    let mut history = args.state.as_deref().map(read_state).transpose()?;
    if let (Some(history), Some(path)) = (&mut history, &args.state) {
        history.hear(&observed, &mut health, args.thresholds());
        write_state(path, history)?;
    }
    let mut out = args.told(&observed, &health, history.as_ref());
    if args.witnesses {
        witness::add(&mut out, &observed)?;
    }
    out.print(args.output.format())?;
    end(&health)
}

impl CheckArgs {
    fn thresholds(&self) -> Thresholds {
        Thresholds { fails: self.fails_after, well: self.well_after }
    }

    /// And what is to be done, where it is known for how long it goes on.
    fn told(&self, observed: &Observed, health: &Health, history: Option<&History>) -> Output {
        let mut out = told(observed, health, history);
        if let Some(history) = history {
            let next = next::next(&self.connect, observed, health, history, self.thresholds());
            out.json.insert("next".to_owned(), next.json());
            out.text += &next.text();
        }
        out
    }
}

fn look(args: &CheckArgs, calls: &Calls, client: &Client) -> Result<(Observed, Health), Failure> {
    let seen = observe(client, args.timeout, args.deep);
    let observed = calls.wait(async { Ok::<_, Failure>(seen.await) })?;
    let health = judge(&observed);
    Ok((observed, health))
}

/// Prints what is new and what is over, until it is interrupted.
fn watch(args: &CheckArgs, calls: &Calls, client: &Client, every: Duration) -> Result<(), Failure> {
    let mut history = History::default();
    let mut before: Option<Health> = None;
    loop {
        let (observed, mut health) = look(args, calls, client)?;
        history.hear(&observed, &mut health, args.thresholds());
        let is_new = before.as_ref().is_none_or(|before| {
            let names = |health: &Health| {
                let of = |it: &Finding| (it.name, it.member.clone());
                (health.verdict, health.leader, health.findings.iter().map(of).collect::<Vec<_>>())
            };
            names(before) != names(&health)
        });
        if is_new {
            output::print(&format!("{}\n", observed.at.strftime("%Y-%m-%dT%H:%M:%SZ")))?;
            args.told(&observed, &health, Some(&history)).print(args.output.format())?;
            let _ = std::io::stdout().flush();
        }
        before = Some(health);
        let wait = async {
            tokio::time::sleep(every).await;
            Ok::<_, Failure>(())
        };
        match calls.wait(wait) {
            Err(failure) if failure.code == Code::Interrupted => return Ok(()),
            waited => waited?,
        }
    }
}

fn read_state(path: &Path) -> Result<History, Failure> {
    match std::fs::read(path) {
        // What cannot be read of it begins anew: it says for how long something goes on, and nothing else.
        Ok(bytes) => Ok(History::parse(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(History::default()),
        Err(error) => Err(Failure::io("reading", path, &error)),
    }
}

fn write_state(path: &Path, history: &History) -> Result<(), Failure> {
    let part = path.with_added_extension("part");
    std::fs::write(&part, history.to_bytes())
        .and_then(|()| std::fs::rename(&part, path))
        .map_err(|error| Failure::io("writing", path, &error))
}

/// The exit code.
fn end(health: &Health) -> Result<(), Failure> {
    let code = match health.verdict {
        Verdict::Healthy => return Ok(()),
        Verdict::Degraded => Code::Degraded,
        Verdict::NoQuorum => Code::NoQuorum,
    };
    let Some(worst) = health.findings.first() else {
        return Err(Failure::new(
            code,
            "a member has failed before, and is not believed to be well yet",
        ));
    };
    let whose = worst.member.as_ref().map(|member| format!("{member}: ")).unwrap_or_default();
    Err(Failure::new(code, format!("{whose}{}", worst.what)).remedy(worst.remedy))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Degraded => "degraded",
        Verdict::NoQuorum => "no quorum",
    }
}

pub(crate) fn told(observed: &Observed, health: &Health, history: Option<&History>) -> Output {
    let Health { verdict, voters, serving, quorum, leader, findings } = health;
    let verdict = word(*verdict);
    let mut out = Output { simple: format!("{verdict}, {serving}, {voters}"), ..Output::default() };
    out.add("verdict", "Verdict", verdict);
    out.add("cluster", "Cluster", observed.cluster.map(|id| format!("{id:x}")));
    out.add("voters", "Voters", *voters);
    out.add("serving", "Serving", *serving);
    out.add("quorum", "Quorum", *quorum);
    out.add("leader", "Leader", leader.map(|id| format!("{id:x}")));
    let members: Vec<_> = observed.members.iter().map(|it| member_json(it, history)).collect();
    out.json.insert("members".to_owned(), members.into());
    let listed: Vec<_> = findings.iter().filter_map(|it| serde_json::to_value(it).ok()).collect();
    out.json.insert("findings".to_owned(), listed.into());
    let rows: Vec<_> = observed.members.iter().map(|it| row(it, *leader, history)).collect();
    let header =
        ["MEMBER", "ENDPOINT", "SERVES", "VERSION", "ROLE", "TERM", "APPLIED", "LAG", "DB", "CERT"];
    out.text = output::table(&header, &rows);
    for finding in findings {
        let sign = if finding.severity == Severity::Urgent { "!!" } else { "! " };
        let whose = finding.member.as_ref().map(|it| format!("{it}: ")).unwrap_or_default();
        out.text += &format!("{sign} {whose}{}\n   what to do: {}\n", finding.what, finding.remedy);
    }
    out.text +=
        &format!("{verdict}: {serving} of {voters} voting members serve, {quorum} have to\n");
    out
}

fn row(member: &ObservedMember, leader: Option<u64>, history: Option<&History>) -> Vec<String> {
    let best = member.best();
    let status = member.status();
    let of = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let serves = match best.map(|seen| &seen.read) {
        Some(Ok(took)) => format!("{:.0} ms", took.as_secs_f64() * 1000.0),
        _ => "no".to_owned(),
    };
    let failing = history.map(|history| history.streak(&member.label()));
    let serves = match failing.filter(|streak| streak.fate == Fate::Fails) {
        Some(_) => format!("{serves}, fails"),
        None => serves,
    };
    let role = match (member.votes, member.id.is_some() && member.id == leader) {
        (false, _) => "learner",
        (true, true) => "leader",
        (true, false) => "follower",
    };
    vec![
        member.label(),
        of(best.map(|seen| seen.endpoint.clone())),
        serves,
        of(status.map(|status| status.version.clone())),
        role.to_owned(),
        of(status.map(|status| status.raft_term.to_string())),
        of(status.map(|status| status.raft_applied_index.to_string())),
        of(status
            .map(|status| status.raft_index.saturating_sub(status.raft_applied_index).to_string())),
        of(status.map(|status| output::bytes(status.db_size))),
        of(best.and_then(|seen| Some(seen.certificate?.strftime("%Y-%m-%d").to_string()))),
    ]
}

fn member_json(member: &ObservedMember, history: Option<&History>) -> Value {
    let best = member.best();
    let status = member.status();
    let read = best.map(|seen| &seen.read);
    json!({
        "name": member.name,
        "id": member.id.map(|id| format!("{id:x}")),
        "endpoint": best.map(|seen| seen.endpoint.clone()),
        "serves": member.serves(),
        "votes": member.votes,
        "readSeconds": read.and_then(|read| Some(read.as_ref().ok()?.as_secs_f64())),
        "error": best.and_then(|seen| seen.status.as_ref().err().or(seen.read.as_ref().err()).cloned()),
        "version": status.map(|it| it.version.clone()),
        "term": status.map(|it| it.raft_term),
        "revision": status.map(|it| it.header.revision),
        "raftIndex": status.map(|it| it.raft_index),
        "appliedIndex": status.map(|it| it.raft_applied_index),
        "dbSize": status.map(|it| it.db_size),
        "dbSizeInUse": status.map(|it| it.db_size_in_use),
        "dbSizeQuota": status.map(|it| it.db_size_quota),
        "certificateExpires": best.and_then(|seen| seen.certificate),
        "clockAheadSeconds": best.and_then(|seen| Some(seen.ahead?.as_secs_f64())),
        "hash": best.and_then(|seen| Some(seen.hash.clone()?.ok()?.hash)),
        "fails": history.map(|history| history.streak(&member.label()).fate == Fate::Fails),
    })
}
