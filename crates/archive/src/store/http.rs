//! HTTP as stores are spoken to: TLS by ring, time limits by progress, a limit on bytes a second.
//!
//! A request may take as long as bytes move. Every answer that is no success becomes an [`Answer`]
//! with the code that the store gives, and every failure an [`HttpFault`]. Requests are safe to
//! repeat, for objects never change; so each failure that may pass is handed on as one to repeat.
//! Only what has never answered is not asked again and again: there the address is wrong.

use super::pace::Pace;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::header::{CONTENT_LENGTH, DATE, HeaderMap};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::error::Error as StdError;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// A connection must be there within this time.
const CONNECT: Duration = Duration::from_secs(10);
/// Without a byte for so long, a request has failed. A store may think for a while before it
/// answers: one that puts a large object together does.
const STALL: Duration = Duration::from_secs(60);
/// Bytes that are handed to the network at once: the limit on bytes a second is kept by these.
const FRAME: usize = 64 << 10;
/// Bytes of an answer that is no success that are looked at.
const ANSWER_MAX: usize = 64 << 10;
/// Characters of a message that are shown.
const MESSAGE_MAX: usize = 300;

/// Why there is no answer that is a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpFault {
    /// The store has answered.
    #[error(transparent)]
    Answer(Answer),
    #[error("the certificate of {host} is not accepted: {cause}")]
    Certificate { host: String, cause: String },
    #[error("TLS with {host} failed: {cause}")]
    Tls { host: String, cause: String },
    #[error("{host} cannot be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("{host} sent and took nothing for {} s", STALL.as_secs())]
    Stalled { host: String },
    #[error("the connection to {host} broke: {cause}")]
    Cut { host: String, cause: String },
}

impl HttpFault {
    /// Whom it was asked of.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Answer(answer) => &answer.host,
            Self::Certificate { host, .. }
            | Self::Tls { host, .. }
            | Self::Unreachable { host, .. }
            | Self::Stalled { host }
            | Self::Cut { host, .. } => host,
        }
    }
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub host: String,
    pub status: u16,
    /// What the store calls it; empty where it does not say.
    pub code: String,
    /// What the store says of it, on one line.
    pub message: String,
    /// Where the bucket is, if not where it was looked for.
    pub region: Option<String>,
    /// The store's clock.
    pub date: Option<String>,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} answered {}", self.host, self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(region) = &self.region {
            write!(f, " (the bucket is in region {region})")?;
        }
        if let Some(date) = self.date.as_ref().filter(|_| self.code == "RequestTimeTooSkewed") {
            write!(f, " (its clock says {date})")?;
        }
        Ok(())
    }
}

impl StdError for Answer {}

impl Answer {
    fn new(host: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let text = String::from_utf8_lossy(body);
        let (code, message) = xml(&text).or_else(|| json(&text)).unwrap_or_default();
        let code = match code.is_empty() {
            true => header("x-ms-error-code").or_else(|| header("x-minio-error-code")),
            false => Some(code),
        };
        let message =
            if message.is_empty() && !text.contains('<') { text.trim() } else { &message };
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self {
            host: host.to_owned(),
            status,
            code: code.unwrap_or_default(),
            message: message.take(MESSAGE_MAX).collect::<String>().trim().to_owned(),
            region: header("x-amz-bucket-region"),
            date: header(DATE.as_str()),
        }
    }

    fn may_pass(&self) -> bool {
        let conflict = ["ConditionalRequestConflict", "OperationAborted"];
        match self.status {
            408 | 429 => true,
            409 => conflict.contains(&self.code.as_str()),
            status => status >= 500 && status != 501 && status != 507,
        }
    }
}

/// Code and message of S3, of Azure, and of Google's XML.
fn xml(text: &str) -> Option<(String, String)> {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        let (content, _) = rest.split_once(&format!("</{name}>"))?;
        Some(content.replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&"))
    };
    Some((element("Code")?, element("Message").unwrap_or_default()))
}

/// Code and message of Google's JSON, and of services that hand out tokens.
fn json(text: &str) -> Option<(String, String)> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let error = value.get("error")?;
    let code = text(error).or_else(|| text(error.pointer("/errors/0/reason")?));
    let message = error.get("message").or_else(|| value.get("error_description"));
    Some((code.unwrap_or_default(), message.and_then(text).unwrap_or_default()))
}

/// Gives the stores of `object_store` our way of speaking HTTP.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    client: reqwest::Client,
    pace: Option<Arc<Pace>>,
    /// Somebody has answered.
    answered: Arc<AtomicBool>,
}

impl Connector {
    /// `ca`: authorities in PEM that are trusted beside the system's.
    pub(super) fn new(ca: Option<&[u8]>, pace: Option<Pace>) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(ca)?)
            .connect_timeout(CONNECT)
            // HTTP/2 puts all requests on one connection, which is slower here.
            .http1_only()
            // Where to look for a bucket is said by who asks; a redirect is told as what it is.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("rekindle/", env!("CARGO_PKG_VERSION")))
            .build();
        let client = client.map_err(|error| innermost(&error))?;
        Ok(Self { client, pace: pace.map(Arc::new), answered: Arc::default() })
    }

    fn failed(&self, host: &str, error: &reqwest::Error) -> HttpError {
        let (host, cause) = (host.to_owned(), innermost(error));
        let tls = tls_error(error);
        let (fault, may_pass) = match tls {
            Some(rustls::Error::InvalidCertificate(why)) => {
                (HttpFault::Certificate { host, cause: certificate_fault(why) }, false)
            }
            Some(error) => (HttpFault::Tls { host, cause: error.to_string() }, false),
            None if error.is_connect() || error.is_timeout() => {
                let answered = self.answered.load(Ordering::Relaxed);
                (HttpFault::Unreachable { host, cause }, answered)
            }
            None => (HttpFault::Cut { host, cause }, true),
        };
        http_error(fault, may_pass)
    }

    fn to_reqwest(
        &self,
        request: HttpRequest,
        progress: &Arc<Progress>,
    ) -> Result<reqwest::Request, HttpError> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse();
        let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        let len = body.content_length();
        if len > 0 {
            request.headers_mut().insert(CONTENT_LENGTH, len.into());
            let sent = sent(body, self.pace.clone(), Arc::clone(progress));
            *request.body_mut() = Some(reqwest::Body::wrap_stream(sent));
        }
        Ok(request)
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().authority().map(http::uri::Authority::host).unwrap_or_default();
        let host = match request.uri().port_u16() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let progress = Arc::new(Progress::default());
        let request = self.to_reqwest(request, &progress)?;
        let answer = tokio::select! {
            answer = self.client.execute(request) => answer,
            () = progress.stalled() => {
                return Err(http_error(HttpFault::Stalled { host }, true));
            }
        };
        let answer = answer.map_err(|error| self.failed(&host, &error))?;
        self.answered.store(true, Ordering::Relaxed);
        let (parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
        let body = received(body, self.pace.clone(), host.clone());
        if parts.status.is_success() {
            let body = HttpResponseBody::new(StreamBody::new(body));
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let body = start_of(body).await;
        let answer = Answer::new(&host, parts.status.as_u16(), &parts.headers, &body);
        let may_pass = answer.may_pass();
        Err(http_error(HttpFault::Answer(answer), may_pass))
    }
}

/// `object_store` repeats what is called a request that was not sent.
fn http_error(fault: HttpFault, may_pass: bool) -> HttpError {
    let kind = if may_pass { HttpErrorKind::Request } else { HttpErrorKind::Unknown };
    HttpError::new(kind, fault)
}

/// When bytes last moved.
#[derive(Debug)]
struct Progress(Mutex<Instant>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Progress {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing has moved for too long.
    async fn stalled(&self) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let deadline = last + STALL;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

/// A body as it goes out.
fn sent(
    body: HttpRequestBody,
    pace: Option<Arc<Pace>>,
    progress: Arc<Progress>,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static {
    let body = body.into_data_stream().flat_map(|bytes| {
        // A body that lies in memory does not fail.
        let mut bytes = bytes.unwrap_or_default();
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            frames.push(bytes.split_to(bytes.len().min(FRAME)));
        }
        stream::iter(frames)
    });
    body.then(move |frame| {
        let (pace, progress) = (pace.clone(), Arc::clone(&progress));
        async move {
            if let Some(pace) = pace {
                pace.pass(frame.len()).await;
            }
            progress.note();
            Ok(frame)
        }
    })
}

/// A body as it comes in.
fn received(
    body: reqwest::Body,
    pace: Option<Arc<Pace>>,
    host: String,
) -> impl Stream<Item = Result<Frame<Bytes>, HttpError>> + Send + Sync + 'static {
    stream::unfold(Some((body, pace, host)), |state| async move {
        let (mut body, pace, host) = state?;
        let fault = match tokio::time::timeout(STALL, body.frame()).await {
            Ok(None) => return None,
            Ok(Some(Ok(frame))) => {
                if let (Some(pace), Some(data)) = (&pace, frame.data_ref()) {
                    pace.pass(data.len()).await;
                }
                return Some((Ok(frame), Some((body, pace, host))));
            }
            Ok(Some(Err(error))) => HttpFault::Cut { host, cause: innermost(&error) },
            Err(_) => HttpFault::Stalled { host },
        };
        // `object_store` asks for the rest of a body that ends so.
        let error = HttpError::new(HttpErrorKind::Interrupted, fault);
        Some((Err(error), None))
    })
}

/// As much of an answer as is looked at.
async fn start_of(body: impl Stream<Item = Result<Frame<Bytes>, HttpError>>) -> Vec<u8> {
    let (mut start, mut body) = (Vec::new(), Box::pin(body));
    while start.len() < ANSWER_MAX {
        let Some(Ok(frame)) = body.next().await else { break };
        start.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
    }
    start.truncate(ANSWER_MAX);
    start
}

fn tls(ca: Option<&[u8]>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    // A system without authorities is no fault yet: the store may need none, or ours.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = ca {
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
            count += 1;
        }
        if count == 0 {
            return Err("it holds no certificate in PEM".to_owned());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// What rustls said, however deep. What an `io::Error` was made of is not among its sources.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(layer) = next {
        if let Some(found) = layer.downcast_ref() {
            return Some(found);
        }
        let within = layer.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match within {
            Some(within) => Some(within),
            None => layer.source(),
        };
    }
    None
}

fn certificate_fault(why: &rustls::CertificateError) -> String {
    use rustls::CertificateError as C;
    match why {
        C::UnknownIssuer => "no authority that is trusted has signed it".to_owned(),
        C::Expired | C::ExpiredContext { .. } => "it has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        other => other.to_string(),
    }
}

/// The innermost cause: what is around it repeats the URL, which is nobody's to see.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn an_answer(body: &str) -> Answer {
        Answer::new("h", 404, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn answers_say_what_the_store_calls_them() {
        let check = |body: &str, want: &str| assert_eq!(an_answer(body).to_string(), want);
        check(
            "<?xml?><Error><Code>NoSuchKey</Code><Message>It&apos;s\nnot there</Message></Error>",
            "h answered 404 NoSuchKey: It's not there",
        );
        check(
            r#"{"error": {"message": "gone", "errors": [{"reason": "notFound"}]}}"#,
            "h answered 404 notFound: gone",
        );
        check(
            r#"{"error": "invalid_grant", "error_description": "Bad"}"#,
            "h answered 404 invalid_grant: Bad",
        );
        check("plain\u{1b}[31m", "h answered 404: plain [31m");
        check("<html>Not Found</html>", "h answered 404");
        check("", "h answered 404");
        assert!(an_answer(&"long ".repeat(1000)).message.len() <= MESSAGE_MAX);
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        let check = |status, code: &str, want| {
            let answer = Answer { status, code: code.to_owned(), ..an_answer("") };
            assert_eq!(answer.may_pass(), want, "{status} {code}");
        };
        for status in [408, 429, 500, 502, 503, 504] {
            check(status, "", true);
        }
        for status in [400, 401, 403, 404, 409, 412, 501, 507] {
            check(status, "", false);
        }
        check(409, "ConditionalRequestConflict", true);
    }
}
