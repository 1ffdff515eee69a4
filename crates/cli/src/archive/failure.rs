//! What a user is told of an archive's errors.

use crate::failure::{Code, Failure};
use rekindle_archive::{Closed, Error, RekeyFault, StoreFault, StoreFaultKind};

const NEWER_REKINDLE: &str = "use a newer rekindle: nothing is wrong with the archive";
const ANOTHER_POINT: &str = "restore another point, as rekindle archive list shows them, or bring the \
    object back from a copy of the archive";

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        let failure = Self::new(code(fault.kind), fault.to_string());
        match remedy(fault.kind) {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        }
    }
}

fn code(kind: StoreFaultKind) -> Code {
    use StoreFaultKind as K;
    match kind {
        K::NotFound | K::NoBucket | K::Unmounted => Code::NotFound,
        K::TooLarge => Code::BadData,
        K::Place => Code::Usage,
        K::Throttled | K::Unavailable | K::Unreachable => Code::Transient,
        _ => Code::Failed,
    }
}

fn remedy(kind: StoreFaultKind) -> Option<&'static str> {
    use StoreFaultKind as K;
    Some(match kind {
        K::NotFound => "check the path",
        K::NoBucket => {
            "check its name, --endpoint-url and --region; rekindle makes no buckets: make it with the \
             store's own tools"
        }
        K::Unmounted => "look whether its file system is mounted; nothing was written in its place",
        K::Exists => "nothing was replaced; look what has that name",
        K::TooLarge => ANOTHER_POINT,
        K::Full => "make room; what was half-written has been removed",
        K::Denied => {
            "run as a user who may do that, or give this one the right: an archive needs to read, \
             write, list and delete"
        }
        K::Credentials => {
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (GOOGLE_APPLICATION_CREDENTIALS, \
             AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY), and that they are of this store"
        }
        K::NoCredentials => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (GOOGLE_APPLICATION_CREDENTIALS, \
             AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY); profiles of ~/.aws are not read"
        }
        K::Expired => "get new credentials, a new session token or a new signature, and try again",
        K::ClockSkew => "mend the clock of this host: signatures hold for minutes only",
        K::Region => "give the bucket's region: --region, or AWS_REGION",
        K::Certificate => {
            "give the authority that has signed the store's certificate: --store-ca FILE; if the \
             certificate has expired or is for another name, renew it or mend --endpoint-url"
        }
        K::Tls => {
            "write http:// in --endpoint-url where the store does not speak TLS, and https:// where \
             it does"
        }
        K::NoStore => "check --endpoint-url: what answers there is no store of this kind",
        K::Unreachable => "check host and port of --endpoint-url, proxies, and that the store runs",
        K::Throttled => "wait, or ask for less at once: --bandwidth",
        K::Unavailable => "look at the store and the network",
        K::Place => "name a path, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX",
        _ => return None,
    })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Some(refused) = crate::host::refused(&error) {
            return refused;
        }
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
            Error::Overtaken { .. } => Self::new(Code::Refused, what)
                .remedy("one writer at a time: stop the other one, or let it write"),
            Error::ClaimGone { .. } => Self::new(Code::NotFound, what).remedy(
                "look whether the archive's place is mounted; nothing of the archive is removed by hand",
            ),
            Error::Spool { .. } | Error::Journal { .. } => Self::new(Code::Failed, what).remedy(
                "look at the spool's disk, its free space and its rights, or name another --spool; one \
                 capture at a time uses a spool",
            ),
            Error::Missing { .. } | Error::LogMissing { .. } | Error::Log { .. } => {
                Self::new(Code::BadData, what).remedy(ANOTHER_POINT)
            }
            Error::Replaced { .. } => Self::new(Code::Transient, what)
                .remedy("name the other one, or a point without naming a base: the other one is taken"),
            Error::Forked { revision, .. } => {
                let before = revision.get().saturating_sub(1);
                Self::new(Code::BadData, what).remedy(format!(
                    "nobody can say from here which of them is the cluster's. What came before they part is the \
                     same in both: --to-revision {before}"
                ))
            }
            Error::Json { ref object, .. } if object.ends_with("archive.json") => {
                Self::new(Code::BadData, what).remedy(
                    "bring this file back from a copy of the archive: it never changes. Nothing is said \
                     of the rest",
                )
            }
            Error::Damaged { .. } | Error::Json { .. } | Error::Stranger { .. } => {
                Self::new(Code::BadData, what).remedy(ANOTHER_POINT)
            }
            error => match of_keys(&error) {
                Some((code, remedy)) => Self::new(code, what).remedy(remedy),
                None => Self::new(Code::Failed, what),
            },
        }
    }
}

/// What the errors about keys mean, and what to do about them.
fn of_keys(error: &Error) -> Option<(Code, &'static str)> {
    Some(match error {
        Error::Closed { why, .. } => closed(why),
        Error::WrongIdentity { .. } => (
            Code::Refused,
            "name the identity of one of its owners; rekindle archive init has printed their public \
             keys, and an identity file says its own",
        ),
        Error::KeysGone { .. } => (
            Code::BadData,
            "bring the archive's keys/ back from a copy: without it nothing in it can be read",
        ),
        Error::KeyObject { .. } => (
            Code::BadData,
            "bring it back from a copy of the archive, or use another owner's identity",
        ),
        Error::SwappedKey { .. } | Error::Unendorsed { .. } => (
            Code::Refused,
            "find out who can write to the store, and compare the fingerprint with what rekindle archive \
             init or rekey has printed; bring archive.json and keys/ back from a copy",
        ),
        Error::NotSealed { .. } | Error::Unsigned { .. } | Error::WrongSignature { .. } => (
            Code::BadData,
            "find out who has put it there, and restore another point, as rekindle archive list shows them",
        ),
        Error::NoSigningKey { .. } => {
            (Code::Usage, "name the key's file: --signing-key, or REKINDLE_SIGNING_KEY")
        }
        Error::ForeignSigningKey { .. } => (
            Code::Refused,
            "name another key, or add this one: rekindle archive rekey --add-signer",
        ),
        Error::NoRecipients => {
            (Code::Usage, "name the archive's owners: --recipient, or --generate-keys")
        }
        Error::Rekey(RekeyFault::Unencrypted) => {
            (Code::Refused, "make a new archive, with --recipient or --generate-keys")
        }
        Error::Rekey(RekeyFault::Overtaken) => {
            (Code::Transient, "look at the plan again: rekindle archive rekey --dry-run")
        }
        Error::Rekey(_) => (Code::Usage, "rekindle archive rekey --help"),
        _ => return None,
    })
}

fn closed(why: &Closed) -> (Code, &'static str) {
    match why {
        Closed::NoIdentity => (
            Code::Usage,
            "name the identity file of one of the archive's owners: --identity, or REKINDLE_IDENTITY",
        ),
        Closed::Others { .. } => (
            Code::Refused,
            "that identity was removed before this was saved: restore an older point, or use the \
             identity of one who is an owner still",
        ),
        _ => (Code::BadData, "bring the archive's keys/ back from a copy"),
    }
}
