//! Clusters whose members are on hosts with a network of their own, while cables are pulled.

use std::process::{Command as Process, ExitCode};

use anyhow::{Context, Result, ensure};
use lexopt::Parser;

use crate::{Command, checkout, packages, tools};

pub const COMMAND: Command = Command {
    name: "partitions",
    summary: "Pull cables between members of real clusters, and kill check, replace and recover at each step",
    help: "
Usage: cargo xtask partitions

Takes root, and Debian's packages iproute2 and openssh-server. In network namespaces of its own, one for each host,
it runs clusters of 3 and 5 real etcds with certificates, each host with a real sshd; it cuts hosts off, parts them
from each other, kills rekindle and cuts hosts off after each line that it says, and looks whether there is one healthy cluster
with everything that was acknowledged afterwards. It takes some minutes.",
    run,
};

/// Debian's packages, each with a file by which it is known to be there.
const PACKAGES: [(&str, &str); 3] = [
    ("iproute2", "/usr/sbin/ip"),
    ("openssh-server", "/usr/sbin/sshd"),
    ("openssh-client", "/usr/bin/ssh"),
];

fn run(mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    packages::require_root("network namespaces take root")?;
    packages::install(&PACKAGES)?;
    tools::folder("etcd-3.7")?;
    let rekindle = checkout::build_workspace("rekindle")?;
    let mut build = Process::new(env!("CARGO"));
    build.args(["build", "--quiet", "--workspace", "--example=partitions"]);
    let status = build.current_dir(checkout::root()).status();
    ensure!(status.with_context(|| checkout::missing(&build))?.success(), "it does not build");
    let example = rekindle.with_file_name("examples").join("partitions");
    // All that it starts ends with it, and its network with that.
    let mut unshare = Process::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]);
    unshare.arg(example).arg(rekindle);
    let status = unshare.status().with_context(|| checkout::missing(&unshare))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
