//! Retention by S3's object lock: what was created can be removed by nobody before its time.
//!
//! `object_store` knows nothing of it. So requests that create an object get two headers more and are
//! signed anew; and what a new base shares with older ones is locked for longer by a request of ours.

use super::http::Connector;
use super::{Store, StoreFault, probe};
use crate::names;
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderValue, Method, Request};
use jiff::{SignedDuration, Timestamp};
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::path::Path;
use object_store::signer::Signer;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How a lock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionMode {
    /// Whoever has the right to may lift it.
    Governance,
    /// Nobody can lift it, not even the account's owner.
    Compliance,
}

impl fmt::Display for RetentionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        })
    }
}

/// For how long what is created in an S3 bucket is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How.
    pub mode: RetentionMode,
    /// From its creation, or from when a base was made that shares it.
    pub period: Duration,
}

impl Retention {
    /// Until when, as S3 writes times.
    fn until(&self) -> String {
        let period = SignedDuration::try_from(self.period).unwrap_or(SignedDuration::MAX);
        let until = Timestamp::now().checked_add(period).unwrap_or(Timestamp::MAX);
        until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// The first wait before a lock is asked for again, and the one that is not waited any more.
const WAIT: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What lies here comes and goes by its nature.
const UNLOCKED: [&str; 2] = [names::PRUNE, probe::FOLDER];

/// HTTP in which whatever creates an object locks it.
#[derive(Clone, Debug)]
pub(super) struct Locking {
    pub connector: Connector,
    pub retention: Retention,
    pub region: String,
    /// What all names begin with.
    pub prefix: String,
    /// Those of the store, once it is there.
    pub credentials: Arc<OnceLock<AwsCredentialProvider>>,
}

impl Locking {
    async fn sign(
        &self,
        request: &mut HttpRequest,
        digest: Option<&[u8]>,
    ) -> Result<(), HttpError> {
        let unsigned = |error| HttpError::new(HttpErrorKind::Unknown, error);
        let Some(credentials) = self.credentials.get() else { return Ok(()) };
        let credential = credentials.get_credential().await.map_err(unsigned)?;
        let authorizer = AwsAuthorizer::new(&credential, "s3", &self.region);
        authorizer.try_authorize(request, digest).map_err(unsigned)
    }

    async fn lock(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let headers = request.headers_mut();
        for (name, value) in [
            ("x-amz-object-lock-mode", self.retention.mode.to_string()),
            ("x-amz-object-lock-retain-until-date", self.retention.until()),
        ] {
            let value = HeaderValue::try_from(value);
            headers.insert(
                name,
                value.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?,
            );
        }
        let signed = headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
        let digest = signed.and_then(crate::format::parse_hex::<32>);
        self.sign(request, digest.as_ref().map(<[u8; 32]>::as_slice)).await
    }

    /// Locks an object until later.
    async fn extend(&self, url: &str) -> Result<(), HttpError> {
        let Retention { mode, .. } = self.retention;
        let until = self.retention.until();
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode>\
             <RetainUntilDate>{until}</RetainUntilDate></Retention>"
        );
        let digest = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
        let request = Request::put(format!("{url}?retention="))
            .header("content-type", "application/xml")
            .header("x-amz-sdk-checksum-algorithm", "SHA256")
            .header("x-amz-checksum-sha256", BASE64_STANDARD.encode(digest))
            .body(body.into_bytes().into());
        let request = request.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error));
        let mut request: HttpRequest = request?;
        self.sign(&mut request, None).await?;
        self.connector.call(request).await.map(drop)
    }
}

/// Whether a request is one that makes an object, and one that may stay for long, in an archive whose
/// names begin with `prefix`.
fn creates(request: &HttpRequest, prefix: &str) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let creates = match *request.method() {
        Method::PUT => query.is_empty(),
        Method::POST => query.starts_with("uploads"),
        _ => false,
    };
    let folder = request.uri().path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let comes_and_goes = UNLOCKED.iter().any(|unlocked| {
        let above = folder.strip_suffix(unlocked).and_then(|above| above.strip_suffix('/'));
        above.is_some_and(|above| match prefix {
            // Before it stands the bucket, or nothing.
            "" => above.matches('/').count() <= 1,
            prefix => above.ends_with(&format!("/{prefix}")),
        })
    });
    creates && !comes_and_goes
}

impl HttpConnector for Locking {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Locking {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if creates(&request, &self.prefix) {
            self.lock(&mut request).await?;
        }
        self.connector.call(request).await
    }
}

/// Locks what is there for longer.
#[derive(Clone, Debug)]
pub(super) struct Lock {
    pub s3: Arc<AmazonS3>,
    pub http: Locking,
}

impl Lock {
    async fn extend(&self, name: &str) -> object_store::Result<()> {
        let path = Path::from(format!("{}/{name}", self.http.prefix));
        let mut url = self.s3.signed_url(Method::PUT, &path, Duration::from_secs(60)).await?;
        url.set_query(None);
        let mut wait = WAIT;
        loop {
            match self.http.extend(url.as_str()).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == HttpErrorKind::Request && wait < WAIT_MAX => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(error) => {
                    let source = Box::new(error);
                    return Err(object_store::Error::Generic { store: "S3", source });
                }
            }
        }
    }
}

impl Store {
    /// Whether what is created is locked.
    pub(crate) fn locks(&self) -> bool {
        self.objects.lock.is_some()
    }

    /// Locks what is there already as long as what is created now, where that is locked.
    pub(crate) fn lock_for_longer(&self, names: &[String]) -> Result<(), StoreFault> {
        let Some(lock) = &self.objects.lock else { return Ok(()) };
        let extend = |name: &String| {
            let (name, objects) = (name.clone(), &self.objects);
            async move {
                let extended = lock.extend(&name).await;
                extended.map_err(|error| objects.fault("locking", &name, &error))
            }
        };
        let all = stream::iter(names.iter().map(extend)).buffer_unordered(super::PARALLEL);
        self.runtime.block_on(all.try_collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::client::HttpRequestBody;

    #[test]
    fn what_comes_and_goes_is_not_locked() {
        let check = |method: &str, path: &str, prefix: &str, want: bool| {
            let uri = format!("http://host{path}");
            let request = Request::builder().method(method).uri(uri);
            let request = request.body(HttpRequestBody::empty()).unwrap();
            assert_eq!(creates(&request, prefix), want, "{method} {path} {prefix}");
        };
        check("PUT", "/b/x/archive.json", "x", true);
        check("PUT", "/b/x/prune/1.json", "x", false);
        check("PUT", "/b/x/probe/1", "x", false);
        check("PUT", "/x/prune/1.json", "x", false);
        check("PUT", "/b/prune/1.json", "", false);
        check("PUT", "/prune/1.json", "", false);
        // An archive may have such a name itself.
        check("PUT", "/b/probe/archive.json", "probe", true);
        check("PUT", "/b/probe/prune/1.json", "probe", false);
        check("PUT", "/b/a/prune/archive.json", "a/prune", true);
        check("POST", "/b/x/snapshot.db?uploads", "x", true);
        check("PUT", "/b/x/snapshot.db?partNumber=1&uploadId=2", "x", false);
        check("GET", "/b/x/archive.json", "x", false);
    }
}
