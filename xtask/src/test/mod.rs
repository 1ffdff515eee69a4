//! All that must hold before a change is taken, in lanes with a time budget each.
//!
//! The last line on stdout is always `N passed, N failed`. A lane that fails without a failing test
//! (it did not compile, or took longer than its budget) counts as one failed, so that the line
//! never says less than the exit code.

mod lanes;
mod libtest;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lexopt::{Arg, Parser};

use crate::Command;
use lanes::{LANES, Lane};
use libtest::Count;

pub const COMMAND: Command = Command {
    name: "test",
    summary: "Run every check and test, in lanes with time budgets",
    help: "
Usage: cargo xtask test [--lane NAME]... [FILTER...]

Lanes, in this order; one over its budget has failed:
  setup  1200 s  get the real servers (`cargo xtask tools`), fetch and compile
  fmt      20 s  rustfmt and gofmt
  clippy  240 s  clippy with warnings as errors, on the fuzz targets too; go vet
  unit    300 s  tests of libraries, binaries and tests/*.rs; tidy is among them
  doc      40 s  examples in documentation
  real    600 s  tests/real*.rs: the integration tests that run real servers and tools

With a FILTER, the tests whose names contain it, in the lanes setup, unit and real.
The last line is `N passed, N failed`.",
    run,
};

fn run(mut args: Parser) -> Result<ExitCode> {
    let mut names: Vec<String> = Vec::new();
    let mut filters: Vec<String> = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("lane") => names.push(args.value()?.to_string_lossy().into_owned()),
            Arg::Value(filter) => filters.push(filter.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut reports = Vec::new();
    for lane in choose(&names, !filters.is_empty())? {
        let report = run_lane(lane, &filters);
        let stop = lane.name == "setup" && report.count.failed > 0;
        reports.push(report);
        if stop {
            break; // Without its servers and crates, every other lane fails for the same reason.
        }
    }
    println!("\n{}", summary(&reports));
    let failed = reports.iter().any(|report| report.total().failed > 0);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn choose(names: &[String], filtered: bool) -> Result<Vec<&'static Lane>> {
    if let Some(unknown) = names.iter().find(|name| LANES.iter().all(|lane| lane.name != **name)) {
        let known: Vec<&str> = LANES.iter().map(|lane| lane.name).collect();
        bail!("there is no lane `{unknown}`; there are {}", known.join(", "));
    }
    let wanted = |lane: &&Lane| match names {
        [] => !filtered || ["setup", "unit", "real"].contains(&lane.name),
        _ => names.iter().any(|name| name == lane.name),
    };
    Ok(LANES.iter().filter(wanted).collect())
}

fn run_lane(lane: &Lane, filters: &[String]) -> Report {
    eprintln!("\n== {}", lane.name);
    let began = Instant::now();
    let count = (lane.run)(filters).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Count { passed: 0, failed: 1 }
    });
    Report { name: lane.name, count, took: began.elapsed(), budget: lane.budget }
}

/// What came of one lane.
struct Report {
    name: &'static str,
    count: Count,
    took: Duration,
    budget: Duration,
}

impl Report {
    fn is_over_budget(&self) -> bool {
        self.took > self.budget
    }

    fn total(&self) -> Count {
        let late = u64::from(self.is_over_budget());
        Count { passed: self.count.passed, failed: self.count.failed + late }
    }

    fn verdict(&self) -> String {
        let Count { passed, failed } = self.count;
        let result = match (passed, failed) {
            (0, 0) => "ok".to_owned(),
            (0, _) => format!("{failed} failed"),
            (_, 0) => format!("{passed} passed"),
            _ => format!("{passed} passed, {failed} failed"),
        };
        if self.is_over_budget() { result + ", OVER BUDGET" } else { result }
    }
}

fn summary(reports: &[Report]) -> String {
    let mut text = format!("{:<8}{:>9}{:>9}  result\n", "lane", "took", "budget");
    for report in reports {
        text += &format!(
            "{:<8}{:>7.1} s{:>7} s  {}\n",
            report.name,
            report.took.as_secs_f64(),
            report.budget.as_secs(),
            report.verdict()
        );
    }
    let total: Count = reports.iter().map(Report::total).sum();
    text + &format!("{} passed, {} failed", total.passed, total.failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_report(name: &'static str, passed: u64, failed: u64, seconds: u64) -> Report {
        Report {
            name,
            count: Count { passed, failed },
            took: Duration::from_secs(seconds),
            budget: Duration::from_secs(100),
        }
    }

    #[track_caller]
    fn check_summary(reports: &[Report], expected: &str) {
        assert_eq!(summary(reports), expected.trim_matches('\n'));
    }

    #[test]
    fn a_summary_ends_in_the_totals() {
        check_summary(
            &[a_report("fmt", 0, 0, 1), a_report("unit", 40, 0, 7), a_report("real", 3, 1, 100)],
            "
lane         took   budget  result
fmt         1.0 s    100 s  ok
unit        7.0 s    100 s  40 passed
real      100.0 s    100 s  3 passed, 1 failed
43 passed, 1 failed",
        );
    }

    #[test]
    fn a_lane_over_its_budget_has_failed() {
        check_summary(
            &[a_report("unit", 40, 0, 101)],
            "
lane         took   budget  result
unit      101.0 s    100 s  40 passed, OVER BUDGET
40 passed, 1 failed",
        );
    }

    #[track_caller]
    fn check_lanes(names: &[&str], filtered: bool, expected: &[&str]) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let chosen: Vec<&str> =
            choose(&names, filtered).unwrap().iter().map(|lane| lane.name).collect();
        assert_eq!(chosen, expected);
    }

    #[test]
    fn lanes_are_chosen_by_name_or_by_what_a_filter_can_select() {
        check_lanes(&[], false, &["setup", "fmt", "clippy", "unit", "doc", "real"]);
        check_lanes(&[], true, &["setup", "unit", "real"]);
        check_lanes(&["real", "fmt"], true, &["fmt", "real"]);
        assert!(choose(&["slow".to_owned()], false).is_err());
    }

    #[test]
    fn the_help_states_every_lane_and_its_budget() {
        for lane in LANES {
            let line = format!("  {:<7}{:>4} s  ", lane.name, lane.budget.as_secs());
            assert!(COMMAND.help.contains(&line), "{line}");
        }
    }

    #[test]
    fn set_up_stays_within_twenty_minutes_and_so_do_tests() {
        let (setup, tests): (Vec<&Lane>, Vec<&Lane>) =
            LANES.iter().partition(|lane| lane.name == "setup");
        let sum = |lanes: &[&Lane]| lanes.iter().map(|lane| lane.budget.as_secs()).sum::<u64>();
        assert_eq!((sum(&setup), sum(&tests)), (1200, 1200));
    }
}
