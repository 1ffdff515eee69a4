//! Changing etcd's flags in a manifest as a text: comments and order stay.

use super::Settings;

/// The text with these flags: each in its own line, as kubeadm writes them.
///
/// # Errors
/// A flag that is there in another way, or nothing that it could be put behind.
pub fn patch(text: &str, settings: &Settings) -> Result<String, String> {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    for (flag, value) in settings {
        let found: Vec<_> =
            (0..lines.len()).filter(|at| value_of(&lines[*at], flag).is_some()).collect();
        match *found {
            [at] => {
                let (start, end) = value_of(&lines[at], flag).unwrap_or_default();
                lines[at].replace_range(start..end, value);
            }
            [] => {
                let is_other = |line: &String| {
                    line.trim_start().starts_with(&format!("- --{flag}"))
                        || line.contains(&format!("--{flag} "))
                };
                if lines.iter().any(is_other) {
                    return Err(format!("--{flag} has no value of its own in its line"));
                }
                let behind = lines.iter().rposition(|line| line.trim_start().starts_with("- --"));
                let at = behind.ok_or_else(|| format!("there is no place for --{flag}"))?;
                let indent: String = lines[at].chars().take_while(|c| c.is_whitespace()).collect();
                if !lines[at].ends_with('\n') {
                    lines[at].push('\n');
                }
                lines.insert(at + 1, format!("{indent}- --{flag}={value}\n"));
            }
            _ => return Err(format!("--{flag} is there more than once")),
        }
    }
    Ok(lines.concat())
}

/// Where the value of a flag is in a line that is its own.
fn value_of(line: &str, flag: &str) -> Option<(usize, usize)> {
    let trimmed = line.trim_start();
    let indent = line.len() - trimmed.len();
    let (quote, item) = match trimmed.strip_prefix("- ")?.trim_start() {
        item if item.starts_with(['"', '\'']) => (item.chars().next(), &item[1..]),
        item => (None, item),
    };
    let start = item.strip_prefix("--")?.strip_prefix(flag)?.strip_prefix('=')?;
    let at = indent + trimmed.len() - start.len();
    let len = match quote {
        Some(quote) => start.find(quote)?,
        None => start.find(" #").unwrap_or(start.trim_end().len()),
    };
    Some((at, at + start[..len].trim_end().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
spec:
  containers:
  - command:
    - etcd
    - --name=m1 # its host
    - \"--initial-cluster=m1=https://10.0.0.1:2380\"
    - --initial-cluster-state=existing
    image: etcd
";

    fn patched(flags: &[(&'static str, &str)]) -> Result<String, String> {
        patch(TEXT, &flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect())
    }

    #[test]
    fn only_what_is_to_change_changes() {
        assert_eq!(patched(&[]).unwrap(), TEXT);
        let text = patched(&[
            ("initial-cluster", "m1=a,m2=b"),
            ("name", "m9"),
            ("initial-cluster-state", "new"),
        ])
        .unwrap();
        let want = TEXT
            .replace("m1=https://10.0.0.1:2380", "m1=a,m2=b")
            .replace("--name=m1 #", "--name=m9 #")
            .replace("=existing", "=new");
        assert_eq!(text, want);
        let text = patched(&[("initial-cluster-token", "t")]).unwrap();
        let line = "    - --initial-cluster-state=existing\n";
        assert_eq!(text, TEXT.replace(line, &format!("{line}    - --initial-cluster-token=t\n")));
    }

    #[test]
    fn what_is_written_in_another_way_is_left_alone() {
        let flags = Settings::from([("name", "m9".to_owned())]);
        for text in [
            "- etcd --name m1\n",
            "    - --name\n    - m1\n",
            "env: []\n",
            "    - --name=a\n    - --name=b\n",
        ] {
            assert!(patch(text, &flags).is_err(), "{text}");
        }
    }
}
