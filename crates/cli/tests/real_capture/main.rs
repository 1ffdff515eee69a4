//! `rekindle capture` against real servers: every revision that came comes back, whatever was killed.

mod faults;
mod following;
mod harness;
