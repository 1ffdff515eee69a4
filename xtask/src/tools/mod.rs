//! The real servers and tools of `tools/versions`, each had once and kept outside the checkout.

mod cache;
mod digest;
mod recipe;
mod versions;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use lexopt::{Arg, Parser};

use crate::{Command, checkout};
pub use cache::place;
use cache::{Cache, Place};
pub use digest::of_files as digest_of;
use recipe::Recipe;
pub use versions::{Pin, VERSIONS, parse};

pub const COMMAND: Command = Command {
    name: "tools",
    summary: "Get the real servers that tests and the quickstart run, in pinned versions",
    help: "
Usage: cargo xtask tools [NAME...]
       cargo xtask tools --pin

Gets what `tools/versions` names into $REKINDLE_TOOLS, else $XDG_CACHE_HOME/rekindle/tools, else
~/.cache/rekindle/tools, a folder NAME-VERSION each. Without a NAME: all that the tests need, which
leaves out Kubernetes, cargo-fuzz and promtool. What is there already is not had again.

It takes Go, npm and the package registries; etcd 3.4 comes from Debian's packages, or from a Go module
(3.4.15) where those cannot be had.

--pin writes the digest of tools/go/oracle into `tools/versions`, after a change to it.",
    run,
};

fn run(mut args: Parser) -> Result<ExitCode> {
    let mut names = Vec::new();
    let mut pin = false;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("pin") => pin = true,
            Arg::Value(name) => names.push(name.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    if pin {
        return versions::pin_oracle().map(|()| ExitCode::SUCCESS);
    }
    let pins = choose(&versions::read()?, &names)?;
    install(&pins)?;
    Ok(ExitCode::SUCCESS)
}

/// The folder of one tool's binaries, which are had first where they are missing.
pub fn folder(name: &str) -> Result<PathBuf> {
    let pins = choose(&versions::read()?, &[name.to_owned()])?;
    install(&pins)
}

/// The version at which a tool is pinned.
pub fn version(name: &str) -> Result<String> {
    let pins = choose(&versions::read()?, &[name.to_owned()])?;
    Ok(pins.into_iter().map(|(pin, _)| pin.version).collect())
}

/// Gets all that the tests need.
pub fn install_for_tests() -> Result<()> {
    install(&choose(&versions::read()?, &[])?)?;
    Ok(())
}

/// The pins of these names; without a name, those of everything that the tests need.
fn choose(pins: &[Pin], names: &[String]) -> Result<Vec<(Pin, &'static Recipe)>> {
    if let Some(unknown) = names.iter().find(|name| !pins.iter().any(|pin| pin.name == **name)) {
        let known: Vec<&str> = pins.iter().map(|pin| pin.name.as_str()).collect();
        bail!("{VERSIONS} has no tool `{unknown}`; it has {}", known.join(", "));
    }
    let mut chosen = Vec::new();
    for pin in pins {
        let recipe = recipe::of(&pin.name)?;
        let wanted = if names.is_empty() { recipe.for_tests } else { names.contains(&pin.name) };
        if wanted {
            chosen.push((pin.clone(), recipe));
        }
    }
    Ok(chosen)
}

/// Has each tool built that is not there, and returns the folder of the last.
fn install(pins: &[(Pin, &Recipe)]) -> Result<PathBuf> {
    let cache = Cache::open()?;
    let mut folder = PathBuf::new();
    eprintln!("tools in {}", cache.root().display());
    for (pin, recipe) in pins {
        eprint!("  {:<15} {:<17}", pin.name, pin.version);
        folder = cache.folder(pin);
        if cache.has(pin, recipe.binaries) {
            eprintln!(" there already");
            continue;
        }
        let began = Instant::now();
        let build = |place: &Place| recipe.build(pin, place, &mut progress);
        versions::check_fresh(pin)
            .and_then(|()| cache.fill(pin, recipe.binaries, build))
            .inspect_err(|_| eprintln!())?;
        let megabytes = cache.size(pin)? / 1_000_000;
        eprintln!(" — {:.1} s, {megabytes} MB", began.elapsed().as_secs_f64());
    }
    Ok(folder)
}

/// Says what is being done now, on the tool's own line.
fn progress(step: &str) {
    eprint!(" {step}");
    // A line that cannot be shown is no reason to stop.
    let _ = io::stderr().flush();
}

/// Where the oracle's sources lie.
fn oracle_sources() -> PathBuf {
    checkout::root().join("tools/go/oracle")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins(text: &str) -> Vec<Pin> {
        parse(text).unwrap()
    }

    #[track_caller]
    fn check_choice(names: &[&str], expected: Result<&[&str], &str>) {
        let pins = pins("etcd-3.6 3.6.16\noracle 1\ncargo-fuzz 0.13.2\n");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let chosen = choose(&pins, &names);
        match expected {
            Ok(expected) => {
                let chosen: Vec<String> =
                    chosen.unwrap().into_iter().map(|(pin, _)| pin.name).collect();
                assert_eq!(chosen, expected);
            }
            Err(part) => assert!(chosen.unwrap_err().to_string().contains(part)),
        }
    }

    #[test]
    fn tools_are_chosen_by_name_or_all_that_tests_need() {
        check_choice(&[], Ok(&["etcd-3.6", "oracle"]));
        check_choice(&["cargo-fuzz"], Ok(&["cargo-fuzz"]));
        check_choice(&["oracle", "etcd-3.6"], Ok(&["etcd-3.6", "oracle"]));
        check_choice(&["etcd-3.3"], Err("no tool `etcd-3.3`; it has etcd-3.6, oracle, cargo-fuzz"));
    }

    #[test]
    fn every_pinned_tool_has_a_recipe() {
        for pin in versions::read().unwrap() {
            assert!(recipe::of(&pin.name).is_ok(), "{}", pin.name);
        }
    }
}
