//! What no restore on this machine can go below: the bare work on the same bytes.
//!
//! `cargo run --release -p rekindle-datadir --example limits -- sha256 FILE`: the digest alone,
//! by the code that the product digests with. `… -- scan FILE`: the bytes read, and each looked at
//! once. `… -- write FILE BYTES`: a new file, allocated at once, written and synced.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rekindle_etcd::digest::SnapshotDigest;
use rustix::fs::{FallocateFlags, fallocate};

/// As large as it helps, and small enough for a core's cache.
const BUFFER: usize = 256 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sha256", file] => sha256(file.as_ref()),
        ["scan", file] => scan(file.as_ref()),
        ["write", file, bytes] => write(file.as_ref(), bytes.parse()?),
        _ => Err("usage: limits sha256 FILE | scan FILE | write FILE BYTES".into()),
    }
}

fn sha256(file: &Path) -> Result<(), Box<dyn Error>> {
    let mut digest = SnapshotDigest::new();
    each_part(file, |part| digest.update(part))?;
    println!("{}", digest.finish()?);
    Ok(())
}

fn scan(file: &Path) -> Result<(), Box<dyn Error>> {
    let mut sum = 0_u64;
    each_part(file, |part| {
        for word in part.as_chunks::<8>().0 {
            sum = sum.wrapping_add(u64::from_le_bytes(*word));
        }
    })?;
    println!("{sum:x}");
    Ok(())
}

fn each_part(file: &Path, mut look: impl FnMut(&[u8])) -> Result<(), Box<dyn Error>> {
    let mut file = File::open(file)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => look(&buffer[..read]),
        }
    }
}

fn write(file: &Path, bytes: u64) -> Result<(), Box<dyn Error>> {
    let mut file = File::create_new(file)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    let buffer = vec![1; BUFFER];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(BUFFER as u64);
        file.write_all(&buffer[..usize::try_from(part)?])?;
        left -= part;
    }
    Ok(file.sync_all()?)
}
