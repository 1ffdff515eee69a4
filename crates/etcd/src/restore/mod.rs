//! Restoring a database as a new cluster: deciding ([`plan()`]), the database written anew
//! ([`rebuild()`]), and the files around it ([`directory()`]). [`copy()`] writes one without a change.

mod directory;
mod plan;
mod rebuild;

pub use crate::records::{Records, RecordsFault};
pub use directory::{Content, Directory, PlannedFile, Root, directory};
pub use plan::{
    AlarmFate, Bump, BumpRequest, DEFAULT_BUMP, DEFAULT_QUOTA, LeaseFate, Plan, Request,
    SourceFacts, default_token, plan,
};
pub use rebuild::{RebuildError, Rebuilt, Source, copy, rebuild};
