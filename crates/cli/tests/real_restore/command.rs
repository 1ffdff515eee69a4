//! The binary under test, and the flags that a restore always needs.

use rekindle_testkit::etcd::{Site, Sites};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// `rekindle` with nothing in its environment and nobody at its terminal.
pub fn rekindle<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.env_clear().args(args).stdin(Stdio::null());
    command
}

/// Runs it; what it printed.
pub fn done<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> String {
    let output = rekindle(args).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it, and expects this exit code; what it complained of.
pub fn refused<A: AsRef<OsStr>>(code: i32, args: impl IntoIterator<Item = A>) -> String {
    let output = rekindle(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", told(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// `restore SOURCE` for one member, by the flags that etcd starts it with.
pub fn restore(source: &Path, sites: &Sites, site: &Site) -> Vec<String> {
    let mut args = vec!["restore".to_owned(), source.display().to_string()];
    args.extend(identity(sites, site));
    args.push(format!("--data-dir={}", site.data_dir().display()));
    args
}

/// Who a member is.
pub fn identity(sites: &Sites, site: &Site) -> [String; 3] {
    [
        format!("--name={}", site.name()),
        format!("--initial-cluster={}", sites.initial_cluster()),
        format!("--initial-advertise-peer-urls={}", site.peer_url()),
    ]
}

/// `restore SOURCE` for the one member of a cluster of one, with more flags.
pub fn restore_alone(source: &Path, sites: &Sites, more: &[&str]) -> Vec<String> {
    let mut args = restore(source, sites, only(sites));
    args.extend(more.iter().map(ToString::to_string));
    args
}

/// The one site of a cluster of one.
pub fn only(sites: &Sites) -> &Site {
    assert_eq!(sites.len(), 1, "a cluster of one");
    sites.iter().next().unwrap()
}

/// A member's database.
pub fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("member/snap/db")
}
