//! Units of systemd. A drop-in keeps one from starting: `mask` does not where the unit's file is in `/etc`.

use super::{Fault, Settings, WITHIN, at, command, variable};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where administrators have their units.
const UNITS: &str = "/etc/systemd/system";
/// Keeps it from starting, and says why.
const HELD: &str = "90-rekindle-held.conf";
/// What it is to be.
const SETTINGS: &str = "80-rekindle.conf";
/// What it was to be before; systemd reads no such file. An empty one says that nothing was said.
const BEFORE: &str = "80-rekindle.conf.before";

pub(super) fn stop(unit: &str) -> Result<(), Fault> {
    keep_before(&drop_in(unit, SETTINGS), &drop_in(unit, BEFORE))?;
    let path = drop_in(unit, HELD);
    let text = format!(
        "# rekindle keeps {unit} from starting while its data is not what it should be.\n[Unit]\nAssertPathExists=!{}\n",
        path.display()
    );
    write(&path, &text)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["stop", unit]).map(drop)
}

pub(super) fn start(unit: &str, settings: &Settings) -> Result<(), Fault> {
    if !settings.is_empty() {
        let shown = systemctl(&["show", "--property=ExecStart", "--value", unit])?;
        let text = settings_text(&shown, settings)
            .map_err(|why| Fault::Unfit(format!("what {unit} starts cannot be changed: {why}")))?;
        write(&drop_in(unit, SETTINGS), &text)?;
    }
    remove(&drop_in(unit, HELD))?;
    systemctl(&["daemon-reload"])?;
    // It may have been tried too often meanwhile.
    let _ = systemctl(&["reset-failed", unit]);
    systemctl(&["start", "--no-block", unit]).map(drop)
}

/// It is to be what it was before.
pub(super) fn restore_settings(unit: &str) -> Result<(), Fault> {
    restore(&drop_in(unit, SETTINGS), &drop_in(unit, BEFORE))
}

pub(super) fn finish(unit: &str) -> Result<(), Fault> {
    remove(&drop_in(unit, BEFORE))
}

pub(super) fn is_unfinished(unit: &str) -> bool {
    drop_in(unit, BEFORE).exists()
}

/// What was kept already is what was there before anything was changed.
fn keep_before(settings: &Path, before: &Path) -> Result<(), Fault> {
    if before.exists() {
        return Ok(());
    }
    let text = match std::fs::read_to_string(settings) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.map_err(at("reading", settings))?,
    };
    write(before, &text)
}

fn restore(settings: &Path, before: &Path) -> Result<(), Fault> {
    match std::fs::read_to_string(before) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("reading", before)(error)),
        Ok(text) if text.is_empty() => remove(settings),
        Ok(text) => write(settings, &text),
    }
}

fn remove(path: &Path) -> Result<(), Fault> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(at("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// What it starts, with these flags instead of those that it has. An etcd that finds one in its environment as well ends at
/// once (etcd `pkg/flags/flag.go`).
fn settings_text(shown: &str, settings: &Settings) -> Result<String, String> {
    let argv = shown.split_once("argv[]=").and_then(|(_, rest)| rest.split_once(" ; "));
    let (argv, _) = argv.ok_or_else(|| format!("systemctl says of it: {}", shown.trim()))?;
    if shown.matches("argv[]=").count() != 1 || argv.contains(['"', '\'', '\\']) {
        return Err("it is more than a plain command".to_owned());
    }
    let mut words = argv.split_whitespace().peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        let flag = word.trim_start_matches('-');
        let (name, value) =
            flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        if word.starts_with('-') && name == "config-file" {
            return Err("it has a --config-file, and etcd heeds no flags beside one".to_owned());
        }
        if !word.starts_with('-') || !settings.contains_key(name) {
            kept.push(word.to_owned());
        } else if value.is_none() {
            words.next_if(|next| !next.starts_with('-'));
        }
    }
    kept.extend(
        settings.iter().map(|(flag, value)| format!("--{flag}={}", value.replace('%', "%%"))),
    );
    let unset: Vec<_> = settings.keys().map(|flag| variable(flag)).collect();
    Ok(format!(
        "# What rekindle has told etcd to be.\n[Service]\nUnsetEnvironment={}\nExecStart=\nExecStart={}\n",
        unset.join(" "),
        kept.join(" ")
    ))
}

fn drop_in(unit: &str, name: &str) -> PathBuf {
    Path::new(UNITS).join(format!("{unit}.d")).join(name)
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let parent = path.parent().unwrap_or(Path::new(UNITS));
    std::fs::create_dir_all(parent).map_err(at("making", parent))?;
    std::fs::write(path, text).map_err(at("writing", path))
}

fn systemctl(words: &[&str]) -> Result<String, Fault> {
    let mut command = Command::new("systemctl");
    command.args(words);
    command::run(command, &format!("systemctl {}", words.join(" ")), WITHIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "{ path=/usr/bin/etcd ; argv[]=/usr/bin/etcd --name m1 --initial-cluster m1=http://a:1 \
                         --initial-cluster-state=new -v ; ignore_errors=no ; start_time=[n/a] }";

    #[test]
    fn what_it_was_to_be_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let (settings, before) = (directory.path().join(SETTINGS), directory.path().join(BEFORE));
        for was in [None, Some("was")] {
            if let Some(was) = was {
                write(&settings, was).unwrap();
            }
            keep_before(&settings, &before).unwrap();
            write(&settings, "is").unwrap();
            keep_before(&settings, &before).unwrap();
            restore(&settings, &before).unwrap();
            assert_eq!(std::fs::read_to_string(&settings).ok().as_deref(), was);
            remove(&before).unwrap();
            restore(&settings, &before).unwrap();
            assert_eq!(std::fs::read_to_string(&settings).ok().as_deref(), was);
        }
    }

    #[test]
    fn only_what_etcd_is_to_be_changes() {
        let settings = Settings::from([
            ("initial-cluster", "m1=http://[fe80::1%eth0]:1".to_owned()),
            ("initial-cluster-state", "existing".to_owned()),
        ]);
        let text = settings_text(SHOWN, &settings).unwrap();
        let want = "[Service]\nUnsetEnvironment=ETCD_INITIAL_CLUSTER ETCD_INITIAL_CLUSTER_STATE\nExecStart=\n\
                    ExecStart=/usr/bin/etcd --name m1 -v --initial-cluster=m1=http://[fe80::1%%eth0]:1 \
                    --initial-cluster-state=existing\n";
        assert_eq!(text.split_once('\n').unwrap().1, want);
        for other in
            ["", "argv[]=/bin/sh -c 'etcd' ; x", "argv[]=etcd --config-file=/etc/etcd.yaml ; x"]
        {
            assert!(settings_text(other, &settings).is_err(), "{other}");
        }
    }
}
