//! Decisions about an archive. Pure: they are made from what was listed, and nothing is touched.

pub(crate) mod cover;
pub(crate) mod retain;
pub(crate) mod reuse;
pub(crate) mod standing;
pub(crate) mod verdict;
