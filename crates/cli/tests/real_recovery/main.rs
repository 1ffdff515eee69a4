//! Finding out how real clusters are.

mod check;
