//! A program that runs beside what is done meanwhile.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::checkout;
use crate::interrupt::Interrupt;

/// How long it may take for what it is waited for.
const WITHIN: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// It ends with this at the latest.
pub struct Background {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Background {
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| checkout::missing(&command))?;
        let name = checkout::show(&command);
        Ok(Self { name, child, log: log.to_path_buf() })
    }

    /// Waits until it has said this; the line.
    pub fn wait_for(&mut self, text: &str, interrupt: &Interrupt) -> Result<String> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let said = fs::read_to_string(&self.log)?;
            if let Some(line) = said.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            interrupt.check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}):\n{said}", self.name);
            }
            ensure!(Instant::now() < deadline, "{} does not say \"{text}\":\n{said}", self.name);
            thread::sleep(POLL_INTERVAL);
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said until now.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Sends it a signal, such as `-STOP`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().to_string();
        checkout::run_quietly(Command::new("kill").args([signal, &pid])).map(drop)
    }

    /// Interrupts it, which makes it write what has come; what it said last.
    pub fn stop(mut self) -> Result<String> {
        self.signal("-INT")?;
        let status = self.child.wait()?;
        let said = fs::read_to_string(&self.log)?;
        ensure!(status.success(), "{} ended ({status}):\n{said}", self.name);
        Ok(said.lines().last().unwrap_or_default().to_owned())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
