//! Puts keys of 1 KB at a steady rate, whether answers come or not, and prints how long those took.
//!
//! `cargo run --release -p rekindle-client --example puts -- ENDPOINT RATE SECONDS`
//!
//! Prints JSON: `puts` that were answered, `perSecond`, `p50Ms`, `p99Ms`, `revision` of the last one. Where
//! the server goes away it ends without it.

use std::error::Error;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rekindle_client::{Client, Config, Put};
use rekindle_testkit::content::noise;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior};

const KEYS: u64 = 20_000;
const VALUE_BYTES: usize = 1000;
/// More are not under way at a time: etcd refuses what it cannot take.
const AT_A_TIME: usize = 1000;
/// So often some are sent.
const TICK: Duration = Duration::from_millis(5);
/// A server under such load may take long for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    LocalSet::new().run_until(puts()).await
}

async fn puts() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, rate, seconds] = &args[..] else {
        return Err("usage: puts ENDPOINT RATE SECONDS".into());
    };
    let (rate, seconds): (u64, u64) = (rate.parse()?, seconds.parse()?);
    let mut config = Config::new([endpoint.clone()]);
    config.timeouts.command = PATIENCE;
    let client = Rc::new(Client::new(config)?);
    let first = client.linearizable_revision().await?.cast_unsigned();
    let revision = Rc::new(AtomicI64::new(0));
    let mut under_way: JoinSet<Result<Duration, rekindle_client::Error>> = JoinSet::new();
    let mut took = Vec::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut sent) = (Instant::now(), 0);
    while sent < rate * seconds {
        tick.tick().await;
        let due = rate * u64::try_from(began.elapsed().as_millis())? / 1000;
        let due = due.min(rate * seconds);
        for number in sent..due {
            while under_way.len() >= AT_A_TIME
                && let Some(ended) = under_way.join_next().await
            {
                took.push(ended??);
            }
            let (client, revision) = (Rc::clone(&client), Rc::clone(&revision));
            let put =
                Put::new(format!("/load/{:09}", number % KEYS), noise(first + number, VALUE_BYTES));
            under_way.spawn_local(async move {
                let began = Instant::now();
                let header = client.put(put).await?;
                revision.fetch_max(header.revision, Ordering::Relaxed);
                Ok(began.elapsed())
            });
        }
        sent = sent.max(due);
        while let Some(ended) = under_way.try_join_next() {
            took.push(ended??);
        }
    }
    while let Some(ended) = under_way.join_next().await {
        took.push(ended??);
    }
    let per_second = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    let percentile = |percent: usize| {
        let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    };
    println!(
        "{{\"puts\": {}, \"perSecond\": {per_second:.0}, \"p50Ms\": {:.3}, \"p99Ms\": {:.3}, \"revision\": {}}}",
        took.len(),
        percentile(50),
        percentile(99),
        revision.load(Ordering::Relaxed)
    );
    Ok(())
}
