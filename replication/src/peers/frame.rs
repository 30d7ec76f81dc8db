//! Frames: a header of sixteen bytes, then a body. What kinds there are and how long each may be.
//!
//! Nothing is allocated for a length before it was compared with its kind's maximum.

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_protocol::limits::SPLICE_BYTES_MIN;

use crate::limits::{
    PEER_APPEND_BYTES_MAX, PEER_CALL_BYTES_MAX, PEER_DESCRIPTION_BYTES_MAX, PEER_FAILED_BYTES_MAX,
    PEER_HANDSHAKE_BYTES_MAX, PEER_PIECE_BYTES_MAX, PEER_SMALL_BYTES_MAX,
};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;

/// Version of the header.
pub const FRAME_VERSION: u8 = 1;

/// Added to a request's kind, it names the reply.
const REPLY: u8 = 0x80;

/// What a frame is. On the wire: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Handshake 1: who connects, and whom it expects.
    Hello,
    /// Handshake 2: who answers.
    Challenge,
    /// Handshake 3: the connecting side knows the secret.
    Proof,
    /// Handshake 4: so does the other; requests may come.
    Welcome,
    /// Instead of 2 or 4: why not.
    Refused,
    /// Something is asked.
    Request(RequestKind),
    /// The answer to a request of a kind.
    Reply(RequestKind),
    /// Why a request was not carried out.
    Failed,
}

/// What is asked. On the wire: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Is anybody there?
    Ping,
    /// Entries of a group.
    Append,
    /// A vote is asked for.
    Vote,
    /// Whether a vote would be given.
    PreVote,
    /// The leadership is handed over.
    TransferLeader,
    /// A snapshot is announced.
    SnapshotBegin,
    /// A piece of it.
    SnapshotPiece,
    /// It is whole.
    SnapshotEnd,
    /// Something for the broker itself.
    Call,
}

const REQUESTS: [(RequestKind, u8); 9] = [
    (RequestKind::Ping, 16),
    (RequestKind::Append, 17),
    (RequestKind::Vote, 18),
    (RequestKind::PreVote, 19),
    (RequestKind::TransferLeader, 20),
    (RequestKind::SnapshotBegin, 21),
    (RequestKind::SnapshotPiece, 22),
    (RequestKind::SnapshotEnd, 23),
    (RequestKind::Call, 24),
];

const OTHERS: [(FrameKind, u8); 6] = [
    (FrameKind::Hello, 1),
    (FrameKind::Challenge, 2),
    (FrameKind::Proof, 3),
    (FrameKind::Welcome, 4),
    (FrameKind::Refused, 5),
    (FrameKind::Failed, 255),
];

impl RequestKind {
    fn code(self) -> u8 {
        let found = REQUESTS.iter().find(|(kind, _)| *kind == self);
        found.map_or(0, |(_, code)| *code)
    }

    fn body_bytes_max(self) -> usize {
        match self {
            RequestKind::Ping => 0,
            RequestKind::Append => PEER_APPEND_BYTES_MAX,
            RequestKind::SnapshotBegin => PEER_DESCRIPTION_BYTES_MAX,
            RequestKind::SnapshotPiece => PEER_PIECE_BYTES_MAX,
            RequestKind::Call => PEER_CALL_BYTES_MAX,
            RequestKind::Vote
            | RequestKind::PreVote
            | RequestKind::TransferLeader
            | RequestKind::SnapshotEnd => PEER_SMALL_BYTES_MAX,
        }
    }
}

impl FrameKind {
    /// The byte that stands for it.
    pub fn code(self) -> u8 {
        match self {
            FrameKind::Request(kind) => kind.code(),
            FrameKind::Reply(kind) => kind.code() | REPLY,
            other => {
                let found = OTHERS.iter().find(|(kind, _)| *kind == other);
                found.map_or(0, |(_, code)| *code)
            }
        }
    }

    /// What a byte stands for.
    pub fn of_code(code: u8) -> Option<FrameKind> {
        if let Some((kind, _)) = OTHERS.iter().find(|(_, other)| *other == code) {
            return Some(*kind);
        }
        let asked = code & !REPLY;
        let (kind, _) = REQUESTS.iter().find(|(_, other)| *other == asked)?;
        Some(if asked == code {
            FrameKind::Request(*kind)
        } else {
            FrameKind::Reply(*kind)
        })
    }

    /// Longest body.
    pub fn body_bytes_max(self) -> usize {
        match self {
            FrameKind::Hello
            | FrameKind::Challenge
            | FrameKind::Proof
            | FrameKind::Welcome
            | FrameKind::Refused => PEER_HANDSHAKE_BYTES_MAX,
            FrameKind::Request(kind) => kind.body_bytes_max(),
            FrameKind::Reply(RequestKind::Ping) => 0,
            FrameKind::Reply(RequestKind::Call) => PEER_CALL_BYTES_MAX,
            FrameKind::Reply(_) => PEER_SMALL_BYTES_MAX,
            FrameKind::Failed => PEER_FAILED_BYTES_MAX,
        }
    }
}

/// Why bytes are no frame. The connection they came on is of no use any more.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// Of another protocol, or of a version that nobody agreed on.
    #[error("header of version {0}: not a broker of this cluster, or not of this version")]
    Version(u8),
    /// Unknown.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// Known, and not expected here.
    #[error("{0:?} is not expected here")]
    Unexpected(FrameKind),
    /// Too long.
    #[error("{kind:?} of {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// Kind.
        kind: FrameKind,
        /// As claimed.
        bytes: u32,
        /// Allowed.
        bytes_max: usize,
    },
}

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Kind.
    pub kind: FrameKind,
    /// Number of the request, or of the one that is answered.
    pub request: u64,
    /// Bytes of the body; checked.
    pub body_bytes: usize,
}

impl FrameHeader {
    /// Reads and checks a header.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<FrameHeader, FrameError> {
        let [
            l0,
            l1,
            l2,
            l3,
            version,
            code,
            _flags0,
            _flags1,
            request @ ..,
        ] = *bytes;
        if version != FRAME_VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = FrameKind::of_code(code).ok_or(FrameError::Kind(code))?;
        let bytes = u32::from_be_bytes([l0, l1, l2, l3]);
        let bytes_max = kind.body_bytes_max();
        let body_bytes = usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= bytes_max)
            .ok_or(FrameError::TooLong {
                kind,
                bytes,
                bytes_max,
            })?;
        Ok(FrameHeader {
            kind,
            request: u64::from_be_bytes(request),
            body_bytes,
        })
    }

    /// The header's bytes. Flags are sent as 0 and not looked at.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let body_bytes = u32::try_from(self.body_bytes).unwrap_or(u32::MAX);
        let mut out = &mut bytes[..];
        out.put_u32(body_bytes);
        out.put_u8(FRAME_VERSION);
        out.put_u8(self.kind.code());
        out.put_u16(0);
        out.put_u64(self.request);
        bytes
    }
}

/// A frame that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Kind.
    pub kind: FrameKind,
    /// Number of the request.
    pub request: u64,
    /// Body, in one buffer.
    pub body: Bytes,
}

/// Builds a body as a list of pieces, with room for the header before the first. Long pieces are not copied.
#[derive(Debug)]
pub struct BodyWriter {
    pieces: Vec<Bytes>,
    open: BytesMut,
    bytes: usize,
}

impl BodyWriter {
    /// An empty body.
    pub fn new() -> BodyWriter {
        let mut open = BytesMut::with_capacity(256);
        open.put_bytes(0, HEADER_BYTES);
        BodyWriter {
            pieces: Vec::new(),
            open,
            bytes: 0,
        }
    }

    /// Where to write what is small.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.open
    }

    /// Adds bytes, as they are if they are many.
    pub fn splice(&mut self, bytes: Bytes) {
        if bytes.len() < SPLICE_BYTES_MIN {
            self.open.put_slice(&bytes);
            return;
        }
        self.bytes += self.open.len() + bytes.len();
        let open = self.open.split().freeze();
        self.pieces.extend([open, bytes]);
    }

    /// The frame with this body.
    pub fn finish(mut self, kind: FrameKind, request: u64) -> OutgoingFrame {
        self.bytes += self.open.len();
        let header = FrameHeader {
            kind,
            request,
            body_bytes: self.bytes - HEADER_BYTES,
        };
        let mut pieces = self.pieces;
        match pieces.first_mut() {
            None => self.open[..HEADER_BYTES].copy_from_slice(&header.encode()),
            // It shares its buffer by now: the header stands before it.
            Some(first) => {
                *first = first.slice(HEADER_BYTES..);
                pieces.insert(0, Bytes::copy_from_slice(&header.encode()));
            }
        }
        if !self.open.is_empty() {
            pieces.push(self.open.freeze());
        }
        OutgoingFrame {
            kind,
            bytes: self.bytes,
            pieces,
        }
    }
}

/// A frame on its way out.
#[derive(Clone, Debug)]
pub struct OutgoingFrame {
    kind: FrameKind,
    bytes: usize,
    pieces: Vec<Bytes>,
}

impl OutgoingFrame {
    /// A frame with a short body.
    pub fn of(kind: FrameKind, request: u64, body: &[u8]) -> OutgoingFrame {
        let mut writer = BodyWriter::new();
        writer.buffer().put_slice(body);
        writer.finish(kind, request)
    }

    /// Header and body together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the other end would take it.
    pub fn fits(&self) -> bool {
        self.bytes - HEADER_BYTES <= self.kind.body_bytes_max()
    }

    /// Its pieces, in order.
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }
}
