//! Snapshots on their way: from which member one is taken, and how it comes.

mod choose;
mod pick;
mod receive;

pub use choose::{Candidate, Choice, choose, complaints};
pub use pick::{NoMember, ask_all, pick};
pub use receive::{ReceiveFault, Received, Sinks, next_batch, receive};
