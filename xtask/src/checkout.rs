//! The checkout that this xtask belongs to, and the programs that it runs in it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The top of the checkout.
pub fn root() -> PathBuf {
    // Cargo sets the variable when it runs or tests us; the constant serves a binary started by hand.
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
    Path::new(&manifest).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The cargo that runs us, at the top of the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What cargo has set for us is not for others: some build scripts (ring's) look at it, and what
    // they make would be built anew whenever `cargo` and `cargo xtask` take turns.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Builds the product as it is used, and says where it is.
pub fn build_rekindle() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "rekindle"]);
    build_binary(build, "rekindle")
}

/// Builds all there is, as tests do, and says where a binary of it is.
pub fn build_workspace(name: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--locked", "--workspace"]);
    build_binary(build, name)
}

/// Builds one of the product's measuring examples.
pub fn build_example(package: &str, example: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", package, "--example", example]);
    build_binary(build, example)
}

/// Runs a build, whose progress is cargo's own, and finds the binary of that name in what it says.
fn build_binary(mut build: Command, name: &str) -> Result<PathBuf> {
    build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = build.output().with_context(|| missing(&build))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", show(&build), output.status);
    }
    executable(&String::from_utf8_lossy(&output.stdout), name)
        .with_context(|| format!("`{}` made no `{name}`", show(&build)))
}

/// The path of a binary, by what cargo's messages say.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Runs a program that has nothing to say when all is well; its output is shown only if it fails.
pub fn run_quietly(command: &mut Command) -> Result<Output> {
    let shown = show(command);
    let output = command.output().with_context(|| missing(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}):\n{}", output.status, said.trim_end());
    }
    Ok(output)
}

/// Why a program could not be started, and where it comes from.
pub fn missing(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    match program.as_str() {
        "go" | "gofmt" => {
            format!("cannot run `{program}`: install Go 1.26 or newer (https://go.dev/dl)")
        }
        "npm" => "cannot run `npm`: install Node.js 20 or newer (https://nodejs.org)".to_owned(),
        "git" => "cannot run `git`: install it, and run this in a git checkout".to_owned(),
        _ => format!("cannot run `{program}`"),
    }
}

/// A command as one would type it: without the folders of the program, its own and its environment.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let mut words = vec![program.to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"bytes"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"drain"},"executable":"/t/drain"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "drain"), Some("/t/drain".into()));
        assert_eq!(executable(messages, "bytes"), None);
    }
}
