//! Why a store did not do what it was asked, and what kind of fault that is.

use super::http::{Answer, HttpFault};
use std::error::Error as StdError;
use std::io;

/// Why a store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing} {object}: {cause}")]
pub struct StoreFault {
    /// What was being done.
    pub doing: &'static str,
    /// With which object, with the place.
    pub object: String,
    /// What kind of fault it is.
    pub kind: StoreFaultKind,
    /// What the store says.
    pub cause: String,
}

/// What to make of a store's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFaultKind {
    /// It is not there, definitely.
    NotFound,
    /// The bucket or container itself is not there.
    NoBucket,
    /// The directory that the store was opened with is gone, or another one is there.
    Unmounted,
    /// Another object has that name.
    Exists,
    /// One may not.
    Denied,
    /// The store does not know these credentials, or their secret is wrong.
    Credentials,
    /// No credentials were found.
    NoCredentials,
    /// The credentials were good once.
    Expired,
    /// The clocks of this host and of the store are too far apart.
    ClockSkew,
    /// The bucket is in another region.
    Region,
    /// The certificate of the store is not trusted.
    Certificate,
    /// One of both speaks TLS, and the other does not.
    Tls,
    /// Somebody answers there who does not speak the store's language.
    NoStore,
    /// Nobody answers there, or the host has no address.
    Unreachable,
    /// The store wants to be asked less often.
    Throttled,
    /// The store has a fault of its own, or stopped answering; it may be over soon.
    Unavailable,
    /// There is no room.
    Full,
    /// It is larger than any object of its kind: it was damaged.
    TooLarge,
    /// What was named makes no place.
    Place,
    /// Anything else.
    Failed,
}

impl StoreFault {
    /// Whether what was asked for may have been done all the same.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        use StoreFaultKind as K;
        matches!(self.kind, K::Failed | K::Unavailable | K::Throttled | K::Unreachable)
    }
}

/// What an error of `object_store` is. All its layers are looked at: what counts lies deep within.
pub(super) fn fault(
    doing: &'static str,
    object: String,
    error: &object_store::Error,
) -> StoreFault {
    let layers = layers(error);
    let (kind, cause) = layers
        .iter()
        .find_map(|layer| http_fault(*layer))
        .unwrap_or_else(|| (plain_kind(error, &layers), innermost(&layers)));
    StoreFault { doing, object, kind, cause }
}

/// An error and what is within it. What an `io::Error` was made of is not among its sources.
fn layers<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let (mut layers, mut next) = (Vec::new(), Some(error));
    while let Some(layer) = next {
        layers.push(layer);
        let within = layer.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match within {
            Some(within) => Some(within),
            None => layer.source(),
        };
    }
    layers
}

fn innermost(layers: &[&(dyn StdError + 'static)]) -> String {
    layers.last().map(ToString::to_string).unwrap_or_default()
}

fn http_fault(layer: &(dyn StdError + 'static)) -> Option<(StoreFaultKind, String)> {
    let fault = layer.downcast_ref::<HttpFault>()?;
    if is_metadata_service(fault.host()) {
        let cause = format!(
            "there are no credentials in the environment, and this host has no role of its own \
             ({fault})"
        );
        return Some((StoreFaultKind::NoCredentials, cause));
    }
    let kind = match fault {
        HttpFault::Answer(answer) => answer_kind(answer),
        HttpFault::Certificate { .. } => StoreFaultKind::Certificate,
        HttpFault::Tls { .. } => StoreFaultKind::Tls,
        HttpFault::Unreachable { .. } => StoreFaultKind::Unreachable,
        HttpFault::Stalled { .. } | HttpFault::Cut { .. } => StoreFaultKind::Unavailable,
    };
    Some((kind, fault.to_string()))
}

/// Where clouds answer their own hosts, for credentials.
fn is_metadata_service(host: &str) -> bool {
    host.starts_with("169.254.") || host == "[fd00:ec2::254]" || host.starts_with("metadata.")
}

/// What a store's answer means, by the code that it gives, else by its status.
fn answer_kind(answer: &Answer) -> StoreFaultKind {
    use StoreFaultKind as K;
    let skewed = ["time frame", "clock", "RequestTime", "Request date header"];
    match answer.code.as_str() {
        "NoSuchKey" | "BlobNotFound" | "NoSuchVersion" => return K::NotFound,
        "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" => return K::NoBucket,
        "RequestTimeTooSkewed" => return K::ClockSkew,
        "AuthenticationFailed" if skewed.iter().any(|word| answer.message.contains(word)) => {
            return K::Expired;
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => return K::Expired,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "AuthenticationFailed"
        | "InvalidToken"
        | "InvalidTokenId"
        | "invalid_grant"
        | "InvalidClientTokenId"
        | "InvalidIdentityToken" => {
            return K::Credentials;
        }
        // What a firewall of Azure's says, too, in other words.
        "AuthorizationFailure" if answer.message.contains("failed to authenticate") => {
            return K::Credentials;
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraint" => {
            return K::Region;
        }
        "SlowDown" | "ServerBusy" | "TooManyRequests" | "RequestLimitExceeded" => {
            return K::Throttled;
        }
        "XMinioStorageFull" | "QuotaExceeded" | "InsufficientAccountCapacity" => return K::Full,
        _ => {}
    }
    match answer.status {
        301 | 307 => K::Region,
        400 if answer.message.contains("HTTP request to an HTTPS server") => K::Tls,
        401 => K::Credentials,
        403 => K::Denied,
        // Only a store that says so has nothing there: any web server answers this.
        404 | 405 => K::NoStore,
        409 | 412 | 304 => K::Exists,
        429 => K::Throttled,
        408 | 500..=599 if answer.status != 501 => K::Unavailable,
        _ => K::Failed,
    }
}

/// The kind of a fault that came over no HTTP.
fn plain_kind(error: &object_store::Error, layers: &[&(dyn StdError + 'static)]) -> StoreFaultKind {
    use StoreFaultKind as K;
    use io::ErrorKind as I;
    use object_store::Error as E;
    let io = layers.iter().rev().find_map(|layer| layer.downcast_ref::<io::Error>());
    match (error, io.map(io::Error::kind)) {
        (E::NotFound { .. }, _) | (_, Some(I::NotFound)) => K::NotFound,
        (E::AlreadyExists { .. } | E::Precondition { .. }, _) => K::Exists,
        (E::Unauthenticated { .. }, _) => K::Credentials,
        (E::PermissionDenied { .. }, _) | (_, Some(I::PermissionDenied)) => K::Denied,
        (_, Some(I::StorageFull | I::QuotaExceeded)) => K::Full,
        (_, Some(I::ResourceBusy)) => K::Throttled,
        (_, Some(I::TimedOut | I::Interrupted)) => K::Unavailable,
        _ => K::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::client::{HttpError, HttpErrorKind};

    #[test]
    fn answers_are_told_apart_by_their_codes() {
        use StoreFaultKind as K;
        let check = |status: u16, code: &str, message: &str, want: StoreFaultKind| {
            let answer = Answer {
                host: "h".to_owned(),
                status,
                code: code.to_owned(),
                message: message.to_owned(),
                region: None,
                date: None,
            };
            assert_eq!(answer_kind(&answer), want, "{status} {code}");
        };
        check(404, "NoSuchKey", "", K::NotFound);
        check(404, "", "", K::NoStore);
        check(404, "NoSuchBucket", "", K::NoBucket);
        check(404, "ContainerNotFound", "", K::NoBucket);
        check(403, "AccessDenied", "", K::Denied);
        check(403, "RequestTimeTooSkewed", "", K::ClockSkew);
        check(403, "InvalidAccessKeyId", "", K::Credentials);
        check(403, "SignatureDoesNotMatch", "", K::Credentials);
        check(400, "ExpiredToken", "", K::Expired);
        let sas = "Signature not valid in the specified time frame";
        check(403, "AuthenticationFailed", sas, K::Expired);
        check(403, "AuthenticationFailed", "MAC signature", K::Credentials);
        check(301, "PermanentRedirect", "", K::Region);
        check(400, "AuthorizationHeaderMalformed", "", K::Region);
        check(503, "SlowDown", "", K::Throttled);
        check(429, "", "", K::Throttled);
        check(500, "InternalError", "", K::Unavailable);
        check(501, "NotImplemented", "", K::Failed);
        check(507, "XMinioStorageFull", "", K::Full);
        check(412, "PreconditionFailed", "", K::Exists);
        check(409, "BlobAlreadyExists", "", K::Exists);
        let plain = "Client sent an HTTP request to an HTTPS server.";
        check(400, "", plain, K::Tls);
    }

    #[test]
    fn who_has_no_credentials_is_told_so() {
        let check = |host: &str, want: StoreFaultKind| {
            let (host, cause) = (host.to_owned(), "refused".to_owned());
            let source =
                HttpError::new(HttpErrorKind::Unknown, HttpFault::Unreachable { host, cause });
            let error = object_store::Error::Generic { store: "S3", source: Box::new(source) };
            assert_eq!(fault("reading", "o".to_owned(), &error).kind, want);
        };
        check("169.254.169.254", StoreFaultKind::NoCredentials);
        check("metadata.google.internal", StoreFaultKind::NoCredentials);
        check("s3.example:443", StoreFaultKind::Unreachable);
    }
}
