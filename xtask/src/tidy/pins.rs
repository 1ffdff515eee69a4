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
    ("minio", "minio", &["github.com/minio/minio"]),
    ("fake-gcs-server", "fake-gcs-server", &["github.com/fsouza/fake-gcs-server"]),
    ("promtool", "promtool", &["github.com/prometheus/prometheus"]),
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
    findings.extend(check_azurite(project, version_of("azurite")));
    findings.extend(check_oracle(project, &pins));
    findings
}

/// What npm installs must be of the pinned version, and every package known by its hash and not by
/// where this machine would get it.
fn check_azurite(project: &Project, version: Option<&String>) -> Option<Finding> {
    const PACKAGE: &str = "tools/npm/azurite/package.json";
    const LOCK: &str = "tools/npm/azurite/package-lock.json";
    let Some(version) = version else {
        return Some(Finding::new(VERSIONS, 1, "pin", "`azurite` is missing".to_owned()));
    };
    let wanted = format!("\"azurite\": \"{version}\"");
    let lacking = [PACKAGE, LOCK].into_iter().find(|file| !project.text(file).contains(&wanted));
    if let Some(file) = lacking {
        let message = format!("does not have `{wanted}`, which {VERSIONS} pins");
        return Some(Finding::new(file, 1, "pin", message));
    }
    let line = project.text(LOCK).lines().position(|line| line.contains("\"resolved\":"))?;
    let message =
        "names a registry: `npm install --package-lock-only --omit-lockfile-registry-resolved`";
    Some(Finding::new(LOCK, line + 1, "pin", message.to_owned()))
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
        let npm = "{\n  \"dependencies\": { \"azurite\": \"3.37.0\" }\n}";
        let versions = format!(
            "etcd-3.5 3.6.16\netcd-3.6 3.6.16\netcd-3.7 3.6.16\nbbolt 1.5.0\noracle {digest}\n\
             minio 1.0.0\nfake-gcs-server 1.0.0\nazurite 3.37.0\npromtool 1.0.0\n"
        );
        let minio = go_mod(&["github.com/minio/minio"], "1.0.0");
        let gcs = go_mod(&["github.com/fsouza/fake-gcs-server"], "1.0.0");
        let promtool = go_mod(&["github.com/prometheus/prometheus"], "1.0.0");
        let files = [
            (VERSIONS, versions.as_str()),
            ("tools/go/etcd-3.5/go.mod", &etcd),
            ("tools/go/etcd-3.6/go.mod", &etcd),
            ("tools/go/etcd-3.7/go.mod", &etcd),
            ("tools/go/bbolt/go.mod", &bolt),
            ("tools/go/oracle/go.mod", &bolt),
            ("tools/go/oracle/main.go", oracle),
            ("tools/go/minio/go.mod", &minio),
            ("tools/go/fake-gcs-server/go.mod", &gcs),
            ("tools/go/promtool/go.mod", &promtool),
            ("tools/npm/azurite/package.json", npm),
            ("tools/npm/azurite/package-lock.json", npm),
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
    fn npm_packages_are_pinned_by_hash_alone() {
        fn rule(project: &Project) -> Vec<Finding> {
            check_azurite(project, Some(&"3.37.0".to_owned())).into_iter().collect()
        }
        let check = |lock: &str, expected: &[&str]| {
            let package = "\"azurite\": \"3.37.0\"";
            let files = [
                ("tools/npm/azurite/package.json", package),
                ("tools/npm/azurite/package-lock.json", lock),
            ];
            tests::check(rule, &files, expected);
        };
        check("\"azurite\": \"3.37.0\"", &[]);
        check("\"azurite\": \"3.36.0\"", &["package-lock.json:1: pin: does not have"]);
        check(
            "\"azurite\": \"3.37.0\"\n\"resolved\": 1",
            &["package-lock.json:2: pin: names a registry"],
        );
    }

    #[test]
    fn a_tool_without_a_pin_is_named() {
        tests::check(check, &[(VERSIONS, "bbolt")], &["tools/versions:1: expected a name"]);
    }
}
