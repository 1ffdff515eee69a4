//! `rekindle` with a store, and what it said.

use rekindle_testkit::etcd::Cluster;
use rekindle_testkit::stores::Bucket;
use std::process::{Command, Output};

/// `rekindle` with nothing in its environment but what reaches a bucket.
pub fn rekindle(bucket: &Bucket) -> Command {
    let mut command = bare();
    command.envs(bucket.variables.iter().map(|(name, value)| (name, value)));
    command
}

/// `rekindle` with an empty environment, but for all that could make it talk.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.env_clear().env("RUST_LOG", "trace").env("HOME", "/nonexistent");
    // What stands between a test and the world must not be asked for hosts of this machine.
    command.env("NO_PROXY", "*");
    command
}

/// The flag that reaches a bucket's store.
pub fn endpoint(bucket: &Bucket) -> String {
    format!("--endpoint-url={}", bucket.endpoint_url)
}

/// The flag that reaches a cluster.
pub fn endpoints(cluster: &Cluster) -> String {
    format!("--endpoints={}", cluster.client_urls().join(","))
}

/// What a command printed, which must have gone well.
#[track_caller]
pub fn done(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}\n{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command complained of, which must have ended with this exit code.
#[track_caller]
pub fn failed(code: i32, command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{}", told(&output));
    String::from_utf8(output.stderr).unwrap()
}

/// Secrets of all tests begin so, plainly or in base64, and are never shown.
const CANARIES: [&str; 2] = ["canary-", "Y2FuYXJ5"];

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let told = told(&output);
    assert!(!CANARIES.iter().any(|canary| told.contains(canary)), "a secret was shown:\n{told}");
    output
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}
