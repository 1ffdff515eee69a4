//! Real etcd servers, faulty disks, generators and oracles for the tests.
//!
//! Development only: nothing that ships depends on this crate. What fails here panics, with the
//! logs of the servers concerned, because a test has no better use for an error than to end.
//!
//! No function here waits by sleeping for a fixed time: each waits for a condition, up to a
//! deadline.

pub mod certs;
pub mod content;
pub mod doubles;
pub mod etcd;
pub mod fault_store;
pub mod network;
pub mod oracle;
mod ports;
pub mod proxy;
mod serving;
pub mod sim_disk;
pub mod stores;
mod tools;
pub mod turns;
pub mod watch_proxy;

pub use tools::{Version, tool};

/// Makes ring the TLS provider of this process.
///
/// rustls panics where two providers are compiled in and none was chosen, so everything here that
/// speaks TLS calls this first. Calling it again does nothing.
pub fn install_crypto_provider() {
    // The only failure is that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
