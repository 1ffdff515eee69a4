//! `rekindle archive probe`: what a place really does.

use crate::args::ProbeArgs;
use crate::failure::Failure;
use crate::output::{self, Output};
use rekindle_archive::{Place, Probe, Store};
use serde_json::{Value, json};

pub(super) fn run(args: &ProbeArgs) -> Result<(), Failure> {
    let place = Place::parse(&args.store.place(args.place.as_deref())?)?;
    let store = args.store.open(&place)?;
    let probe = probe(&store)?;
    to_output(&store, &probe).print(args.output.format())?;
    verdict(&store, &probe)
}

/// Probes a store.
pub(super) fn probe(store: &Store) -> Result<Probe, Failure> {
    let unique = format!("{}-{}", std::process::id(), super::now().0);
    Ok(Probe::run(store, &unique)?)
}

/// Refuses a store that does not do all that an archive needs.
pub(super) fn verdict(store: &Store, probe: &Probe) -> Result<(), Failure> {
    let faults: Vec<_> = probe
        .findings
        .iter()
        .filter_map(|finding| Some((finding.wanted, finding.fault.as_deref()?)))
        .map(|(wanted, fault)| format!("\n  {}: {fault}", wanted.words()))
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let what = format!("{} does not do what an archive needs:{}", store.place(), faults.concat());
    Err(Failure::refused(what).remedy(
        "use a newer version of the store, another store or a directory; the rights to read, write, \
         list and delete are all needed",
    ))
}

fn to_output(store: &Store, probe: &Probe) -> Output {
    let simple = match probe.is_good() {
        true => format!("{}: good", store.place()),
        false => format!("{}: not good", store.place()),
    };
    let mut out = Output { simple, ..Output::default() };
    let says = |fault: &Option<String>| fault.clone().unwrap_or_else(|| "yes".to_owned());
    let findings = &probe.findings;
    out.add("place", "Place", store.place());
    out.add("good", "Good", probe.is_good());
    let list: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let (wanted, fault) = (finding.wanted.words(), &finding.fault);
            json!({ "wanted": wanted, "good": fault.is_none(), "fault": fault })
        })
        .collect();
    out.add("findings", "Findings", list);
    let row = |finding: &rekindle_archive::ProbeFinding| {
        vec![finding.wanted.words().to_owned(), says(&finding.fault)]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    out.text = output::table(&["WANTED", "FOUND"], &rows);
    out
}
