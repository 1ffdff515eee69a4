//! The project as the rules see it: its files, and what Cargo knows of its crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::source::Source;
use crate::checkout;

/// All that the rules look at. It is read once, and no rule reads more.
#[derive(Default)]
pub struct Project {
    /// The files that are or would be committed, by path from the top; binary ones have no text.
    pub files: BTreeMap<String, File>,
    pub crates: Vec<Crate>,
}

/// One file.
pub struct File {
    pub text: String,
    /// Of a Rust file.
    pub rust: Option<Source>,
}

/// One crate of the workspace.
#[derive(Clone, Debug, Default)]
pub struct Crate {
    /// Its folder's own name: `bolt` of crates/bolt.
    pub name: String,
    /// Its folder.
    pub folder: String,
    /// The workspace's crates that it depends on, by name.
    pub uses: BTreeSet<String>,
    /// The same, for its tests only.
    pub uses_in_tests: BTreeSet<String>,
    /// The packages of its manifest's [dependencies].
    pub dependencies: BTreeSet<String>,
    /// Those and what they depend on in turn, build scripts and tests left out.
    pub closure: BTreeSet<String>,
}

impl Project {
    /// Reads the checkout.
    pub fn read() -> Result<Self> {
        let mut git = Command::new("git");
        git.args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(checkout::root());
        let listing = checkout::run_quietly(&mut git)?.stdout;
        let mut files = Vec::new();
        for path in String::from_utf8_lossy(&listing).split_terminator('\0') {
            // A file that was deleted and not yet committed is listed all the same.
            if let Ok(bytes) = fs::read(checkout::root().join(path)) {
                files.push((path.to_owned(), String::from_utf8(bytes).unwrap_or_default()));
            }
        }
        let mut project = Self::of(files);
        project.crates = read_crates()?;
        Ok(project)
    }

    /// A project of these files.
    pub fn of(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut project = Self::default();
        for (path, text) in files {
            let rust = path.ends_with(".rs").then(|| Source::new(&text, is_test_path(&path)));
            project.files.insert(path, File { text, rust });
        }
        project.mark_test_modules();
        project
    }

    /// The Rust files.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.files
            .iter()
            .filter_map(|(path, file)| file.rust.as_ref().map(|source| (path.as_str(), source)))
    }

    /// The text of a file, empty where there is none.
    pub fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", |file| file.text.as_str())
    }

    /// Whether there is such a file or folder.
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }

    fn mark_test_modules(&mut self) {
        let mut marked = Vec::new();
        for (path, source) in self.sources() {
            let folder = module_folder(path);
            for module in &source.test_modules {
                marked.push(format!("{folder}/{module}.rs"));
                marked.push(format!("{folder}/{module}/mod.rs"));
            }
        }
        for path in marked {
            if let Some(source) = self.files.get_mut(&path).and_then(|file| file.rust.as_mut()) {
                source.mark_all_test();
            }
        }
    }
}

/// Where the modules of a file lie that have files of their own.
fn module_folder(path: &str) -> String {
    let path = Path::new(path);
    let folder = path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
    match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("mod" | "lib" | "main") | None => folder,
        Some(stem) => format!("{folder}/{stem}"),
    }
}

/// Whether a whole file is a test's: those of the test kit are, and the fuzz targets.
fn is_test_path(path: &str) -> bool {
    let folders = Path::new(path).parent().unwrap_or(Path::new(""));
    path.starts_with("crates/testkit/")
        || path.starts_with("fuzz/")
        || path.ends_with("/tests.rs")
        || folders
            .components()
            .any(|part| ["tests", "benches"].iter().any(|t| part.as_os_str() == *t))
}

fn read_crates() -> Result<Vec<Crate>> {
    let mut cargo = checkout::cargo();
    // One platform is enough, and the crates of the others need not be fetched.
    cargo.args(["metadata", "--format-version", "1", "--locked"]);
    cargo.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = checkout::run_quietly(&mut cargo)?;
    let metadata =
        serde_json::from_slice(&output.stdout).context("cannot read what `cargo metadata` says")?;
    Ok(crates_of(&metadata, &checkout::root().to_string_lossy()))
}

/// The workspace's crates, from what `cargo metadata` says of a workspace at `root`.
fn crates_of(metadata: &Value, root: &str) -> Vec<Crate> {
    let graph = Graph::new(metadata);
    let members: BTreeSet<&str> = strings(&metadata["workspace_members"]).collect();
    let mut crates = Vec::new();
    for package in array(&metadata["packages"]) {
        let id = package["id"].as_str().unwrap_or_default();
        if !members.contains(id) {
            continue;
        }
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let folder = Path::new(manifest).parent().unwrap_or(Path::new(""));
        let folder = folder.strip_prefix(root).unwrap_or(folder);
        let mut found = Crate {
            name: last_part(folder),
            folder: folder.to_string_lossy().into_owned(),
            closure: graph.closure(id),
            ..Crate::default()
        };
        for dependency in array(&package["dependencies"]) {
            found.add(dependency);
        }
        crates.push(found);
    }
    crates
}

impl Crate {
    /// Takes note of one dependency of the manifest.
    fn add(&mut self, dependency: &Value) {
        let in_tests = dependency["kind"] == "dev";
        if let Some(path) = dependency["path"].as_str() {
            let edges = if in_tests { &mut self.uses_in_tests } else { &mut self.uses };
            edges.insert(last_part(Path::new(path)));
        } else if !in_tests && let Some(name) = dependency["name"].as_str() {
            self.dependencies.insert(name.to_owned());
        }
    }
}

/// Which package needs which to run.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    edges: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Value) -> Self {
        let mut graph = Self { names: BTreeMap::new(), edges: BTreeMap::new() };
        for package in array(&metadata["packages"]) {
            if let (Some(id), Some(name)) = (package["id"].as_str(), package["name"].as_str()) {
                graph.names.insert(id, name);
            }
        }
        for node in array(&metadata["resolve"]["nodes"]) {
            let normal = array(&node["deps"])
                .filter(|dep| array(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()))
                .filter_map(|dep| dep["pkg"].as_str());
            graph.edges.insert(node["id"].as_str().unwrap_or_default(), normal.collect());
        }
        graph
    }

    fn closure(&self, id: &str) -> BTreeSet<String> {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for next in self.edges.get(id).into_iter().flatten().copied() {
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        seen.iter().filter_map(|id| self.names.get(id)).map(|&name| name.to_owned()).collect()
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    array(value).filter_map(Value::as_str)
}

fn last_part(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declared_for_tests_is_a_test_in_its_own_file() {
        let project = Project::of([
            ("a/src/lib.rs".into(), "#[cfg(test)]\nmod oracle;\nmod scan;\n".into()),
            ("a/src/oracle.rs".into(), "fn f() {}\n".into()),
            ("a/src/scan.rs".into(), "#[cfg(test)]\nmod model;\n".into()),
            ("a/src/scan/model.rs".into(), "fn f() {}\n".into()),
            ("a/tests/x.rs".into(), "fn f() {}\n".into()),
        ]);
        let product: Vec<(&str, usize)> =
            project.sources().map(|(path, source)| (path, source.product_lines())).collect();
        assert_eq!(
            product,
            [
                ("a/src/lib.rs", 1),
                ("a/src/oracle.rs", 0),
                ("a/src/scan.rs", 0),
                ("a/src/scan/model.rs", 0),
                ("a/tests/x.rs", 0),
            ]
        );
    }

    #[test]
    fn crates_are_read_with_what_they_need_to_run() {
        let metadata = serde_json::json!({
            "workspace_members": ["E"],
            "packages": [
                {"id": "E", "name": "rekindle-etcd", "manifest_path": "/r/crates/etcd/Cargo.toml", "dependencies": [
                    {"name": "rekindle-bolt", "path": "/r/crates/bolt", "kind": null},
                    {"name": "rekindle-testkit", "path": "/r/crates/testkit", "kind": "dev"},
                    {"name": "sha2", "kind": null},
                    {"name": "proptest", "kind": "dev"},
                ]},
                {"id": "S", "name": "sha2"}, {"id": "D", "name": "digest"}, {"id": "P", "name": "proptest"},
            ],
            "resolve": {"nodes": [
                {"id": "E", "deps": [
                    {"pkg": "S", "dep_kinds": [{"kind": null}]},
                    {"pkg": "P", "dep_kinds": [{"kind": "dev"}]},
                ]},
                {"id": "S", "deps": [{"pkg": "D", "dep_kinds": [{"kind": "build"}, {"kind": null}]}]},
            ]},
        });
        let crates = crates_of(&metadata, "/r");
        let set = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!((crates[0].name.as_str(), crates[0].folder.as_str()), ("etcd", "crates/etcd"));
        assert_eq!(crates[0].uses, set(&["bolt"]));
        assert_eq!(crates[0].uses_in_tests, set(&["testkit"]));
        assert_eq!(crates[0].dependencies, set(&["sha2"]));
        assert_eq!(crates[0].closure, set(&["digest", "sha2"]));
    }
}
