//! Reaching hosts: each step is a run of this program, here or over the user's own ssh.

use crate::failure::{Code, Failure};
use crate::member::HostStepWords;
use serde::de::DeserializeOwned;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A host, as far as it can be reached.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// This one, with these words behind the name of the program.
    Here { program: PathBuf, words: Vec<OsString> },
    /// Another one.
    There { ssh: Vec<String>, target: String, command: String },
}

impl Reach {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Here { .. } => "this host",
            Self::There { target, .. } => target,
        }
    }

    /// What would be typed.
    fn command(&self, step: &HostStepWords) -> Command {
        match self {
            Self::Here { program, words } => {
                let mut command = Command::new(program);
                command.arg("on-host").args(words).args(&step.0);
                command
            }
            Self::There { ssh, target, command: remote } => {
                let mut command = Command::new(&ssh[0]);
                command.args(&ssh[1..]).arg(target);
                let words: Vec<_> =
                    step.0.iter().map(|word| quoted(&word.to_string_lossy())).collect();
                command.arg(format!("{remote} on-host {}", words.join(" ")));
                command
            }
        }
    }

    /// Takes a step; what it has printed. What it says meanwhile is said on, with the host's name.
    pub(crate) fn take(
        &self,
        step: &HostStepWords,
        input: Option<&Path>,
    ) -> Result<Vec<u8>, Failure> {
        let mut command = self.command(step);
        let stdin = match input {
            Some(path) => {
                let file = std::fs::File::open(path);
                Stdio::from(file.map_err(|error| Failure::io("opening", path, &error))?)
            }
            None => Stdio::null(),
        };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Who interrupts us lets what is half done end.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("{}: starting {:?}: {error}", self.name(), command.get_program()),
            )
        })?;
        self.hear(child)
    }

    fn hear(&self, mut child: Child) -> Result<Vec<u8>, Failure> {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut bytes));
            read.map(|_| bytes)
        });
        let mut said = Vec::new();
        for line in
            stderr.into_iter().flat_map(|it| BufReader::new(it).lines()).map_while(Result::ok)
        {
            let _ = writeln!(std::io::stderr(), "{}: {line}", self.name());
            said.push(line);
        }
        let failed = |why: String| Failure::new(Code::Failed, format!("{}: {why}", self.name()));
        let status = child.wait().map_err(|error| failed(error.to_string()))?;
        let bytes = reader.join().map_err(|_| failed("reading has panicked".to_owned()))?;
        if status.success() {
            return bytes.map_err(|error| failed(error.to_string()));
        }
        let why = said.iter().rev().find_map(|line| line.strip_prefix("error: "));
        let why = why.or(said.last().map(String::as_str)).unwrap_or_default();
        Err(failed(if why.is_empty() { status.to_string() } else { why.to_owned() }))
    }

    /// Takes a step, and what it says in its last line.
    pub(crate) fn ask<T: DeserializeOwned>(&self, step: &HostStepWords) -> Result<T, Failure> {
        let printed = self.take(step, None)?;
        let last = printed.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
        serde_json::from_slice(last.unwrap_or_default()).map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("{}: it says nothing of itself: {error}", self.name()),
            )
            .remedy("rekindle of the same version must be installed there")
        })
    }

    /// The same, into a file.
    pub(crate) fn fetch(&self, step: &HostStepWords, to: &Path) -> Result<(), Failure> {
        let failed = |error| Failure::io("writing", to, &error);
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.write(true).create(true).truncate(true).open(to).map_err(failed)?;
        let mut command = self.command(step);
        command.stdin(Stdio::null()).stdout(file).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| {
            Failure::new(Code::Failed, format!("{}: starting: {error}", self.name()))
        })?;
        self.hear(child).map(drop)
    }
}

/// As a shell reads it back.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=:/.,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_other_host_as_they_are() {
        let ssh = vec!["/bin/sh".to_owned(), "-c".to_owned(), "eval \"$1\"".to_owned()];
        let command = "printf '%s\\n'".to_owned();
        let there = Reach::There { ssh, target: "h1".to_owned(), command };
        let words = ["look", "it's; rm", "", "a b", "$HOME"];
        let printed = there.take(&HostStepWords::new(words), None).unwrap();
        assert_eq!(String::from_utf8(printed).unwrap(), format!("on-host\n{}\n", words.join("\n")));
    }
}
