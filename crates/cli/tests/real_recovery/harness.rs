//! Running commands that bring members back.

use rekindle_testkit::etcd::{Host, Hosts};
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

pub fn rekindle<A: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(words).stdin(Stdio::null());
    command
}

pub fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

#[track_caller]
pub fn done(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    told(&output)
}

/// What a command needs to know of a host's member.
pub fn member(hosts: &Hosts, host: &Host) -> Vec<String> {
    [
        ("endpoints", hosts.endpoints()),
        ("name", host.name.clone()),
        ("data-dir", host.data_dir.display().to_string()),
        ("initial-advertise-peer-urls", host.peer_url.clone()),
        ("start-command", host.start.clone()),
        ("stop-command", host.stop.clone()),
    ]
    .map(|(flag, value)| format!("--{flag}={value}"))
    .to_vec()
}

/// Runs a command, and kills it as soon as it has said so many lines; whether it was killed.
pub fn killed_after(mut command: Command, lines: usize) -> bool {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let heard = said.take(lines).count();
    // It may end by itself right now.
    let _ = child.kill();
    child.wait().unwrap();
    heard == lines
}
