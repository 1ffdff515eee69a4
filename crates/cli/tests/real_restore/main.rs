//! Restores by the built binary, on real etcd servers.
//!
//! Whatever is restored here boots and is asked: a directory that no etcd has started on is not
//! shown to be one. bbolt's own checker sees every database before that.

mod archives;
mod booted;
mod command;
mod directories;
mod killed;
mod leases;
mod listing;
mod members;
mod mounts;
mod peers;
mod points;
mod revisions;
mod sealed;
mod snapshots;
mod sources;
mod stopped;
mod users;
