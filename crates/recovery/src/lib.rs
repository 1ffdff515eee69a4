//! Finding out how a cluster is.
//!
//! - [`health`] asks every member ([`health::observe`]), judges what they say ([`health::judge`], pure), and counts what goes
//!   on ([`health::History`], pure).

pub mod health;
