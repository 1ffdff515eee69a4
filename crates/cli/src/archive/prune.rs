//! `rekindle archive prune`: old bases go, and later what only they needed.

use super::{ReadKeys, keep_to_ourselves, now, open, shown, unlock};
use crate::args::{OutputArgs, StoreArgs};
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::terminal;
use crate::time::parse_duration;
use clap::Args as ClapArgs;
use rekindle_archive::{
    BaseEntry, Error, GRACE, LogRange, Policy, PrunePlan, PruneRequest, Pruned, Reason, plan_prune,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Remove old restore points of an archive, by rules.
///
/// A restore point stays that any --keep rule keeps; --ttl and --max-backups take away whatever keeps
/// it; the newest one of a cluster always stays. Without any of them no restore point goes. Data that no
/// restore point needs any more are marked, and go with a prune that comes 24 hours later or after that.
/// Periods are in UTC.
#[derive(Debug, ClapArgs)]
pub(crate) struct PruneArgs {
    /// The archive.
    pub archive: String,
    #[command(flatten)]
    pub rules: Rules,
    /// The most restore points that go at once; the oldest go first, the rest next time.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub max_removals: usize,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before restore points are removed.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What stays, and what goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, ClapArgs)]
#[command(next_help_heading = "Rules")]
pub(crate) struct Rules {
    /// Keep the log of so long, such as 7d, and the restore point on which it stands.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub keep_log: Option<Duration>,
    /// Keep all that is so young, such as 36h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub keep_within: Option<Duration>,
    /// Keep the newest of each of so many hours.
    #[arg(long, value_name = "N")]
    pub keep_hourly: Option<usize>,
    /// Keep the newest of each of so many days.
    #[arg(long, value_name = "N")]
    pub keep_daily: Option<usize>,
    /// Keep the newest of each of so many weeks.
    #[arg(long, value_name = "N")]
    pub keep_weekly: Option<usize>,
    /// Keep the newest of each of so many months.
    #[arg(long, value_name = "N")]
    pub keep_monthly: Option<usize>,
    /// Keep so many of the newest.
    #[arg(long, value_name = "N")]
    pub keep_last: Option<usize>,
    /// Keep none that is older, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub ttl: Option<u64>,
    /// Keep no more than so many of a cluster.
    #[arg(long, value_name = "N")]
    pub max_backups: Option<usize>,
}

impl Rules {
    pub(crate) fn policy(&self) -> Policy {
        if *self == Self::default() {
            return Policy { last: usize::MAX, log: Some(i64::MAX), ..Policy::default() };
        }
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Policy {
            log: self.keep_log.map(ms),
            within: self.keep_within.map(ms),
            last: self.keep_last.unwrap_or_default(),
            hourly: self.keep_hourly.unwrap_or_default(),
            daily: self.keep_daily.unwrap_or_default(),
            weekly: self.keep_weekly.unwrap_or_default(),
            monthly: self.keep_monthly.unwrap_or_default(),
            ttl: self.ttl.map(|seconds| ms(Duration::from_secs(seconds))),
            max_bases: self.max_backups,
        }
    }
}

pub(super) fn run(args: &PruneArgs) -> Result<(), Failure> {
    let archive = unlock(open(&args.archive, &args.store)?, &args.keys)?;
    keep_to_ourselves();
    let (policy, bases_max) = (args.rules.policy(), args.max_removals);
    let request = PruneRequest { policy, bases_max, grace: GRACE, now: now() };
    let plan = plan_prune(&archive, &request).map_err(nothing_was_removed)?;
    if args.rules == Rules::default() {
        eprintln!("no rule was given, so every restore point stays: see --keep-daily and the like");
    }
    if args.dry_run {
        return output_of_plan(&plan).print(args.output.format());
    }
    let going = plan.going().count();
    if (going > 0 || !plan.log.is_empty()) && !args.yes {
        eprint!("{}", output_of_plan(&plan).text);
        let what = match going {
            0 => "Some of the log goes.".to_owned(),
            going => format!("{} restore points are removed.", grouped(going)),
        };
        terminal::confirm(&what)?;
    }
    let bases: Vec<_> = plan.bases.iter().map(base_json).collect();
    let done = plan.carry_out(&archive)?;
    output_of_done(&done, bases).print(args.output.format())?;
    match done.held.len() {
        0 => Ok(()),
        count => {
            let what = format!("the store does not let {count} objects go");
            Err(Failure::new(Code::Failed, what)
                .remedy("a lock or a right holds them: prune again when it has ended"))
        }
    }
}

/// What some base needs is not known: then nothing goes.
fn nothing_was_removed(error: Error) -> Failure {
    let mut failure = Failure::from(error);
    failure.what = format!("nothing was removed: {}", failure.what);
    match failure.code {
        Code::BadData => failure.remedy(
            "repair it from a copy (rekindle archive repair), or remove the object that cannot be \
             read: what it needs may go then",
        ),
        _ => failure,
    }
}

fn base_json((base, reason): &(BaseEntry, Reason)) -> Value {
    let facts = &base.header.facts;
    json!({
        "object": base.name,
        "time": shown(facts.state),
        "revision": facts.last.get(),
        "stays": reason.stays(),
        "reason": reason.to_string(),
    })
}

fn output_of_plan(plan: &PrunePlan) -> Output {
    let going = plan.going().count();
    let simple = format!("{going}, {}, {}", plan.marked.len(), plan.collected.len());
    let mut out = Output { simple, ..Output::default() };
    out.add("removed", "Removed", going);
    out.add("marked", "Marked", plan.marked.len());
    out.add("collected", "Collected", plan.collected.len());
    let size = |found: &[rekindle_archive::Listed]| found.iter().map(|it| it.bytes).sum::<u64>();
    out.add("unfinished", "Unfinished", plan.staged);
    out.add("hostFiles", "Host files", plan.files.len());
    out.add("markedBytes", "Marked bytes", size(&plan.marked));
    out.add("collectedBytes", "Collected bytes", size(&plan.collected));
    out.json.insert("restorePoints".to_owned(), plan.bases.iter().map(base_json).collect());
    let range = |range: &LogRange| json!([range.first.get(), range.last.get()]);
    out.json.insert("logGoing".to_owned(), plan.log.iter().map(range).collect());
    let row = |(base, reason): &(BaseEntry, Reason)| {
        let facts = &base.header.facts;
        let fate = if reason.stays() { "stays" } else { "goes" };
        let (time, revision) = (shown(facts.state), facts.last.get().to_string());
        vec![time, revision, facts.cluster.to_string(), fate.to_owned(), reason.to_string()]
    };
    let rows: Vec<_> = plan.bases.iter().map(row).collect();
    out.text = output::table(&["TIME", "REVISION", "CLUSTER", "FATE", "WHY"], &rows);
    out.text += &output::lines(&[
        ("goes", format!("{} restore points", grouped(going))),
        ("log", log_line(plan)),
        ("marks", objects(plan.marked.len(), size(&plan.marked), "that go in 24 hours")),
        ("collects", objects(plan.collected.len(), size(&plan.collected), "marked before")),
        (
            "hosts",
            objects(
                plan.files.len(),
                size(&plan.files),
                "of files that no restore point is as old as",
            ),
        ),
        ("unfinished", format!("{} files of a killed process go", grouped(plan.staged))),
    ]);
    out
}

/// Which points between bases there are none of any more.
fn log_line(plan: &PrunePlan) -> String {
    const SHOWN: usize = 3;
    if plan.log.is_empty() {
        return "all of it stays".to_owned();
    }
    let shown = |range: &LogRange| format!("{} to {}", range.first, range.last);
    let ranges: Vec<_> = plan.log.iter().take(SHOWN).map(shown).collect();
    let more = match plan.log.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} ranges more"),
    };
    format!(
        "revisions {}{more} go: between the restore points that stay there are none any more \
         (--keep-log TIME keeps them)",
        ranges.join(", ")
    )
}

fn objects(count: usize, bytes: u64, which: &str) -> String {
    match count {
        0 => "nothing".to_owned(),
        _ => format!("{} objects {which}, {}", grouped(count), output::bytes(bytes)),
    }
}

fn output_of_done(done: &Pruned, bases: Vec<Value>) -> Output {
    let simple = format!("{}, {}, {}", done.bases, done.marked, done.collected);
    let mut out = Output { simple, ..Output::default() };
    out.add("removed", "Removed", done.bases);
    out.add("marked", "Marked", done.marked);
    out.add("collected", "Collected", done.collected);
    out.add("collectedBytes", "Collected bytes", done.collected_bytes);
    out.add("unfinished", "Unfinished", done.staged);
    out.json.insert("restorePoints".to_owned(), bases.into());
    out.text = output::lines(&[
        ("removed", format!("{} restore points", grouped(done.bases))),
        ("marked", format!("{} objects, which go with a prune in 24 hours", grouped(done.marked))),
        (
            "collected",
            objects(done.collected, done.collected_bytes, "that nobody needed for 24 hours"),
        ),
    ]);
    add_held(&mut out, &done.held);
    out
}

/// Adds what the store does not let go, with its reasons.
pub(super) fn add_held(out: &mut Output, held: &[(String, String)]) {
    let json = |(name, reason): &(String, String)| json!({ "object": name, "reason": reason });
    out.json.insert("held".to_owned(), held.iter().map(json).collect());
    let line = |(name, reason): &(String, String)| ("held", format!("{name}: {reason}"));
    out.text += &output::lines(&held.iter().map(line).collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_by_no_rule() {
        let policy = Rules::default().policy();
        assert_eq!((policy.last, policy.log), (usize::MAX, Some(i64::MAX)), "nothing goes");
        let policy = Rules { ttl: Some(3600), ..Rules::default() }.policy();
        assert_eq!(policy, Policy { ttl: Some(3_600_000), ..Policy::default() });
    }
}
