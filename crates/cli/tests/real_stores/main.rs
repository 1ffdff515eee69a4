//! Archives and snapshots in the stores of real servers.

mod archives;
mod command;
mod errors;
mod snapshots;
