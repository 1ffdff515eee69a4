//! `rekindle archive copy`: an archive in another place, or what is new of it.

use super::init::new_store;
use super::verify::named;
use super::{Point, keep_to_ourselves, now, unlock};
use crate::args::CopyArgs;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, grouped};
use crate::terminal;
use rekindle_archive::{Left, Level, Place, Transfer, Transferred, VerifyProgress, VerifyRequest};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn run(args: &CopyArgs) -> Result<(), Failure> {
    let (from, point) = named(&args.from, &args.store.first().read_only())?;
    let from = unlock(from, &args.keys)?;
    let point = if args.latest { Some(Point::Latest) } else { point };
    let chosen = |point: Point| Ok::<_, Failure>(vec![point.choose(&from.list()?)?.name.clone()]);
    let only = point.map(chosen).transpose()?;
    keep_to_ourselves();
    let to =
        from.begin_copy(new_store(&Place::parse(&args.to)?, &args.store.other(&args.other))?)?;
    let request = VerifyRequest { level: Level::Listed, only, now: now() };
    let transfer = Transfer::copy(&from, to.store(), &request)?;
    let done = carry_out("copying", transfer)?;
    transferred(&done, "copied", to.store().place()).print(args.output.format())?;
    failure(&done)
}

/// Brings objects over, and shows how far it is.
pub(super) fn carry_out(what: &str, transfer: Transfer<'_>) -> Result<Transferred, Failure> {
    let stop = terminal::stop_flag()?;
    let (done, total) = (AtomicU64::new(0), transfer.bytes());
    let progress = VerifyProgress { done: &done, stop: &stop };
    let position = || done.load(Ordering::Relaxed);
    let run = || transfer.run(progress);
    terminal::watching(what, Some(total), position, run).map_err(|error| match error {
        rekindle_archive::Error::Stopped => {
            Failure::new(Code::Interrupted, "interrupted; run it again to go on")
        }
        error => error.into(),
    })
}

/// What came over, for people and machines.
pub(super) fn transferred(done: &Transferred, verb: &str, place: &str) -> Output {
    let simple = format!("{}, {}, {}", done.objects, done.bytes, done.left.len());
    let mut out = Output { simple, ..Output::default() };
    out.add("archive", "Archive", place);
    out.add("objects", "Objects", done.objects);
    out.add("bytes", "Bytes", done.bytes);
    out.json.insert("left".to_owned(), done.left.iter().map(left_json).collect());
    let came = match done.objects {
        0 => "nothing: all was there".to_owned(),
        1 => format!("1 object, {}", output::bytes(done.bytes)),
        count => format!("{} objects, {}", grouped(count), output::bytes(done.bytes)),
    };
    out.text =
        output::lines(&[("archive", place.to_owned()), (verb, came)]) + &left_table(&done.left);
    out
}

pub(super) fn left_json(left: &Left) -> Value {
    json!({ "object": left.name, "why": left.reason })
}

/// What does not come over; nothing where all does.
pub(super) fn left_table(left: &[Left]) -> String {
    if left.is_empty() {
        return String::new();
    }
    let rows: Vec<_> =
        left.iter().map(|left| vec![left.name.clone(), left.reason.clone()]).collect();
    output::table(&["NOT THERE", "WHY"], &rows)
}

/// Something did not come over.
pub(super) fn failure(done: &Transferred) -> Result<(), Failure> {
    match done.left.iter().filter(|left| !left.is_meant).count() {
        0 => Ok(()),
        count => {
            let what = format!("{} objects did not come over", grouped(count));
            Err(Failure::new(Code::BadData, what)
                .remedy("rekindle archive verify says what each archive can bring back"))
        }
    }
}
