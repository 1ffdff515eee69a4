//! Loopback ports for servers that insist on being told theirs.
//!
//! Ports come from below the range that the kernel hands out to outgoing connections, so that no
//! unrelated connection can take one while its server is down. A port is held by a bound socket
//! until right before its server starts, and never given out twice by one process. What remains is
//! another process binding it in that moment: etcd then says so, and the whole start is repeated.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{LazyLock, Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

/// Below Linux's default `ip_local_port_range`, which begins at 32768.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

static GIVEN_OUT: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port of the loopback address that nobody else can bind while this lives. Connections to it are
/// refused: nothing listens.
#[derive(Debug)]
pub struct HeldPort {
    socket: Socket,
    port: u16,
}

impl HeldPort {
    /// Finds and holds a free port.
    pub fn new() -> Self {
        let mut given_out = GIVEN_OUT.lock().unwrap_or_else(PoisonError::into_inner);
        let count = usize::from(PORTS.end - PORTS.start);
        // Test processes start at different places, so that they seldom try the same ports.
        let first = RandomState::new().hash_one(0) % u64::from(PORTS.end - PORTS.start);
        let candidates = PORTS.cycle().skip(usize::try_from(first).unwrap_or(0)).take(count);
        for port in candidates {
            if given_out.contains(&port) {
                continue;
            }
            if let Ok(socket) = bind(port) {
                given_out.insert(port);
                return Self { socket, port };
            }
        }
        panic!("no free port in {PORTS:?}");
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.port
    }

    /// Lets the port go, for the server that starts now.
    pub fn release(self) {
        drop(self.socket);
    }
}

/// Binds without `SO_REUSEADDR`, with which others could bind it too as long as nobody listens.
fn bind(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}
