//! What goes on day and night.
//!
//! - [`capture`]: following a cluster into its archives, revision by revision.
//! - [`snapshot`]: from which member a snapshot is taken, and how it comes.

pub mod capture;
pub mod snapshot;
