//! What a user is told of an archive's errors.

use crate::failure::{Code, Failure};
use rekindle_archive::{Error, StoreFault, StoreFaultKind};

const NEWER_REKINDLE: &str = "use a newer rekindle: nothing is wrong with the archive";
const ANOTHER_POINT: &str = "restore another point, as rekindle archive list shows them, or bring the \
    object back from a copy of the archive";

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        let what = fault.to_string();
        match fault.kind {
            StoreFaultKind::NotFound => Self::new(Code::NotFound, what).remedy("check the path"),
            StoreFaultKind::TooLarge => Self::new(Code::BadData, what).remedy(ANOTHER_POINT),
            StoreFaultKind::Full => Self::new(Code::Failed, what)
                .remedy("make room; what was half-written has been removed"),
            StoreFaultKind::Denied => Self::new(Code::Failed, what)
                .remedy("run as a user who may do that, or give this one the right"),
            _ => Self::new(Code::Failed, what),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let what = error.to_string();
        match error {
            Error::Store(fault) => fault.into(),
            Error::Source(error) => error.into(),
            Error::Stopped => Self::new(Code::Interrupted, "interrupted; nothing was changed"),
            Error::NoArchive { place } => Self::new(Code::NotFound, what)
                .remedy(format!("make one with rekindle archive init {place}, or check the path")),
            Error::IsArchive { .. } | Error::NotEmpty { .. } => {
                Self::refused(what).remedy("choose an empty place, or one that is not there yet")
            }
            Error::TooNew { .. } | Error::Requires { .. } => {
                Self::refused(what).remedy(NEWER_REKINDLE)
            }
            Error::Damaged { fault, .. } if fault.is_too_new() => {
                Self::refused(what).remedy(NEWER_REKINDLE)
            }
            Error::Lagging => Self::new(Code::Transient, what).remedy(
                "name all members with --endpoints, so that one of them is up to date, and try again",
            ),
            Error::TooLate | Error::Vanished { .. } => Self::new(Code::Transient, what)
                .remedy("run it again: the base is written in full then"),
            Error::Missing { .. } | Error::LogMissing { .. } | Error::Log { .. } => {
                Self::new(Code::BadData, what).remedy(ANOTHER_POINT)
            }
            Error::Damaged { .. } | Error::Json { .. } | Error::Stranger { .. } => {
                Self::new(Code::BadData, what).remedy(ANOTHER_POINT)
            }
            _ => Self::new(Code::Failed, what),
        }
    }
}
