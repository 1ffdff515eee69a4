//! Data directories that are mount points, and cannot be renamed.

use crate::command::{rekindle, restore_alone};
use crate::directories::{check_is_restored, check_is_the_old_one, snapshot, stopped};
use crate::listing::{aside, names};
use std::path::Path;
use std::process::{Command, Output};

/// Runs `rekindle` where these directories are mount points, as they are on a host that keeps
/// etcd's files on disks of their own. Outside they are directories like any other.
fn with_mounts(directories: &[&Path], args: impl IntoIterator<Item = String>) -> Output {
    let command = rekindle(args);
    let script =
        "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$1\"; shift; done; shift; \"$@\"";
    let mut unshare = Command::new("unshare");
    unshare.args(["--map-root-user", "--mount", "sh", "-ec", script, "sh"]).args(directories);
    unshare.arg("--").arg(command.get_program()).args(command.get_args()).output().unwrap()
}

#[track_caller]
fn check_done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_in_a_mount_point_is_exchanged_and_comes_back() {
    let logs = tempfile::tempdir().unwrap();
    let wal_dir = logs.path().join("wal");
    let wal_flag = format!("--wal-dir={}", wal_dir.display());
    let cluster = stopped(std::slice::from_ref(&wal_flag));
    let data_dir = cluster.member(0).data_dir().to_owned();
    let mounts = [data_dir.as_path(), wal_dir.as_path()];
    let (_kept, snapshot) = snapshot();

    let flags = ["--bump-revision=0", "--yes", &wal_flag];
    let output = with_mounts(&mounts, restore_alone(&snapshot, cluster.sites(), &flags));
    check_done(&output);
    // Nothing stands beside a mount point: another file system may be there.
    assert!(aside(&data_dir, "before").is_empty() && aside(&wal_dir, "before").is_empty());
    let members = names(&data_dir);
    assert!(members.len() == 2 && members[1].starts_with("member.before-"), "{members:?}");
    check_is_restored(&cluster);

    let data_dir_flag = format!("--data-dir={}", data_dir.display());
    let back = ["restore", "--rollback", "--yes", &data_dir_flag, &wal_flag];
    check_done(&with_mounts(&mounts, back.map(str::to_owned)));
    let members = names(&data_dir);
    assert!(members.len() == 2 && members[1].starts_with("member.undone-"), "{members:?}");
    check_is_the_old_one(&cluster);
}
