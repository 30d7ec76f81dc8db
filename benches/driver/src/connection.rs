//! One blocking connection: vectored writes out, whole replies in.
//!
//! Replies come in the order of the requests, numbered from 0 on; a reply with another number is an error.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::frame::decode_response;
use tidelog_protocol::limits;
use tidelog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::error::DriverError;
use crate::prepared::encode;

/// Room for replies at first; a longer one makes it grow.
const INPUT_BYTES_START: usize = 256 * 1024;
/// Length of the size prefix.
const PREFIX: usize = 4;

/// A connection to one broker.
pub(crate) struct Connection {
    address: String,
    socket: TcpStream,
    timeout: Duration,
    input: Vec<u8>,
    /// What has been received and not taken: `begin <= end <= input.len()`.
    begin: usize,
    end: usize,
    next_reply: i32,
    /// Bytes for which the system wakes a waiting [`Connection::receive`].
    wake_bytes: i32,
}

impl Connection {
    pub(crate) fn open(address: &str, timeout: Duration) -> Result<Self, DriverError> {
        let prepared = || {
            let socket = TcpStream::connect(address)?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(timeout))?;
            socket.set_write_timeout(Some(timeout))?;
            Ok(socket)
        };
        let socket = prepared().map_err(|source| DriverError::Connection {
            address: address.to_owned(),
            source,
        })?;
        Ok(Connection {
            address: address.to_owned(),
            socket,
            timeout,
            input: vec![0; INPUT_BYTES_START],
            begin: 0,
            end: 0,
            next_reply: 0,
            wake_bytes: 1,
        })
    }

    /// The newest version of a request that both sides know.
    pub(crate) fn version(
        &mut self,
        api: ApiKey,
        (min, max): (i16, i16),
    ) -> Result<i16, DriverError> {
        let mut reply = Bytes::copy_from_slice(self.ask_versions()?.get(4..).unwrap_or_default());
        let versions: ApiVersionsResponse = decode_response(&mut reply, ApiKey::ApiVersions, 0)
            .map_err(|_| self.malformed("ApiVersions"))?;
        versions
            .api_keys
            .iter()
            .find(|range| range.api_key == api as i16)
            .map(|range| (range.min_version.max(min), range.max_version.min(max)))
            .filter(|(lowest, highest)| lowest <= highest)
            .map(|(_, highest)| highest)
            .ok_or_else(|| DriverError::Unsupported {
                address: self.address.clone(),
                api: if api == ApiKey::Fetch {
                    "Fetch"
                } else {
                    "Produce"
                },
                min,
                max,
            })
    }

    /// Waits until the broker has read everything that was sent: it answers in order. For requests without a reply.
    pub(crate) fn settle(&mut self) -> Result<(), DriverError> {
        self.ask_versions().map(drop)
    }

    fn ask_versions(&mut self) -> Result<&[u8], DriverError> {
        // Every broker knows version 0, whatever else it knows.
        let request = encode(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default())?;
        self.next_reply = 0;
        self.write(&mut [IoSlice::new(&request)])?;
        while !self.has_reply()? {
            self.receive()?;
        }
        let found = self.take_reply()?;
        found.ok_or(DriverError::Plan("a reply is there".to_owned()))
    }

    /// Writes all of it.
    pub(crate) fn write(&mut self, mut slices: &mut [IoSlice<'_>]) -> Result<(), DriverError> {
        while !slices.is_empty() {
            match self.socket.write_vectored(slices) {
                Ok(0) => return Err(self.failed(io::ErrorKind::WriteZero.into())),
                Ok(count) => IoSlice::advance_slices(&mut slices, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Waits until something can be received, at most until `deadline`.
    pub(crate) fn readable_before(&self, deadline: Instant) -> Result<bool, DriverError> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut fds, Some(&wait)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    /// Waits for bytes and takes what is there.
    pub(crate) fn receive(&mut self) -> Result<(), DriverError> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        let wanted = self.size()?.map_or(PREFIX, |size| PREFIX + size);
        if self.begin + wanted > self.input.len() || self.end == self.input.len() {
            self.input.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if wanted > self.input.len() {
                // One more half, so that the next reply's beginning comes along.
                self.input.resize(wanted + wanted / 2, 0);
            }
        }
        loop {
            let received = match self.input.get_mut(self.end..) {
                Some(room) => self.socket.read(room),
                None => Ok(0),
            };
            match received {
                Ok(0) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Size of the reply that has begun, once its prefix is there.
    fn size(&self) -> Result<Option<usize>, DriverError> {
        let prefix = self
            .input
            .get(self.begin..self.end)
            .and_then(|received| received.first_chunk::<PREFIX>());
        let Some(prefix) = prefix else {
            return Ok(None);
        };
        usize::try_from(i32::from_be_bytes(*prefix))
            .ok()
            .filter(|size| (4..=2 * limits::FRAME_BYTES_MAX).contains(size))
            .map(Some)
            .ok_or_else(|| self.malformed("a reply of impossible size"))
    }

    fn has_reply(&self) -> Result<bool, DriverError> {
        Ok(self
            .size()?
            .is_some_and(|size| self.end - self.begin >= PREFIX + size))
    }

    /// The next reply if it came whole, from its correlation id on.
    pub(crate) fn take_reply(&mut self) -> Result<Option<&[u8]>, DriverError> {
        if !self.has_reply()? {
            return Ok(None);
        }
        let size = self.size()?.unwrap_or_default();
        let begin = self.begin + PREFIX;
        self.begin = begin + size;
        let expected = self.next_reply;
        self.next_reply = expected.wrapping_add(1);
        let number = self
            .input
            .get(begin..)
            .and_then(|reply| reply.first_chunk::<4>());
        if number.map(|id| i32::from_be_bytes(*id)) != Some(expected) {
            return Err(self.malformed("replies out of order"));
        }
        Ok(self.input.get(begin..begin + size))
    }

    /// From now on [`Self::receive`] waits until so many bytes are there: the caller knows that they will come.
    pub(crate) fn wake_at(&mut self, bytes: usize) -> Result<(), DriverError> {
        // More than a quarter of the room would keep replies from being read in time.
        let bytes = i32::try_from(bytes.clamp(1, INPUT_BYTES_START / 4)).unwrap_or(1);
        if bytes == self.wake_bytes {
            return Ok(());
        }
        // SAFETY: the descriptor is open, and the option's value is one int that lives through the call.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVLOWAT,
                (&raw const bytes).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(self.failed(io::Error::last_os_error()));
        }
        self.wake_bytes = bytes;
        Ok(())
    }

    /// Numbers replies from 0 again.
    pub(crate) fn restart_numbering(&mut self) {
        self.next_reply = 0;
    }

    pub(crate) fn malformed(&self, reason: &'static str) -> DriverError {
        DriverError::Malformed {
            address: self.address.clone(),
            reason,
        }
    }

    pub(crate) fn refused(&self, code: i16) -> DriverError {
        DriverError::Refused {
            address: self.address.clone(),
            code,
        }
    }

    fn failed(&self, source: io::Error) -> DriverError {
        let address = self.address.clone();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => DriverError::TimedOut {
                address,
                seconds: self.timeout.as_secs(),
            },
            _ => DriverError::Connection { address, source },
        }
    }
}
