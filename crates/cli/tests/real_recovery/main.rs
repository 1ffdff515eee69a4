//! Finding out how real clusters are.

mod check;
mod harness;
mod recover;
mod replace;
