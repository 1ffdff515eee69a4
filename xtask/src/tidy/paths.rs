//! Paths that the documentation names: each must be there.

use super::Finding;
use super::project::Project;

pub fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in project.files.iter().filter(|(path, _)| path.ends_with(".md")) {
        let mut fenced = false;
        for (index, line) in file.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                let quoted = line.split('`').skip(1).step_by(2).filter(|q| is_path(project, q));
                for named in quoted.chain(links(line)) {
                    if !resolves(project, path, named) {
                        let message = format!("there is no `{named}`");
                        findings.push(Finding::new(path, index + 1, "path", message));
                    }
                }
            }
        }
    }
    findings
}

/// Whether what stands in backticks is meant as a path of this repository: it begins with one of its
/// top folders, or ends like one of its sources.
fn is_path(project: &Project, quoted: &str) -> bool {
    let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let first = quoted.split('/').next().unwrap_or_default();
    let is_ours = quoted.contains('/') && project.has(first);
    let is_source = [".rs", ".md", ".toml", ".sh", ".go"]
        .iter()
        .any(|end| quoted.len() > end.len() && quoted.ends_with(end));
    plain && !quoted.starts_with('/') && (is_ours || is_source)
}

/// The targets of Markdown links that lead into the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', '#', ' ']).next()?;
        (!target.is_empty() && !target.contains(':')).then_some(target)
    })
}

/// A path counts from the top or from the document; a bare file name from anywhere.
fn resolves(project: &Project, document: &str, named: &str) -> bool {
    let named = named.trim_start_matches("./").trim_end_matches('/');
    let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
    let is_name = || {
        let ending = format!("/{named}");
        !named.contains('/') && project.files.keys().any(|file| file.ends_with(&ending))
    };
    project.has(named) || project.has(&format!("{folder}/{named}")) || is_name()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests;

    #[track_caller]
    fn check_text(text: &str, expected: &[&str]) {
        let files = [("docs/a.md", text), ("crates/bolt/src/lib.rs", ""), ("FORMAT.md", "")];
        tests::check(check, &files, expected);
    }

    #[test]
    fn paths_in_backticks_exist() {
        check_text(
            "`crates/bolt`, `crates/bolt/`, `lib.rs`, `FORMAT.md`, `docs/a.md`, `a.md`",
            &[],
        );
        check_text("x\nin `crates/raft`", &["docs/a.md:2: path: there is no `crates/raft`"]);
        check_text("`heap.rs` and `NEWS.md`", &["no `heap.rs`", "no `NEWS.md`"]);
    }

    #[test]
    fn what_is_no_path_of_ours_is_left_alone() {
        check_text("`member/snap/db` `/etc/x.toml` `archive.json` `crates/<name>` `a | b`", &[]);
        check_text("```\ncat crates/raft `crates/raft`\n```\n", &[]);
    }

    #[test]
    fn links_lead_somewhere() {
        check_text("[f](../FORMAT.md)", &["there is no `../FORMAT.md`"]);
        check_text("[f](FORMAT.md#top) [g](https://x.y/z) [h](#here)", &[]);
        check_text("[f](NEWS.txt)", &["there is no `NEWS.txt`"]);
    }
}
