//! What goes on day and night.
//!
//! - [`capture`]: following a cluster into its archives, revision by revision.
//! - [`snapshot`]: from which member a snapshot is taken, and how it comes.
//! - [`mod@defragment`]: which members are, and whether any may be now.
//! - [`files`]: what a host has beside its etcd: certificates, manifests, configuration.
//! - [`config`]: what an agent guards, where to, and when.
//! - [`guard`]: the agent itself. It does nothing that a person could not do: it runs [`jobs`], each a command of ours,
//!   at the slots of a [`schedule`], agrees by [`turns`] with other agents on who does them, and keeps [`records`].
//! - [`board`]: what is known of it all, from which come [`mod@alarms`] and [`metrics`]; [`notify`] tells people.

pub mod alarms;
pub mod board;
pub mod capture;
pub mod child;
pub mod config;
pub mod defragment;
pub mod files;
pub mod guard;
pub mod health;
pub mod jobs;
pub mod lines;
pub mod metrics;
pub mod notify;
pub mod probe;
pub mod records;
pub mod schedule;
pub mod snapshot;
pub mod surroundings;
pub mod turns;
