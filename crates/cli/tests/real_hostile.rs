//! Damaged databases: whatever bbolt's checker rejects, ours rejects too.

use rekindle_bolt::{Db, check};
use rekindle_testkit::oracle::{self, Patch};
use serde_json::json;
use std::time::Duration;
use tempfile::TempDir;

/// Damaged copies in all.
const MUTANTS: u64 = 10_000;
/// Databases that they are copies of.
const BASES: u64 = 20;
const PAGE: u64 = 4096;
/// A check of such a file takes some milliseconds, but damage can make bbolt walk billions of pages.
const QUICK: Duration = Duration::from_millis(200);
const PATIENT: Duration = Duration::from_secs(10);

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// Changes, and the length to which the file is cut.
type Mutant = (Vec<Patch>, Option<u64>);

/// Damage where it hurts: most of it in page headers, elements and metas.
fn mutant(random: &mut Random, base: &[u8]) -> Mutant {
    let pages = base.len() as u64 / PAGE;
    if random.below(20) == 0 {
        return (Vec::new(), Some(random.below(base.len() as u64)));
    }
    let count = 1 + random.below(3);
    let patch = |_| {
        let page = random.below(pages) * PAGE;
        let at = match random.below(4) {
            0 => page + random.below(16),
            1 => page + 16 + random.below(256),
            2 => random.below(2) * PAGE + 16 + random.below(64),
            _ => random.below(base.len() as u64),
        };
        let old = base[at as usize];
        let new = match random.below(4) {
            0 => old ^ 1 << random.below(8),
            1 => random.next() as u8,
            2 => 0xff,
            _ => old.wrapping_add(1),
        };
        Patch { at, bytes: vec![new] }
    };
    ((0..count).map(patch).collect(), None)
}

/// Makes the metas' checksums fit, so that damage behind them is reached.
fn mend_metas(base: &[u8], mutant: &mut Mutant) {
    let bytes = apply(base, mutant);
    for slot in 0..2 {
        let start = (slot * PAGE + 16) as usize;
        let sum = bytes[start..start + 56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        mutant.0.push(Patch { at: (start + 56) as u64, bytes: sum.to_le_bytes().to_vec() });
    }
}

fn apply(base: &[u8], (patches, truncate): &Mutant) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for Patch { at, bytes: new } in patches {
        bytes[*at as usize..*at as usize + new.len()].copy_from_slice(new);
    }
    bytes.truncate(truncate.unwrap_or(bytes.len() as u64) as usize);
    bytes
}

fn is_sound(bytes: &Vec<u8>) -> bool {
    Db::open(bytes).is_ok_and(|db| check(&db, &mut ()).unwrap().is_sound())
}

#[test]
fn what_bbolt_rejects_is_rejected() {
    let directory = TempDir::new().unwrap();
    let (mut rejected, mut ours_only) = (0, 0);
    for seed in 0..BASES {
        let path = directory.path().join(format!("{seed}.db"));
        let more = json!({
            "transactions": 60, "keys": 30, "value_max": 2000, "members": 3, "leases": 20,
            "page_size": PAGE, "snapshot": true, "missing": [], "sync_freelist": seed % 2 == 0,
        });
        oracle::generate([(path.as_path(), seed)], &more);
        let base = std::fs::read(&path).unwrap();
        assert!(is_sound(&base), "seed {seed}");
        let mut random = Random(seed);
        let mutants: Vec<_> = (0..MUTANTS / BASES)
            .map(|number| {
                let mut mutant = mutant(&mut random, &base);
                if number % 2 == 0 && mutant.1.is_none() {
                    mend_metas(&base, &mut mutant);
                }
                mutant
            })
            .collect();
        let answers = oracle::check_changed(&path, &mutants, QUICK);
        for (mutant, answer) in mutants.into_iter().zip(answers) {
            let ours = is_sound(&apply(&base, &mutant));
            rejected += u64::from(answer.verdict.is_err());
            ours_only += u64::from(!ours && answer.verdict.is_ok());
            if ours && answer.verdict.is_err() {
                // It may only have been slow.
                let again = oracle::check_changed(&path, std::slice::from_ref(&mutant), PATIENT);
                let verdict = &again[0].verdict;
                assert_eq!(*verdict, Ok(()), "seed {seed}: we accept {mutant:?}");
            }
        }
    }
    // The comparison is worth something only if both kinds came up often.
    assert!(rejected > MUTANTS / 20, "bbolt rejected only {rejected}");
    println!("of {MUTANTS} bbolt rejected {rejected}, and we {ours_only} more");
}
