//! What capture says: a line for what happens, and on a terminal a line that shows how far it is.

use crate::archive::shown;
use crate::output::{self, grouped};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use rekindle_agent::capture::{ArchiveStatus, Disagreement, Notice, Status, Told};
use rekindle_agent::lines::{ArchiveLine, Line};
use rekindle_archive::{BaseWritten, Comparison};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the state is told where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10 * 60);
/// How often a failure that goes on is told again.
const FAILURE_EVERY: Duration = Duration::from_secs(10 * 60);
/// So many failures are known by what they say.
const FAILURES_MAX: usize = 32;

/// Says it.
pub(super) struct Words {
    places: Vec<String>,
    bar: Option<ProgressBar>,
    line: Option<Instant>,
    failures: BTreeMap<String, Instant>,
    /// Somebody listens to standard output; this ends all where he does not any more.
    listener: Option<Arc<AtomicBool>>,
}

impl Words {
    pub(super) fn new(places: Vec<String>, listener: Option<Arc<AtomicBool>>) -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{spinner} {msg}")) {
            bar.set_style(style);
        }
        Self { places, bar, line: None, failures: BTreeMap::new(), listener }
    }

    pub(super) fn say(&mut self, told: &Told) {
        if let Told::Status(status) = told {
            return self.status(status);
        }
        let line = self.line(told);
        match &line {
            Line::Note { failed: true, text, .. } | Line::Base { revision: None, text, .. } => {
                self.fail(text);
            }
            Line::Gap { text, .. } | Line::AnotherHistory { text } => {
                self.print(&format!("warning: {text}"));
            }
            Line::Note { text, .. } | Line::Base { text, .. } | Line::Members { text, .. } => {
                self.print(text);
            }
            Line::Status { .. } => {}
        }
        self.print_line(&line);
    }

    /// What is told, for programs and in words.
    fn line(&self, told: &Told) -> Line {
        let note = |text: String| Line::Note { failed: false, archive: None, text };
        let failed = |text: String| Line::Note { failed: true, archive: None, text };
        let of_archive = |failed: bool, archive: usize, text: String| {
            let archive = Some(self.place(archive).to_owned());
            Line::Note { failed, archive, text }
        };
        match told {
            Told::Members { endpoints } => {
                let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
                note(format!("the cluster's members are at {}", endpoints.join(", ")))
            }
            Told::Witnesses { members, revision, lagging } => {
                let lagging = match lagging.len() {
                    0 => String::new(),
                    count => format!("; {count} are behind"),
                };
                let revision = grouped(revision.get());
                let said = "have said their HashKV of revision";
                let text = format!("{members} members {said} {revision}{lagging}");
                Line::Members { differ: false, text }
            }
            Told::Disagreement(disagreement) => {
                Line::Members { differ: true, text: contradicting(disagreement) }
            }
            Told::NoWitness { cause } => failed(format!("members are not compared: {cause}")),
            Told::WitnessFailed { archive, error } => {
                let place = self.place(*archive);
                failed(format!("what members said was not kept in {place}: {error}"))
            }
            Told::Unreadable { archive, cause } => {
                let place = self.place(*archive);
                failed(format!("the base in {place} is made without this: {cause}"))
            }
            Told::Stopping => note(
                "ending: what has come is written first; interrupt again to end at once".to_owned(),
            ),
            Told::Notice(notice) => self.notice(notice),
            Told::WatchFailed { cause } => failed(format!("the watch has ended: {cause}")),
            Told::SnapshotFailed { cause } => failed(format!("there is no snapshot: {cause}")),
            Told::ArchiveFailed { archive, cause } => {
                let place = self.place(*archive);
                let text = format!("{place} cannot be written into now: {cause}");
                of_archive(true, *archive, text)
            }
            Told::ArchiveBack { archive } => {
                let text = format!("{} can be written into again", self.place(*archive));
                of_archive(false, *archive, text)
            }
            Told::StandingBy { archive, host } => {
                let place = self.place(*archive);
                of_archive(false, *archive, format!("standing by: {host} writes into {place}"))
            }
            Told::Writing { archive } => {
                of_archive(false, *archive, format!("writing into {}", self.place(*archive)))
            }
            Told::Base { archive, written } => self.base(*archive, written),
            Told::BaseFailed { archive, error } => {
                let archive = self.place(*archive).to_owned();
                let text = format!("no base was made in {archive}: {error}");
                let (revision, time, new_bytes, contradicts) = (None, None, 0, false);
                Line::Base { archive, revision, time, new_bytes, contradicts, text }
            }
            Told::Status(status) => self.status_line(status),
        }
    }

    fn status_line(&self, status: &Status) -> Line {
        let archive = |(place, it): (&String, &ArchiveStatus)| ArchiveLine {
            archive: place.clone(),
            written: it.written.map(rekindle_etcd::Revision::get),
            stands_by: it.stands_by,
            record_bytes: it.record_bytes,
            stored_bytes: it.stored_bytes,
            base: it.base.map(|(revision, _)| revision.get()),
            base_time: it.base.and_then(|(_, at)| Timestamp::from_millisecond(at.0).ok()),
            proven: it.proven.map(rekindle_etcd::Revision::get),
        };
        Line::Status {
            head: status.head.map(rekindle_etcd::Revision::get),
            behind: status.behind,
            behind_seconds: status.behind_for.as_secs_f64(),
            silent_seconds: status.silent_for.map(|silent| silent.as_secs_f64()),
            archives: self.places.iter().zip(&status.archives).map(archive).collect(),
        }
    }

    /// Programs that have started this want to know what it does; where none listens any more, it ends.
    fn print_line(&self, line: &Line) {
        if let Some(stop) = &self.listener
            && writeln!(std::io::stdout(), "{}", line.print()).is_err()
        {
            stop.store(true, Ordering::Relaxed);
        }
    }

    /// Nothing is shown any more.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    pub(super) fn place(&self, archive: usize) -> &str {
        self.places.get(archive).map_or("an archive", String::as_str)
    }

    fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// The same failure again and again is told now and then.
    fn fail(&mut self, what: &str) {
        self.failures.retain(|_, told| told.elapsed() < FAILURE_EVERY);
        if !self.failures.contains_key(what) {
            self.print(&format!("warning: {what}"));
            if self.failures.len() >= FAILURES_MAX {
                self.failures.clear();
            }
            self.failures.insert(what.to_owned(), Instant::now());
        }
    }

    fn status(&mut self, status: &Status) {
        if self.listener.is_some() {
            self.print_line(&self.status_line(status));
        }
        let state = self.state(status);
        if let Some(bar) = &self.bar {
            bar.set_message(state);
            bar.tick();
        } else if self.line.is_none_or(|line| line.elapsed() >= LINE_EVERY)
            && status.archives.iter().any(|archive| archive.written.is_some())
        {
            self.line = Some(Instant::now());
            eprintln!("{state}");
        }
    }

    pub(super) fn state(&self, status: &Status) -> String {
        let revision = |revision: Option<rekindle_etcd::Revision>| {
            revision.map_or_else(|| "none".to_owned(), |revision| grouped(revision.get()))
        };
        let mut text = format!("at revision {}", revision(status.head));
        if status.behind > 0 {
            let seconds = status.behind_for.as_secs_f64();
            text += &format!(", {} and {seconds:.1} s behind", grouped(status.behind));
        }
        for (place, archive) in self.places.iter().zip(&status.archives) {
            match archive.stands_by {
                true => text += &format!("; another host writes into {place}"),
                false => text += &format!("; {place} has {}", revision(archive.written)),
            }
            text += &facts(archive);
        }
        text
    }

    fn notice(&self, notice: &Notice) -> Line {
        match notice {
            Notice::Following { from } => {
                let text = format!("following from revision {} on", grouped(from.get()));
                Line::Note { failed: false, archive: None, text }
            }
            Notice::Behind { revisions } => {
                let text = format!(
                    "{} revisions behind: the watch was ended to spare etcd, and the rest comes from a \
                     snapshot",
                    grouped(*revisions)
                );
                Line::Note { failed: true, archive: None, text }
            }
            Notice::Lost { first } => {
                let first = grouped(first.get());
                let text = format!("the watch passed over revision {first}: it begins there anew");
                Line::Note { failed: true, archive: None, text }
            }
            Notice::AnotherHistory { at } => Line::AnotherHistory {
                text: format!(
                    "at revision {} the cluster has not what it had: it was restored, or is another one. A \
                     history of its own begins with the next base",
                    grouped(at.get())
                ),
            },
            Notice::Gap { archive, first, last } => {
                let (archive, first, last) =
                    (self.place(*archive).to_owned(), first.get(), last.get());
                let text = format!(
                    "revisions {} to {} are no restore points of {archive}: they were compacted away before \
                     it had them, or are in the journal no more",
                    grouped(first),
                    grouped(last),
                );
                Line::Gap { archive, first, last, text }
            }
        }
    }

    fn base(&self, archive: usize, written: &BaseWritten) -> Line {
        let facts = &written.facts;
        let compared = match &written.comparison {
            Comparison::First => "the first one".to_owned(),
            Comparison::Unknown { reason } => format!("in full: {reason}"),
            Comparison::Agreed { older, .. } => {
                format!("equal to what was there since revision {}", grouped(older.get()))
            }
            Comparison::Contradicted { older, contradiction } => format!(
                "CONTRADICTS what was there since revision {}: {contradiction}; in full, into a history \
                 of its own",
                grouped(older.get())
            ),
        };
        let archive = self.place(archive).to_owned();
        let text = format!(
            "base of revision {}, {}, {} written into {archive}: {compared}",
            grouped(facts.last.get()),
            shown(facts.state),
            output::bytes(facts.new_bytes),
        );
        Line::Base {
            archive,
            revision: Some(facts.last.get()),
            time: Timestamp::from_millisecond(facts.state.0).ok(),
            new_bytes: facts.new_bytes,
            contradicts: matches!(written.comparison, Comparison::Contradicted { .. }),
            text,
        }
    }
}

/// What is known of an archive beside how far it is.
fn facts(archive: &ArchiveStatus) -> String {
    let mut facts = Vec::new();
    let (records, stored) = (archive.record_bytes, archive.stored_bytes);
    if records > 0 && stored > 0 {
        #[expect(clippy::cast_precision_loss, reason = "one digit of it is shown")]
        let ratio = records as f64 / stored as f64;
        let (records, stored) = (output::bytes(records), output::bytes(stored));
        facts.push(format!("{records} in {stored}, {ratio:.1}x"));
    }
    if let Some((revision, at)) = archive.base {
        facts.push(format!("base {} of {}", grouped(revision.get()), shown(at)));
    }
    if let Some(proven) = archive.proven {
        facts.push(format!("equal to the cluster at {}", grouped(proven.get())));
    }
    match facts.is_empty() {
        true => String::new(),
        false => format!(" ({})", facts.join("; ")),
    }
}

fn contradicting(disagreement: &Disagreement) -> String {
    let said = |(member, hash): &(_, _)| format!("{member} has HashKV {hash}");
    let said: Vec<_> = disagreement.hashes.iter().map(said).collect();
    let suspects: Vec<_> = disagreement.suspects.iter().map(ToString::to_string).collect();
    let what = match suspects.is_empty() {
        true => "nobody can say which one is right".to_owned(),
        false => format!("no snapshot is taken of {}: replace it", suspects.join(", ")),
    };
    format!(
        "ALARM: members differ at revision {}: {}; {what}",
        grouped(disagreement.revision.get()),
        said.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle_archive::format::header::Moment;
    use rekindle_etcd::Revision;

    #[test]
    fn the_state_tells_what_a_disaster_would_cost() {
        let words = Words::new(vec!["/a".to_owned(), "/b".to_owned()], None);
        let revision = |number| Revision::new(number).unwrap();
        let here = ArchiveStatus {
            written: Some(revision(4700)),
            record_bytes: 4_200_000,
            stored_bytes: 1_000_000,
            base: Some((revision(4000), Moment(0))),
            proven: Some(revision(4000)),
            ..ArchiveStatus::default()
        };
        let elsewhere = ArchiveStatus { stands_by: true, ..ArchiveStatus::default() };
        let status = Status {
            head: Some(revision(4711)),
            behind: 12,
            behind_for: Duration::from_millis(1500),
            silent_for: None,
            archives: vec![here, elsewhere],
        };
        let base = shown(Moment(0));
        assert_eq!(
            words.state(&status),
            format!(
                "at revision 4,711, 12 and 1.5 s behind; /a has 4,700 (4.2 MB in 1.0 MB, 4.2x; base 4,000 of \
                 {base}; equal to the cluster at 4,000); another host writes into /b"
            )
        );
        let nothing = Status { head: None, behind: 0, archives: Vec::new(), ..status };
        assert_eq!(words.state(&nothing), "at revision none");
    }
}
