//! A door before fake-gcs-server that speaks the XML API, of which it knows only reading and listing
//! (its issues 331 and 852). Writing becomes what its JSON API calls the same; uploads in parts are
//! kept here until they are completed. What is not there is named as Google names it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// A running door.
#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server: String,
    stopping: AtomicBool,
    /// Parts of uploads, by upload and number.
    parts: Mutex<BTreeMap<(String, u32), Vec<u8>>>,
}

impl Door {
    /// Opens one before the server at this address.
    pub(super) fn open(server: String) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (stopping, parts) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { server, stopping, parts });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accepting.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where it is.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // Wakes the acceptor; who is being served is left to end by itself.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// A request, and what it is about.
struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    target: String,
    /// Those that are passed on.
    headers: Vec<String>,
    create: bool,
    body: Vec<u8>,
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            let shared = Arc::clone(self);
            // Whoever asks sees a connection that breaks.
            thread::spawn(move || stream.map(|stream| shared.serve(stream)));
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let request = read_request(&mut reader)?;
        let answer = self.answer(&request)?;
        (&stream).write_all(&answer)
    }

    fn answer(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut parts = request.path.trim_start_matches('/').splitn(2, '/');
        let (bucket, object) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if !self.is_there(&format!("/storage/v1/b/{bucket}"))? {
            return Ok(missing("NoSuchBucket"));
        }
        let upload = request.query.get("uploadId").cloned().unwrap_or_default();
        let uploads = || self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        match request.method.as_str() {
            "POST" if request.query.contains_key("uploads") => Ok(xml(&format!(
                "<InitiateMultipartUploadResult><UploadId>{object}</UploadId>\
                 </InitiateMultipartUploadResult>"
            ))),
            "PUT" if !upload.is_empty() => {
                let number = request.query.get("partNumber").and_then(|number| number.parse().ok());
                uploads().insert((upload, number.unwrap_or_default()), request.body.clone());
                Ok(written())
            }
            "DELETE" if !upload.is_empty() => {
                uploads().retain(|(known, _), _| *known != upload);
                Ok(written())
            }
            "POST" if !upload.is_empty() => {
                let mut uploads = uploads();
                let parts = uploads.iter().filter(|((known, _), _)| *known == upload);
                let whole: Vec<u8> = parts.flat_map(|(_, bytes)| bytes.clone()).collect();
                uploads.retain(|(known, _), _| *known != upload);
                self.put(bucket, object, &whole, false)?;
                Ok(xml("<CompleteMultipartUploadResult><ETag>\"whole\"</ETag>\
                    </CompleteMultipartUploadResult>"))
            }
            "PUT" => match self.put(bucket, object, &request.body, request.create)? {
                200 => Ok(written()),
                status => Ok(told(status, "PreconditionFailed")),
            },
            "GET" | "HEAD" | "DELETE" if !object.is_empty() => {
                let known = format!("/storage/v1/b/{bucket}/o/{}", object.replace('/', "%2F"));
                match self.is_there(&known)? {
                    true => self.pass_on(request),
                    false => Ok(missing("NoSuchKey")),
                }
            }
            _ => self.pass_on(request),
        }
    }

    fn put(&self, bucket: &str, object: &str, bytes: &[u8], create: bool) -> io::Result<u16> {
        let name = object.replace('/', "%2F");
        let only = if create { "&ifGenerationMatch=0" } else { "" };
        let target = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}{only}");
        let headers = ["Content-Type: application/octet-stream".to_owned()];
        Ok(status(&self.exchange("POST", &target, &headers, bytes)?))
    }

    fn is_there(&self, target: &str) -> io::Result<bool> {
        Ok(status(&self.exchange("GET", target, &[], &[])?) == 200)
    }

    fn pass_on(&self, request: &Request) -> io::Result<Vec<u8>> {
        self.exchange(&request.method, &request.target, &request.headers, &request.body)
    }

    /// One request to the server, in HTTP/1.0: its answer ends with the connection.
    fn exchange(
        &self,
        method: &str,
        target: &str,
        headers: &[String],
        body: &[u8],
    ) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.server)?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!(
            "{method} {target} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n{headers}\r\n",
            self.server,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let value = |name: &str| {
        let mut headers = lines.iter().filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    let len = value("content-length").and_then(|len| len.parse().ok()).unwrap_or_default();
    let create = value("x-goog-if-generation-match") == Some("0");
    let passed_on = ["range", "if-match"].map(|name| value(name).map(|v| format!("{name}: {v}")));
    let headers = passed_on.into_iter().flatten().collect();
    let mut body = vec![0; len];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Request { method, path: path.to_owned(), query, target, headers, create, body })
}

fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(32)]).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(502)
}

fn missing(code: &str) -> Vec<u8> {
    told(404, code)
}

fn told(status: u16, code: &str) -> Vec<u8> {
    reply(status, &format!("<Error><Code>{code}</Code><Message>of the door</Message></Error>"))
}

fn xml(body: &str) -> Vec<u8> {
    reply(200, body)
}

fn written() -> Vec<u8> {
    reply(200, "")
}

fn reply(status: u16, body: &str) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} said\r\nContent-Length: {}\r\nConnection: close\r\nETag: \"door\"\r\n\
         x-goog-generation: 1\r\n\r\n",
        body.len()
    );
    format!("{head}{body}").into_bytes()
}
