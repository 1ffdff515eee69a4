//! What may be linked: one TLS provider, and nothing with a door to the world in the pure crates.

use super::project::Project;
use super::{Finding, PURE};

/// Each brings a second TLS provider, or C code that we do not ship. With two providers compiled in,
/// rustls panics at run time.
const TLS: &[&str] = &["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"];

const IMPURE: &[&str] =
    &["tokio", "hyper", "reqwest", "kube", "tonic", "rand", "getrandom", "async-std", "smol"];

/// The core serializes for no one; etcd's own JSON is the one exception.
const FOR_USERS: &[&str] = &["serde", "serde_derive", "serde_json", "clap"];

pub fn check(project: &Project) -> Vec<Finding> {
    let mut findings = Vec::new();
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        for (index, line) in project.text(lock).lines().enumerate() {
            let name = line.strip_prefix("name = \"").and_then(|rest| rest.strip_suffix('"'));
            if let Some(name) = name.filter(|name| TLS.contains(name)) {
                let message = format!(
                    "`{name}` is in the tree: ring is our one TLS provider; turn off the feature \
                     that brings it (`cargo tree --invert {name}` shows which)"
                );
                findings.push(Finding::new(lock, index + 1, "tls", message));
            }
        }
    }
    for pure in project.crates.iter().filter(|found| PURE.contains(&found.name.as_str())) {
        let manifest = format!("{}/Cargo.toml", pure.folder);
        for name in IMPURE.iter().filter(|name| pure.closure.contains(**name)) {
            let message = format!("`{}` is pure, but depends on `{name}`", pure.name);
            findings.push(Finding::new(&manifest, 1, "pure", message));
        }
        for name in FOR_USERS.iter().filter(|name| pure.dependencies.contains(**name)) {
            if (pure.name.as_str(), *name) == ("etcd", "serde_json") {
                continue; // etcd keeps members and the raft state's voters as JSON.
            }
            let message = format!("`{}` is pure: `{name}` belongs in an edge crate", pure.name);
            findings.push(Finding::new(&manifest, 1, "pure", message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::project::Crate;
    use crate::tidy::tests::{a_project, check_project};

    #[test]
    fn a_second_tls_provider_is_found() {
        let lock = |name: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n");
        let of = |name| a_project(&[("Cargo.lock", &lock(name))]);
        check_project(check, &of("ring"), &[]);
        check_project(check, &of("openssl-probe"), &[]);
        check_project(check, &of("aws-lc-rs"), &["Cargo.lock:2: tls: `aws-lc-rs` is in the tree"]);
        let fuzz = a_project(&[("fuzz/Cargo.lock", &lock("native-tls"))]);
        check_project(check, &fuzz, &["fuzz/Cargo.lock:2: tls: `native-tls`"]);
    }

    #[track_caller]
    fn check_crate(name: &str, dependency: &str, closure: &str, expected: &[&str]) {
        let mut project = a_project(&[]);
        project.crates.push(Crate {
            name: name.into(),
            folder: format!("crates/{name}"),
            dependencies: [dependency.to_owned()].into(),
            closure: [closure.to_owned()].into(),
            ..Crate::default()
        });
        check_project(check, &project, expected);
    }

    #[test]
    fn a_pure_crate_has_no_door_to_the_world() {
        check_crate("bolt", "thiserror", "syn", &[]);
        check_crate("client", "clap", "tokio", &[]);
        check_crate("etcd", "serde_json", "itoa", &[]);
        check_crate("bolt", "ahash", "getrandom", &["`bolt` is pure, but depends on `getrandom`"]);
        check_crate(
            "bolt",
            "serde_json",
            "itoa",
            &["`bolt` is pure: `serde_json` belongs in an edge crate"],
        );
        check_crate("etcd", "clap", "clap", &["`etcd` is pure: `clap`"]);
    }
}
