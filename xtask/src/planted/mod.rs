//! Bugs that are planted on purpose: the suite has to find each.

mod bugs;

use std::fs;
use std::path::PathBuf;
use std::process::{Command as Process, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lexopt::{Arg, Parser};

use crate::{Command, checkout};
use bugs::{BUGS, Bug};

pub const COMMAND: Command = Command {
    name: "planted",
    summary: "Plant bugs in a copy of the checkout, and see that the tests find each",
    help: "
Usage: cargo xtask planted [WORD...]

Copies the files that git knows to target/planted, plants one bug after the other there, and runs the
tests that have to find it. Ends with failure where one is not found. With words only bugs that have
one of them in their name are planted. Takes about half a minute for each, and some minutes before.",
    run,
};

fn run(mut args: Parser) -> Result<ExitCode> {
    let mut words = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Value(word) => words.push(word.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    let wanted =
        |bug: &&Bug| words.is_empty() || words.iter().any(|it| bug.name.contains(it.as_str()));
    let bugs: Vec<_> = BUGS.iter().filter(wanted).collect();
    let copy = Copy::make()?;
    let mut missed = 0;
    for bug in &bugs {
        let began = Instant::now();
        let found = copy.finds(bug)?;
        missed += usize::from(!found);
        let word = if found { "found" } else { "NOT FOUND" };
        println!("{word} after {:.0} s: {}", began.elapsed().as_secs_f64(), bug.name);
    }
    println!("{} of {} planted bugs found", bugs.len() - missed, bugs.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A copy of the checkout, to be spoilt.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    fn make() -> Result<Self> {
        let folder = checkout::root().join("target/planted");
        let source = folder.join("checkout");
        if source.exists() {
            fs::remove_dir_all(&source)?;
        }
        let mut git = Process::new("git");
        git.args(["ls-files", "-z"]).current_dir(checkout::root());
        let listed = checkout::run_quietly(&mut git)?.stdout;
        for name in listed.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = String::from_utf8(name.to_vec())?;
            let (from, to) = (checkout::root().join(&name), source.join(&name));
            // What is deleted and not yet committed is not there.
            if from.is_file() {
                fs::create_dir_all(to.parent().unwrap_or(&source))?;
                // With its time, so that what was built before is built no more.
                let status = Process::new("cp").arg("-p").args([&from, &to]).status()?;
                if !status.success() {
                    bail!("copying {name} failed");
                }
            }
        }
        Ok(Self { folder })
    }

    fn cargo(&self) -> Process {
        let mut cargo = checkout::cargo();
        cargo.current_dir(self.folder.join("checkout"));
        cargo.env("CARGO_TARGET_DIR", self.folder.join("target"));
        cargo
    }

    /// Plants a bug, runs its tests, and takes it away.
    fn finds(&self, bug: &Bug) -> Result<bool> {
        let path = self.folder.join("checkout").join(bug.file);
        let right = fs::read_to_string(&path).with_context(|| format!("reading {}", bug.file))?;
        fs::write(&path, plant(&right, bug)?)?;
        let found = self.fails(bug);
        fs::write(&path, right)?;
        found
    }

    /// Whether its tests fail. What cannot be built is no bug.
    fn fails(&self, bug: &Bug) -> Result<bool> {
        let mut build = self.cargo();
        build.args(["test", "--locked", "--workspace", "--no-run", "--quiet"]).args(bug.tests);
        // Warnings of what is planted say nothing.
        build.env("RUSTFLAGS", "--cap-lints=warn -Awarnings");
        checkout::run_quietly(&mut build).with_context(|| format!("planting \"{}\"", bug.name))?;
        let mut test = self.cargo();
        test.args(["test", "--locked", "--workspace", "--quiet"]).args(bug.tests);
        test.env("RUSTFLAGS", "--cap-lints=warn -Awarnings");
        test.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(!test.status().with_context(|| checkout::missing(&test))?.success())
    }
}

/// The file with the bug in it.
fn plant(text: &str, bug: &Bug) -> Result<String> {
    match text.matches(bug.right).count() {
        1 => Ok(text.replace(bug.right, bug.wrong)),
        count => bail!(
            "\"{}\": what it takes the place of is {count} times in {}: mend xtask/src/planted/bugs.rs",
            bug.name,
            bug.file
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text_of(file: &str) -> String {
        fs::read_to_string(checkout::root().join(file)).unwrap()
    }

    /// Code moves on, and the list with it.
    #[test]
    fn every_bug_can_be_planted() {
        for bug in BUGS {
            let planted = plant(&text_of(bug.file), bug).unwrap();
            assert_ne!(planted, text_of(bug.file), "{}", bug.name);
        }
        let names: BTreeSet<_> = BUGS.iter().map(|bug| bug.name).collect();
        assert_eq!(names.len(), BUGS.len());
        assert!(BUGS.len() >= 20);
    }
}
