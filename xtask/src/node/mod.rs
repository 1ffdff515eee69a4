//! A real node of Kubernetes, laid out as kubeadm lays one out: its etcd is followed, destroyed, and brought back.
//!
//! Every line that is printed is of something that was seen. The first thing that does not come out as it must ends
//! it.

mod machine;
mod steps;

use std::process::ExitCode;

use anyhow::Result;
use lexopt::Parser;

use crate::interrupt::Interrupt;
use crate::{Command, checkout, tools};
use machine::Node;
use steps::Trial;

pub const COMMAND: Command = Command {
    name: "node",
    summary: "Destroy the etcd of a real Kubernetes node, and bring it back to the second before",
    help: "
Usage: cargo xtask node

Takes root, Debian's packages containerd, runc, containernetworking-plugins and iptables (installed where they are missing), and
a Kubernetes that is built from its Go module (once; a quarter of an hour). The node has namespaces of its own, and ends with this
command. An agent follows its etcd; objects are made; etcd's data are removed; what kubelet starts then is an empty cluster;
a wrong flag keeps etcd from starting, and what was tried is taken back; then `rekindle recover` brings the second before back, and
every object is compared.",
    run,
};

const ETCD: &str = "etcd-3.6";
const KUBERNETES: &str = "kubernetes-1.34";

fn run(mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    let interrupt = Interrupt::listen()?;
    machine::install_packages()?;
    let programs = [tools::folder(KUBERNETES)?, tools::folder(ETCD)?];
    let rekindle = checkout::build_workspace("rekindle")?;
    interrupt.check()?;
    let node = Node::begin(&programs, &interrupt)?;
    let trial = Trial::new(node, rekindle, interrupt)?;
    match trial.run() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{}\nerror: {error:#}", trial.said().trim_end());
            Ok(ExitCode::FAILURE)
        }
    }
}
