//! What holds the code to ARCHITECTURE.md and to its own style.
//!
//! Every rule is a pure function from the project to findings, and each is shown to find something
//! in its own tests. The last test here is the checkout itself, so that tidying cannot be forgotten.

mod allowed;
mod architecture;
mod dependencies;
mod metrics;
mod paths;
mod pins;
mod places;
mod project;
mod purity;
mod sizes;
mod source;
mod words;

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;
use lexopt::Parser;

use crate::Command;
use project::Project;

pub const COMMAND: Command = Command {
    name: "tidy",
    summary: "Hold the code to ARCHITECTURE.md and to the style",
    help: "
Usage: cargo xtask tidy

Prints what is wrong, a line each: file, line, rule and what to do. The same runs as a test in the
lane `unit`. Exceptions stand in xtask/tidy-allowed with their reasons; that list may only shrink.",
    run,
};

/// Crates without I/O, clock, environment or randomness, by name; see ARCHITECTURE.md.
const PURE: &[&str] = &["bolt", "etcd"];

/// One fault: where, which rule, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    path: String,
    /// Counted from 1.
    line: usize,
    rule: &'static str,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.message)
    }
}

const RULES: &[fn(&Project) -> Vec<Finding>] = &[
    architecture::check,
    dependencies::check,
    metrics::check,
    paths::check,
    pins::check,
    places::check,
    purity::check,
    sizes::check,
    words::check,
];

fn run(mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    let findings = all_findings(&Project::read()?);
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} to tidy", findings.len());
    Ok(ExitCode::FAILURE)
}

fn all_findings(project: &Project) -> Vec<Finding> {
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(project)).collect();
    findings.sort_by(|a, b| (&a.path, a.line, a.rule).cmp(&(&b.path, b.line, b.rule)));
    allowed::without_exceptions(project, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project of files given as (path, text).
    pub fn a_project(files: &[(&str, &str)]) -> Project {
        Project::of(files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())))
    }

    /// What a rule finds in such a project, as `path:line: rule: message` in part.
    #[track_caller]
    pub fn check(rule: fn(&Project) -> Vec<Finding>, files: &[(&str, &str)], expected: &[&str]) {
        check_project(rule, &a_project(files), expected);
    }

    #[track_caller]
    pub fn check_project(rule: fn(&Project) -> Vec<Finding>, project: &Project, expected: &[&str]) {
        let found: Vec<String> = rule(project).iter().map(ToString::to_string).collect();
        let equal = found.len() == expected.len()
            && found.iter().zip(expected).all(|(found, part)| found.contains(part));
        assert!(equal, "found {found:#?}, expected {expected:#?}");
    }

    #[test]
    fn the_checkout_is_tidy() {
        let findings = all_findings(&Project::read().unwrap());
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }
}
