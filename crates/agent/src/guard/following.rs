//! Keeping a process at work that follows a cluster.

use super::{Level, Ward};
use crate::child::{Running, is_of_an_error, reason};
use crate::lines::Line;
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often is looked whether it runs.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long is waited before it is started again, at first and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Whoever ran so long has begun well.
const RUNS_WELL: Duration = Duration::from_secs(60);

/// What the threads that do jobs want of the process.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// A base is to be made.
    base_wanted: AtomicBool,
    /// Who waits for bases.
    waiting: Mutex<Vec<std::sync::mpsc::Sender<Line>>>,
}

impl Following {
    /// Asks for a base; what comes of it in each archive will be told.
    pub(super) fn want_base(&self) -> Receiver<Line> {
        let (tell, told) = channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(tell);
        self.base_wanted.store(true, Ordering::Release);
        told
    }

    fn tell(&self, line: &Line) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|tell| tell.send(line.clone()).is_ok());
    }
}

/// Follows until all is to end.
pub(super) fn run(ward: &Arc<Ward>) {
    let mut retry = RETRY_MIN;
    while !ward.stop.is_set() {
        let began = Instant::now();
        if let Err(error) = follow(ward) {
            ward.say(Level::Warning, None, format!("the cluster is not followed: {error}"));
            set_running(ward, false, Some(error));
        }
        retry = if began.elapsed() >= RUNS_WELL { RETRY_MIN } else { (retry * 2).min(RETRY_MAX) };
        if ward.stop.wait(retry) {
            return;
        }
    }
}

fn set_running(ward: &Ward, runs: bool, failure: Option<String>) {
    let now = crate::records::now();
    ward.state(|state| {
        let Some(capture) = &mut state.capture else { return };
        if capture.runs != runs {
            (capture.runs, capture.since) = (runs, now);
        }
        capture.starts += u64::from(runs);
        if let Some(text) = failure {
            capture.failure = Some((now, text));
        }
    });
}

/// The words of the command.
fn command(ward: &Ward) -> Vec<String> {
    let capture = &ward.cluster.capture;
    let mut words = vec!["capture".to_owned()];
    for archive in &ward.cluster.archives {
        words.extend(["--archive".to_owned(), archive.place.clone()]);
    }
    let period = |job: &crate::jobs::Job| job.schedule.period(crate::records::now());
    let bases = ward.jobs.iter().find(|job| job.what == crate::jobs::What::Base).map(period);
    // The schedule asks for bases; where nobody does, because this fails, it makes them by itself.
    let bases = bases.unwrap_or_default().saturating_mul(2).max(Duration::from_secs(60));
    for (flag, value) in [
        ("flush-interval", capture.flush_interval.to_string()),
        ("base-interval", format!("{}s", bases.as_secs().min(365 * 86_400))),
        ("witness-interval", capture.witness_interval.to_string()),
        ("journal", capture.journal.to_string()),
    ] {
        words.push(format!("--{flag}={value}"));
    }
    words
}

/// Runs the process until it ends, or all is to end.
fn follow(ward: &Arc<Ward>) -> Result<(), String> {
    let log = Arc::clone(ward);
    let hear = move |line: &str| {
        // Why it ended is told when it has.
        if !is_of_an_error(line) {
            log.say(Level::Info, None, line);
        }
    };
    let failed = |error: std::io::Error| format!("starting it: {error}");
    let mut running = ward.program.start(&command(ward), hear).map_err(failed)?;
    set_running(ward, true, None);
    let (lines, told) = channel();
    let stdout = running.stdout.take();
    let reader = std::thread::Builder::new().name("hears".to_owned()).spawn(move || {
        for line in stdout.into_iter().flat_map(|it| BufReader::new(it).lines()) {
            let Ok(line) = line else { return };
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let reader = reader.map_err(failed)?;
    let ended = listen(ward, &mut running, &told);
    let code = match ended {
        Some(code) => code,
        None => running.end().map_err(failed)?,
    };
    let _ = reader.join();
    told.try_iter().for_each(|line| hear_line(ward, &line));
    if ward.stop.is_set() {
        set_running(ward, false, None);
        return Ok(());
    }
    let why = reason(&running.said());
    Err(why.unwrap_or_else(|| match code {
        Some(code) => format!("it has ended with code {code}"),
        None => "it was killed".to_owned(),
    }))
}

/// Hears until it ends, with its code, or until all is to end.
fn listen(ward: &Ward, running: &mut Running, told: &Receiver<String>) -> Option<Option<i32>> {
    let mut open = true;
    loop {
        if ward.stop.is_set() {
            return None;
        }
        if ward.following.base_wanted.swap(false, Ordering::AcqRel) {
            running.signal(Signal::USR1);
        }
        if let Ok(Some(code)) = running.ended() {
            return Some(code);
        }
        match told.recv_timeout(LOOK_EVERY) {
            Ok(line) if open => hear_line(ward, &line),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                open = false;
                ward.stop.wait(LOOK_EVERY);
            }
        }
    }
}

fn hear_line(ward: &Ward, text: &str) {
    if let Some(line) = Line::parse(text) {
        ward.following.tell(&line);
        ward.state(|state| state.hear(line, crate::records::now()));
    }
}
