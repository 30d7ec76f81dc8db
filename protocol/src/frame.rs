//! The frames around Kafka's messages: size prefix, request header, response header, and the safe way into a
//! request's body.
//!
//! A frame is one `Bytes`; everything read from it shares its memory. Nothing in here panics or allocates what
//! the wire claims. What a connection must do about a bad header is part of the error ([`HeaderError::reaction`]).

#[cfg(test)]
mod tests;

use bytes::{Buf, Bytes};
use kafka_protocol::protocol::Request;

use crate::api::{self, ApiKey};
use crate::{Decodable, StrBytes, limits, schema, varint};

/// Header of a request, without its tag section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API asked for; one of [`api::SERVED`].
    pub api_key: ApiKey,
    /// Version of the body, and of the reply's; inside the served range.
    pub api_version: i16,
    /// Number that the reply repeats.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
}

/// A frame's size prefix is not one that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame size {size} is not in {min}..={max}", min = limits::FRAME_BYTES_MIN)]
pub struct FrameSizeError {
    /// The size that the prefix claims.
    pub size: i32,
    /// The most that is taken.
    pub max: usize,
}

/// Why a request cannot be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The frame ends inside the header.
    #[error("request ends inside its header")]
    Cut,
    /// Not an API of [`api::SERVED`].
    #[error("API key {0} is not served")]
    UnknownApi(i16),
    /// A served API in a version that is not.
    #[error("{api:?} version {version} is not served")]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// ApiVersions in a version that is not served; the one case with a reply.
    #[error("ApiVersions version {version} is not served")]
    ApiVersionsTooNew {
        /// The version asked for.
        version: i16,
        /// Number for the reply.
        correlation_id: i32,
    },
    /// The client id is cut or not UTF-8.
    #[error("client id is malformed")]
    ClientId,
    /// The tag section is cut or too long.
    #[error("tag section of the header is malformed")]
    Tags,
}

/// What a connection does about a request that cannot be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Close without a reply, as Kafka does.
    Close,
    /// Answer with [`api::api_versions_unsupported`] in version 0, and go on.
    ReplyApiVersionsUnsupported {
        /// Number for the reply.
        correlation_id: i32,
    },
}

/// Why a message body cannot be decoded. The connection is closed: where a field begins is no longer known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not follow the message's schema, or break a bound of [`limits`].
    #[error("malformed {api:?} v{version}: {reason}")]
    Malformed {
        /// The message's API.
        api: ApiKey,
        /// The version of the body.
        version: i16,
        /// What is wrong.
        reason: String,
    },
}

/// Checks a frame's size prefix against `max` (`socket.request.max.bytes`, at most [`limits::FRAME_BYTES_MAX`]
/// by default). Callers reserve memory for the result before they read it.
pub fn frame_size(prefix: [u8; 4], max: usize) -> Result<usize, FrameSizeError> {
    let size = i32::from_be_bytes(prefix);
    match usize::try_from(size) {
        Ok(bytes) if (limits::FRAME_BYTES_MIN..=max).contains(&bytes) => Ok(bytes),
        _ => Err(FrameSizeError { size, max }),
    }
}

/// Takes the header off the front of a request frame (without size prefix) and leaves the body.
pub fn read_request_header(frame: &mut Bytes) -> Result<RequestHeader, HeaderError> {
    let key = frame.try_get_i16().map_err(|_| HeaderError::Cut)?;
    let version = frame.try_get_i16().map_err(|_| HeaderError::Cut)?;
    let correlation_id = frame.try_get_i32().map_err(|_| HeaderError::Cut)?;
    let range = api::served(key).ok_or(HeaderError::UnknownApi(key))?;
    if !range.serves(version) {
        return Err(match range.key {
            ApiKey::ApiVersions => HeaderError::ApiVersionsTooNew {
                version,
                correlation_id,
            },
            api => HeaderError::UnsupportedVersion { api, version },
        });
    }
    let client_id = read_client_id(frame)?;
    if range.key.request_header_version(version) >= 2 {
        skip_tags(frame).ok_or(HeaderError::Tags)?;
    }
    Ok(RequestHeader {
        api_key: range.key,
        api_version: version,
        correlation_id,
        client_id,
    })
}

/// A nullable string with a 16-bit length, also where the header is flexible.
fn read_client_id(frame: &mut Bytes) -> Result<Option<StrBytes>, HeaderError> {
    let len = frame.try_get_i16().map_err(|_| HeaderError::Cut)?;
    if len < 0 {
        return Ok(None);
    }
    let len = usize::try_from(len).map_err(|_| HeaderError::ClientId)?;
    if frame.remaining() < len {
        return Err(HeaderError::ClientId);
    }
    StrBytes::from_utf8(frame.split_to(len))
        .map(Some)
        .map_err(|_| HeaderError::ClientId)
}

fn skip_tags(frame: &mut Bytes) -> Option<()> {
    let mut rest: &[u8] = frame;
    let count = varint::read_unsigned(&mut rest)?;
    if count as usize > limits::TAGGED_FIELDS_MAX {
        return None;
    }
    for _ in 0..count {
        varint::read_unsigned(&mut rest)?;
        let size = varint::read_unsigned(&mut rest)?;
        rest = rest.get(size as usize..)?;
    }
    let used = frame.len() - rest.len();
    frame.advance(used);
    Some(())
}

impl HeaderError {
    /// What the connection must do.
    pub fn reaction(&self) -> Reaction {
        match *self {
            HeaderError::ApiVersionsTooNew { correlation_id, .. } => {
                Reaction::ReplyApiVersionsUnsupported { correlation_id }
            }
            _ => Reaction::Close,
        }
    }
}

/// Decodes a request's body. Lengths and counts are checked against the bytes at hand before the codec sees them.
/// Bytes after the last field are passed over, as Kafka does: librdkafka leaves some behind a Metadata request.
pub fn decode_request<T: Request>(body: &mut Bytes, version: i16) -> Result<T, DecodeError> {
    let api = ApiKey::try_from(T::KEY).expect("the codec numbers its own requests");
    let malformed = |reason: String| DecodeError::Malformed {
        api,
        version,
        reason,
    };
    schema::check_request(api, version, body).map_err(|error| malformed(error.to_string()))?;
    T::decode(body, version).map_err(|error| malformed(error.to_string()))
}

/// How many array elements a request's body has, all arrays together: what decoding it takes memory for, beside the
/// bytes that it is made of.
pub fn count_elements(api: ApiKey, version: i16, body: &[u8]) -> Result<usize, DecodeError> {
    schema::count_elements(api, version, body).map_err(|error| DecodeError::Malformed {
        api,
        version,
        reason: error.to_string(),
    })
}

/// Takes the header off the front of a reply frame and leaves the body; for clients. Yields the correlation id.
pub fn read_response_header(
    frame: &mut Bytes,
    api: ApiKey,
    version: i16,
) -> Result<i32, HeaderError> {
    let correlation_id = frame.try_get_i32().map_err(|_| HeaderError::Cut)?;
    if api.response_header_version(version) >= 1 {
        skip_tags(frame).ok_or(HeaderError::Tags)?;
    }
    Ok(correlation_id)
}

/// Decodes a reply's body; for clients, which chose the broker that they believe.
pub fn decode_response<T: Decodable>(
    body: &mut Bytes,
    api: ApiKey,
    version: i16,
) -> Result<T, DecodeError> {
    T::decode(body, version).map_err(|error| DecodeError::Malformed {
        api,
        version,
        reason: error.to_string(),
    })
}
