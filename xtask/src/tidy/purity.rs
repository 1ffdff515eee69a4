//! What a pure crate's code may not name: files, sockets, the environment, clocks, chance.

use super::project::Project;
use super::words::has_word;
use super::{Finding, PURE};

/// Pure folders of crates that are not.
const FOLDERS: &[&str] = &["archive/src/format", "archive/src/plan"];

const MODULES: &[&str] = &["fs", "net", "env", "process"];

const NAMES: &[&str] = &["SystemTime", "Instant::now", "thread_rng", "async fn", ".await"];

pub fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in project.sources() {
        let mut pure = PURE.iter().chain(FOLDERS);
        let Some(name) = pure.find(|name| path.starts_with(&format!("crates/{name}/"))) else {
            continue;
        };
        let mut use_group = UseGroup::default();
        for (number, line, test) in source.lines() {
            let mut named = use_group.modules_named(line);
            named.extend(MODULES.iter().filter(|m| has_word(line, &format!("std::{m}"))));
            let mut said: Vec<String> =
                named.iter().map(|module| format!("std::{module}")).collect();
            said.extend(NAMES.iter().filter(|n| has_word(line, n)).map(|&n| n.to_owned()));
            for what in said.into_iter().filter(|_| !test) {
                let message = format!("`{name}` is pure: `{what}` must come in from outside");
                findings.push(Finding::new(path, number, "pure", message));
            }
        }
    }
    findings
}

/// Follows `use std::{…}` over its lines, where the modules stand without `std::` before them.
#[derive(Default)]
struct UseGroup {
    /// Open braces, 0 outside of such a group.
    depth: usize,
}

impl UseGroup {
    /// The modules of `MODULES` that this line names directly inside the group.
    fn modules_named(&mut self, line: &str) -> Vec<&'static str> {
        let mut rest = line;
        if self.depth == 0 {
            let Some((_, group)) = line.split_once("use std::{") else {
                return Vec::new();
            };
            self.depth = 1;
            rest = group;
        }
        let mut named = Vec::new();
        let mut word = String::new();
        for c in rest.chars().chain(['\n']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            // Deeper in, a name is one of the module before it: `io::{self, …}`.
            let module = MODULES.iter().find(|module| **module == word && self.depth == 1);
            named.extend(module);
            word.clear();
            match c {
                '{' => self.depth += 1,
                '}' if self.depth <= 1 => {
                    self.depth = 0;
                    break;
                }
                '}' => self.depth -= 1,
                _ => {}
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests;

    #[track_caller]
    fn check_bolt(text: &str, expected: &[&str]) {
        tests::check(check, &[("crates/bolt/src/db.rs", text)], expected);
    }

    #[test]
    fn a_pure_crate_names_no_door_to_the_world() {
        check_bolt("use std::io;\nuse std::collections::BTreeMap;\n", &[]);
        check_bolt(
            "use std::fs::File;\n",
            &["crates/bolt/src/db.rs:1: pure: `bolt` is pure: `std::fs`"],
        );
        check_bolt(
            "fn f() {\n    std::env::var(\"X\");\n}",
            &["db.rs:2: pure: `bolt` is pure: `std::env`"],
        );
        check_bolt(
            "let t = Instant::now();\nlet s: SystemTime;",
            &["`Instant::now`", "`SystemTime`"],
        );
        check_bolt("// std::fs is for others\nlet s = \"std::fs\";", &[]);
        check_bolt("async fn f() {}", &["`async fn`"]);
    }

    #[test]
    fn a_use_group_hides_nothing() {
        check_bolt("use std::{fs, io};", &["`std::fs`"]);
        check_bolt(
            "use std::{\n    collections::{BTreeMap, env},\n    net::TcpStream,\n};\n",
            &["db.rs:3: pure: `bolt` is pure: `std::net`"],
        );
        check_bolt("use std::{io, fmt};\nuse other::{fs};\n", &[]);
    }

    #[test]
    fn tests_and_other_crates_may() {
        check_bolt("#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n", &[]);
        tests::check(check, &[("crates/bolt/tests/a.rs", "use std::fs;")], &[]);
        tests::check(check, &[("crates/datadir/src/lib.rs", "use std::fs;")], &[]);
        tests::check(check, &[("crates/archive/src/read.rs", "use std::fs;")], &[]);
        let plan = &[("crates/archive/src/plan/a.rs", "use std::fs;")];
        tests::check(check, plan, &["`archive/src/plan` is pure: `std::fs`"]);
    }
}
