//! Drains a member's snapshot into nothing and says how fast it came.
//!
//! `cargo run --release -p rekindle-client --example drain -- ENDPOINT`

use std::time::Instant;

use rekindle_client::{Client, Config, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let client = Client::new(Config::new(std::env::args().nth(1)))?;
    let begin = Instant::now();
    let mut stream = client.members()[0].snapshot().await?;
    while stream.next().await?.is_some() {}
    let (bytes, took) = (stream.received(), begin.elapsed());
    let rate = bytes as f64 / took.as_secs_f64() / 1e6;
    println!("{bytes} bytes in {:.2} s: {rate:.0} MB/s", took.as_secs_f64());
    Ok(())
}
