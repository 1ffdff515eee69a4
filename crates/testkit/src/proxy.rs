//! A proxy before a real server that does to its answers what a bad network does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// What happens to a connection once so many bytes have come from the server on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing more is passed on; the connection stays open.
    StallAfter(u64),
    /// The connection is closed.
    CutAfter(u64),
    /// One bit is turned over, as some network cards do: the first after that place which stands
    /// among equal bytes, and so in someone's data rather than in the protocol.
    FlipAfter(u64),
}

/// That many equal bytes are data.
const RUN: usize = 256;

/// A running proxy. Its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    fault: Fault,
    stopping: AtomicBool,
    /// Both ends of every connection, to be closed at the end.
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts one before the server at this URL of a loopback address.
    pub fn start(server_url: &str, fault: Fault) -> Self {
        let (_, authority) = server_url.split_once("://").expect("a URL");
        let server = authority.parse().expect("an address and port");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let shared =
            Shared { server, fault, stopping: AtomicBool::new(false), open: Mutex::default() };
        let shared = Arc::new(shared);
        let acceptor = Arc::clone(&shared);
        let acceptor = thread::spawn(move || acceptor.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor; nothing else can be wrong with it.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        thread::scope(|threads| {
            while let Ok((client, _)) = listener.accept() {
                if self.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(server) = TcpStream::connect(self.server) else { continue };
                self.remember([&client, &server]);
                let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone())
                else {
                    continue;
                };
                threads.spawn(|| pass(from_client, to_server, None));
                threads.spawn(|| pass(server, client, Some(self.fault)));
            }
            // Ends the threads, which wait for bytes.
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.drain(..).for_each(close);
        });
    }

    fn remember(&self, streams: [&TcpStream; 2]) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.extend(streams.into_iter().filter_map(|stream| stream.try_clone().ok()));
    }
}

fn close(stream: TcpStream) {
    // It may have been closed by its peer already.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Copies one direction of a connection until it ends.
fn pass(mut from: TcpStream, mut to: TcpStream, mut fault: Option<Fault>) {
    let mut buffer = vec![0; 64 << 10];
    let mut position = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let bytes = &mut buffer[..count];
        position += count as u64;
        match fault {
            // Other handles keep the connection open.
            Some(Fault::StallAfter(limit)) if position > limit => return,
            Some(Fault::CutAfter(limit)) if position > limit => break,
            Some(Fault::FlipAfter(limit)) if position > limit && flip(bytes) => fault = None,
            _ => {}
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    close(from);
    close(to);
}

/// Turns over one bit of data, if there are any.
fn flip(bytes: &mut [u8]) -> bool {
    let run = bytes.windows(RUN).position(|run| run.iter().all(|byte| *byte == run[0]));
    run.map(|start| bytes[start + RUN / 2] ^= 1).is_some()
}
