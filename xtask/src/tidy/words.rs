//! Words and names that our code does without.

use super::project::Project;
use super::{Finding, PURE};

/// The one file that ends the process.
const MAIN: &str = "crates/cli/src/main.rs";

/// Names that say nothing of what a module holds, so that anything ends up in it.
const EMPTY_NAMES: &[&str] =
    &["util", "utils", "misc", "common", "types", "manager", "helper", "helpers"];

/// A word and where it may not stand.
struct Ban {
    rule: &'static str,
    word: &'static str,
    applies: fn(&Line) -> bool,
    instead: &'static str,
}

/// One line of Rust, as a ban looks at it.
struct Line<'a> {
    path: &'a str,
    test: bool,
}

impl Line<'_> {
    fn is_pure_product(&self) -> bool {
        !self.test && PURE.iter().any(|name| self.path.starts_with(&format!("crates/{name}/src/")))
    }
}

const BANS: &[Ban] = &[
    Ban {
        rule: "ignore",
        word: "#[ignore",
        applies: |_| true,
        instead: "a test that does not run proves nothing: run it, or remove it",
    },
    Ban {
        rule: "should-panic",
        word: "#[should_panic",
        applies: |_| true,
        instead: "return an error, and check that",
    },
    Ban {
        rule: "sleep",
        word: "sleep(",
        // The test kit is where tests get what waits with a deadline.
        applies: |line| line.test && !line.path.starts_with("crates/testkit/src/"),
        instead: "wait for what you wait for, with a deadline",
    },
    Ban {
        rule: "exit",
        word: "process::exit",
        applies: |line| line.path != MAIN,
        instead: "return an error; only crates/cli/src/main.rs ends the process",
    },
    Ban {
        rule: "panic",
        word: "panic!",
        applies: |line| !line.test && line.path != MAIN,
        instead: "return an error",
    },
    Ban {
        rule: "unwrap",
        word: ".unwrap()",
        applies: |line| line.is_pure_product(),
        instead: "return an error: what is read here comes from outside",
    },
    Ban {
        rule: "unwrap",
        word: ".expect(",
        applies: |line| line.is_pure_product(),
        instead: "return an error: what is read here comes from outside",
    },
    Ban {
        rule: "unfinished",
        word: "todo!",
        applies: |_| true,
        instead: "finish it, or open an issue",
    },
    Ban {
        rule: "unfinished",
        word: "unimplemented!",
        applies: |_| true,
        instead: "finish it, or open an issue",
    },
];

pub fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, source) in project.sources() {
        check_name(path, &mut findings);
        for (number, code, test) in source.lines() {
            let line = Line { path, test };
            for ban in BANS.iter().filter(|ban| (ban.applies)(&line) && has_word(code, ban.word)) {
                let message = format!("`{}`: {}", ban.word, ban.instead);
                findings.push(Finding::new(path, number, ban.rule, message));
            }
        }
        check_comments(path, project.text(path), &mut findings);
    }
    findings
}

/// Whether the word stands in the text and is not part of a longer one.
pub fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    // A word that begins or ends with a sign, as `panic!` does, is never a part of a longer one there.
    let is_joined =
        |a: Option<char>, b: Option<char>| a.is_some_and(is_part) && b.is_some_and(is_part);
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !is_joined(before.chars().next_back(), word.chars().next())
            && !is_joined(word.chars().next_back(), after.chars().next())
    })
}

fn check_name(path: &str, findings: &mut Vec<Finding>) {
    let inside = path.split_once("src/").map_or(path, |(_, inside)| inside);
    for part in inside.trim_end_matches(".rs").split('/') {
        if EMPTY_NAMES.contains(&part) {
            let message = format!("`{part}` says nothing: name the module for what it holds");
            findings.push(Finding::new(path, 1, "name", message));
        }
    }
}

fn check_comments(path: &str, text: &str, findings: &mut Vec<Finding>) {
    // Split, as this file is checked too.
    const LEFT: &str = concat!("FIX", "ME");
    for (index, line) in text.lines().enumerate() {
        if has_word(line, LEFT) {
            let message = format!("`{LEFT}`: mend it, or open an issue");
            findings.push(Finding::new(path, index + 1, "unfinished", message));
        }
        let comment = line.trim_start().trim_start_matches(['/', '!']);
        if comment.len() < line.trim_start().len() && comment.trim() == "# Arguments" {
            let message = "say what matters of an argument in a sentence, not in a list";
            findings.push(Finding::new(path, index + 1, "comment", message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests;

    #[track_caller]
    fn check_file(path: &str, text: &str, expected: &[&str]) {
        tests::check(check, &[(path, text)], expected);
    }

    const PRODUCT: &str = "crates/bolt/src/db.rs";
    const EDGE: &str = "crates/client/src/lib.rs";
    const TEST: &str = "crates/bolt/tests/damage.rs";

    #[test]
    fn tests_all_run_and_do_not_sleep() {
        check_file(TEST, "#[test]\nfn f() {}", &[]);
        check_file(TEST, "#[ignore]\nfn f() {}", &["damage.rs:1: ignore: "]);
        check_file(TEST, "#[ignore = \"slow\"]\nfn f() {}", &["damage.rs:1: ignore: "]);
        check_file(TEST, "#[should_panic(expected = \"x\")]", &["damage.rs:1: should-panic: "]);
        check_file(TEST, "\nthread::sleep(SECOND);", &["damage.rs:2: sleep: "]);
        check_file("crates/testkit/src/wait.rs", "thread::sleep(POLL_INTERVAL);", &[]);
        check_file(EDGE, "tokio::time::sleep(backoff).await;", &[]);
        check_file(EDGE, "#[cfg(test)]\nmod tests {\n    sleep(x);\n}", &["lib.rs:3: sleep: "]);
    }

    #[test]
    fn only_main_ends_the_process() {
        check_file(EDGE, "std::process::exit(1);", &["lib.rs:1: exit: "]);
        check_file(EDGE, "panic!(\"no\");", &["lib.rs:1: panic: "]);
        check_file(EDGE, "#[test]\nfn f() { panic!() }", &[]);
        check_file(MAIN, "std::process::exit(1);\npanic!();", &[]);
        check_file(EDGE, "// panic! is for tests\ncore::panicking();", &[]);
    }

    #[test]
    fn pure_code_does_not_unwrap() {
        check_file(PRODUCT, "x.unwrap();", &["db.rs:1: unwrap: "]);
        check_file(PRODUCT, "x.expect(\"y\");", &["db.rs:1: unwrap: "]);
        check_file(PRODUCT, "x.unwrap_or(0);", &[]);
        check_file(EDGE, "x.unwrap();", &[]);
        check_file(TEST, "x.unwrap();", &[]);
    }

    #[test]
    fn nothing_is_left_unfinished() {
        check_file(EDGE, "todo!()", &["lib.rs:1: unfinished: "]);
        check_file(TEST, "unimplemented!(\"x\")", &["damage.rs:1: unfinished: "]);
        check_file(EDGE, concat!("// FIX", "ME later"), &["lib.rs:1: unfinished: "]);
        check_file(EDGE, "let todo = done!();", &[]);
    }

    #[test]
    fn names_say_what_they_hold() {
        check_file("crates/etcd/src/util.rs", "", &["util.rs:1: name: `util` says nothing"]);
        check_file("crates/etcd/src/helpers/mod.rs", "", &["`helpers` says nothing"]);
        check_file("crates/etcd/src/utility_bill.rs", "", &[]);
    }

    #[test]
    fn comments_do_not_list_arguments() {
        check_file(EDGE, "/// Opens.\n///\n/// # Arguments\nfn f() {}", &["lib.rs:3: comment: "]);
        check_file(EDGE, "/// # Errors\nfn f() {}\n# Arguments", &[]);
    }
}
