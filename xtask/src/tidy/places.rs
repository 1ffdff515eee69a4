//! No committed file may know the machine it was written on, or where packages were fetched from.

use super::Finding;
use super::project::Project;

/// The folders that development machines keep checkouts and homes in. All of these are put together
/// here from parts, as this file is checked too.
const FOLDERS: &[[&str; 2]] = &[["/ro", "ot/"], ["/wo", "rk/"]];

/// Hosts of package registries: the clients know them, and a mirror may stand in their place.
const HOSTS: &[[&str; 2]] = &[
    ["crates.", "io"],
    ["proxy.", "golang.org"],
    ["sum.", "golang.org"],
    ["registry.", "npmjs.org"],
    ["deb.", "debian.org"],
    ["py", "pi.org"],
    ["files.python", "hosted.org"],
];

/// Cargo writes this into every Cargo.lock, whatever mirror it used.
const SOURCE: &str = concat!("registry+https://github.com/rust-lang/crates.", "io-index");

pub fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, file) in &project.files {
        let is_lock = path.ends_with("Cargo.lock");
        for (index, line) in file.text.lines().enumerate() {
            let mut found = |message: String| {
                findings.push(Finding::new(path, index + 1, "place", message));
            };
            for folder in FOLDERS.iter().map(|parts| parts.concat()) {
                if names_folder(line, &folder) {
                    found(format!("`{folder}` is a folder of one machine"));
                }
            }
            for host in HOSTS.iter().map(|parts| parts.concat()) {
                if line.contains(&host) && !line.contains(SOURCE) {
                    found(format!("`{host}` is a registry's host: leave it to the client"));
                }
            }
            let source = line.strip_prefix("source = ").map(|source| source.trim_matches('"'));
            if let Some(source) = source.filter(|source| is_lock && *source != SOURCE) {
                found(format!("`{source}`: crates come from Cargo's own registry alone"));
            }
        }
    }
    findings
}

/// Whether an absolute path begins there, not a part of a longer one.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.}>".contains(c)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests;

    #[track_caller]
    fn check_line(path: &str, line: &str, expected: &[&str]) {
        tests::check(check, &[(path, &format!("\n{line}\n"))], expected);
    }

    #[test]
    fn folders_of_a_machine_are_found() {
        for folder in FOLDERS.iter().map(|parts| parts.concat()) {
            check_line("a.md", &format!("see {folder}notes"), &["a.md:2: place: "]);
            check_line("a.sh", &format!("cd {folder}"), &["a.sh:2: place: "]);
            check_line("a.md", &format!("see home{folder}notes, ..{folder}x"), &[]);
        }
    }

    #[test]
    fn hosts_of_registries_are_found() {
        for host in HOSTS.iter().map(|parts| parts.concat()) {
            check_line("ci.yaml", &format!("url: https://{host}/x"), &["ci.yaml:2: place: "]);
        }
        check_line("README.md", "https://docs.rs/bolt", &[]);
    }

    #[test]
    fn a_lock_file_names_no_other_registry() {
        check_line("Cargo.lock", &format!("source = \"{SOURCE}\""), &[]);
        check_line("Cargo.lock", "source = \"git+https://x/y\"", &["crates come from Cargo's"]);
        check_line("a.toml", "source = \"vendored\"", &[]);
    }
}
