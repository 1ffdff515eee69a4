//! Runs etcdctl and etcdutl of a version.

use std::ffi::OsString;
use std::process::Command;

use serde_json::Value;

use crate::Version;

/// etcdctl with its endpoints set.
pub(super) fn etcdctl(version: Version, endpoints: &str) -> Command {
    let mut command = of(version, "etcdctl");
    command.arg(format!("--endpoints={endpoints}"));
    command
}

/// One of a version's tools, in an environment that is empty.
fn of(version: Version, tool: &str) -> Command {
    let mut command = Command::new(version.binary(tool));
    command.env_clear();
    if version == Version::V3_4 {
        // Built by a distribution it may default to the v2 API. Later ones warn of it each time.
        command.env("ETCDCTL_API", "3");
    }
    command
}

/// Runs etcdutl, or etcdctl where a version (3.4) has its file commands there, and returns what it
/// printed.
///
/// # Panics
/// When it fails.
pub fn etcdutl<A: Into<OsString>>(version: Version, args: impl IntoIterator<Item = A>) -> String {
    let binary = if version == Version::V3_4 { "etcdctl" } else { "etcdutl" };
    run(of(version, binary).args(args.into_iter().map(Into::into)))
}

pub(super) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

pub(super) fn run_json(command: &mut Command) -> Value {
    let text = run(command);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{command:?} did not print JSON: {error}\n{text}"))
}
