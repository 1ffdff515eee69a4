//! Debian's packages that a lane takes besides what it builds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::checkout;

/// Whoever is not root gets this for an error.
pub fn require_root(why: &str) -> Result<()> {
    ensure!(fs::metadata("/proc/self")?.uid() == 0, "{why}");
    Ok(())
}

/// Installs what is missing: each package with a file by which it is known to be there.
pub fn install(packages: &[(&str, &str)]) -> Result<()> {
    let missing = packages.iter().filter(|(_, path)| !Path::new(path).exists());
    let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    let mut apt = Command::new("apt-get");
    apt.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(missing);
    checkout::run_quietly(&mut apt).map(drop)
}
