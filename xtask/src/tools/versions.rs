//! `tools/versions`: a line for each tool, its name and its one version.

use std::fs;

use anyhow::{Context, Result, bail};

use super::{digest, oracle_sources};
use crate::checkout;

/// Where the versions are pinned, from the top of the checkout.
pub const VERSIONS: &str = "tools/versions";

/// One tool at its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Pin {
    pub name: String,
    pub version: String,
}

/// All pins, in the order of the file.
pub fn read() -> Result<Vec<Pin>> {
    let path = checkout::root().join(VERSIONS);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {VERSIONS}"))?;
    parse(&text)
}

/// The pins of such a text.
pub fn parse(text: &str) -> Result<Vec<Pin>> {
    let mut pins: Vec<Pin> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> =
            line.split('#').next().unwrap_or_default().split_whitespace().collect();
        match words[..] {
            [] => {}
            [name, _] if pins.iter().any(|pin| pin.name == name) => {
                bail!("{VERSIONS}:{}: `{name}` is there twice", index + 1)
            }
            [name, version] => pins.push(Pin { name: name.into(), version: version.into() }),
            _ => bail!("{VERSIONS}:{}: expected a name and a version", index + 1),
        }
    }
    Ok(pins)
}

/// The oracle's version is a digest of its sources: a binary can then never be older than they are.
pub fn check_fresh(pin: &Pin) -> Result<()> {
    if pin.name != "oracle" {
        return Ok(());
    }
    let digest = digest::of_folder(&oracle_sources())?;
    if digest != pin.version {
        bail!(
            "tools/go/oracle has changed: its digest is {digest}, {VERSIONS} says {}; \
             run `cargo xtask tools --pin`, then this again",
            pin.version
        );
    }
    Ok(())
}

/// Writes the oracle's digest where its version stands.
pub fn pin_oracle() -> Result<()> {
    let path = checkout::root().join(VERSIONS);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {VERSIONS}"))?;
    let digest = digest::of_folder(&oracle_sources())?;
    fs::write(&path, with_oracle(&text, &digest))
        .with_context(|| format!("cannot write {VERSIONS}"))?;
    println!("oracle {digest}");
    Ok(())
}

fn with_oracle(text: &str, digest: &str) -> String {
    text.lines()
        .map(|line| match line.split_whitespace().next() {
            Some("oracle") => format!("oracle      {digest}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_and_faults_named_by_line() {
        let pin = |name: &str, version: &str| Pin { name: name.into(), version: version.into() };
        assert_eq!(
            parse("# servers\n\nbbolt 1.5.0 # its check\netcd-3.4   3.4.23-4+b4\n").unwrap(),
            [pin("bbolt", "1.5.0"), pin("etcd-3.4", "3.4.23-4+b4")]
        );
        let fault = |text| parse(text).unwrap_err().to_string();
        assert_eq!(fault("\nbbolt\n"), "tools/versions:2: expected a name and a version");
        assert_eq!(fault("a 1\na 2\n"), "tools/versions:2: `a` is there twice");
    }

    #[test]
    fn pinning_changes_the_oracle_alone() {
        assert_eq!(
            with_oracle("# the oracle\nbbolt 1.5.0\noracle 0\n", "abc"),
            "# the oracle\nbbolt 1.5.0\noracle      abc\n"
        );
    }
}
