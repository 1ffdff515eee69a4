//! A digest of a folder's files, to notice a change. It withstands no attack.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// FNV-1a, 64 bits, over the names and contents of the files directly in the folder.
pub fn of_folder(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, bytes));
    }
    Ok(of_files(files))
}

/// The same of files given by name and content.
pub fn of_files(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> String {
    let mut files: Vec<(String, Vec<u8>)> = files.into_iter().collect();
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for (name, bytes) in &files {
        // With its length, so that no two lists of files read as the same bytes.
        add(format!("{name}\0{}\0", bytes.len()).as_bytes());
        add(bytes);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_names_and_contents_apart_and_not_their_order() {
        let of = |files: &[(&str, &str)]| {
            of_files(files.iter().map(|(n, b)| ((*n).to_owned(), b.as_bytes().to_vec())))
        };
        assert_eq!(of(&[("a", "1"), ("b", "2")]), of(&[("b", "2"), ("a", "1")]));
        assert_ne!(of(&[("a", "1"), ("b", "2")]), of(&[("a", "2"), ("b", "1")]));
        assert_ne!(of(&[("a", "1")]), of(&[("b", "1")]));
        assert_ne!(of(&[("a", "")]), of(&[]));
    }
}
