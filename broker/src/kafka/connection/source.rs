//! The bytes of a connection, cut into frames.
//!
//! A body is read straight into the buffer that it stays in, and the same read brings the beginning of what follows:
//! with many requests under way one read a frame is enough. Invariant: `ahead` holds what was read and not taken yet,
//! at most `limits::READ_AHEAD_BYTES`.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::{Pace, ReadEnd, limits};

/// See the module.
pub(super) struct Source<R> {
    socket: R,
    ahead: BytesMut,
}

impl<R: AsyncRead + Unpin> Source<R> {
    pub(super) fn new(socket: R) -> Source<R> {
        Source {
            socket,
            ahead: BytesMut::with_capacity(limits::READ_AHEAD_BYTES),
        }
    }

    /// Reads until so many bytes are at hand, not longer than `patience`.
    pub(super) async fn fill(&mut self, bytes: usize, patience: Duration) -> Result<(), ReadEnd> {
        if self.ahead.len() >= bytes {
            return Ok(());
        }
        let filled = timeout(patience, self.fill_unhurried(bytes)).await;
        filled.map_err(|_| ReadEnd::Stalled)?.map(drop)
    }

    /// Reads until so many bytes are at hand, at most `limits::READ_AHEAD_BYTES`; true then. Loses nothing if it is
    /// given up.
    pub(super) async fn fill_unhurried(&mut self, bytes: usize) -> Result<bool, ReadEnd> {
        while self.ahead.len() < bytes {
            self.ahead
                .reserve(limits::READ_AHEAD_BYTES - self.ahead.len());
            if self.socket.read_buf(&mut self.ahead).await? == 0 {
                return Err(ReadEnd::Closed);
            }
        }
        Ok(true)
    }

    /// A size prefix, if it is at hand.
    pub(super) fn take_prefix(&mut self) -> Option<[u8; 4]> {
        let prefix = *self.ahead.first_chunk()?;
        self.ahead.advance(prefix.len());
        Some(prefix)
    }

    /// Reads into one buffer, as long as it goes on arriving. Its memory is reserved; what does not arrive is address
    /// space only.
    pub(super) async fn take_body(&mut self, size: usize, pace: Pace) -> Result<Bytes, ReadEnd> {
        if let Some(body) = self.ahead.get(..size) {
            // A copy, so that what is kept of it keeps nothing else.
            let body = Bytes::copy_from_slice(body);
            self.ahead.advance(size);
            return Ok(body);
        }
        let mut frame = BytesMut::with_capacity(size + room_behind(size));
        frame.extend_from_slice(&self.ahead);
        self.ahead.clear();
        while frame.len() < size {
            let due = size.min(frame.len() + pace.bytes_min);
            let window = async {
                while frame.len() < due {
                    if self.socket.read_buf(&mut frame).await? == 0 {
                        return Err(ReadEnd::Closed);
                    }
                }
                Ok(())
            };
            timeout(pace.window, window)
                .await
                .map_err(|_| ReadEnd::Stalled)??;
        }
        self.ahead.extend_from_slice(&frame[size..]);
        frame.truncate(size);
        Ok(frame.freeze())
    }
}

/// Room for what follows a body of this size in the socket. It stays with the body, so a small one has none.
fn room_behind(size: usize) -> usize {
    if size >= 4 * limits::READ_AHEAD_BYTES {
        limits::READ_AHEAD_BYTES
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    const PACE: Pace = Pace {
        window: Duration::from_millis(500),
        bytes_min: 1_000,
    };

    #[tokio::test]
    async fn a_body_that_stops_arriving_is_given_up_soon_whatever_its_size() {
        let (mut client, server) = duplex(64);
        client.write_all(&[0; 10]).await.unwrap();
        let begun = Instant::now();
        let read = Source::new(server).take_body(100 * 1024 * 1024, PACE).await;
        assert!(matches!(read, Err(ReadEnd::Stalled)));
        assert!(begun.elapsed() < 10 * PACE.window);
    }

    #[tokio::test]
    async fn a_slow_body_arrives_whole_as_long_as_it_goes_on() {
        let (mut client, server) = duplex(64);
        let sender = tokio::spawn(async move {
            for _ in 0..100 {
                client.write_all(&[7; 200]).await.unwrap();
                sleep(Duration::from_millis(10)).await;
            }
            client
        });
        let begun = Instant::now();
        let frame = Source::new(server)
            .take_body(100 * 200, PACE)
            .await
            .unwrap();
        assert_eq!(frame.len(), 100 * 200);
        assert!(begun.elapsed() > PACE.window, "longer than any one window");
        sender.abort();
    }

    #[tokio::test]
    async fn frames_of_all_sizes_come_out_as_they_were_sent_however_they_arrive() {
        let ahead = limits::READ_AHEAD_BYTES;
        let sizes = [
            1,
            3,
            200,
            ahead - 4,
            ahead,
            ahead + 1,
            4 * ahead - 1,
            4 * ahead,
            9 * ahead,
            7,
            5 * ahead,
            64,
        ];
        let frames: Vec<Vec<u8>> = (0..120)
            .map(|n| vec![n as u8; sizes[n % sizes.len()]])
            .collect();
        for pipe in [1_000, 4 * ahead, 100 * ahead] {
            let (mut client, server) = duplex(pipe);
            let sent = frames.clone();
            tokio::spawn(async move {
                for frame in sent {
                    let prefix = (frame.len() as u32).to_be_bytes();
                    client.write_all(&prefix).await.unwrap();
                    client.write_all(&frame).await.unwrap();
                }
            });
            let mut source = Source::new(server);
            for frame in &frames {
                source.fill(4, PACE.window).await.unwrap();
                let prefix = source.take_prefix().expect("is at hand");
                assert_eq!(u32::from_be_bytes(prefix) as usize, frame.len());
                let body = source.take_body(frame.len(), PACE).await.unwrap();
                assert!(body == frame[..], "a frame of {} bytes", frame.len());
                assert!(source.ahead.len() <= ahead);
            }
            assert!(matches!(
                source.fill(1, PACE.window).await,
                Err(ReadEnd::Closed)
            ));
        }
    }
}
