//! One connection to one broker: requests are pipelined, replies are matched by correlation id.
//!
//! A writer task and a reader task own the two halves of the socket. Invariant: a request that waits for a reply is
//! in `Pending::waiting`, and leaves it exactly once: with its reply, with its time-out, or with the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::encode::ReplyBuffer;
use tidelog_protocol::frame::{self, RequestHeader};
use tidelog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use tidelog_protocol::{ErrorCode, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::config::ClientConfig;
use crate::error::Error;
use crate::versions;

/// Frames that wait for the socket. Callers beyond it wait themselves.
const OUTGOING_MAX: usize = 64;

/// Reply buffers grow to what a length prefix claims only as the bytes arrive.
const READ_BYTES_START: usize = 64 * 1024;

/// A connection whose broker has told what it supports.
#[derive(Debug)]
pub(crate) struct Connection {
    address: Arc<str>,
    client_id: StrBytes,
    outgoing: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    versions: HashMap<i16, (i16, i16)>,
    tasks: [AbortHandle; 2],
}

/// A frame for the writer, and who wants to know when the system has it.
#[derive(Debug)]
struct Outgoing {
    frame: Vec<Bytes>,
    written: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    next_id: i32,
    waiting: HashMap<i32, oneshot::Sender<Bytes>>,
    /// Why the connection ended.
    ended: Option<String>,
}

impl Shared {
    fn end(&self, reason: &str) {
        let mut pending = self.pending.lock();
        pending.ended.get_or_insert_with(|| reason.to_owned());
        pending.waiting.clear();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    /// Connects and asks what the broker supports.
    pub(crate) async fn open(address: &str, config: &ClientConfig) -> Result<Self, Error> {
        let unreachable = |reason: String| Error::Unreachable {
            address: address.to_owned(),
            reason,
        };
        let connecting = TcpStream::connect(address);
        let socket = tokio::time::timeout(config.connect_timeout, connecting)
            .await
            .map_err(|_| unreachable("no answer".to_owned()))?
            .map_err(|error| unreachable(plain(&error)))?;
        socket
            .set_nodelay(true)
            .map_err(|error| unreachable(plain(&error)))?;
        let (read_half, write_half) = socket.into_split();
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
        });
        let (outgoing, frames) = mpsc::channel(OUTGOING_MAX);
        let reader = tokio::spawn(read(read_half, shared.clone(), config.frame_bytes_max));
        let writer = tokio::spawn(write(write_half, frames, shared.clone()));
        let mut connection = Connection {
            address: address.into(),
            client_id: StrBytes::from_string(config.client_id.clone()),
            outgoing,
            shared,
            versions: HashMap::new(),
            tasks: [reader.abort_handle(), writer.abort_handle()],
        };
        connection.versions = connection.ask_versions(config.request_timeout).await?;
        Ok(connection)
    }

    /// Whether no further request can be sent.
    pub(crate) fn is_ended(&self) -> bool {
        self.shared.pending.lock().ended.is_some()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request, built for the version that both sides know, and waits for its reply.
    pub(crate) async fn call<R: Request>(
        &self,
        timeout: Duration,
        build: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, Error> {
        self.call_with(&ReplyBuffer::new(), timeout, build).await
    }

    /// As [`Self::call`], with records to splice into the request.
    pub(crate) fn call_with<R: Request>(
        &self,
        records: &ReplyBuffer,
        timeout: Duration,
        build: impl FnOnce(i16) -> R,
    ) -> impl Future<Output = Result<R::Response, Error>> {
        let prepared = self
            .version::<R>()
            .and_then(|(api, version)| self.prepare(api, version, records, &build(version), true));
        async move {
            let call = prepared?;
            let (api, version) = (call.api, call.version);
            let mut body = self.exchange(call, timeout).await?;
            frame::decode_response(&mut body, api, version)
                .map_err(|error| self.malformed(&error.to_string()))
        }
    }

    /// Sends a request that has no reply. When it returns the system has the bytes, so that a process that ends then
    /// does not take them along.
    pub(crate) fn send_with<R: Request>(
        &self,
        records: &ReplyBuffer,
        build: impl FnOnce(i16) -> R,
    ) -> impl Future<Output = Result<(), Error>> {
        let prepared = self
            .version::<R>()
            .and_then(|(api, version)| self.prepare(api, version, records, &build(version), false));
        async move {
            let frame = prepared?.frame;
            let (written, told) = oneshot::channel();
            let outgoing = Outgoing {
                frame,
                written: Some(written),
            };
            let sent = self.outgoing.send(outgoing).await;
            sent.map_err(|_| self.disconnected())?;
            told.await.map_err(|_| self.disconnected())
        }
    }

    fn version<R: Request>(&self) -> Result<(ApiKey, i16), Error> {
        let api = ApiKey::try_from(R::KEY).expect("the codec numbers its own requests");
        let unsupported = || Error::Unsupported {
            address: self.address.to_string(),
            call: format!("{api:?}"),
        };
        let &(min, max) = self.versions.get(&R::KEY).ok_or_else(unsupported)?;
        let highest = max
            .min(R::VERSIONS.max)
            .min(versions::highest_filled(R::KEY));
        if highest < min.max(R::VERSIONS.min) {
            return Err(unsupported());
        }
        Ok((api, highest))
    }

    fn prepare<R: Request>(
        &self,
        api: ApiKey,
        version: i16,
        records: &ReplyBuffer,
        body: &R,
        has_reply: bool,
    ) -> Result<Call, Error> {
        let (sender, reply) = oneshot::channel();
        let correlation_id = {
            let mut pending = self.shared.pending.lock();
            if let Some(reason) = &pending.ended {
                return Err(Error::Disconnected {
                    address: self.address.to_string(),
                    reason: reason.clone(),
                });
            }
            let id = pending.next_id;
            pending.next_id = id.wrapping_add(1);
            if has_reply {
                pending.waiting.insert(id, sender);
            }
            id
        };
        let header = RequestHeader {
            api_key: api,
            api_version: version,
            correlation_id,
            client_id: Some(self.client_id.clone()),
        };
        match records.encode_request(&header, body) {
            Ok(frame) => Ok(Call {
                api,
                version,
                correlation_id,
                frame,
                reply,
            }),
            Err(error) => {
                self.shared.pending.lock().waiting.remove(&correlation_id);
                Err(Error::Invalid(error.to_string()))
            }
        }
    }

    /// The reply's body.
    async fn exchange(&self, call: Call, timeout: Duration) -> Result<Bytes, Error> {
        let Call {
            api,
            version,
            correlation_id,
            frame,
            reply,
        } = call;
        let answered = async {
            let written = None;
            self.outgoing.send(Outgoing { frame, written }).await.ok()?;
            reply.await.ok()
        };
        let Ok(answered) = tokio::time::timeout(timeout, answered).await else {
            self.shared.pending.lock().waiting.remove(&correlation_id);
            // Replies come in order, so whatever was asked after this one is stuck as well.
            self.shared.end("a request timed out");
            return Err(Error::TimedOut {
                what: format!("{api:?} at {}", self.address),
                after: timeout,
            });
        };
        let mut frame = answered.ok_or_else(|| self.disconnected())?;
        frame::read_response_header(&mut frame, api, version)
            .map_err(|error| self.malformed(&error.to_string()))?;
        Ok(frame)
    }

    async fn ask_versions(&self, timeout: Duration) -> Result<HashMap<i16, (i16, i16)>, Error> {
        let api = ApiKey::ApiVersions;
        let mut version = versions::highest_filled(api as i16);
        loop {
            let mut request = ApiVersionsRequest::default();
            if version >= 3 {
                request.client_software_name = StrBytes::from_static_str("tidelog");
                request.client_software_version =
                    StrBytes::from_static_str(env!("CARGO_PKG_VERSION"));
            }
            let call = self.prepare(api, version, &ReplyBuffer::new(), &request, true)?;
            let mut body = self.exchange(call, timeout).await?;
            // A broker that does not know the version answers in the oldest one, error first.
            let code = body.get(..2).map_or(0, |mut code: &[u8]| code.get_i16());
            if code == ErrorCode::UnsupportedVersion.code() && version > 0 {
                version = 0;
                continue;
            }
            let reply: ApiVersionsResponse = frame::decode_response(&mut body, api, version)
                .map_err(|error| self.malformed(&error.to_string()))?;
            Error::check(reply.error_code, None)?;
            return Ok(reply
                .api_keys
                .iter()
                .map(|range| (range.api_key, (range.min_version, range.max_version)))
                .collect());
        }
    }

    fn disconnected(&self) -> Error {
        let ended = self.shared.pending.lock().ended.clone();
        Error::Disconnected {
            address: self.address.to_string(),
            reason: ended.unwrap_or_else(|| "closed by the broker".to_owned()),
        }
    }

    fn malformed(&self, reason: &str) -> Error {
        Error::Malformed {
            address: self.address.to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// A request that is encoded and registered, not yet sent.
struct Call {
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    frame: Vec<Bytes>,
    reply: oneshot::Receiver<Bytes>,
}

async fn write(
    mut socket: OwnedWriteHalf,
    mut frames: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
) {
    while let Some(Outgoing { frame, written }) = frames.recv().await {
        for piece in frame {
            if let Err(error) = socket.write_all(&piece).await {
                shared.end(&plain(&error));
                return;
            }
        }
        if let Some(written) = written {
            // Who asked may have given up.
            written.send(()).ok();
        }
    }
}

async fn read(mut socket: OwnedReadHalf, shared: Arc<Shared>, frame_bytes_max: usize) {
    loop {
        let reply = match read_frame(&mut socket, frame_bytes_max).await {
            Ok(reply) => reply,
            Err(reason) => return shared.end(&reason),
        };
        let Some(id) = reply.first_chunk::<4>().map(|id| i32::from_be_bytes(*id)) else {
            return shared.end("a reply without a header");
        };
        let waiting = shared.pending.lock().waiting.remove(&id);
        match waiting {
            // The caller may have given up; its reply is dropped.
            Some(waiting) => drop(waiting.send(reply)),
            None => return shared.end("a reply that nobody asked for"),
        }
    }
}

async fn read_frame(socket: &mut OwnedReadHalf, frame_bytes_max: usize) -> Result<Bytes, String> {
    let mut prefix = [0; 4];
    socket
        .read_exact(&mut prefix)
        .await
        .map_err(|error| plain(&error))?;
    let size = usize::try_from(i32::from_be_bytes(prefix))
        .ok()
        .filter(|size| *size <= frame_bytes_max)
        .ok_or_else(|| format!("a reply of impossible size {}", i32::from_be_bytes(prefix)))?;
    let mut frame = Vec::with_capacity(size.min(READ_BYTES_START));
    let got = socket
        .take(size as u64)
        .read_to_end(&mut frame)
        .await
        .map_err(|error| plain(&error))?;
    if got < size {
        return Err("closed by the broker".to_owned());
    }
    Ok(frame.into())
}

/// What the system says, without its error number.
fn plain(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
            "closed by the broker".to_owned()
        }
        ErrorKind::TimedOut => "no answer".to_owned(),
        _ => {
            let text = error.to_string();
            match text.split_once(" (os error") {
                Some((words, _)) => words.to_owned(),
                None => text,
            }
        }
    }
}
