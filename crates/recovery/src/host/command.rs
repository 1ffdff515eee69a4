//! Running commands, for so long and no longer.

use super::{Fault, Settings, variable};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// No more is told of what one has said.
const SAID_MAX: u64 = 4096;

/// Runs a command of the user's in a shell.
pub(super) fn shell(text: &str, settings: &Settings, within: Duration) -> Result<(), Fault> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]);
    for (flag, value) in settings {
        command.env(variable(flag), value);
    }
    run(command, text, within).map(drop)
}

/// Runs a command; what it has printed.
pub(super) fn run(mut command: Command, text: &str, within: Duration) -> Result<String, Fault> {
    let fault = |why: String| Fault::Command { command: text.to_owned(), why };
    let failed = |error: std::io::Error| fault(error.to_string());
    // What it leaves running keeps what it writes to: that goes to files, and nobody waits for its end.
    let (mut said, mut printed) =
        (tempfile::tempfile().map_err(failed)?, tempfile::tempfile().map_err(failed)?);
    command.stdin(Stdio::null());
    command.stdout(printed.try_clone().map_err(failed)?);
    command.stderr(said.try_clone().map_err(failed)?);
    // Who interrupts us does not interrupt what is half done.
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    let until = Instant::now() + within;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() >= until => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(fault(format!("it did not end within {} s", within.as_secs())));
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    if status.success() {
        return read(&mut printed).map_err(failed);
    }
    let said = read(&mut said).map_err(failed)?;
    let said = said.trim();
    Err(fault(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") }))
}

fn read(file: &mut std::fs::File) -> std::io::Result<String> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(SAID_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_what_etcd_is_to_be_and_says_why_it_failed() {
        let settings = Settings::from([("initial-cluster-state", "existing".to_owned())]);
        let run = |text| shell(text, &settings, Duration::from_secs(20));
        run("test \"$ETCD_INITIAL_CLUSTER_STATE\" = existing").unwrap();
        let fault = run("echo broken >&2; exit 3").unwrap_err().to_string();
        assert!(fault.contains("broken") && fault.contains('3'), "{fault}");
        let fault = shell("read x </dev/zero", &settings, Duration::from_millis(50)).unwrap_err();
        assert!(fault.to_string().contains("did not end"), "{fault}");
        // What it leaves running is not waited for.
        run("sleep 5 &").unwrap();
    }
}
