//! Runs etcdctl and etcdutl of a version.

use std::ffi::OsString;
use std::process::Command;

use serde_json::Value;

use crate::Version;

/// etcdctl with its endpoints set.
pub(super) fn etcdctl(version: Version, endpoints: &str) -> Command {
    let mut command = Command::new(version.binary("etcdctl"));
    // 3.4 built by a distribution may default to the v2 API.
    command.env_clear().env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}"));
    command
}

/// Runs etcdutl, or etcdctl where a version (3.4) has its file commands there, and returns what it
/// printed.
///
/// # Panics
/// When it fails.
pub fn etcdutl<A: Into<OsString>>(version: Version, args: impl IntoIterator<Item = A>) -> String {
    let binary = if version == Version::V3_4 { "etcdctl" } else { "etcdutl" };
    let mut command = Command::new(version.binary(binary));
    command.env_clear().env("ETCDCTL_API", "3");
    run(command.args(args.into_iter().map(Into::into)))
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
