//! A proxy before a real etcd whose watches lie.
//!
//! All calls are passed on as they are, but what a watch says can be dropped, said twice, said in another
//! order, cut in pieces, or be preceded by the progress that it makes. A real etcd has done some of that
//! (issue 15220 of etcd: progress that overtakes events).

use crate::serving::Serving;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream, client};
use http::uri::{Authority, Scheme, Uri};
use http::{Request, Response};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;

const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// A flag and a length stand before each message of gRPC.
const PREFIX: usize = 5;
/// Fields of a `WatchResponse` (etcd, `rpc.proto`).
const HEADER: u64 = 1;
const WATCH_ID: u64 = 2;
const FRAGMENT: u64 = 7;
const EVENTS: u64 = 11;

/// What becomes of the next message that tells of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It never comes.
    DropMessage,
    /// The last of its events, of which it has several, never comes.
    DropEvent,
    /// It comes twice.
    Twice,
    /// It comes behind the next one.
    Later,
    /// Each of its events comes in a piece of its own.
    Pieces,
    /// That it has come is said before it comes.
    EarlyProgress,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Twice,
        Self::Pieces,
        Self::EarlyProgress,
        Self::Later,
        Self::DropMessage,
        Self::DropEvent,
    ];
}

/// A running proxy. Its connections end with it.
#[derive(Debug)]
pub struct WatchProxy {
    serving: Serving,
    lies: Arc<Lies>,
    told: Receiver<Lie>,
}

#[derive(Debug)]
struct Lies {
    next: Mutex<Option<Lie>>,
    told: Sender<Lie>,
}

impl WatchProxy {
    /// Starts one before a server that has, or will have, this URL of a loopback address.
    pub fn start(server_url: &str) -> Self {
        let (_, authority) = server_url.split_once("://").expect("a URL");
        let server = authority.parse().expect("an address and port");
        let (telling, told) = channel();
        let lies = Arc::new(Lies { next: Mutex::default(), told: telling });
        let theirs = Arc::clone(&lies);
        let serving = Serving::start(move |socket| connection(socket, server, Arc::clone(&theirs)));
        Self { serving, lies, told }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.serving.url()
    }

    /// Tells that lie once, at the next occasion.
    pub fn lie(&self, lie: Lie) {
        *self.lies.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(lie);
    }

    /// Waits until a lie has been told.
    ///
    /// # Panics
    /// When there was no occasion within a minute.
    pub fn wait_until_told(&self) -> Lie {
        self.told.recv_timeout(std::time::Duration::from_secs(60)).expect("there is an occasion")
    }
}

/// What fails in here means that one side has gone.
async fn connection(socket: TcpStream, server: SocketAddr, lies: Arc<Lies>) -> Option<()> {
    let mut calls = h2::server::handshake(socket).await.ok()?;
    let upstream = TcpStream::connect(server).await.ok()?;
    let (upstream, driver) = client::handshake(upstream).await.ok()?;
    tokio::spawn(driver);
    while let Some(Ok((request, respond))) = calls.accept().await {
        let upstream = upstream.clone().ready().await.ok()?;
        tokio::spawn(call(request, respond, upstream, server, Arc::clone(&lies)));
    }
    Some(())
}

async fn call(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    mut upstream: client::SendRequest<Bytes>,
    server: SocketAddr,
    lies: Arc<Lies>,
) -> Option<()> {
    let is_watch = request.uri().path() == WATCH;
    let (mut head, question) = request.into_parts();
    let mut uri = head.uri.into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(server.to_string().parse::<Authority>().ok()?);
    head.uri = Uri::from_parts(uri).ok()?;
    let (answer, to_server) = upstream.send_request(Request::from_parts(head, ()), false).ok()?;
    let asking = tokio::spawn(pass(question, to_server, None));
    let (head, answer) = answer.await.ok()?.into_parts();
    let is_over = answer.is_end_stream();
    let to_client = respond.send_response(Response::from_parts(head, ()), is_over).ok()?;
    if !is_over {
        pass(answer, to_client, is_watch.then(|| Liar::new(lies))).await;
    }
    asking.abort();
    Some(())
}

/// Passes a body on until its end.
async fn pass(
    mut from: RecvStream,
    mut to: SendStream<Bytes>,
    mut liar: Option<Liar>,
) -> Option<()> {
    while let Some(data) = from.data().await {
        let data = data.ok()?;
        from.flow_control().release_capacity(data.len()).ok()?;
        let data = match &mut liar {
            Some(liar) => liar.hear(&data),
            None => data,
        };
        if !data.is_empty() {
            to.send_data(data, false).ok()?;
        }
    }
    match from.trailers().await.ok()? {
        Some(trailers) => to.send_trailers(trailers).ok(),
        None => to.send_data(Bytes::new(), true).ok(),
    }
}

/// Says what a watch says, but for the lies.
struct Liar {
    lies: Arc<Lies>,
    /// What has come of the next message.
    heard: BytesMut,
    /// What comes behind the next one.
    held: Option<Bytes>,
}

impl Liar {
    fn new(lies: Arc<Lies>) -> Self {
        Self { lies, heard: BytesMut::new(), held: None }
    }

    fn hear(&mut self, data: &[u8]) -> Bytes {
        self.heard.extend_from_slice(data);
        let mut said = BytesMut::new();
        while let Some(length) = self.heard.get(1..PREFIX) {
            let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            if self.heard.len() < PREFIX + length {
                break;
            }
            let message = self.heard.split_to(PREFIX + length).freeze().slice(PREFIX..);
            for message in self.say(message) {
                said.put_u8(0);
                said.put_u32(u32::try_from(message.len()).expect("as long as one that came"));
                said.put(message);
            }
        }
        said.freeze()
    }

    /// What is said instead of a message.
    fn say(&mut self, message: Bytes) -> Vec<Bytes> {
        let fields = fields(&message);
        let events = fields.iter().filter(|(number, _)| *number == EVENTS).count();
        if events == 0 {
            return vec![message];
        }
        if let Some(held) = self.held.take() {
            return vec![message, held];
        }
        let mut next = self.lies.next.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lie) = next.take_if(|lie| *lie != Lie::DropEvent || events > 1) else {
            return vec![message];
        };
        // Whoever waits for it may have gone.
        let _ = self.lies.told.send(lie);
        let with = |wanted: &dyn Fn(u64) -> bool| -> Vec<_> {
            fields.iter().filter(|(number, _)| wanted(*number)).cloned().collect()
        };
        match lie {
            Lie::DropMessage => Vec::new(),
            Lie::DropEvent => {
                let last = fields.iter().rposition(|(number, _)| *number == EVENTS);
                let rest = fields.iter().enumerate().filter(|(at, _)| Some(*at) != last);
                vec![joined(rest.map(|(_, field)| field))]
            }
            Lie::Twice => vec![message.clone(), message],
            Lie::Later => {
                self.held = Some(message);
                Vec::new()
            }
            Lie::Pieces => {
                let rest = with(&|number| number != EVENTS && number != FRAGMENT);
                let more = (FRAGMENT, Bytes::from_static(&[(FRAGMENT << 3) as u8, 1]));
                let piece = |(at, event)| {
                    let more = (at + 1 < events).then_some(&more);
                    joined(rest.iter().chain(more).chain([&event]))
                };
                with(&|number| number == EVENTS).into_iter().enumerate().map(piece).collect()
            }
            Lie::EarlyProgress => {
                let progress = with(&|number| number == HEADER || number == WATCH_ID);
                vec![joined(&progress), message]
            }
        }
    }
}

fn joined<'a>(fields: impl IntoIterator<Item = &'a (u64, Bytes)>) -> Bytes {
    let mut message = BytesMut::new();
    fields.into_iter().for_each(|(_, field)| message.extend_from_slice(field));
    message.freeze()
}

/// The fields of a protobuf message: the number of each, and all of its bytes.
fn fields(message: &Bytes) -> Vec<(u64, Bytes)> {
    let (mut rest, mut fields) = (message.clone(), Vec::new());
    while rest.has_remaining() {
        let whole = rest.clone();
        let key = varint(&mut rest);
        match key & 7 {
            0 => _ = varint(&mut rest),
            2 => {
                let length = usize::try_from(varint(&mut rest)).expect("a length");
                rest.advance(length);
            }
            other => panic!("a WatchResponse has no field of wire type {other}"),
        }
        fields.push((key >> 3, whole.slice(..whole.len() - rest.len())));
    }
    fields
}

fn varint(bytes: &mut Bytes) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
