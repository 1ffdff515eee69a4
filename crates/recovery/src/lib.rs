//! Finding out how a cluster is, and what is to be done.
//!
//! - [`health`] asks every member ([`health::observe`]), judges what they say ([`health::judge`], pure), and counts what goes
//!   on ([`health::History`], pure).
//! - [`mod@decide`]: what is to be done, pure.

pub mod decide;
pub mod health;
