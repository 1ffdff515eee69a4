//! `rekindle save` against real servers: what it saves, from whom, and what is left when it fails.

mod archives;
mod clusters;
mod command;
mod errors;
mod faults;
