//! Commands of ours, as processes of their own.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long somebody who is told to end has for it.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// How often is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Most bytes that are kept of what a process prints.
const OUTPUT_MAX: u64 = 16 << 20;
/// Lines of what a process says that are kept.
const LINES_MAX: usize = 40;

/// Tells threads to end, and wakes those that wait.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// All are to end.
    pub fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether they are to.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until all are to end; whether they are to.
    pub fn wait(&self, time: Duration) -> bool {
        let is_set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(is_set, time, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// How commands are run.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// What stands behind the words of each command.
    pub also: Vec<String>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; none where it was killed.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// The last lines of what it said.
    pub said: Vec<String>,
    /// It was ended because it took too long.
    pub too_long: bool,
}

impl Program {
    /// Starts a command. What it says goes to `hear`, line by line.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        &self,
        words: &[String],
        hear: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Running> {
        let mut command = Command::new(&self.path);
        command.args(words).args(&self.also);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is told to the agent, which tells its children.
        command.process_group(0);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let said = std::thread::Builder::new().name("says".to_owned()).spawn(move || {
            let mut last = VecDeque::new();
            for line in stderr.into_iter().flat_map(|it| BufReader::new(it).lines()) {
                let Ok(line) = line else { break };
                hear(&line);
                last.push_back(line);
                if last.len() > LINES_MAX {
                    last.pop_front();
                }
            }
            Vec::from(last)
        })?;
        Ok(Running { child, stdout, said: Some(said) })
    }

    /// Runs a command to its end; it is ended where all are to end, or where it takes longer than `time_max`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(
        &self,
        words: &[String],
        stop: &Stop,
        time_max: Duration,
        hear: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Ended> {
        let mut running = self.start(words, hear)?;
        let printed = running.stdout.take();
        let printed = std::thread::Builder::new().name("prints".to_owned()).spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stdout) = printed {
                let _ = stdout.by_ref().take(OUTPUT_MAX).read_to_end(&mut text);
                let _ = io::copy(&mut stdout, &mut io::sink());
            }
            String::from_utf8_lossy(&text).into_owned()
        })?;
        let began = Instant::now();
        let mut too_long = false;
        let code = loop {
            if let Some(code) = running.ended()? {
                break code;
            }
            too_long = began.elapsed() >= time_max;
            if stop.wait(LOOK_EVERY) || too_long {
                break running.end()?;
            }
        };
        let stdout = printed.join().unwrap_or_default();
        Ok(Ended { code, stdout, said: running.said(), too_long })
    }
}

/// A command that ends with this process, however that ends, where the machine has util-linux's `setpriv`.
#[must_use]
pub fn end_with_parent(program: &Path) -> Command {
    let has_setpriv = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join("setpriv").is_file())
    });
    if !has_setpriv {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A command that runs. Dropped, it is killed.
pub struct Running {
    child: Child,
    /// What it prints; taken by whoever reads it.
    pub stdout: Option<std::process::ChildStdout>,
    said: Option<JoinHandle<Vec<String>>>,
}

impl Running {
    /// Its exit code, if it has ended; within, none where it was killed.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn ended(&mut self) -> io::Result<Option<Option<i32>>> {
        Ok(self.child.try_wait()?.map(|status| status.code()))
    }

    /// Sends it a signal; one that has ended does not hear it.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Tells it to end, and waits until it has; after half a minute it is killed. Its exit code.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn end(&mut self) -> io::Result<Option<i32>> {
        self.signal(Signal::INT);
        let until = Instant::now() + ENDS_WITHIN;
        while Instant::now() < until {
            if let Some(code) = self.ended()? {
                return Ok(code);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.child.kill()?;
        Ok(self.child.wait()?.code())
    }

    /// The last lines of what it said, once it has ended.
    pub fn said(&mut self) -> Vec<String> {
        self.said.take().and_then(|said| said.join().ok()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a command says in this line why it failed, and what to do.
#[must_use]
pub fn is_of_an_error(line: &str) -> bool {
    ["error: ", "what to do: ", "trying again may help"].iter().any(|begin| line.starts_with(begin))
}

/// What went wrong, of what a command said: its error and what to do, without warnings and progress.
#[must_use]
pub fn reason(said: &[String]) -> Option<String> {
    let from = said.iter().rposition(|line| line.starts_with("error: "))?;
    let lines = said.get(from..).unwrap_or_default();
    Some(lines.join("\n").trim_start_matches("error: ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Program {
        Program { path: "/bin/sh".into(), also: Vec::new() }
    }

    fn words(script: &str) -> Vec<String> {
        vec!["-c".to_owned(), script.to_owned()]
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_command_prints_and_says() {
        let (hear, heard) = std::sync::mpsc::channel();
        let script = words(
            "echo out; echo warning: x >&2; echo error: bad >&2; echo what to do: y >&2; exit 3",
        );
        let ended = shell().run(&script, &Stop::default(), LONG, move |line| {
            let _ = hear.send(line.to_owned());
        });
        let ended = ended.unwrap();
        assert_eq!((ended.code, &*ended.stdout, ended.too_long), (Some(3), "out\n", false));
        assert_eq!(heard.iter().count(), 3);
        assert_eq!(reason(&ended.said).as_deref(), Some("bad\nwhat to do: y"));
        assert_eq!(reason(&[]), None);
    }

    #[test]
    fn who_is_told_to_end_ends_and_can_say_so() {
        let stop = Stop::default();
        let script =
            words("trap 'echo ended; exit 130' INT; echo on; while :; do sleep 0.01; done");
        let running = std::thread::spawn({
            let stop = stop.clone();
            move || shell().run(&script, &stop, LONG, |_| ()).unwrap()
        });
        // Also where it has not begun yet, it ends.
        stop.set();
        let ended = running.join().unwrap();
        assert!(ended.code == Some(130) || ended.code.is_none(), "{ended:?}");
        assert!(stop.is_set() && stop.wait(LONG));
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let ended = shell().run(&words("exec sleep 60"), &Stop::default(), Duration::ZERO, |_| ());
        let ended = ended.unwrap();
        assert!(ended.too_long && ended.code.is_none(), "{ended:?}");
    }
}
