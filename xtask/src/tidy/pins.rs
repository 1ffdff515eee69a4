//! `tools/versions` against what is really built: the Go modules, and the oracle's sources.

use super::Finding;
use super::project::Project;
use crate::tools::{self, Pin, VERSIONS};

/// A tool, the folder of tools/go that holds its go.mod, and the modules that carry its version.
/// etcd 3.4 is not among them: its module is the fallback, and another patch release.
const MODULES: &[(&str, &str, &[&str])] = &[
    ("etcd-3.5", "etcd-3.5", ETCD),
    ("etcd-3.6", "etcd-3.6", ETCD),
    ("etcd-3.7", "etcd-3.7", ETCD),
    ("bbolt", "bbolt", &["go.etcd.io/bbolt"]),
    ("bbolt", "oracle", &["go.etcd.io/bbolt"]),
];

const ETCD: &[&str] =
    &["go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3"];

pub fn check(project: &Project) -> Vec<Finding> {
    if !project.has(VERSIONS) {
        return Vec::new();
    }
    let pins = match tools::parse(project.text(VERSIONS)) {
        Ok(pins) => pins,
        Err(error) => return vec![Finding::new(VERSIONS, 1, "pin", error.to_string())],
    };
    let version_of = |name: &str| pins.iter().find(|pin| pin.name == name).map(|pin| &pin.version);
    let mut findings = Vec::new();
    for (name, folder, modules) in MODULES {
        let go_mod = format!("tools/go/{folder}/go.mod");
        let Some(version) = version_of(name) else {
            findings.push(Finding::new(VERSIONS, 1, "pin", format!("`{name}` is missing")));
            continue;
        };
        for module in *modules {
            let wanted = format!("{module} v{version}");
            let lines = project.text(&go_mod).lines();
            let found = lines.map(|line| line.trim().trim_start_matches("require "));
            if !found.into_iter().any(|line| line.split(" //").next() == Some(wanted.as_str())) {
                let message = format!("does not have `{wanted}`, which {VERSIONS} pins");
                findings.push(Finding::new(&go_mod, 1, "pin", message));
            }
        }
    }
    findings.extend(check_oracle(project, &pins));
    findings
}

fn check_oracle(project: &Project, pins: &[Pin]) -> Option<Finding> {
    let pinned = pins.iter().find(|pin| pin.name == "oracle").map_or("", |pin| &pin.version);
    let digest = tools::digest_of(project.files.iter().filter_map(|(path, file)| {
        Some((path.strip_prefix("tools/go/oracle/")?.to_owned(), file.text.clone().into_bytes()))
    }));
    let message = format!(
        "the oracle's sources have the digest {digest}, not {pinned}: run `cargo xtask tools --pin`"
    );
    (digest != pinned).then(|| Finding::new(VERSIONS, 1, "pin", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests;

    #[track_caller]
    fn check_versions(bbolt: &str, etcdutl: &str, oracle: &str, expected: &[&str]) {
        let go_mod = |modules: &[&str], version: &str| {
            let lines: String =
                modules.iter().map(|m| format!("\t{m} v{version} // indirect\n")).collect();
            format!("module x\n\nrequire (\n{lines})\n")
        };
        let etcd = go_mod(&ETCD[..2], "3.6.16") + &format!("require {} v{etcdutl}\n", ETCD[2]);
        let bolt = go_mod(&["go.etcd.io/bbolt"], bbolt);
        let digest = tools::digest_of([
            ("go.mod".to_owned(), bolt.clone().into_bytes()),
            ("main.go".to_owned(), oracle.as_bytes().to_vec()),
        ]);
        let digest = if oracle == "changed" { "0" } else { &digest };
        let versions = format!(
            "etcd-3.5 3.6.16\netcd-3.6 3.6.16\netcd-3.7 3.6.16\nbbolt 1.5.0\noracle {digest}\n"
        );
        let files = [
            (VERSIONS, versions.as_str()),
            ("tools/go/etcd-3.5/go.mod", &etcd),
            ("tools/go/etcd-3.6/go.mod", &etcd),
            ("tools/go/etcd-3.7/go.mod", &etcd),
            ("tools/go/bbolt/go.mod", &bolt),
            ("tools/go/oracle/go.mod", &bolt),
            ("tools/go/oracle/main.go", oracle),
        ];
        tests::check(check, &files, expected);
    }

    #[test]
    fn pins_equal_what_is_built() {
        check_versions("1.5.0", "3.6.16", "package main", &[]);
        check_versions(
            "1.5.01",
            "3.6.16",
            "package main",
            &[
                "tools/go/bbolt/go.mod:1: pin: does not have `go.etcd.io/bbolt v1.5.0`",
                "tools/go/oracle/go.mod:1: pin: does not have `go.etcd.io/bbolt v1.5.0`",
            ],
        );
        check_versions("1.5.0", "3.6.15", "package main", &["etcd-3.5/", "etcd-3.6/", "etcd-3.7/"]);
        check_versions("1.5.0", "3.6.16", "changed", &["run `cargo xtask tools --pin`"]);
    }

    #[test]
    fn a_tool_without_a_pin_is_named() {
        tests::check(check, &[(VERSIONS, "bbolt")], &["tools/versions:1: expected a name"]);
    }
}
