//! Snapshots on their way: from which member one is taken, and how it comes.

mod choose;
mod receive;

pub use choose::{Candidate, Choice, choose, complaints};
pub use receive::{ReceiveFault, Received, Sinks, next_batch, receive};

use rekindle_client::Client;

/// What every member that a client knows says of itself.
pub async fn ask_all(client: &Client) -> Vec<Candidate> {
    let mut answers = Vec::new();
    for member in client.members() {
        let status = member.status().await.map_err(|error| error.to_string());
        answers.push(Candidate { status });
    }
    answers
}
