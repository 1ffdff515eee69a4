//! `rekindle archive rekey`: who can read what is saved from now on.

use super::init::{ONE_OWNER, protection_text};
use super::key_args::RekeyArgs;
use super::key_files::unlock;
use super::{keep_to_ourselves, now, open};
use crate::failure::Failure;
use crate::{output, terminal};
use rekindle_archive::{Archive, RekeyPlan, RekeyRequest};

pub(super) fn run(args: &RekeyArgs) -> Result<(), Failure> {
    let archive = unlock(open(&args.archive, &args.store)?, &args.keys)?;
    let plan = archive.plan_rekey(&RekeyRequest {
        add: args.add.clone(),
        remove: args.remove.clone(),
        add_signers: args.add_signer.clone(),
        remove_signers: args.remove_signer.clone(),
    })?;
    output::print(&plan_text(&archive, &plan))?;
    if let [_] = &plan.recipients[..] {
        eprintln!("{ONE_OWNER}");
    }
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        terminal::confirm("Who can read the archive changes.")?;
    }
    keep_to_ourselves();
    let rekeyed = archive.rekey(&plan, now())?;
    output::print(&result_text(&rekeyed, &plan))
}

fn plan_text(archive: &Archive, plan: &RekeyPlan) -> String {
    let mut rows = vec![("archive", archive.store().place().to_owned())];
    rows.push(match plan.begins {
        Some(begins) => ("keys", format!("generation {begins} begins, with a new key pair")),
        None => ("keys", format!("generation {} goes on", plan.newest)),
    });
    rows.push(("readers", format!("of what is saved from then on\n{}", texts(&plan.recipients))));
    if !plan.signers.is_empty() {
        rows.push(("signers", texts(&plan.signers)));
    }
    if !plan.added.is_empty() {
        let mut added = format!("{}\nto what was saved before, too", texts(&plan.added));
        if !plan.withheld.is_empty() {
            let closed: Vec<_> = plan.withheld.iter().map(ToString::to_string).collect();
            added += &format!(
                ", but for generation {}: the identity at hand does not open it",
                closed.join(", ")
            );
        }
        rows.push(("added", added));
    }
    if !plan.removed.is_empty() {
        rows.push((
            "removed",
            format!(
                "{}\nThis does not take back what was readable: whoever has that identity still reads \
                 every base saved so far,\nand all that was copied. If it must not be so, make a new \
                 archive, save into it, and remove this one",
                texts(&plan.removed)
            ),
        ));
    }
    if plan.begins.is_some() {
        rows.push((
            "hosts",
            "each that saves into the archive refuses until it is told the new fingerprint once:\n\
             rekindle save --fingerprint. A capture that runs goes on with the old keys, for the old\n\
             readers, until it is ended: start it again with --fingerprint"
                .to_owned(),
        ));
    }
    format!("Plan of the new keys\n{}", output::lines(&rows))
}

fn texts<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn result_text(archive: &Archive, plan: &RekeyPlan) -> String {
    let place = archive.store().place();
    let fingerprint = archive.fingerprint();
    let mut rows = vec![
        ("done", format!("generation {} of the keys of {place}", archive.generation())),
        ("protected", protection_text(archive, &plan.recipients)),
        ("fingerprint", fingerprint.to_string()),
    ];
    if plan.begins.is_some() {
        rows.push((
            "next",
            format!(
                "on each host: rekindle save {place} --fingerprint {fingerprint}; end captures that run, which \
                 go on with the old keys, and start them with that flag"
            ),
        ));
    }
    output::lines(&rows)
}
