//! Finding out how a cluster is, and what is to be done.
//!
//! - [`health`] asks every member ([`health::observe`]), judges what they say ([`health::judge`], pure), and counts what goes
//!   on ([`health::History`], pure).
//! - [`mod@decide`]: what is to be done, pure.
//! - [`doctor`]: what is wrong on a member's host, pure.
//! - [`replace`]: a member by a new one, step by step, pure.
//! - [`recover`]: from what a whole cluster is brought back, pure.
//! - [`reconfigure`]: what an etcd is to be before it starts, pure.
//! - [`host`]: what starts and stops the etcd of this host.

pub mod decide;
pub mod doctor;
pub mod health;
pub mod host;
pub mod reconfigure;
pub mod recover;
pub mod replace;
