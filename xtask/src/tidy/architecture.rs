//! ARCHITECTURE.md's tables against the Cargo manifests, both ways.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::project::{Crate, Project};

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// The test kit may be used by every crate's tests; any other edge between tests and crates must be
/// one that the product may have.
const FOR_ALL_TESTS: &str = "testkit";

pub fn check(project: &Project) -> Vec<Finding> {
    let text = project.text(ARCHITECTURE);
    let edges = table(text, "crate", "may use");
    let map = table(text, "path", "what it is");
    let mut findings = Vec::new();
    for found in &project.crates {
        check_edges(found, &edges, &mut findings);
        if !map.contains_key(&found.folder) {
            findings.push(Finding::new(
                ARCHITECTURE,
                1,
                "map",
                format!("the code map has no row for `{}`", found.folder),
            ));
        }
    }
    for (name, row) in &edges {
        if !project.crates.iter().any(|found| found.name == *name) {
            let message = format!("the table of edges has a row for `{name}`, which is no crate");
            findings.push(Finding::new(ARCHITECTURE, row.line, "edges", message));
        }
    }
    findings
}

fn check_edges(found: &Crate, edges: &BTreeMap<String, Row>, findings: &mut Vec<Finding>) {
    let name = &found.name;
    let Some(row) = edges.get(name) else {
        let message = format!("the table of edges has no row for `{name}`");
        findings.push(Finding::new(ARCHITECTURE, 1, "edges", message));
        return;
    };
    let manifest = format!("{}/Cargo.toml", found.folder);
    let in_tests = found.uses_in_tests.iter().filter(|used| **used != FOR_ALL_TESTS);
    for used in found.uses.iter().chain(in_tests) {
        if !row.names.contains(used) {
            let message = format!("`{name}` may not use `{used}`: {ARCHITECTURE} has no such edge");
            findings.push(Finding::new(&manifest, 1, "edges", message));
        }
    }
    for listed in &row.names {
        if !found.uses.contains(listed) {
            let message = format!("`{name}` does not use `{listed}`: remove the edge");
            findings.push(Finding::new(ARCHITECTURE, row.line, "edges", message));
        }
    }
}

struct Row {
    line: usize,
    /// What stands in backticks in the second column.
    names: BTreeSet<String>,
}

/// The rows of the table with these two headings, by what stands in backticks in the first column.
fn table(text: &str, first: &str, second: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            [a, b] if (a, b) == (first, second) => inside = true,
            [keys, names] if inside => {
                for key in quoted(keys) {
                    rows.insert(key, Row { line: index + 1, names: quoted(names).collect() });
                }
            }
            _ => inside = false,
        }
    }
    rows
}

fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::{a_project, check_project};

    fn a_crate(name: &str, uses: &[&str], uses_in_tests: &[&str]) -> Crate {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Crate {
            name: name.into(),
            folder: format!("crates/{name}"),
            uses: set(uses),
            uses_in_tests: set(uses_in_tests),
            ..Crate::default()
        }
    }

    #[track_caller]
    fn check_table(rows: &str, crates: &[Crate], expected: &[&str]) {
        let text = format!(
            "| path | what it is |\n|---|---|\n| `crates/bolt` | pages |\n| `crates/etcd` | records |\n\n\
             | crate | may use |\n|---|---|\n{rows}"
        );
        let mut project = a_project(&[(ARCHITECTURE, &text)]);
        project.crates = crates.to_vec();
        check_project(check, &project, expected);
    }

    #[test]
    fn table_and_manifests_agree_both_ways() {
        let bolt = a_crate("bolt", &[], &["testkit"]);
        let etcd = a_crate("etcd", &["bolt"], &["testkit", "bolt"]);
        let crates = [bolt, etcd];
        check_table("| `bolt` | |\n| `etcd` | `bolt` |", &crates, &[]);
        check_table(
            "| `bolt` | |\n| `etcd` | |",
            &crates,
            &[
                "crates/etcd/Cargo.toml:1: edges: `etcd` may not use `bolt`",
                "crates/etcd/Cargo.toml:1: edges: `etcd` may not use `bolt`",
            ],
        );
        check_table(
            "| `bolt` | `etcd` |\n| `etcd` | `bolt` |",
            &crates,
            &["ARCHITECTURE.md:8: edges: `bolt` does not use `etcd`: remove the edge"],
        );
        check_table("| `etcd` | `bolt` |", &crates, &["no row for `bolt`"]);
        check_table(
            "| `bolt` | |\n| `etcd` | `bolt` |\n| `raft` | |",
            &crates,
            &[
                "ARCHITECTURE.md:10: edges: the table of edges has a row for `raft`, which is no crate",
            ],
        );
    }

    #[test]
    fn tests_may_use_what_the_crate_may_and_the_test_kit() {
        let crates = [a_crate("bolt", &[], &["etcd"])];
        check_table("| `bolt` | |", &crates, &["`bolt` may not use `etcd`"]);
    }

    #[test]
    fn every_crate_is_in_the_code_map() {
        let crates = [a_crate("raft", &[], &[])];
        check_table("| `raft` | |", &crates, &["map: the code map has no row for `crates/raft`"]);
    }
}
