//! The log as it is followed: whose turn it is to write it, what the journal keeps of it, and bases that
//! are compared with it.

mod bases;
mod changed;
mod damaged;
mod following;
mod forgotten;
mod forks;
mod journal;
#[path = "../keyspaces/mod.rs"]
mod keyspaces;
mod merging;
mod turns;
mod witnesses;
