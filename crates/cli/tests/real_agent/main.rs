//! `rekindle agent` against real servers: what is due is done once, told, and kept, whatever was killed.

mod away;
mod defragment;
mod drills;
mod files;
mod fleet;
mod harness;
mod hour;
mod idle;
mod repair;
mod runbook;
mod samples;
mod schedules;
mod several;
mod told;
