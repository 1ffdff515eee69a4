//! How each tool is had: from a pinned Go module, from Debian's packages, from pinned npm packages, or
//! with `cargo install`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cache::Place;
use super::versions::Pin;
use crate::checkout;

/// How one tool is had.
#[derive(Debug)]
pub struct Recipe {
    name: &'static str,
    /// What its folder holds.
    pub binaries: &'static [&'static str],
    /// Whether the tests need it.
    pub for_tests: bool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The packages of the module in `tools/go/NAME`, a binary each, in the order of `binaries`.
    Go(&'static [&'static str]),
    /// Debian's packages, each with its binary in /usr/bin; then the Go module, where that fails.
    Debian { packages: &'static [&'static str], series: &'static str, go: &'static [&'static str] },
    /// The npm packages that `tools/npm/NAME` locks, with their binaries in `node_modules/.bin`. All of
    /// them are kept: the binaries need the rest.
    Npm,
    /// A crate with a binary of the same name.
    Cargo,
}

/// What a Kubernetes asks for its version, which its build has to say.
const KUBERNETES_VERSIONS: [&str; 2] =
    ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];

/// Where npm puts what can be run.
const NPM_BIN: &str = "node_modules/.bin";

const ETCD: &[&str] = &["etcd", "etcdctl", "etcdutl"];
const ETCD_V3: &[&str] =
    &["go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3"];

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "etcd-3.4",
        binaries: &["etcd", "etcdctl"],
        for_tests: true,
        source: Source::Debian {
            packages: &["etcd-server", "etcd-client"],
            series: "3.4.*",
            go: &["go.etcd.io/etcd", "go.etcd.io/etcd/etcdctl"],
        },
    },
    Recipe { name: "etcd-3.5", binaries: ETCD, for_tests: true, source: Source::Go(ETCD_V3) },
    Recipe { name: "etcd-3.6", binaries: ETCD, for_tests: true, source: Source::Go(ETCD_V3) },
    Recipe { name: "etcd-3.7", binaries: ETCD, for_tests: true, source: Source::Go(ETCD_V3) },
    Recipe {
        name: "bbolt",
        binaries: &["bbolt"],
        for_tests: true,
        source: Source::Go(&["go.etcd.io/bbolt/cmd/bbolt"]),
    },
    Recipe { name: "oracle", binaries: &["oracle"], for_tests: true, source: Source::Go(&["."]) },
    Recipe {
        name: "minio",
        binaries: &["minio"],
        for_tests: true,
        source: Source::Go(&["github.com/minio/minio"]),
    },
    Recipe {
        name: "fake-gcs-server",
        binaries: &["fake-gcs-server"],
        for_tests: true,
        source: Source::Go(&["github.com/fsouza/fake-gcs-server"]),
    },
    Recipe { name: "azurite", binaries: &["azurite-blob"], for_tests: true, source: Source::Npm },
    Recipe {
        name: "kubernetes-1.34",
        binaries: &[
            "kube-apiserver",
            "kubectl",
            "kubelet",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
        ],
        for_tests: false,
        source: Source::Go(&[
            "k8s.io/kubernetes/cmd/kube-apiserver",
            "k8s.io/kubernetes/cmd/kubectl",
            "k8s.io/kubernetes/cmd/kubelet",
            "k8s.io/kubernetes/cmd/kube-controller-manager",
            "k8s.io/kubernetes/cmd/kube-scheduler",
            "k8s.io/kubernetes/cmd/kube-proxy",
        ]),
    },
    Recipe {
        name: "cargo-fuzz",
        binaries: &["cargo-fuzz"],
        for_tests: false,
        source: Source::Cargo,
    },
    Recipe {
        name: "promtool",
        binaries: &["promtool"],
        for_tests: false,
        source: Source::Go(&["github.com/prometheus/prometheus/cmd/promtool"]),
    },
];

/// The recipe of a tool.
pub fn of(name: &str) -> Result<&'static Recipe> {
    match RECIPES.iter().find(|recipe| recipe.name == name) {
        Some(recipe) => Ok(recipe),
        None => bail!("no recipe says how `{name}` is had; add one to xtask/src/tools/recipe.rs"),
    }
}

impl Recipe {
    /// Puts the binaries into the place, saying each step.
    pub fn build(&self, pin: &Pin, place: &Place, say: &mut dyn FnMut(&str)) -> Result<()> {
        match &self.source {
            Source::Go(packages) => self.build_go(packages, pin, place, say),
            Source::Debian { packages, series, go } => {
                say("Debian packages");
                let Err(error) = self.unpack_debian(packages, series, pin, place, say) else {
                    return Ok(());
                };
                say(&format!("cannot be had ({error:#}); the Go module instead:"));
                self.build_go(go, pin, place, say)
            }
            Source::Npm => self.install_npm(place, say),
            Source::Cargo => self.install_crate(pin, place, say),
        }
    }

    fn build_go(
        &self,
        packages: &[&str],
        pin: &Pin,
        place: &Place,
        say: &mut dyn FnMut(&str),
    ) -> Result<()> {
        let mut flags = "-ldflags=-s -w".to_owned();
        if self.name.starts_with("kubernetes-") {
            for package in KUBERNETES_VERSIONS {
                flags += &format!(" -X {package}.gitVersion=v{}", pin.version);
            }
        }
        for (package, binary) in packages.iter().zip(self.binaries) {
            say(binary);
            let mut go = Command::new("go");
            go.args(["build", "-trimpath", "-buildvcs=false", &flags, "-o"])
                .arg(place.binaries.join(binary))
                .arg(package)
                .current_dir(checkout::root().join("tools/go").join(self.name))
                // What go.mod and go.sum pin, built by the Go that is here: no other toolchain is
                // fetched, and no C library is linked.
                .envs([("GOTOOLCHAIN", "local"), ("GOFLAGS", "-mod=readonly")])
                .envs([("CGO_ENABLED", "0"), ("GOWORK", "off")]);
            checkout::run_quietly(&mut go)?;
        }
        Ok(())
    }

    fn unpack_debian(
        &self,
        packages: &[&str],
        series: &str,
        pin: &Pin,
        place: &Place,
        say: &mut dyn FnMut(&str),
    ) -> Result<()> {
        if download(packages, &pin.version, place).is_err() {
            // A fresh machine has no package lists; only root may fetch them.
            let _ = checkout::run_quietly(Command::new("apt-get").args(["update", "--quiet"]));
            if download(packages, &pin.version, place).is_err() {
                download(packages, series, place)?;
                say(&format!("(Debian no longer has {}, took its newest {series})", pin.version));
            }
        }
        let unpacked = place.scratch.join("unpacked");
        for deb in files_ending(&place.scratch, ".deb")? {
            checkout::run_quietly(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
        }
        for binary in self.binaries {
            fs::copy(unpacked.join("usr/bin").join(binary), place.binaries.join(binary))
                .with_context(|| format!("Debian's packages have no /usr/bin/{binary}"))?;
        }
        Ok(())
    }

    fn install_npm(&self, place: &Place, say: &mut dyn FnMut(&str)) -> Result<()> {
        say("npm ci");
        let lock = checkout::root().join("tools/npm").join(self.name);
        for file in ["package.json", "package-lock.json"] {
            fs::copy(lock.join(file), place.binaries.join(file))
                .with_context(|| format!("cannot copy {file} of {}", lock.display()))?;
        }
        let mut npm = Command::new("npm");
        // What the lock pins, by its hashes; none of it runs anything while it is installed.
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .arg("--cache")
            .arg(place.scratch.join("npm"))
            .current_dir(&place.binaries);
        checkout::run_quietly(&mut npm)?;
        for binary in self.binaries {
            let link = Path::new(NPM_BIN).join(binary);
            std::os::unix::fs::symlink(link, place.binaries.join(binary))?;
        }
        Ok(())
    }

    fn install_crate(&self, pin: &Pin, place: &Place, say: &mut dyn FnMut(&str)) -> Result<()> {
        say("cargo install");
        let mut cargo = checkout::cargo();
        cargo
            .args(["install", "--locked", "--quiet", self.name, "--version", &pin.version])
            .arg("--root")
            .arg(&place.scratch)
            .env("CARGO_TARGET_DIR", place.scratch.join("target"));
        checkout::run_quietly(&mut cargo)?;
        for binary in self.binaries {
            fs::rename(place.scratch.join("bin").join(binary), place.binaries.join(binary))?;
        }
        Ok(())
    }
}

/// Only fetches: installing the packages would start a server.
fn download(packages: &[&str], version: &str, place: &Place) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["download", "--quiet"])
        .args(packages.iter().map(|package| format!("{package}={version}")))
        .current_dir(&place.scratch);
    checkout::run_quietly(&mut apt)?;
    Ok(())
}

fn files_ending(folder: &Path, ending: &str) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    Ok(found)
}
