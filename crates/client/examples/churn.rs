//! Writes some of the keys that `fill` made again, chosen at random, and compacts the history.
//!
//! `cargo run --release -p rekindle-client --example churn -- ENDPOINT KEYS PERCENT [SEED]`
//!
//! Without a seed each call chooses others: the revision is the seed then.

use std::error::Error;

use rekindle_client::{Client, Compaction, Config, Op, Put, Txn};

const VALUE_BYTES: usize = 2000;
/// Changes of one transaction.
const BATCH: usize = 64;

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (endpoint, keys, percent, seed) = match &args[..] {
        [endpoint, keys, percent] => (endpoint, keys, percent, None),
        [endpoint, keys, percent, seed] => (endpoint, keys, percent, Some(seed)),
        _ => return Err("usage: churn ENDPOINT KEYS PERCENT [SEED]".into()),
    };
    let (keys, percent): (u64, u64) = (keys.parse()?, percent.parse()?);
    let client = Client::new(Config::new([endpoint.clone()]))?;
    let mut random = Random(match seed {
        Some(seed) => seed.parse()?,
        None => client.linearizable_revision().await?.cast_unsigned(),
    });
    let mut chosen = std::collections::BTreeSet::new();
    while (chosen.len() as u64) < keys * percent / 100 {
        chosen.insert(random.next() % keys);
    }
    let chosen: Vec<u64> = chosen.into_iter().collect();
    for batch in chosen.chunks(BATCH) {
        let put = |txn: Txn, number: &u64| {
            let value: Vec<u8> =
                (0..VALUE_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
            txn.then(Op::Put(Put::new(format!("/bench/{number:09}"), value)))
        };
        client.txn(batch.iter().fold(Txn::new(), put)).await?;
    }
    let revision = client.linearizable_revision().await?;
    client.compact(revision, Compaction::Finished).await?;
    println!("revision {revision}");
    Ok(())
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}
