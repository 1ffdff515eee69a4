//! Any bytes as a snapshot: the verdict does not depend on the parts in which they come, and the
//! digest that is missed is the one that makes it good.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_etcd::digest::{DIGEST_BYTES, DigestFault, Sha256Digest, SnapshotDigest, has_digest};

fuzz_target!(|bytes: &[u8]| {
    let Some((sizes, file)) = bytes.split_first_chunk::<4>() else { return };
    let verdict = digest(file, &[usize::MAX]);
    assert_eq!(digest(file, &sizes.map(usize::from)), verdict, "in parts");
    assert_eq!(has_digest(file.len() as u64), !matches!(verdict, Err(DigestFault::Length { .. })));
    if let Err(DigestFault::Mismatch { computed, .. }) = verdict {
        let mended = [&file[..file.len() - DIGEST_BYTES], &computed.0].concat();
        assert_eq!(digest(&mended, &sizes.map(usize::from)), Ok(computed));
    }
});

/// The verdict on a file that comes in parts of these sizes, over and over.
fn digest(file: &[u8], sizes: &[usize]) -> Result<Sha256Digest, DigestFault> {
    let (mut digest, mut rest) = (SnapshotDigest::new(), file);
    for size in sizes.iter().cycle() {
        // A part may be empty, but not all of them.
        let size = if sizes.iter().all(|size| *size == 0) { 1 } else { *size };
        let (part, left) = rest.split_at(size.min(rest.len()));
        digest.update(part);
        rest = left;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(digest.length(), file.len() as u64);
    digest.finish()
}
