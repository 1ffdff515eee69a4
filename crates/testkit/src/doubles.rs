//! Servers that misbehave as a real etcd cannot be made to.
//!
//! [`SnapshotDouble`] answers `Maintenance/Snapshot` on a loopback port and follows a
//! [`SnapshotScript`]: it stalls, stops early, drips, or lies in its digest. It speaks HTTP/2 and
//! the gRPC framing by hand, so that it can also do what a gRPC library would not let it. Every
//! other call is answered "unimplemented".

use std::time::Duration;

use crate::serving::Serving;
use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

/// gRPC's status codes, as far as needed.
const OK: &str = "0";
const UNIMPLEMENTED: &str = "12";

/// What the stream carries and how it goes wrong.
#[derive(Debug, Clone)]
pub struct SnapshotScript {
    /// How many data messages a complete stream has.
    pub chunks: usize,
    /// How many bytes each holds.
    pub chunk_bytes: usize,
    /// Before every message.
    pub pause: Duration,
    /// How it ends.
    pub ending: Ending,
}

/// How the stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As etcd's: all the data, the digest, status OK.
    Sound,
    /// All the data, a digest of something else, status OK.
    WrongDigest,
    /// After so many messages nothing more comes; the connection stays alive.
    StallAfter(usize),
    /// After so many messages the stream ends with status OK, without a digest.
    EndAfter(usize),
    /// After so many messages the connection is closed.
    CutAfter(usize),
}

impl SnapshotScript {
    /// A sound stream of `chunks` messages of 32 KiB, etcd's own size.
    pub fn sound(chunks: usize) -> Self {
        Self { chunks, chunk_bytes: 32 * 1024, pause: Duration::ZERO, ending: Ending::Sound }
    }

    /// The same with another ending.
    pub fn ending(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    /// The same with a pause before every message.
    pub fn dripping(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// The data that a complete stream carries, without the digest.
    pub fn data(&self) -> Vec<u8> {
        (0..self.chunks).flat_map(|index| self.chunk(index)).collect()
    }

    fn chunk(&self, index: usize) -> Vec<u8> {
        // Some byte that tells one message from the next.
        vec![u8::try_from(index % 251).unwrap_or_default(); self.chunk_bytes]
    }

    /// How many data messages are sent, and whether a digest follows.
    fn extent(&self) -> (usize, bool) {
        match self.ending {
            Ending::Sound | Ending::WrongDigest => (self.chunks, true),
            Ending::StallAfter(n) | Ending::EndAfter(n) | Ending::CutAfter(n) => (n, false),
        }
    }
}

/// A server that follows a [`SnapshotScript`] for every connection, until it is dropped.
#[derive(Debug)]
pub struct SnapshotDouble {
    serving: Serving,
}

impl SnapshotDouble {
    /// Starts it.
    pub fn start(script: SnapshotScript) -> Self {
        Self { serving: Serving::start(move |socket| connection(socket, script.clone())) }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.serving.url()
    }
}

async fn connection(socket: TcpStream, script: SnapshotScript) {
    let Ok(mut connection) = h2::server::handshake(socket).await else {
        return;
    };
    let (cut, mut cut_now) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = cut_now.recv() => return,
        };
        let Some(Ok((request, respond))) = accepted else {
            return;
        };
        if request.uri().path() == SNAPSHOT {
            let (script, cut) = (script.clone(), cut.clone());
            tokio::spawn(async move { stream(respond, &script, cut).await });
        } else {
            unimplemented(respond);
        }
    }
}

fn response() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).expect("valid headers")
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers
}

fn unimplemented(mut respond: SendResponse<Bytes>) {
    // Whatever fails here means that the caller has gone.
    if let Ok(mut body) = respond.send_response(response(), false) {
        let _ = body.send_trailers(status(UNIMPLEMENTED));
    }
}

async fn stream(
    mut respond: SendResponse<Bytes>,
    script: &SnapshotScript,
    cut: tokio::sync::mpsc::Sender<()>,
) {
    let Ok(mut body) = respond.send_response(response(), false) else {
        return;
    };
    if send_messages(&mut body, script).await.is_err() {
        return;
    }
    match script.ending {
        Ending::StallAfter(_) => std::future::pending().await,
        // The channel is full only when the connection is being closed already.
        Ending::CutAfter(_) => _ = cut.try_send(()),
        _ => _ = body.send_trailers(status(OK)),
    }
}

async fn send_messages(
    body: &mut SendStream<Bytes>,
    script: &SnapshotScript,
) -> Result<(), h2::Error> {
    let mut digest = Sha256::new();
    let (count, with_digest) = script.extent();
    for index in 0..count {
        let chunk = script.chunk(index);
        digest.update(&chunk);
        let remaining = (script.chunks - index - 1) * script.chunk_bytes;
        send(body, message(remaining, &chunk), script.pause).await?;
    }
    if with_digest {
        if script.ending == Ending::WrongDigest {
            digest.update(b"something else");
        }
        send(body, message(0, &digest.finalize()), script.pause).await?;
    }
    Ok(())
}

/// Sends as fast as the caller's window allows, so that a cut comes after all that was promised.
async fn send(
    body: &mut SendStream<Bytes>,
    mut data: Bytes,
    pause: Duration,
) -> Result<(), h2::Error> {
    tokio::time::sleep(pause).await;
    while !data.is_empty() {
        body.reserve_capacity(data.len());
        let Some(granted) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else {
            return Ok(());
        };
        let part = data.split_to(granted?.min(data.len()));
        body.send_data(part, false)?;
    }
    Ok(())
}

/// A `SnapshotResponse` in gRPC's framing: fields 2 (remaining bytes), 3 (blob) and 4 (version), as
/// in etcd's `rpc.proto`.
fn message(remaining: usize, blob: &[u8]) -> Bytes {
    let mut fields = BytesMut::new();
    put_tag(&mut fields, 2, 0);
    put_varint(&mut fields, remaining);
    put_tag(&mut fields, 3, 2);
    put_varint(&mut fields, blob.len());
    fields.put_slice(blob);
    put_tag(&mut fields, 4, 2);
    put_varint(&mut fields, "3.6.0".len());
    fields.put_slice(b"3.6.0");

    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(fields.len()).expect("a small message"));
    framed.put(fields);
    framed.freeze()
}

fn put_tag(out: &mut BytesMut, field: u8, wire_type: u8) {
    out.put_u8(field << 3 | wire_type);
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
