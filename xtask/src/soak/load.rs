//! Random changes, as what `etcdctl txn` reads.

use super::chance::Chance;

/// Few, so that keys are often written again, deleted and written again.
const KEYS: u64 = 500;

/// Of one transaction; etcd takes 128.
const CHANGES_MAX: u64 = 60;

/// Values from a few bytes to several pages.
const VALUE_SIZES: &[u64] = &[10, 200, 3000, 20_000];

/// One transaction, in which no key is changed twice.
pub fn transaction(chance: &mut Chance) -> String {
    let mut changes = String::from("\n");
    let mut key = chance.below(KEYS);
    for _ in 0..=chance.below(CHANGES_MAX) {
        changes += &match chance.below(5) {
            0 => format!("del /soak/{key:04}\n"),
            _ => format!("put /soak/{key:04} {}\n", value(chance)),
        };
        key += 1 + chance.below(KEYS / CHANGES_MAX);
    }
    changes + "\n\n"
}

fn value(chance: &mut Chance) -> String {
    let bytes = chance.below(chance.clone().one_of(VALUE_SIZES)) as usize + 1;
    format!("{:016x}", chance.next()).repeat(bytes / 16 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn etcd_takes_every_transaction() {
        let mut chance = Chance::of(7);
        for _ in 0..100 {
            let text = transaction(&mut chance);
            let keys: Vec<&str> = text.lines().filter_map(|l| l.split(' ').nth(1)).collect();
            assert!((1..=128).contains(&keys.len()));
            assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "{text}");
            assert!(text.len() < 1_500_000 && text.starts_with('\n') && text.ends_with("\n\n\n"));
        }
    }

    #[test]
    fn the_same_seed_makes_the_same() {
        let of = |seed| transaction(&mut Chance::of(seed));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
