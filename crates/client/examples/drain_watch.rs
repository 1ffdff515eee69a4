//! Watches all keys and throws away what comes, until it is killed: what the least that follows a cluster
//! costs it.
//!
//! `cargo run --release -p rekindle-client --example drain_watch -- ENDPOINT`

use std::error::Error;
use std::time::Duration;

use rekindle_client::{Client, Config, WatchRequest};

const WAIT: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(endpoint) = std::env::args().nth(1) else {
        return Err("usage: drain_watch ENDPOINT".into());
    };
    let client = Client::new(Config::new([endpoint]))?;
    let newest = client.linearizable_revision().await?;
    let mut watch = client.watch(WatchRequest::from_revision(newest)).await?;
    eprintln!("watching");
    loop {
        watch.next(WAIT).await?;
    }
}
