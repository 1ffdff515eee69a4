//! Commands as a user types them: shown, run in one folder, and their output handed back.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{checkout, etcd};

/// Where a command is broken, so that a story fits most terminals.
const WIDTH: usize = 99;

/// A folder to run commands in, and where they are looked up first.
pub struct Shell {
    folder: PathBuf,
    path: OsString,
    variables: Vec<(&'static str, String)>,
}

impl Shell {
    pub fn new(folder: PathBuf, programs: &[&Path]) -> Result<Self> {
        let old = env::var_os("PATH").unwrap_or_default();
        let all = programs.iter().map(|path| path.to_path_buf()).chain(env::split_paths(&old));
        let path = env::join_paths(all).context("a folder of programs has a `:` in its name")?;
        Ok(Self { folder, path, variables: Vec::new() })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Shows and sets a variable for all commands that follow.
    pub fn export(&mut self, name: &'static str, value: String) {
        show(&format!("export {name}={value}"));
        self.variables.push((name, value));
    }

    /// Shows a command, runs it, and returns what it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        show(line);
        self.run_unseen(line, None)
    }

    /// The same where one thing matters in the output: it is shown as a comment, and returned.
    pub fn run_for(
        &self,
        line: &str,
        what_matters: impl Fn(&str) -> Result<String>,
    ) -> Result<String> {
        let found = what_matters(&self.run_unseen(line, None)?)?;
        show(&format!("{line}   # {found}"));
        Ok(found)
    }

    /// The same without a line in the story, and with a file of the folder as its input.
    pub fn run_unseen(&self, line: &str, input: Option<&str>) -> Result<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = self.command(&words);
        command.stdin(match input {
            Some(name) => Stdio::from(File::open(self.folder.join(name))?),
            None => Stdio::null(),
        });
        let output = checkout::run_quietly(&mut command)?;
        String::from_utf8(output.stdout).with_context(|| format!("`{line}` prints no UTF-8"))
    }

    /// The program and its arguments, not yet shown.
    pub fn command(&self, words: &[impl AsRef<str>]) -> Command {
        let mut words = words.iter().map(AsRef::as_ref);
        let mut command = Command::new(self.find(words.next().unwrap_or_default()));
        command.args(words).current_dir(&self.folder).env("PATH", &self.path);
        etcd::forget_settings(&mut command);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn find(&self, program: &str) -> PathBuf {
        env::split_paths(&self.path)
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
            .unwrap_or_else(|| program.into())
    }
}

/// Shows a line of the story as a command.
pub fn show(line: &str) {
    println!("   $ {}", fold(line, WIDTH - 5).join(" \\\n       "));
}

/// Breaks a command before options, where it is longer than the width.
fn fold(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in line.split(" --") {
        let part = if lines == [""] { part.to_owned() } else { format!("--{part}") };
        let last = lines.last_mut().map_or(0, |last| last.len());
        match lines.last_mut() {
            Some(line) if last == 0 || last + part.len() + " \\".len() < width => {
                if last > 0 {
                    line.push(' ');
                }
                line.push_str(&part);
            }
            _ => lines.push(part),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_break_before_options() {
        assert_eq!(fold("etcd --name a --data-dir d &", 80), ["etcd --name a --data-dir d &"]);
        assert_eq!(
            fold("etcd --name a --data-dir cluster/a &", 20),
            ["etcd --name a", "--data-dir cluster/a &"]
        );
        assert_eq!(fold("etcdctl put a b", 5), ["etcdctl put a b"]);
    }
}
