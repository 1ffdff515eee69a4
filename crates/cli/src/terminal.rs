//! The person at the terminal: progress, questions, Ctrl-C.

use crate::failure::{Code, Failure};
use crate::output::bytes;
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{BufRead, IsTerminal, Write};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How often a bar is drawn, and how often a line is printed where there is no terminal.
const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How often is looked whether to stop, while nothing else happens.
const STOP_EVERY: Duration = Duration::from_millis(100);

/// A flag that Ctrl-C, SIGTERM and a lost terminal set; a second one ends the program at once.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Under nohup the loss of the terminal is to be outlived.
    flag_of((!ignores(&own, SIGHUP)).then_some(SIGHUP))
}

/// The same of who takes SIGHUP for something else.
pub(crate) fn stop_flag_but_hangup() -> Result<Arc<AtomicBool>, Failure> {
    flag_of(None)
}

fn flag_of(hangup: Option<i32>) -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
        let code = i32::from(Code::Interrupted as u8);
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failure::new(Code::Failed, format!("catching signals: {error}")))?;
    }
    Ok(stop)
}

/// Whether a process ignores a signal, by its `/proc/…/status`.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Waits for a cluster's answers, but not longer than its user wants to.
pub(crate) struct Calls {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
}

impl Calls {
    pub(crate) fn new(stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            Failure::new(Code::Failed, format!("starting the runtime: {error}"))
        })?;
        Ok(Self { runtime, stop })
    }

    /// What the call comes to, or that it was interrupted.
    pub(crate) fn wait<T, E>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        self.runtime.block_on(async {
            let mut call = pin!(call);
            loop {
                self.go_on()?;
                tokio::select! {
                    result = &mut call => return result.map_err(Failure::from),
                    () = tokio::time::sleep(STOP_EVERY) => {}
                }
            }
        })
    }

    /// The flag that ends everything.
    pub(crate) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Whether the user wants that.
    pub(crate) fn go_on(&self) -> Result<(), Failure> {
        match self.stop.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Failure::new(Code::Interrupted, "interrupted; nothing was changed")),
        }
    }
}

/// Asks a question that only "yes" answers.
///
/// # Errors
/// Refused where the answer is another one, or nobody is there to be asked.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::refused("this wants a yes, and nobody is here to be asked")
            .remedy("look at the plan above, and pass --yes"));
    }
    eprint!("{question} Type yes to go on: ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(Failure::refused("not confirmed; nothing was changed")),
    }
}

/// Does some work and shows meanwhile how far it is.
pub(crate) fn watching<T>(
    what: &str,
    total: Option<u64>,
    position: impl Fn() -> u64 + Sync,
    work: impl FnOnce() -> T,
) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let shown = threads.spawn(|| show(what, total, &position, &done));
        // Also where the work panics: the scope waits for the thread.
        let _ended = Ended { done: &done, thread: shown.thread().clone() };
        work()
    })
}

/// Ends the thread that shows progress.
struct Ended<'a> {
    done: &'a AtomicBool,
    thread: Thread,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// A bar on a terminal, else a line now and then, until `done`.
fn show(what: &str, total: Option<u64>, position: &dyn Fn() -> u64, done: &AtomicBool) {
    let started = Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| bar(what, total));
    let mut last_line = started;
    while !done.load(Ordering::Acquire) {
        let now = position();
        if let Some(bar) = &bar {
            bar.set_position(now);
        } else if last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            let rate = now as f64 / started.elapsed().as_secs_f64();
            eprintln!("{what}: {}, {}/s", bytes(now), bytes(rate as u64));
        }
        std::thread::park_timeout(BAR_EVERY);
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{msg} {spinner} {decimal_bytes} {decimal_bytes_per_sec} {elapsed}",
        ),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_message(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores() {
        let status =
            |mask: &str| format!("Name:\trekindle\nSigIgn:\t{mask}\nSigCgt:\tffffffffffffffff\n");
        assert!(ignores(&status("0000000000000001"), SIGHUP));
        assert!(!ignores(&status("0000000000000001"), SIGTERM));
        assert!(ignores(&status("0000000000004000"), SIGTERM));
        assert!(!ignores(&status("0000000000001000"), SIGHUP));
        assert!(!ignores("", SIGHUP));
    }
}
