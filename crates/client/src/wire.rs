//! The bytes of one connection, with a note of what the layers above would forget.
//!
//! HTTP/2 reports a broken connection as text. Whether anything was ever received, and which TLS
//! alert ended it, is noted here, so that an error can say more than "broken pipe".

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream to a peer: TCP or a Unix socket, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What one connection went through.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    heard: AtomicBool,
    tls_error: OnceLock<rustls::Error>,
}

impl Trace {
    /// Whether the peer ever sent anything, after TLS was agreed on.
    pub(crate) fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// What TLS said when it ended the connection.
    pub(crate) fn tls_error(&self) -> Option<&rustls::Error> {
        self.tls_error.get()
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(error) = tls_error(error)
        {
            self.tls_error.get_or_init(|| error.clone());
        }
        polled
    }
}

/// The TLS error inside an I/O error, if that is what it is.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A connection that keeps a [`Trace`].
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    trace: Arc<Trace>,
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn Stream>, trace: Arc<Trace>) -> Self {
        Self { stream, trace }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let done = ready!(self.trace.note(polled));
        if buf.filled().len() > before {
            self.trace.heard.store(true, Ordering::Relaxed);
        }
        Poll::Ready(done)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.trace.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.trace.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
