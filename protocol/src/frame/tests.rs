//! Golden request headers and hostile ones.

use bytes::BufMut;
use kafka_protocol::messages::{
    ApiVersionsRequest, HeartbeatRequest, MetadataRequest, MetadataResponse,
};
use proptest::prelude::*;

use super::*;

/// ApiVersions v3 as the Java client sends it: client id non-compact, then an empty tag section, then the body.
const API_VERSIONS_V3: &[u8] = b"\x00\x12\x00\x03\x00\x00\x00\x07\x00\x0aproducer-1\x00\
    \x12apache-kafka-java\x064.4.0\x00";
/// Metadata v1 for all topics, without a client id.
const METADATA_V1: &[u8] = b"\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff";

fn read(bytes: &[u8]) -> Result<(RequestHeader, Bytes), HeaderError> {
    let mut frame = Bytes::copy_from_slice(bytes);
    read_request_header(&mut frame).map(|header| (header, frame))
}

#[test]
fn golden_flexible_request() {
    let (header, mut body) = read(API_VERSIONS_V3).unwrap();
    assert_eq!(header.api_key, ApiKey::ApiVersions);
    assert_eq!((header.api_version, header.correlation_id), (3, 7));
    assert_eq!(header.client_id.as_deref(), Some("producer-1"));
    let request: ApiVersionsRequest = decode_request(&mut body, 3).unwrap();
    assert_eq!(&*request.client_software_name, "apache-kafka-java");
    assert_eq!(&*request.client_software_version, "4.4.0");
}

#[test]
fn golden_old_request() {
    let (header, mut body) = read(METADATA_V1).unwrap();
    assert_eq!((header.api_key, header.api_version), (ApiKey::Metadata, 1));
    assert_eq!(header.client_id, None);
    let request: MetadataRequest = decode_request(&mut body, 1).unwrap();
    assert_eq!(request.topics, None);
}

#[test]
fn tag_sections_are_skipped() {
    let mut frame = Vec::from(&b"\x00\x0c\x00\x04\x00\x00\x00\x09\xff\xff"[..]);
    frame.put_slice(b"\x02\x05\x03abc\xc8\x01\x00body");
    let (header, body) = read(&frame).unwrap();
    assert_eq!((header.api_key, header.api_version), (ApiKey::Heartbeat, 4));
    assert_eq!(&body[..], b"body");
}

#[test]
fn negotiation_rule_2_newer_api_versions_is_answered() {
    for version in [5i16, 99, -1, i16::MAX] {
        let mut frame = Vec::from(&b"\x00\x12"[..]);
        frame.put_i16(version);
        frame.put_i32(42);
        // Whatever follows is of an unknown header version and is not looked at.
        frame.put_slice(b"\xff");
        let error = read(&frame).unwrap_err();
        assert_eq!(
            error,
            HeaderError::ApiVersionsTooNew {
                version,
                correlation_id: 42
            }
        );
        assert_eq!(
            error.reaction(),
            Reaction::ReplyApiVersionsUnsupported { correlation_id: 42 }
        );
    }
}

#[test]
fn negotiation_rule_3_everything_else_closes() {
    for (bytes, expected) in [
        (
            &b"\x00\x03\x00\x0e\x00\x00\x00\x01"[..],
            HeaderError::UnsupportedVersion {
                api: ApiKey::Metadata,
                version: 14,
            },
        ),
        (
            b"\x00\x00\x00\x02\x00\x00\x00\x01",
            HeaderError::UnsupportedVersion {
                api: ApiKey::Produce,
                version: 2,
            },
        ),
        (
            b"\x00\x04\x00\x00\x00\x00\x00\x01",
            HeaderError::UnknownApi(4),
        ),
        (
            b"\x7f\xff\x00\x00\x00\x00\x00\x01",
            HeaderError::UnknownApi(i16::MAX),
        ),
        (b"\x00\x03\x00", HeaderError::Cut),
        (b"\x00\x03\x00\x00\x00\x00\x00\x01\x00", HeaderError::Cut),
        (
            b"\x00\x03\x00\x00\x00\x00\x00\x01\x00\x05abc",
            HeaderError::ClientId,
        ),
        (
            b"\x00\x03\x00\x00\x00\x00\x00\x01\x00\x01\xff",
            HeaderError::ClientId,
        ),
        (
            b"\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff",
            HeaderError::Tags,
        ),
        (
            b"\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\x0f",
            HeaderError::Tags,
        ),
        (
            b"\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\x01\x00\xff\xff\xff\xff\x0f",
            HeaderError::Tags,
        ),
    ] {
        let error = read(bytes).unwrap_err();
        assert_eq!(error, expected);
        assert_eq!(error.reaction(), Reaction::Close);
    }
}

#[test]
fn frame_sizes() {
    let max = limits::FRAME_BYTES_MAX;
    assert_eq!(frame_size(8i32.to_be_bytes(), max), Ok(8));
    assert_eq!(frame_size((max as i32).to_be_bytes(), max), Ok(max));
    for bad in [max as i32 + 1, 7, 0, -1, i32::MIN, i32::MAX] {
        assert_eq!(
            frame_size(bad.to_be_bytes(), max),
            Err(FrameSizeError { size: bad, max })
        );
    }
    // What a TLS hello or an HTTP request looks like as a size.
    assert!(frame_size(*b"GET ", max).is_err());
    assert!(frame_size([0x16, 3, 1, 2], max).is_err());
}

/// librdkafka 2.16 leaves three bytes behind a Metadata request for all topics.
#[test]
fn bytes_after_the_body_are_passed_over() {
    let mut body = Bytes::from_static(b"\xff\xff\xff\xffxyz");
    let request = decode_request::<MetadataRequest>(&mut body, 1).expect("a request");
    assert_eq!(request.topics, None);
}

#[test]
fn response_headers() {
    let mut flexible = Bytes::from_static(b"\x00\x00\x00\x05\x00rest");
    assert_eq!(
        read_response_header(&mut flexible, ApiKey::Metadata, 9),
        Ok(5)
    );
    assert_eq!(&flexible[..], b"rest");
    let mut old = Bytes::from_static(b"\x00\x00\x00\x05rest");
    assert_eq!(read_response_header(&mut old, ApiKey::Metadata, 8), Ok(5));
    assert_eq!(&old[..], b"rest");
    let mut api_versions = Bytes::from_static(b"\x00\x00\x00\x05rest");
    assert_eq!(
        read_response_header(&mut api_versions, ApiKey::ApiVersions, 4),
        Ok(5)
    );
    assert_eq!(&api_versions[..], b"rest");
    let mut cut = Bytes::from_static(b"\x00\x00");
    assert_eq!(
        read_response_header(&mut cut, ApiKey::Metadata, 9),
        Err(HeaderError::Cut)
    );
    let body = decode_response::<MetadataResponse>(&mut Bytes::new(), ApiKey::Metadata, 9);
    assert!(matches!(body, Err(DecodeError::Malformed { .. })));
}

proptest! {
    #[test]
    fn hostile_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut frame = Bytes::from(bytes);
        let _ = read_request_header(&mut frame);
    }

    #[test]
    fn hostile_headers_with_a_served_key_never_panic(
        at in 0..api::SERVED.len(),
        version in -1i16..20,
        rest in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut frame = Vec::new();
        frame.put_i16(api::SERVED[at].key as i16);
        frame.put_i16(version);
        frame.put_slice(&rest);
        let mut frame = Bytes::from(frame);
        if let Ok(header) = read_request_header(&mut frame) {
            prop_assert_eq!(header.api_version, version);
            let _ = decode_request::<HeartbeatRequest>(&mut frame, 4);
        }
    }
}
