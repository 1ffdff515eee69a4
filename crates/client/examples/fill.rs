//! Fills an etcd with keys whose 2 KB values do not compress; the same call makes the same keys.
//!
//! `cargo run --release -p rekindle-client --example fill -- ENDPOINT KEYS [compacted]`
//!
//! `compacted`: every fourth key has a second version, every fiftieth is deleted after that, and all
//! of the history is compacted.

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use rekindle_client::{Client, Compaction, Config, Keys, Op, Put, Txn};
use tokio::task::{JoinSet, LocalSet};

const VALUE_BYTES: usize = 2000;

/// Changes of one transaction, and transactions under way at a time: together some megabytes, which
/// is where etcd writes fastest.
const BATCH: u64 = 32;
const AT_A_TIME: u64 = 16;

/// A server under such load may take long for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    LocalSet::new().run_until(fill()).await
}

async fn fill() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let (Some(endpoint), Some(keys)) = (args.next(), args.next()) else {
        return Err("usage: fill ENDPOINT KEYS [compacted]".into());
    };
    let keys: u64 = keys.parse()?;
    let mut config = Config::new([endpoint]);
    config.timeouts.command = PATIENCE;
    let client = Rc::new(Client::new(config)?);
    change(&client, keys, |n| put(n, 1)).await?;
    if args.next().as_deref() == Some("compacted") {
        change(&client, keys / 4, |n| put(4 * n, 2)).await?;
        change(&client, keys / 50, |n| Op::Delete(Keys::one(key(50 * n)))).await?;
        let revision = client.linearizable_revision().await?;
        client.compact(revision, Compaction::Finished).await?;
    }
    println!("revision {}", client.linearizable_revision().await?);
    Ok(())
}

/// Does `count` changes, numbered from 0.
async fn change(client: &Rc<Client>, count: u64, of: fn(u64) -> Op) -> Result<(), Failure> {
    let next = Rc::new(Cell::new(0));
    let mut workers: JoinSet<Result<(), Failure>> = JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (client, next) = (Rc::clone(client), Rc::clone(&next));
        workers.spawn_local(async move {
            loop {
                let first = next.replace(next.get() + BATCH);
                if first >= count {
                    return Ok(());
                }
                let numbers = first..count.min(first + BATCH);
                client.txn(numbers.fold(Txn::new(), |txn, n| txn.then(of(n)))).await?;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(())
}

fn key(number: u64) -> String {
    format!("/bench/{number:09}")
}

fn put(number: u64, version: u64) -> Op {
    Op::Put(Put::new(key(number), value(number << 8 | version)))
}

/// Bytes of splitmix64.
fn value(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    while bytes.len() < VALUE_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes
}
