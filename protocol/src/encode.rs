//! Encodes replies and requests into pieces for a vectored write, splicing record bytes instead of copying them.
//!
//! The codec knows one `Bytes` per field and hands the encode target a plain slice. A [`ReplyBuffer`] therefore
//! gives out *placeholders*: slices of one region of zeros that is never touched, whose start address is the
//! number of the rope (list of pieces) that belongs there. When such a slice comes back through the encode
//! target, the rope takes its place; the length that the codec wrote before it is right, as the placeholder
//! has the rope's length.
//!
//! Invariant: a finished frame is as long as its size prefix says.

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use bytes::buf::UninitSlice;
use bytes::{BufMut, Bytes};
use kafka_protocol::protocol::buf::ByteBufMut;

use crate::api::ApiKey;
use crate::batch::RecordBatch;
use crate::frame::RequestHeader;
use crate::{Encodable, limits};

/// Why a message cannot be encoded: a fault of the caller, never of the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A field is set that the version does not have, or is too long for its length field.
    #[error("{api:?} v{version} does not encode: {reason}")]
    Message {
        /// The message's API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
        /// What the codec says.
        reason: String,
    },
    /// The frame is longer than a size prefix can say.
    #[error("frame of {0} bytes is too long")]
    TooLong(usize),
    /// A placeholder was changed before it came back, or belongs to another buffer.
    #[error("a placeholder is not one that this buffer gave out")]
    Rope,
}

/// Region that placeholders are cut from. Zeroed memory that nobody reads or writes stays unmapped: it costs
/// address space, not memory.
static PLACEHOLDERS: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0u8; PLACEHOLDER_BYTES]));

/// Placeholders may be as long as a reply's records, and begin as far in as ropes are numbered.
const PLACEHOLDER_BYTES: usize = limits::REPLY_RECORD_BYTES_MAX + limits::REPLY_ROPES_MAX;

/// First size of the contiguous part. Most replies are smaller; the others grow it, which costs less than asking
/// the codec for the size beforehand.
const INLINE_BYTES_START: usize = 512;

/// Record bytes that stand for one field of a message.
enum Rope {
    Pieces(Vec<Bytes>),
    Batches(Vec<RecordBatch>),
}

/// Collects the records of one reply (or request), then encodes it around them.
#[derive(Default)]
pub struct ReplyBuffer {
    ropes: Vec<(Rope, usize)>,
    rope_bytes: usize,
    /// The part of `rope_bytes` that is too small to splice.
    copied_bytes: usize,
}

/// The encode target: contiguous bytes, and which pieces belong where among them.
struct Splicer<'a> {
    inline: Vec<u8>,
    /// Pieces, each with the number of inline bytes before it.
    cuts: Vec<(usize, Bytes)>,
    ropes: &'a [(Rope, usize)],
    /// Address of the placeholders' region.
    base: usize,
    /// Bytes that `cuts` hold.
    spliced: usize,
    /// A placeholder came back in part.
    torn: bool,
}

impl Rope {
    fn for_each(&self, mut visit: impl FnMut(&[u8], Option<&Bytes>)) {
        match self {
            Rope::Pieces(pieces) => pieces.iter().for_each(|piece| visit(piece, Some(piece))),
            Rope::Batches(batches) => {
                for batch in batches {
                    visit(batch.header_bytes(), None);
                    visit(batch.records_bytes(), Some(batch.records_bytes()));
                }
            }
        }
    }
}

impl ReplyBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes pieces that stand for one records field, and yields what to put into the message in their place.
    pub fn register_rope(&mut self, pieces: Vec<Bytes>) -> Result<Bytes, EncodeError> {
        self.register(Rope::Pieces(pieces))
    }

    /// As [`Self::register_rope`], with the batches of one partition.
    pub fn register_batches(&mut self, batches: Vec<RecordBatch>) -> Result<Bytes, EncodeError> {
        self.register(Rope::Batches(batches))
    }

    /// Record bytes registered so far.
    pub fn rope_bytes(&self) -> usize {
        self.rope_bytes
    }

    fn register(&mut self, rope: Rope) -> Result<Bytes, EncodeError> {
        let (mut len, mut copied) = (0, 0);
        rope.for_each(|bytes, shared| {
            len += bytes.len();
            if !splices(bytes, shared) {
                copied += bytes.len();
            }
        });
        if len == 0 {
            return Ok(Bytes::new());
        }
        let number = self.ropes.len();
        let total = self.rope_bytes + len;
        if total > limits::REPLY_RECORD_BYTES_MAX || number >= limits::REPLY_ROPES_MAX {
            return Err(EncodeError::TooLong(total));
        }
        self.ropes.push((rope, len));
        self.rope_bytes = total;
        self.copied_bytes += copied;
        Ok(PLACEHOLDERS.slice(number..number + len))
    }

    /// Encodes the reply to the request with this header, size prefix first, ready for a vectored write.
    pub fn encode_response<T: Encodable>(
        &self,
        request: &RequestHeader,
        body: &T,
    ) -> Result<Vec<Bytes>, EncodeError> {
        let (api, version) = (request.api_key, request.api_version);
        self.encode(api, version, body, |out| {
            out.put_i32(request.correlation_id);
            if api.response_header_version(version) >= 1 {
                out.put_u8(0);
            }
        })
    }

    /// Encodes a request, size prefix first; for clients.
    pub fn encode_request<T: Encodable>(
        &self,
        request: &RequestHeader,
        body: &T,
    ) -> Result<Vec<Bytes>, EncodeError> {
        let (api, version) = (request.api_key, request.api_version);
        let client_id = request.client_id.as_deref().unwrap_or_default();
        let Ok(client_id_len) = i16::try_from(client_id.len()) else {
            return Err(EncodeError::TooLong(client_id.len()));
        };
        self.encode(api, version, body, |out| {
            out.put_i16(api as i16);
            out.put_i16(version);
            out.put_i32(request.correlation_id);
            out.put_i16(if request.client_id.is_some() {
                client_id_len
            } else {
                -1
            });
            out.put_slice(client_id.as_bytes());
            if api.request_header_version(version) >= 2 {
                out.put_u8(0);
            }
        })
    }

    fn encode<T: Encodable>(
        &self,
        api: ApiKey,
        version: i16,
        body: &T,
        header: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<Bytes>, EncodeError> {
        let failed = |reason: String| EncodeError::Message {
            api,
            version,
            reason,
        };
        let mut inline = Vec::with_capacity(INLINE_BYTES_START + self.copied_bytes);
        inline.put_i32(0);
        header(&mut inline);
        let mut target = Splicer {
            inline,
            cuts: Vec::new(),
            ropes: &self.ropes,
            base: PLACEHOLDERS.as_ptr().addr(),
            spliced: 0,
            torn: false,
        };
        body.encode(&mut target, version)
            .map_err(|error| failed(error.to_string()))?;
        target.finish()
    }
}

/// Encodes a reply without records to splice.
pub fn encode_response<T: Encodable>(
    request: &RequestHeader,
    body: &T,
) -> Result<Vec<Bytes>, EncodeError> {
    ReplyBuffer::new().encode_response(request, body)
}

/// Encodes a request without records to splice; for clients.
pub fn encode_request<T: Encodable>(
    request: &RequestHeader,
    body: &T,
) -> Result<Vec<Bytes>, EncodeError> {
    ReplyBuffer::new().encode_request(request, body)
}

fn splices(bytes: &[u8], shared: Option<&Bytes>) -> bool {
    shared.is_some() && bytes.len() >= limits::SPLICE_BYTES_MIN
}

impl Splicer<'_> {
    fn splice(&mut self, number: usize, len: usize) {
        let Some((rope, rope_len)) = self.ropes.get(number) else {
            self.torn = true;
            return;
        };
        self.torn |= *rope_len != len;
        rope.for_each(|bytes, shared| match shared {
            Some(piece) if splices(bytes, shared) => {
                self.cuts.push((self.inline.len(), piece.clone()));
                self.spliced += piece.len();
            }
            _ => self.inline.put_slice(bytes),
        });
    }

    fn finish(mut self) -> Result<Vec<Bytes>, EncodeError> {
        if self.torn {
            return Err(EncodeError::Rope);
        }
        let total = self.inline.len() + self.spliced;
        let size = i32::try_from(total - 4).map_err(|_| EncodeError::TooLong(total))?;
        self.inline[..4].copy_from_slice(&size.to_be_bytes());
        let mut inline = Bytes::from(self.inline);
        let mut taken = 0;
        let mut pieces = Vec::with_capacity(self.cuts.len() * 2 + 1);
        for (at, piece) in self.cuts {
            if at > taken {
                pieces.push(inline.split_to(at - taken));
                taken = at;
            }
            pieces.push(piece);
        }
        if !inline.is_empty() {
            pieces.push(inline);
        }
        Ok(pieces)
    }
}

// SAFETY: space and position are those of the inner `Vec`, whose implementation keeps the contract.
unsafe impl BufMut for Splicer<'_> {
    fn remaining_mut(&self) -> usize {
        self.inline.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller keeps the contract, which is passed on unchanged.
        unsafe { self.inline.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.inline.chunk_mut()
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        let number = bytes.as_ptr().addr().wrapping_sub(self.base);
        if !bytes.is_empty() && number < PLACEHOLDERS.len() {
            self.splice(number, bytes.len());
        } else {
            self.inline.put_slice(bytes);
        }
    }
}

/// Positions count the contiguous bytes alone: a gap never spans a splice.
impl ByteBufMut for Splicer<'_> {
    fn offset(&self) -> usize {
        self.inline.len()
    }

    fn seek(&mut self, offset: usize) {
        self.inline.resize(offset, 0);
    }

    fn range(&mut self, range: std::ops::Range<usize>) -> &mut [u8] {
        &mut self.inline[range]
    }
}
