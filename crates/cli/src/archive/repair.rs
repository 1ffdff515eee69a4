//! `rekindle archive repair`: lost objects, brought back from a copy.

use super::copy::{carry_out, failure, left_json, left_table, transferred};
use super::verify::level;
use super::{keep_to_ourselves, now, open, unlock};
use crate::args::{RepairArgs, StoreArgs};
use crate::failure::Failure;
use crate::output::{self, Output, grouped};
use crate::terminal;
use rekindle_archive::{Item, Transfer, Verification, VerifyProgress, VerifyRequest};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn run(args: &RepairArgs) -> Result<(), Failure> {
    let opened = |place: &str, store: &StoreArgs| unlock(open(place, store)?, &args.keys);
    let archive = opened(&args.archive, &args.store.first())?;
    let other = opened(&args.from, &args.store.other(&args.other).read_only())?;
    keep_to_ourselves();
    let request = VerifyRequest { level: level(args.level), only: None, now: now() };
    let verification = Verification::begin(&archive, &request)?;
    let (done, total) = (AtomicU64::new(0), verification.bytes());
    let stop = terminal::stop_flag()?;
    let progress = VerifyProgress { done: &done, stop: &stop };
    let position = || done.load(Ordering::Relaxed);
    let verify = || verification.run(progress);
    let verdict = terminal::watching("verifying", Some(total), position, verify)?;
    let transfer = Transfer::repair(&archive, &verdict, &other, &request)?;
    if args.dry_run {
        return plan(&transfer).print(args.output.format());
    }
    if transfer.items().iter().any(|item| item.replaces) && !args.yes {
        eprint!("{}", plan(&transfer).text);
        terminal::confirm("Damaged objects are replaced.")?;
    }
    let repaired = carry_out("repairing", transfer)?;
    transferred(&repaired, "repaired", archive.store().place()).print(args.output.format())?;
    failure(&repaired)
}

/// What would come over.
fn plan(transfer: &Transfer<'_>) -> Output {
    let items = transfer.items();
    let simple = format!("{}, {}", items.len(), transfer.left().len());
    let mut out = Output { simple, ..Output::default() };
    out.add("objects", "Objects", items.len());
    out.add("bytes", "Bytes", transfer.bytes());
    let item = |item: &Item| json!({ "object": item.name, "bytes": item.bytes, "replaces": item.replaces });
    out.json.insert("plan".to_owned(), Value::Array(items.iter().map(item).collect()));
    out.json.insert("left".to_owned(), transfer.left().iter().map(left_json).collect());
    let row = |item: &Item| {
        let act = if item.replaces { "replace" } else { "add" };
        vec![item.name.clone(), act.to_owned(), output::bytes(item.bytes)]
    };
    out.text = match items.len() {
        0 => "nothing to bring back\n".to_owned(),
        _ => output::table(
            &[&format!("{} TO BRING BACK", grouped(items.len())), "HOW", "BYTES"],
            &items.iter().map(row).collect::<Vec<_>>(),
        ),
    };
    out.text += &left_table(transfer.left());
    out
}
