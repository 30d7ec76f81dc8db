//! Replies as the codec writes them, in every version that the driver asks for, and cut ones.

use bytes::Bytes;
use proptest::prelude::*;
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::batch::{BatchBuilder, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::encode::encode_response;
use tidelog_protocol::frame::RequestHeader;
use tidelog_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use tidelog_protocol::messages::produce_response::{
    PartitionProduceResponse, TopicProduceResponse,
};
use tidelog_protocol::messages::{FetchResponse, ProduceResponse};
use tidelog_protocol::types::{LeaderEpoch, Offset, TopicName};
use tidelog_protocol::{Encodable, StrBytes};

use super::*;
use crate::prepared::{FETCH_VERSIONS, PRODUCE_VERSIONS};

fn encoded<T: Encodable>(api_key: ApiKey, api_version: i16, body: &T) -> Vec<u8> {
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id: 7,
        client_id: None,
    };
    encode_response(&header, body).unwrap().concat()[4..].to_vec()
}

fn batch(at: i64, count: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None).at(Offset(at), LeaderEpoch(1));
    for _ in 0..count {
        builder.push(NewRecord::default()).unwrap();
    }
    builder.build().unwrap().to_bytes()
}

fn produce_reply(version: i16, code: i16) -> Vec<u8> {
    let mut partition = PartitionProduceResponse::default()
        .with_index(3)
        .with_error_code(code);
    if version >= 8 {
        partition.error_message = Some(StrBytes::from_static_str("why"));
    }
    let topic = TopicProduceResponse::default()
        .with_name((&TopicName::from("a-topic")).into())
        .with_partition_responses(vec![partition]);
    encoded(
        ApiKey::Produce,
        version,
        &ProduceResponse::default().with_responses(vec![topic]),
    )
}

fn fetch_reply(version: i16, records: Bytes) -> Vec<u8> {
    let partition = PartitionData::default()
        .with_partition_index(3)
        .with_high_watermark(99)
        .with_records(Some(records));
    let topic = FetchableTopicResponse::default()
        .with_topic((&TopicName::from("a-topic")).into())
        .with_partitions(vec![partition]);
    encoded(
        ApiKey::Fetch,
        version,
        &FetchResponse::default().with_responses(vec![topic]),
    )
}

#[test]
fn produce_replies_of_every_version_are_read() {
    for version in PRODUCE_VERSIONS.0..=PRODUCE_VERSIONS.1 {
        for code in [0, 3, 87] {
            let reply = produce_reply(version, code);
            assert_eq!(produced(&reply, version), Ok(code), "{version}");
        }
    }
}

#[test]
fn fetch_replies_of_every_version_are_read() {
    let records = [batch(40, 3), batch(43, 1), batch(44, 9)].concat();
    // The last batch is cut, as brokers cut it at the size that was asked for.
    let records = Bytes::from(records[..records.len() - 5].to_vec());
    for version in FETCH_VERSIONS.0..=FETCH_VERSIONS.1 {
        let reply = fetch_reply(version, records.clone());
        let expected = Fetched {
            partition: 3,
            error: 0,
            high_watermark: 99,
            record_bytes: records.len(),
            next_offset: Some(44),
            records: 4,
        };
        assert_eq!(fetched(&reply, version), Ok(expected), "{version}");
        let empty = fetched(&fetch_reply(version, Bytes::new()), version).unwrap();
        assert_eq!((empty.next_offset, empty.record_bytes), (None, 0));
    }
}

#[test]
fn cut_replies_are_errors() {
    let reply = produce_reply(12, 0);
    assert_eq!(produced(&reply[..20], 12), Err(CUT));
    let reply = fetch_reply(12, batch(0, 5));
    for length in 0..reply.len() - 5 {
        assert!(fetched(&reply[..length], 12).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 3i16..=12) {
        produced(&bytes, version).ok();
        fetched(&bytes, version.max(4)).ok();
        walk(&bytes);
    }
}
