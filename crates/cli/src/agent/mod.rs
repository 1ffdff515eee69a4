//! `rekindle agent`: guarding clusters day and night.

mod check;
mod served;

use crate::archive::{Pin, keep_to_ourselves, open_configured};
use crate::configured;
use crate::failure::{Code, Failure};
use crate::output::print;
use crate::terminal;
use crate::time::parse_duration;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use rekindle_agent::config::{self, Config};
use rekindle_agent::guard::{
    self, Agent, Error, Guard, Level, Log, LogLine, OpenArchive, Pause, Request, Signals,
};
use rekindle_agent::records::{Outcome, Record};
use rekindle_archive::Archive;
use sd_notify::NotifyState;
use serde_json::json;
use signal_hook::consts::SIGHUP;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Where a configuration is, if nobody says.
const CONFIG: &str = "/etc/rekindle/config.yaml";
/// How often is looked whether a request was answered.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Guard clusters day and night, as a configuration says.
///
/// Follows them into their archives, makes bases and snapshots, prunes and verifies, each on its schedule, keeps a record of
/// each run, serves metrics, and raises alarms. What it does are rekindle's own commands: its log and its records have
/// them as a person would type them. SIGHUP has it read its configuration anew.
#[derive(Debug, ClapArgs)]
#[command(after_help = "The configuration is that of --config, or /etc/rekindle/config.yaml.")]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// Say what is wrong with the configuration, and stop.
    #[arg(long)]
    pub check: bool,
    /// Print the JSON schema of configurations, and stop.
    #[arg(long)]
    pub schema: bool,
    /// Print all fields of configurations and all metrics, and stop.
    #[arg(long)]
    pub reference: bool,
    /// How lines of the log look.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,
}

/// See [`AgentArgs::log_format`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// An object each.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    Pause(PauseArgs),
    Resume(ResumeArgs),
    BackupNow(BackupNowArgs),
}

/// Stop schedules for a while: what runs ends, and following goes on.
#[derive(Debug, ClapArgs)]
pub(crate) struct PauseArgs {
    /// So long; without it until rekindle agent resume.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub time: Option<Duration>,
    /// Why: it is shown wherever the agent's state is.
    #[arg(long)]
    pub reason: String,
}

/// Let schedules go on.
#[derive(Debug, ClapArgs)]
pub(crate) struct ResumeArgs {}

/// Have the agent of this host make a backup now: a base in each archive, or where there is none snapshots.
#[derive(Debug, ClapArgs)]
pub(crate) struct BackupNowArgs {
    /// Wait until it is done; the exit code says how it ended.
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than that.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1h")]
    pub timeout: Duration,
}

/// `config` and `cluster` are the command line's.
pub(crate) fn run(
    args: &AgentArgs,
    config: Option<&Path>,
    cluster: Option<&str>,
) -> Result<(), Failure> {
    if args.schema {
        let schema = serde_json::to_string_pretty(&config::schema());
        return print(&format!("{}\n", schema.unwrap_or_default()));
    }
    if args.reference {
        return print(&reference());
    }
    let path = std::path::absolute(config.unwrap_or(Path::new(CONFIG)));
    let path = path.map_err(|error| Failure::io("looking at", Path::new(CONFIG), &error))?;
    match &args.command {
        _ if args.check => print(&check::check(&path, &configured::read(&path)?)?),
        Some(AgentCommand::Pause(args)) => pause(&of_agent(&path)?, cluster, args),
        Some(AgentCommand::Resume(_)) => resume(&of_agent(&path)?, cluster),
        Some(AgentCommand::BackupNow(args)) => backup_now(&of_agent(&path)?, cluster, args),
        None => guard(path.clone(), &configured::read(&path)?, args.log_format),
    }
}

/// `docs/configuration.md`.
pub(crate) fn reference() -> String {
    [config::reference(), rekindle_agent::alarms::reference(), rekindle_agent::metrics::reference()]
        .concat()
}

/// The configuration that an agent works with: that of the file, or where that was changed and is not good the one
/// before.
fn of_agent(path: &Path) -> Result<Config, Failure> {
    configured::read(path).or_else(|failure| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let kept = guard::kept(&Config::state_in(&text));
        let before = configured::read(&kept).ok().filter(is_guarded).ok_or(failure)?;
        eprintln!(
            "warning: {} is not good; the agent works with what it has read before",
            path.display()
        );
        Ok(before)
    })
}

/// The state of the cluster that is named, or of all of the agent.
fn state_of(config: &Config, cluster: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(name) = cluster else { return Ok(config.state.clone()) };
    let found = config.cluster(Some(name));
    found.map(|cluster| config.state_of(cluster)).ok_or_else(|| no_cluster(name))
}

fn no_cluster(name: &str) -> Failure {
    Failure::usage(format!("the configuration has no cluster {name}"))
}

fn pause(config: &Config, cluster: Option<&str>, args: &PauseArgs) -> Result<(), Failure> {
    let state = state_of(config, cluster)?;
    if args.reason.trim().is_empty() {
        return Err(
            Failure::usage("the reason is empty").remedy("say why: whoever is paged reads it")
        );
    }
    if args.time.is_some_and(|time| time.is_zero()) {
        return Err(Failure::usage("a pause of no time is none").remedy("give --for, such as 2h"));
    }
    let until = args.time.map(|time| {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        Timestamp::now().checked_add(time).unwrap_or(Timestamp::MAX)
    });
    let pause = Pause { reason: args.reason.clone(), until };
    guard::pause(&state, &pause).map_err(|error| Failure::io("writing into", &state, &error))?;
    print(&format!("paused: {pause}\n"))?;
    if !is_guarded(config) {
        eprintln!(
            "warning: no agent works with {} now; the next one that does is paused",
            config.state.display()
        );
    }
    Ok(())
}

fn resume(config: &Config, cluster: Option<&str>) -> Result<(), Failure> {
    let state = state_of(config, cluster)?;
    let resumed =
        guard::resume(&state).map_err(|error| Failure::io("writing into", &state, &error))?;
    let named = |it: &&config::Cluster| cluster.is_none_or(|name| it.name == name);
    for cluster in config.clusters.iter().filter(named) {
        if let Some((why, remedy)) = paused(config, cluster) {
            eprintln!("warning: {} stays paused: {why}; what to do: {remedy}", cluster.name);
        }
    }
    print(if resumed { "schedules go on\n" } else { "nothing was paused\n" })
}

/// Why nothing is done by schedule with a cluster, and what ends that.
fn paused(config: &Config, cluster: &config::Cluster) -> Option<(String, String)> {
    if let Some(why) = &cluster.paused {
        return Some((why.clone(), "take paused out of the configuration".to_owned()));
    }
    let now = Timestamp::now();
    let own = Pause::read(&config.state_of(cluster), now);
    let own =
        own.map(|it| (it, format!("rekindle agent resume --config-cluster={}", cluster.name)));
    let all = || Some((Pause::read(&config.state, now)?, "rekindle agent resume".to_owned()));
    own.or_else(all).map(|(pause, remedy)| (pause.to_string(), remedy))
}

fn backup_now(config: &Config, cluster: Option<&str>, args: &BackupNowArgs) -> Result<(), Failure> {
    let Some(cluster) = config.cluster(cluster) else {
        return Err(cluster.map_or_else(
            || Failure::usage("there are several clusters").remedy("name one: --config-cluster"),
            no_cluster,
        ));
    };
    let state = config.state_of(cluster);
    check_guarded(config)?;
    let request = Request { asked: Timestamp::now() };
    let answer =
        request.ask(&state).map_err(|error| Failure::io("writing into", &state, &error))?;
    if !args.wait {
        return print("asked for\n");
    }
    let stop = terminal::stop_flag()?;
    let until = Instant::now() + args.timeout;
    while !answer.exists() {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Failure::new(Code::Interrupted, "interrupted; the backup goes on"));
        }
        if Instant::now() >= until {
            let what = "the backup is not done yet".to_owned();
            return Err(Failure::new(Code::Transient, what).remedy("look at rekindle records"));
        }
        check_guarded(config)?;
        std::thread::sleep(LOOK_EVERY);
    }
    let read = std::fs::read(&answer).map_err(|error| Failure::io("reading", &answer, &error))?;
    let _ = std::fs::remove_file(&answer);
    let records: Vec<Record> = serde_json::from_slice(&read).unwrap_or_default();
    told(&records)
}

/// An agent is at work.
fn check_guarded(config: &Config) -> Result<(), Failure> {
    if is_guarded(config) {
        return Ok(());
    }
    let what = format!("no agent works with {}", config.state.display());
    Err(Failure::new(Code::NotFound, what)
        .remedy("start it: systemctl start rekindle; or save by hand: rekindle save"))
}

fn is_guarded(config: &Config) -> bool {
    let lock = std::fs::File::open(config.state.join("agent.lock"));
    matches!(lock.map(|lock| lock.try_lock_shared()), Ok(Err(_)))
}

fn told(records: &[Record]) -> Result<(), Failure> {
    for record in records {
        let made = record.made().unwrap_or_default();
        print(&format!("{}: {} {made}\n", record.job, record.outcome.name()))?;
    }
    let bad = records.iter().find(|record| record.outcome != Outcome::Done);
    match (bad, records.is_empty()) {
        (None, false) => Ok(()),
        (None, true) => {
            let what = "nothing is to be made: the cluster has neither archives nor snapshots";
            Err(Failure::new(Code::Failed, what))
        }
        (Some(record), _) => {
            let why = record.reason.clone().unwrap_or_default();
            let code = match record.outcome {
                Outcome::Away => Code::Transient,
                _ => Code::Failed,
            };
            Err(Failure::new(code, format!("{}: {}", record.job, why)))
        }
    }
}

fn guard(file: PathBuf, config: &Config, format: LogFormat) -> Result<(), Failure> {
    keep_to_ourselves();
    let stop = terminal::stop_flag_but_hangup()?;
    let reload = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&reload))
        .map_err(|error| Failure::new(Code::Failed, format!("catching signals: {error}")))?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::io("looking for", Path::new("this program"), &error))?;
    let listen = config.listen().map_err(Failure::usage)?;
    let log: Log = Arc::new(move |line| say(format, &line));
    let load = Box::new(move || configured::read_text(&file).map_err(|failure| failure.what));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let open: OpenArchive = Arc::new(open_pinned);
    let guard = Guard::begin(Agent { load, open, program, host, log: Arc::clone(&log) })?;
    let served = served::Served::default();
    if let Some(address) = listen {
        let address = served.start(address, guard.shared())?;
        log(note(format!("metrics are at http://{address}/metrics")));
    }
    log(note("guarding".to_owned()));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let signals = Signals { stop: &stop, reload: &reload };
    guard.run(signals, |alarms| {
        served.alarms(alarms);
        let status = match alarms.len() {
            0 => "all is well".to_owned(),
            1 => "an alarm goes on".to_owned(),
            count => format!("{count} alarms go on"),
        };
        let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    });
    log(note("ended".to_owned()));
    Ok(())
}

/// An archive to keep records in: where another one has come in the place of the one that this host knows, none are
/// written there.
fn open_pinned(archive: &config::Archive, spool: &Path) -> Result<Archive, String> {
    let opened = open_configured(archive).and_then(|opened| {
        Pin::check(spool, &opened, archive.fingerprint)?;
        Ok(opened)
    });
    opened.map_err(|failure| failure.what.replace('\n', "; "))
}

fn note(text: String) -> LogLine {
    LogLine { level: Level::Info, cluster: None, job: None, text }
}

/// A line of the log; a terminal that is gone ends nothing.
fn say(format: LogFormat, line: &LogLine) {
    let level = match line.level {
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Alarm => "ALARM",
    };
    let LogLine { cluster, job, text, .. } = line;
    let shown = match format {
        LogFormat::Json => json!({
            "time": Timestamp::now(), "level": level.to_lowercase(), "cluster": cluster, "job": job,
            "text": text,
        })
        .to_string(),
        LogFormat::Text => {
            let about: Vec<_> = [cluster, job].into_iter().flatten().map(String::as_str).collect();
            let about =
                if about.is_empty() { String::new() } else { format!("{}: ", about.join(" ")) };
            let text = text.lines().map(str::trim).collect::<Vec<_>>().join("; ");
            let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            format!("{time} {level} {about}{text}")
        }
    };
    let _ = writeln!(std::io::stderr(), "{shown}");
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        match error {
            Error::AtWork { .. } => {
                Self::refused(what).remedy("one agent of a host guards all its clusters")
            }
            Error::State { path, cause, .. } => {
                let failure = Self::io("", Path::new(&path), &cause);
                Self { what, ..failure }
            }
            Error::Records(fault) => fault.into(),
            Error::Configuration(_) => Self::usage(what),
            _ => Self::new(Code::Failed, what),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_configuration_in_the_readme_is_good() {
        let readme = include_str!("../../../../README.md");
        let (_, rest) = readme.split_once("```yaml\n").unwrap();
        let (yaml, _) = rest.split_once("```").unwrap();
        let config = rekindle_agent::config::Config::parse(yaml).unwrap();
        let jobs = rekindle_agent::jobs::jobs_of(&config.clusters[0]).unwrap();
        let names: Vec<_> = jobs.iter().map(|job| &*job.name).collect();
        let want = [
            "prune-main",
            "verify-main",
            "drill-main",
            "base",
            "snapshot-minutely",
            "snapshot-daily",
        ];
        assert_eq!(names, want);
    }

    #[test]
    fn the_reference_is_what_the_types_say() {
        let kept = include_str!("../../../../docs/configuration.md");
        assert!(kept == super::reference(), "write it anew: rekindle agent --reference");
    }
}
