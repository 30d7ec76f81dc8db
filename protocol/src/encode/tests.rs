//! Golden replies, and splicing compared with plain encoding.

use std::collections::BTreeMap;

use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsResponse, FetchResponse, HeartbeatRequest, HeartbeatResponse, ProduceRequest,
};
use proptest::prelude::*;

use super::*;
use crate::api;
use crate::batch::{BatchBuilder, NewRecord};
use crate::compression::Compression;
use crate::{Decodable, StrBytes, frame};

fn header(api_key: ApiKey, api_version: i16) -> RequestHeader {
    RequestHeader {
        api_key,
        api_version,
        correlation_id: 7,
        client_id: Some(StrBytes::from_static_str("me")),
    }
}

fn fetch_response(records: Vec<Option<Bytes>>) -> FetchResponse {
    let partitions = (0..)
        .zip(records)
        .map(|(index, records)| {
            PartitionData::default()
                .with_partition_index(index)
                .with_high_watermark(9)
                .with_records(records)
        })
        .collect();
    FetchResponse::default().with_responses(vec![
        FetchableTopicResponse::default().with_partitions(partitions),
    ])
}

/// Checks the size prefix and the response header, yields the body.
fn body_of(pieces: &[Bytes], api: ApiKey, version: i16) -> Bytes {
    let whole = Bytes::from(pieces.concat());
    let mut body = whole.slice(4..);
    let size = i32::from_be_bytes(whole[..4].try_into().unwrap());
    assert_eq!(size as usize, body.len());
    assert_eq!(frame::read_response_header(&mut body, api, version), Ok(7));
    body
}

#[test]
fn golden_replies() {
    let heartbeat = HeartbeatResponse::default().with_error_code(27);
    let old = encode_response(&header(ApiKey::Heartbeat, 1), &heartbeat)
        .unwrap()
        .concat();
    assert_eq!(
        old,
        b"\x00\x00\x00\x0a\x00\x00\x00\x07\x00\x00\x00\x00\x00\x1b"
    );
    let flexible = encode_response(&header(ApiKey::Heartbeat, 4), &heartbeat)
        .unwrap()
        .concat();
    assert_eq!(
        flexible,
        b"\x00\x00\x00\x0c\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x1b\x00"
    );
}

#[test]
fn negotiation_rule_1_api_versions_reply_has_no_tag_section_in_its_header() {
    let body = ApiVersionsResponse::default().with_api_keys(api::advertised());
    for version in 0..=4 {
        let pieces = encode_response(&header(ApiKey::ApiVersions, version), &body).unwrap();
        let bytes = pieces.concat();
        assert_eq!(
            &bytes[4..10],
            b"\x00\x00\x00\x07\x00\x00",
            "header v0, then the error code"
        );
    }
}

#[test]
fn negotiation_rule_2_unsupported_reply() {
    let reply = encode_response(
        &header(ApiKey::ApiVersions, 0),
        &api::api_versions_unsupported(),
    );
    assert_eq!(
        reply.unwrap().concat(),
        b"\x00\x00\x00\x10\x00\x00\x00\x07\x00\x23\x00\x00\x00\x01\x00\x12\x00\x00\x00\x04"
    );
}

#[test]
fn golden_requests() {
    let body = HeartbeatRequest::default().with_group_id(StrBytes::from_static_str("g").into());
    let bytes = encode_request(&header(ApiKey::Heartbeat, 4), &body)
        .unwrap()
        .concat();
    assert_eq!(
        bytes,
        b"\x00\x00\x00\x16\x00\x0c\x00\x04\x00\x00\x00\x07\x00\x02me\x00\x02g\x00\x00\x00\x00\x01\x00\x00"
    );
    let mut anonymous = header(ApiKey::Heartbeat, 0);
    anonymous.client_id = None;
    let bytes = encode_request(&anonymous, &body).unwrap().concat();
    assert_eq!(
        &bytes[..14],
        b"\x00\x00\x00\x13\x00\x0c\x00\x00\x00\x00\x00\x07\xff\xff"
    );
    let mut frame = Bytes::from(bytes).slice(4..);
    let header = frame::read_request_header(&mut frame).unwrap();
    assert_eq!(header, anonymous);
    let back: HeartbeatRequest = frame::decode_request(&mut frame, 0).unwrap();
    assert_eq!(back, body);
}

#[test]
fn large_pieces_are_shared_and_small_ones_copied() {
    let large = Bytes::from(vec![1u8; limits::SPLICE_BYTES_MIN]);
    let small = Bytes::from(vec![2u8; 61]);
    let mut buffer = ReplyBuffer::new();
    let rope = buffer
        .register_rope(vec![small.clone(), large.clone(), small.clone()])
        .unwrap();
    assert_eq!(rope.len(), buffer.rope_bytes());
    let response = fetch_response(vec![Some(rope)]);
    let pieces = buffer
        .encode_response(&header(ApiKey::Fetch, 12), &response)
        .unwrap();
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces[1].as_ptr(), large.as_ptr());
    let plain = fetch_response(vec![Some([&small[..], &large, &small].concat().into())]);
    let expected = encode_response(&header(ApiKey::Fetch, 12), &plain).unwrap();
    assert_eq!(pieces.concat(), expected.concat());
}

#[test]
fn batches_travel_with_their_stamped_headers() {
    let value = vec![5u8; 10_000];
    let mut builder = BatchBuilder::new(Compression::None);
    builder
        .push(NewRecord {
            value: Some(&value),
            ..NewRecord::default()
        })
        .unwrap();
    let mut batch = builder.build().unwrap();
    batch.stamp(crate::types::Offset(40), crate::types::LeaderEpoch(3));
    let mut buffer = ReplyBuffer::new();
    let records = buffer
        .register_batches(vec![batch.clone(), batch.clone()])
        .unwrap();
    let pieces = buffer
        .encode_response(
            &header(ApiKey::Fetch, 4),
            &fetch_response(vec![Some(records)]),
        )
        .unwrap();
    assert!(
        pieces
            .iter()
            .any(|piece| piece.as_ptr() == batch.records_bytes().as_ptr())
    );
    let back = FetchResponse::decode(&mut body_of(&pieces, ApiKey::Fetch, 4), 4).unwrap();
    let records = back.responses[0].partitions[0].records.clone().unwrap();
    assert_eq!(
        RecordBatch::split_all(records).unwrap(),
        [batch.clone(), batch]
    );
}

#[test]
fn requests_splice_too() {
    let records = Bytes::from(vec![7u8; 5000]);
    let mut buffer = ReplyBuffer::new();
    let rope = buffer.register_rope(vec![records.clone()]).unwrap();
    let partition = PartitionProduceData::default().with_records(Some(rope));
    let topic = TopicProduceData::default().with_partition_data(vec![partition]);
    let request = ProduceRequest::default().with_topic_data(vec![topic]);
    let pieces = buffer
        .encode_request(&header(ApiKey::Produce, 9), &request)
        .unwrap();
    assert!(
        pieces
            .iter()
            .any(|piece| piece.as_ptr() == records.as_ptr())
    );
    let mut frame = Bytes::from(pieces.concat()).slice(4..);
    frame::read_request_header(&mut frame).unwrap();
    let back: ProduceRequest = frame::decode_request(&mut frame, 9).unwrap();
    assert_eq!(
        back.topic_data[0].partition_data[0].records.as_ref(),
        Some(&records)
    );
}

#[test]
fn misused_placeholders_are_an_error() {
    let mut buffer = ReplyBuffer::new();
    let rope = buffer
        .register_rope(vec![Bytes::from(vec![0; 100])])
        .unwrap();
    let fetch = header(ApiKey::Fetch, 12);
    for wrong in [rope.slice(..99), rope.slice(1..)] {
        let response = fetch_response(vec![Some(wrong)]);
        assert_eq!(
            buffer.encode_response(&fetch, &response),
            Err(EncodeError::Rope)
        );
    }
    let response = fetch_response(vec![Some(rope)]);
    assert_eq!(encode_response(&fetch, &response), Err(EncodeError::Rope));
    let part = Bytes::from(vec![0; limits::FRAME_BYTES_MAX]);
    let too_long = vec![part.clone(), part.clone(), part];
    assert!(matches!(
        ReplyBuffer::new().register_rope(too_long),
        Err(EncodeError::TooLong(_))
    ));
}

#[test]
fn fields_that_a_version_lacks_are_an_error() {
    let mut tags = BTreeMap::new();
    tags.insert(0, Bytes::new());
    let response = HeartbeatResponse::default().with_throttle_time_ms(5);
    assert!(encode_response(&header(ApiKey::Heartbeat, 9), &response).is_err());
    assert!(
        encode_response(
            &header(ApiKey::Heartbeat, 4),
            &response.with_unknown_tagged_fields(tags)
        )
        .is_ok()
    );
}

proptest! {
    #[test]
    fn splicing_equals_copying(
        version in 4i16..=18,
        sizes in proptest::collection::vec(
            proptest::option::of(proptest::collection::vec(0usize..5000, 0..4)), 0..5),
    ) {
        let mut buffer = ReplyBuffer::new();
        let mut plain = Vec::new();
        let mut spliced = Vec::new();
        for pieces in sizes {
            let pieces: Option<Vec<Bytes>> = pieces.map(|sizes| {
                sizes.into_iter().map(|size| Bytes::from(vec![size as u8; size])).collect()
            });
            plain.push(pieces.as_ref().map(|pieces| Bytes::from(pieces.concat())));
            spliced.push(pieces.map(|pieces| buffer.register_rope(pieces).unwrap()));
        }
        let fetch = header(ApiKey::Fetch, version);
        let pieces = buffer.encode_response(&fetch, &fetch_response(spliced)).unwrap();
        let expected = encode_response(&fetch, &fetch_response(plain)).unwrap();
        prop_assert_eq!(pieces.concat(), expected.concat());
    }
}
