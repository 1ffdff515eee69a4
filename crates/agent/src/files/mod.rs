//! Files of a host: what is saved of it beside its etcd, and how it comes back.
//!
//! What may never happen here: a file that is written elsewhere than below where it was to be put; one that was there and
//! is gone; a secret that anybody can read meanwhile.

mod certificates;
mod collect;
mod put;

pub use certificates::{Certificate, certificates};
pub use collect::{Collected, USUAL, at_rest_config, collect, usual};
pub use put::{Difference, Put, PutFault, Putting, differences, put};
