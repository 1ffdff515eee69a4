//! xtask/tidy-allowed: exceptions, which may only become fewer.
//!
//! A line is `RULE PATH COUNT # reason`. As many findings of that rule are let pass in that file;
//! where there are fewer, the line itself is a finding until it is lowered or removed.

use super::Finding;
use super::project::Project;

const LIST: &str = "xtask/tidy-allowed";

/// The findings less what the list lets pass, and the faults of the list itself.
pub fn without_exceptions(project: &Project, mut findings: Vec<Finding>) -> Vec<Finding> {
    let mut faults = Vec::new();
    for (index, line) in project.text(LIST).lines().enumerate() {
        let mut fault = |message: String| {
            faults.push(Finding::new(LIST, index + 1, "allowed", message));
        };
        let (entry, reason) = line.split_once('#').unwrap_or((line, ""));
        let words: Vec<&str> = entry.split_whitespace().collect();
        let (rule, path, count) = match words[..] {
            [] => continue,
            [rule, path, count] if !reason.trim().is_empty() => (rule, path, count),
            _ => {
                fault("expected `RULE PATH COUNT # reason`".into());
                continue;
            }
        };
        let Ok(count) = count.parse::<usize>() else {
            fault(format!("`{count}` is no number"));
            continue;
        };
        let covered = |finding: &Finding| finding.rule == rule && finding.path == path;
        let found = findings.iter().filter(|finding| covered(finding)).count();
        if found < count {
            fault(format!(
                "allows {count}, but there are only {found}: lower it, or remove the line"
            ));
        } else if found == count {
            findings.retain(|finding| !covered(finding));
        }
    }
    findings.extend(faults);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::a_project;

    #[track_caller]
    fn check(list: &str, findings: usize, expected: &[&str]) {
        let project = a_project(&[(LIST, list)]);
        let findings = (1..=findings).map(|n| Finding::new("a.rs", n, "sleep", "poll")).collect();
        let left: Vec<String> =
            without_exceptions(&project, findings).iter().map(ToString::to_string).collect();
        assert_eq!(left, expected);
    }

    #[test]
    fn an_exception_covers_exactly_its_count() {
        check("# none\n", 0, &[]);
        check("sleep a.rs 2 # polls a server\n", 2, &[]);
        check(
            "sleep b.rs 1 # polls\n",
            0,
            &[
                "xtask/tidy-allowed:1: allowed: allows 1, but there are only 0: lower it, or remove the line",
            ],
        );
        check("sleep a.rs 1 # polls\n", 2, &["a.rs:1: sleep: poll", "a.rs:2: sleep: poll"]);
        check(
            "panic a.rs 1 # polls\nsleep a.rs 1 # x",
            1,
            &[
                "xtask/tidy-allowed:1: allowed: allows 1, but there are only 0: lower it, or remove the line",
            ],
        );
    }

    #[test]
    fn an_exception_needs_a_reason() {
        let message = "xtask/tidy-allowed:1: allowed: expected `RULE PATH COUNT # reason`";
        check("sleep a.rs 1\n", 0, &[message]);
        check("sleep a.rs # x\n", 0, &[message]);
        check("sleep a.rs few # x\n", 0, &["xtask/tidy-allowed:1: allowed: `few` is no number"]);
    }
}
