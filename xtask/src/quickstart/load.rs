//! The keys of the story, as what `etcdctl txn` reads: new ones, new versions, deletes.

/// Changes of one transaction; etcd takes 128.
const BATCH: usize = 100;

const ORDERS: usize = 2000;
const SESSIONS: usize = 1000;

/// A transaction each. Every `n`-th session is of the lease `n % leases.len()`.
pub fn transactions(leases: &[String]) -> Vec<String> {
    let session = |n: usize, version| {
        let lease = &leases[n % leases.len()];
        format!("put /shop/session/{n:04} token-{n}-{version} --lease={lease}")
    };
    let order = |n: usize, version| format!("put /shop/order/{n:04} order-{n}-version-{version}");
    let mut batches = Vec::new();
    let mut add = |changes: Vec<String>| {
        batches.extend(changes.chunks(BATCH).map(transaction));
    };
    add((0..ORDERS).map(|n| order(n, 1)).collect());
    add((0..SESSIONS).map(|n| session(n, 1)).collect());
    add((0..ORDERS).step_by(3).map(|n| order(n, 2)).collect());
    add((0..SESSIONS).step_by(5).map(|n| session(n, 2)).collect());
    add((0..ORDERS).step_by(10).map(|n| format!("del /shop/order/{n:04}")).collect());
    batches
}

/// How many keys are there after them.
pub const fn keys() -> usize {
    orders() + SESSIONS
}

/// How many of them are orders.
pub const fn orders() -> usize {
    ORDERS - ORDERS.div_ceil(10)
}

/// No conditions, the changes, and nothing else otherwise.
fn transaction(changes: &[String]) -> String {
    format!("\n{}\n\n\n", changes.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_keys_are_as_many_as_stated() {
        let batches = transactions(&["a".to_owned(), "b".to_owned()]);
        let mut keys = BTreeSet::new();
        for line in batches.iter().flat_map(|batch| batch.lines()) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["put", key, ..] => assert!(keys.insert(key) || !line.ends_with("-1"), "{line}"),
                ["del", key] => assert!(keys.remove(key), "{line}"),
                _ => assert!(line.is_empty(), "{line}"),
            }
        }
        assert_eq!(keys.len(), super::keys());
    }

    #[test]
    fn a_transaction_is_what_etcdctl_reads() {
        let batches = transactions(&["7f".to_owned()]);
        assert!(batches[0].starts_with("\nput /shop/order/0000 order-0-version-1\nput "));
        assert!(batches.iter().all(|batch| batch.lines().count() <= 128 + 3));
        assert!(batches.iter().any(|batch| batch.contains(" --lease=7f\n")));
    }
}
