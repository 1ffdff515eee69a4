//! Round after round against real servers, each different, until the time is over.
//!
//! A round loads a cluster, kills saves and restores at random moments, and asks after each whether
//! what is there is absent or complete. Then it starts what was restored last: HashKV of every
//! member must be the source's, and a write must be taken.

mod chance;
mod load;
mod round;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use lexopt::{Arg, Parser, ValueExt};

use crate::interrupt::Interrupt;
use crate::{Command, checkout, tools};
use chance::Chance;
use round::{Programs, Round};

pub const COMMAND: Command = Command {
    name: "soak",
    summary: "Save and restore real clusters for as long as it is told, killing at random moments",
    help: "
Usage: cargo xtask soak [--minutes N] [--seed NUMBER]
       cargo xtask soak --orders N
       cargo xtask soak --agent

For N minutes (10): loads an etcd 3.5, 3.6 or 3.7 of 1 or 3 members with random changes, kills
`rekindle save` and `rekindle restore` at random moments and checks that what they leave is absent or
complete, restores as 1, 3 or 5 members, starts them, and compares HashKV with the source.

Prints a line a round, with its seed; --seed begins with that round. A round that fails ends it, and
leaves its folder for a look.

With --orders: what several do on one archive at once (save, prune, forget, copy, restore), in N orders
of their operations each; N clean histories, of which none may raise an alarm; and N worlds in which
capture is killed, lied to and left alone.

With --agent: what an idle agent costs; 20 clusters in one agent, one of them frozen and one whose disk is full, of which lag and memory are
measured; and five minutes of two agents, with a store that is away for half of it, a full disk, certificates that
change and 50 kills.",
    run,
};

/// Whose etcdctl speaks to all of them: that of 3.5 prints no revision with a HashKV.
const ETCDCTL: &str = "etcd-3.6";

/// Those of `cargo xtask tools` that answer HashKV with a compact revision.
const SERVERS: &[&str] = &["etcd-3.5", "etcd-3.6", "etcd-3.7"];

fn run(mut args: Parser) -> Result<ExitCode> {
    let (mut minutes, mut seed, mut orders, mut agent) = (10_u64, None, None, false);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("minutes") => minutes = args.value()?.parse()?,
            Arg::Long("seed") => seed = Some(args.value()?.parse()?),
            Arg::Long("orders") => orders = Some(args.value()?.parse()?),
            Arg::Long("agent") => agent = true,
            other => return Err(other.unexpected().into()),
        }
    }
    if let Some(orders) = orders {
        return archives(orders);
    }
    if agent {
        return agents();
    }
    let interrupt = Interrupt::listen()?;
    let rekindle = checkout::build_rekindle()?;
    let servers = SERVERS.iter().map(|name| tools::folder(name)).collect::<Result<Vec<_>>>()?;
    let etcdctl = tools::folder(ETCDCTL)?.join("etcdctl");
    let mut seed = match seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
    };
    let end = Instant::now() + Duration::from_secs(60 * minutes);
    let mut rounds = 0;
    while Instant::now() < end {
        interrupt.check()?;
        let mut chance = Chance::of(seed);
        let at = chance.below(SERVERS.len() as u64) as usize;
        let programs = Programs {
            rekindle: rekindle.clone(),
            etcd: servers[at].join("etcd"),
            etcdctl: etcdctl.clone(),
        };
        let round = Round::new(programs, chance, interrupt.clone())?;
        let done = round.run().with_context(|| format!("seed {seed}, {}", SERVERS[at]))?;
        println!("seed {seed}: {}, {done}", SERVERS[at]);
        (rounds, seed) = (rounds + 1, seed + 1);
    }
    println!("{rounds} rounds, nothing found");
    Ok(ExitCode::SUCCESS)
}

/// Those that take as long as they are told, one after the other: each measures.
fn agents() -> Result<ExitCode> {
    for name in ["etcd-3.7", "minio"] {
        tools::folder(name)?;
    }
    let mut cargo = checkout::cargo();
    cargo.args(["test", "--locked", "--workspace", "--test", "real_agent", "--"]);
    cargo.args(["fleet::", "hour::", "idle::", "--nocapture", "--test-threads=1"]);
    cargo.env("REKINDLE_FLEET", "20").env("REKINDLE_HOUR", "300").env("REKINDLE_IDLE", "60");
    let status = cargo.status().context("cargo test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The tests that try as much as they are told.
fn archives(orders: u64) -> Result<ExitCode> {
    let mut cargo = checkout::cargo();
    cargo.args(["test", "--locked", "--workspace"]);
    cargo.args(["--test", "interleaved", "--test", "histories", "--test", "simulated"]);
    cargo.env("REKINDLE_SEEDS", orders.to_string());
    let status = cargo.status().context("cargo test")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
