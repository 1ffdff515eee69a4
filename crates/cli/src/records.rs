//! `rekindle records`: what agents have done, and how it ended.

use crate::archive::find;
use crate::args::{OutputArgs, StoreArgs};
use crate::configured;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::time::parse_duration;
use clap::Args as ClapArgs;
use jiff::{SignedDuration, Timestamp};
use rekindle_agent::config::Archive;
use rekindle_agent::records::{self, Outcome, Record};
use rekindle_archive::Store;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// Longest reason in a table.
const REASON_CHARS: usize = 100;

/// Show what agents have done by schedule, and how it ended.
///
/// Each run of each job leaves a record, on the host of the agent and in the archives of the cluster.
#[derive(Debug, ClapArgs)]
pub(crate) struct RecordsArgs {
    /// An archive; without one what the agents of --config have left: in its archives, and on this host.
    pub archive: Option<String>,
    /// Only of the last so long.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "24h")]
    pub since: Duration,
    /// Only of this cluster, as the configuration calls it.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Only of this job.
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only what did not succeed.
    #[arg(long)]
    pub failed: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(crate) fn run(args: &RecordsArgs) -> Result<(), Failure> {
    let since = SignedDuration::try_from(args.since).unwrap_or(SignedDuration::MAX);
    let since = Timestamp::now().checked_sub(since).unwrap_or(Timestamp::UNIX_EPOCH);
    let configured = configured::cluster().map(|cluster| cluster.name.clone());
    let cluster = args.cluster.clone().or(configured);
    let mut found = match &args.archive {
        Some(place) => records::since(&named(place, args)?, cluster.as_deref(), since)?,
        None => configured_records(args, cluster.as_deref(), since)?,
    };
    let jobs: BTreeSet<_> = found.iter().map(|record| record.job.clone()).collect();
    if let Some(job) = args.job.as_ref().filter(|job| !jobs.contains(*job)) {
        let jobs = jobs.into_iter().collect::<Vec<_>>().join(", ");
        eprintln!("warning: no run of {job} has left a record in this time; there are: {jobs}");
    }
    found.retain(|record| {
        args.job.as_ref().is_none_or(|job| *job == record.job)
            && (!args.failed || record.outcome != Outcome::Done)
    });
    shown(&found).print(args.output.format())
}

/// The store that has them.
fn named(place: &str, args: &RecordsArgs) -> Result<Store, Failure> {
    let named = args.store.place(Some(place))?;
    let archive = find(&named, &args.store)?;
    // The state of an agent has them, too.
    let own =
        || Path::new(&named).join("records").is_dir().then(|| Store::directory(Path::new(&named)));
    match archive {
        Some(archive) => Ok(archive.store().clone()),
        None => own().transpose()?.ok_or_else(|| {
            Failure::new(Code::NotFound, format!("{named} is no archive, and has no records"))
                .remedy("name an archive into which an agent saves, or the agent's --config")
        }),
    }
}

/// Those of the first archive that can be read, and those of this host: what an archive did not take while it was away is
/// here alone.
fn configured_records(
    args: &RecordsArgs,
    name: Option<&str>,
    since: Timestamp,
) -> Result<Vec<Record>, Failure> {
    let Some(cluster) = configured::cluster() else {
        return Err(
            Failure::usage("nothing says whose records").remedy("name an archive, or --config")
        );
    };
    let read = |store: &Store| records::since(store, name, since).map_err(Failure::from);
    let of_archive = |archive: &Archive| match find(&archive.place, &args.store)? {
        Some(archive) => read(archive.store()),
        None => Err(Failure::new(Code::NotFound, format!("{} is no archive", archive.place))),
    };
    let warned = |found: Result<Vec<Record>, Failure>| {
        found.inspect_err(|failure| eprintln!("warning: {}", failure.what)).ok()
    };
    let theirs = cluster.archives.iter().find_map(|archive| warned(of_archive(archive)));
    let state = configured::state().filter(|state| state.is_dir());
    let own = state.map(|state| Store::directory(&state).map_err(Failure::from));
    let own = own.and_then(|own| warned(own.and_then(|own| read(&own))));
    if theirs.is_none() && own.is_none() {
        return Err(Failure::new(Code::NotFound, "there are no records that can be read").remedy(
            "run it on the host of an agent as its user, or where an archive can be reached",
        ));
    }
    let all = theirs.into_iter().chain(own).flatten();
    let key =
        |it: &Record| (it.slot, it.job.clone(), it.cluster.clone(), it.attempt, it.agent.clone());
    let all: BTreeMap<_, _> = all.map(|record| (key(&record), record)).collect();
    Ok(all.into_values().collect())
}

/// What a line of a table has room for; the rest is in `-w json`.
fn cut(text: &str) -> String {
    match text.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn shown(found: &[Record]) -> Output {
    let failed = found.iter().filter(|record| record.outcome != Outcome::Done).count();
    let mut out = Output { simple: format!("{}, {failed}", found.len()), ..Output::default() };
    out.add("runs", "Runs", found.len());
    out.add("notDone", "Not done", failed);
    let all: Vec<_> = found.iter().filter_map(|it| serde_json::to_value(it).ok()).collect();
    out.json.insert("records".to_owned(), Value::Array(all));
    let row = |record: &Record| {
        let took = record.ended.duration_since(record.began);
        let made = match &record.reason {
            Some(reason) => cut(reason.lines().next().unwrap_or_default()),
            None => record.made().unwrap_or_default(),
        };
        vec![
            record.slot.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            record.cluster.clone(),
            record.job.clone(),
            record.outcome.name().to_owned(),
            format!("{:.1} s", took.as_secs_f64()),
            record.bytes().map(output::bytes).unwrap_or_default(),
            record.host.clone(),
            made,
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let header = ["DUE", "CLUSTER", "JOB", "RESULT", "TOOK", "BYTES", "HOST", "WHAT"];
    out.text = output::table(&header, &rows);
    let count = format!("{}, of which {} did not succeed", grouped(found.len()), grouped(failed));
    out.text += &output::lines(&[("runs", count)]);
    out
}
