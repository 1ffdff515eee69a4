//! `rekindle capture` against real servers: every revision that came comes back, whatever was killed.

mod clusters;
mod faults;
mod following;
mod harness;
mod lies;
