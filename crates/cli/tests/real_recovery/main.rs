//! Finding out how real clusters are.

mod check;
mod doctor;
mod harness;
mod reconfigure;
mod recover;
mod replace;
