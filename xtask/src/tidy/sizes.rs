//! How long files may be. Functions are clippy's (`too_many_lines`), which may not be silenced.

use super::Finding;
use super::project::Project;

const LINES_MAX: usize = 1000;
const MEDIAN_MAX: usize = 250;
const P90_MAX: usize = 700;

pub fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut sizes: Vec<usize> = Vec::new();
    for (path, source) in project.sources() {
        let lines = source.product_lines();
        if lines > 0 {
            sizes.push(lines);
        }
        if lines > LINES_MAX {
            let message = format!("{lines} lines besides its tests, {LINES_MAX} at most: split it");
            findings.push(Finding::new(path, 1, "file-length", message));
        }
        for (number, line, _) in source.lines() {
            if line.contains("clippy::too_many_lines") {
                let message = "a function of more than 70 lines: split it";
                findings.push(Finding::new(path, number, "function-length", message));
            }
        }
    }
    sizes.sort_unstable();
    for (name, percent, limit) in [("median", 50, MEDIAN_MAX), ("90th percentile", 90, P90_MAX)] {
        let at = sizes.len() * percent / 100;
        if let Some(lines) = sizes.get(at).filter(|lines| **lines > limit) {
            let message = format!("the {name} of all files is {lines} lines, {limit} at most");
            findings.push(Finding::new(".", 1, "file-length", message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests;

    #[track_caller]
    fn check_files(lengths: &[usize], expected: &[&str]) {
        let names: Vec<String> = (0..lengths.len()).map(|i| format!("f{i}.rs")).collect();
        let texts: Vec<String> = lengths.iter().map(|&n| "fn f() {}\n".repeat(n)).collect();
        let files: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
        tests::check(check, &files, expected);
    }

    #[test]
    fn long_files_are_found() {
        check_files(&[1000, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10], &[]);
        check_files(
            &[1001, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10],
            &["f0.rs:1: file-length: 1001 lines besides its tests, 1000 at most: split it"],
        );
        check_files(&[251, 251, 10], &[".:1: file-length: the median of all files is 251 lines"]);
        check_files(&[701, 701, 10, 10, 10], &["the 90th percentile of all files is 701 lines"]);
    }

    #[test]
    fn tests_do_not_count() {
        let text = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(2000));
        tests::check(check, &[("a.rs", &text)], &[]);
    }

    #[test]
    fn the_limit_on_functions_is_not_silenced() {
        let found = ["a.rs:1: function-length: a function of more than 70 lines: split it"];
        tests::check(check, &[("a.rs", "#[allow(clippy::too_many_lines)]\nfn f() {}")], &found);
        tests::check(check, &[("a.rs", "#[expect(clippy::too_many_lines)]\nfn f() {}")], &found);
        tests::check(check, &[("a.rs", "#[allow(clippy::cast_lossless)]\nfn f() {}")], &[]);
    }
}
