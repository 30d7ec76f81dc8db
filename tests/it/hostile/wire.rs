//! One hostile connection: bytes go in, replies or an end come out.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use tidelog_protocol::limits::FRAME_BYTES_MAX;

use super::PATIENCE;

/// What came next.
pub enum Next {
    /// A frame without its size prefix.
    Reply(Bytes),
    /// The broker ended the connection.
    Closed,
    /// Nothing, for as long as was waited.
    Silence,
}

/// Connects; a broker under attack may take a while to accept.
pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the broker accepts");
    stream.set_nodelay(true).expect("socket option");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("socket option");
    stream
}

/// Sends a frame with a size prefix that is true. The broker may have closed before it took all.
pub fn send(stream: &mut TcpStream, frame: &[u8]) {
    send_raw(stream, &with_size(frame, frame.len()));
}

/// Sends bytes as they are. Only an end of the connection may keep them from being taken.
pub fn send_raw(stream: &mut TcpStream, bytes: &[u8]) {
    if let Err(error) = stream.write_all(bytes) {
        assert!(is_end(&error), "not taken within {PATIENCE:?}: {error}");
    }
}

/// A frame behind a size prefix.
pub fn with_size(frame: &[u8], size: usize) -> Vec<u8> {
    let size = i32::try_from(size).expect("a size").to_be_bytes();
    [&size, frame].concat()
}

/// Ends this side.
pub fn end(stream: &TcpStream) {
    // Fails if the other side has ended already.
    let _ = stream.shutdown(Shutdown::Write);
}

/// Waits for the next frame or the end.
pub fn next(stream: &mut TcpStream, patience: Duration) -> Next {
    stream
        .set_read_timeout(Some(patience))
        .expect("socket option");
    let mut size = [0; 4];
    match stream.read(&mut size) {
        Ok(0) => return Next::Closed,
        Ok(4) => {}
        Ok(some) => match stream.read_exact(&mut size[some..]) {
            Ok(()) => {}
            Err(error) => return failed(&error),
        },
        Err(error) => return failed(&error),
    }
    let size = u32::from_be_bytes(size) as usize;
    assert!(size <= FRAME_BYTES_MAX, "a reply of {size} bytes");
    let mut frame = vec![0; size];
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("socket option");
    match stream.read_exact(&mut frame) {
        Ok(()) => Next::Reply(frame.into()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &io::Error) -> Next {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Next::Silence,
        _ if is_end(error) => Next::Closed,
        _ => panic!("the connection failed: {error}"),
    }
}

/// Whether the other side has ended the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::NotConnected
    )
}
