//! Verifying an archive, copying it, repairing it, and what is counted of it.

mod copies;
mod damage;
mod fixture;
#[path = "../keyspaces/mod.rs"]
mod keyspaces;
