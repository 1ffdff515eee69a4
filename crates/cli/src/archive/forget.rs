//! `rekindle archive forget`: records are erased from every restore point.

use super::prune::add_held;
use super::{ReadKeys, WriteKeys, keep_to_ourselves, now, open, shown, unlock, with_signing_key};
use crate::args::{OutputArgs, StoreArgs};
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::terminal;
use clap::Args as ClapArgs;
use rekindle_archive::{
    ForgetPlan, ForgetPoint, ForgetRequest, Forgot, Forgotten, GRACE, VerifyProgress, plan_forget,
};
use rekindle_etcd::Revision;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Erase a key, with all its versions, from every restore point of an archive.
///
/// For secrets that were changed and data that must not be kept. It cannot be undone. Restores bring
/// back everything else; they, list and verify say that records were erased. The old data go with the
/// first archive prune after 24 hours. What a cluster still has comes back with its next save,
/// which may be one in full: delete it there first. Copies of the archive and exported snapshots have it still.
#[derive(Debug, ClapArgs)]
pub(crate) struct ForgetArgs {
    /// The archive.
    pub archive: String,
    /// The key.
    pub key: String,
    /// Erase all keys that begin so.
    #[arg(long)]
    pub prefix: bool,
    /// Erase only versions up to this revision.
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    pub to_revision: Option<i64>,
    /// Print the plan and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Signing key file, where the archive takes only what is signed [default: REKINDLE_SIGNING_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Keys")]
    pub signing_key: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keys: ReadKeys,
    #[command(flatten)]
    pub output: OutputArgs,
}

pub(super) fn run(args: &ForgetArgs) -> Result<(), Failure> {
    if args.key.is_empty() {
        return Err(Failure::usage("no key is empty")
            .remedy("to be rid of everything, remove the archive itself"));
    }
    let archive = unlock(open(&args.archive, &args.store)?, &args.keys)?;
    let signing = WriteKeys { signing_key: args.signing_key.clone(), fingerprint: None };
    let archive = if args.dry_run { archive } else { with_signing_key(archive, &signing)? };
    keep_to_ourselves();
    let to = args.to_revision.and_then(Revision::new);
    let what = Forgotten { key: args.key.clone().into_bytes(), prefix: args.prefix, to };
    let (done, stop) = (AtomicU64::new(0), terminal::stop_flag()?);
    let progress = VerifyProgress { done: &done, stop: &stop };
    let request = ForgetRequest { what: &what, now: &now, progress };
    let position = || done.load(Ordering::Relaxed);
    let plan = terminal::watching("searching", None, position, || plan_forget(&archive, &request))?;
    if args.dry_run || plan.is_empty() {
        return output_of_plan(&plan).print(args.output.format());
    }
    if !args.yes {
        eprint!("{}", output_of_plan(&plan).text);
        terminal::confirm("These records are erased; nothing brings them back.")?;
    }
    let points: Vec<_> = plan.points().map(point_json).collect();
    let carry_out = || plan.carry_out(&archive, &request);
    let forgot = terminal::watching("erasing", None, position, carry_out).map_err(|error| {
        Failure::from(error)
            .and("each restore point is as it was, or without the records; run it again")
    })?;
    output_of_done(&forgot, points).print(args.output.format())?;
    match forgot.held.len() {
        0 => Ok(()),
        count => {
            let what = format!("the store does not let {count} restore points go");
            Err(Failure::new(Code::Failed, what).remedy(
                "a lock or a right holds them, with the records: forget again when it has ended",
            ))
        }
    }
}

fn point_json(point: &ForgetPoint) -> Value {
    let facts = &point.entry.header.facts;
    json!({
        "object": point.entry.name,
        "time": shown(facts.state),
        "revision": facts.last.get(),
        "cluster": facts.cluster.to_string(),
        "records": point.records,
        "keys": point.keys,
    })
}

fn output_of_plan(plan: &ForgetPlan) -> Output {
    let ((objects, bytes), (unreadable, unreadable_bytes)) = (plan.objects(), plan.unreadable());
    let simple = format!("{}, {objects}", plan.points().len());
    let mut out = Output { simple, ..Output::default() };
    out.add("objects", "Objects", objects);
    out.add("bytes", "Bytes", bytes);
    out.add("segments", "Segments", plan.segments().len());
    out.add("unreadable", "Unreadable", unreadable);
    out.add("unreadableBytes", "Unreadable bytes", unreadable_bytes);
    out.json.insert("restorePoints".to_owned(), plan.points().map(point_json).collect());
    if plan.is_empty() {
        out.text = "nothing of it is in the archive\n".to_owned();
        return out;
    }
    let row = |point: &ForgetPoint| {
        let facts = &point.entry.header.facts;
        let (time, revision) = (shown(facts.state), facts.last.get().to_string());
        vec![time, revision, facts.cluster.to_string(), grouped(point.records), grouped(point.keys)]
    };
    let rows: Vec<_> = plan.points().map(row).collect();
    let head = ["TIME", "REVISION", "CLUSTER", "RECORDS ERASED", "KEYS GONE"];
    out.text = output::table(&head, &rows);
    let written =
        format!("{} packs and segments have any of it, {}", grouped(objects), output::bytes(bytes));
    let mut lines = vec![("data", written)];
    if let Some(log) = log_line(plan) {
        lines.push(("log", log));
    }
    if unreadable > 0 {
        let (count, bytes) = (grouped(unreadable), output::bytes(unreadable_bytes));
        let line = format!("{count} objects that no restore point needs, {bytes}: these go, too");
        lines.push(("damaged", line));
    }
    out.text += &output::lines(&lines);
    out
}

/// Which of the log is written anew, without what is erased.
fn log_line(plan: &ForgetPlan) -> Option<String> {
    let count = plan.segments().len();
    let first = plan.segments().map(|it| it.first).min()?;
    let last = plan.segments().map(|it| it.last).max()?;
    Some(format!(
        "{} of its segments, between revisions {first} and {last}, are written anew without it",
        grouped(count)
    ))
}

fn output_of_done(forgot: &Forgot, points: Vec<Value>) -> Output {
    let simple = format!("{}, {}, {}", forgot.bases, forgot.packs, forgot.marked);
    let mut out = Output { simple, ..Output::default() };
    out.add("rewritten", "Rewritten", forgot.bases);
    out.add("packs", "Packs", forgot.packs);
    out.add("segments", "Segments", forgot.segments);
    out.add("marked", "Marked", forgot.marked);
    out.add("markedBytes", "Marked bytes", forgot.marked_bytes);
    let goes = shown(rekindle_archive::format::header::Moment(now().0.saturating_add(GRACE)));
    out.add("goesAfter", "Goes after", goes.clone());
    out.json.insert("restorePoints".to_owned(), points.into());
    let (marked, bytes) = (grouped(forgot.marked), output::bytes(forgot.marked_bytes));
    out.text = output::lines(&[
        (
            "erased",
            format!(
                "from {} restore points and {} segments of the log",
                grouped(forgot.bases),
                grouped(forgot.segments)
            ),
        ),
        ("old data", format!("{marked} objects, {bytes}: they go with a prune after {goes}")),
        (
            "next",
            "a cluster's next save may be in full, and brings what the cluster still has".into(),
        ),
    ]);
    add_held(&mut out, &forgot.held);
    out
}
