//! Watches all keys and throws away what comes, until it is killed: what the least that follows a cluster
//! costs it, and whether etcd keeps up with itself.
//!
//! `cargo run --release -p rekindle-client --example drain_watch -- ENDPOINT`

use std::error::Error;
use std::time::{Duration, Instant};

use rekindle_client::{Client, Config, WatchMessage, WatchRequest};

const WAIT: Duration = Duration::from_secs(60);
/// A server that is so many revisions ahead of what it says is told of.
const TOLD: i64 = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(endpoint) = std::env::args().nth(1) else {
        return Err("usage: drain_watch ENDPOINT".into());
    };
    let client = Client::new(Config::new([endpoint]))?;
    let newest = client.linearizable_revision().await?;
    let mut watch = client.watch(WatchRequest::from_revision(newest)).await?;
    eprintln!("watching");
    let (mut looked, mut most) = (Instant::now(), 0);
    loop {
        if let Some(WatchMessage::Changes(changes)) = watch.next(WAIT).await? {
            let last = changes.events.last().and_then(|event| event.kv.as_ref());
            let last = last.map_or(0, |kv| kv.mod_revision);
            most = most.max(changes.header.revision - last);
        }
        if looked.elapsed() >= Duration::from_secs(1) {
            if most > TOLD {
                eprintln!("{most} revisions behind");
            }
            (looked, most) = (Instant::now(), 0);
        }
    }
}
