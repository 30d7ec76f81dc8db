//! The connections of an HTTP listener: a few at a time, of which the oldest makes room for a new one.
//!
//! Probes and scrapes take milliseconds. Whoever opens connections and does not end its requests holds places until
//! others want them, and nothing else; no time has to be measured for it.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::serve::Listener;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Connections of one listener. Each may hold some 400 KB of a request's head.
const CONNECTIONS_MAX: usize = 128;

/// A listener that accepts always and keeps the newest connections.
#[derive(Debug)]
pub(super) struct BoundedListener {
    socket: TcpListener,
    open: Arc<Mutex<Open>>,
}

/// The connections that are open, oldest first.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    ends: VecDeque<(u64, CancellationToken)>,
}

/// A connection that fails once it has to make room.
#[derive(Debug)]
pub(super) struct BoundedConnection {
    socket: TcpStream,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    number: u64,
    open: Arc<Mutex<Open>>,
}

impl BoundedListener {
    pub(super) fn new(socket: TcpListener) -> BoundedListener {
        BoundedListener {
            socket,
            open: Arc::default(),
        }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedConnection, SocketAddr) {
        let (socket, peer) = Listener::accept(&mut self.socket).await;
        let end = CancellationToken::new();
        let mut open = self.open.lock();
        if open.ends.len() >= CONNECTIONS_MAX
            && let Some((_, oldest)) = open.ends.pop_front()
        {
            oldest.cancel();
        }
        let number = open.next;
        open.next += 1;
        open.ends.push_back((number, end.clone()));
        let connection = BoundedConnection {
            socket,
            ended: Box::pin(end.cancelled_owned()),
            number,
            open: Arc::clone(&self.open),
        };
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Drop for BoundedConnection {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Ok(at) = (open.ends).binary_search_by_key(&self.number, |(number, _)| *number) {
            open.ends.remove(at);
        }
    }
}

impl BoundedConnection {
    /// An error once the connection has to end; else the task is woken when it has to.
    fn check(&mut self, task: &mut Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(task) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for BoundedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(task)?;
        Pin::new(&mut self.socket).poll_read(task, buffer)
    }
}

impl AsyncWrite for BoundedConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(task)?;
        Pin::new(&mut self.socket).poll_write(task, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(task)?;
        Pin::new(&mut self.socket).poll_write_vectored(task, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(task)
    }
}
