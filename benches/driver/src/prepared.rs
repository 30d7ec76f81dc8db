//! Requests as they travel, written once by the codec; what differs from one to the next is patched in place.
//!
//! Where a field stands is found by a mark that stands there alone, so no layout is written down here.

use std::io::IoSlice;

use bytes::Bytes;
use tidelog_protocol::api::ApiKey;
use tidelog_protocol::encode::encode_request;
use tidelog_protocol::frame::RequestHeader;
use tidelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use tidelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tidelog_protocol::messages::{FetchRequest, ProduceRequest};
use tidelog_protocol::types::TopicName;
use tidelog_protocol::{Encodable, StrBytes};

use crate::error::DriverError;

/// Oldest and newest Produce version that is written. Later ones name topics by id.
pub(crate) const PRODUCE_VERSIONS: (i16, i16) = (3, 12);
/// Oldest and newest Fetch version that is written. Later ones name topics by id.
pub(crate) const FETCH_VERSIONS: (i16, i16) = (4, 12);

/// Behind size, API key and version.
const CORRELATION_AT: usize = 8;

/// Marks that are found again in the encoded bytes.
const PARTITION_MARK: i32 = 0x5eed_0a7e;
const OFFSET_MARK: i64 = 0x0bad_cafe_dead_5eed;

/// Broker-side limit on how long `acks=all` may take.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// Kafka's session epoch of a request outside of any fetch session.
const NO_SESSION: i32 = -1;

/// Requests that carry the same batch, several at a time.
pub(crate) struct ProduceRequests {
    /// What stands before the batch, once for each request of a burst.
    heads: Vec<Vec<u8>>,
    partition_at: usize,
    batch: Bytes,
    tail: Vec<u8>,
}

impl ProduceRequests {
    pub(crate) fn new(
        topic: &TopicName,
        version: i16,
        acks: i16,
        batch: &Bytes,
        burst: usize,
    ) -> Result<Self, DriverError> {
        let partition = PartitionProduceData::default()
            .with_index(PARTITION_MARK)
            .with_records(Some(batch.clone()));
        let topic = TopicProduceData::default()
            .with_name(topic.into())
            .with_partition_data(vec![partition]);
        let request = ProduceRequest::default()
            .with_acks(acks)
            .with_timeout_ms(PRODUCE_TIMEOUT_MS)
            .with_topic_data(vec![topic]);
        let frame = encode(ApiKey::Produce, version, &request)?;
        let unexpected = || DriverError::Plan("the codec wrote an unexpected request".to_owned());
        // The batch is the last thing but for a few tags.
        let batch_at = frame
            .windows(batch.len())
            .rposition(|window| window == batch)
            .ok_or_else(unexpected)?;
        let head = frame.get(..batch_at).ok_or_else(unexpected)?;
        let tail = frame
            .get(batch_at + batch.len()..)
            .ok_or_else(unexpected)?
            .to_vec();
        let partition_at = locate(head, &PARTITION_MARK.to_be_bytes()).ok_or_else(unexpected)?;
        Ok(ProduceRequests {
            heads: vec![head.to_vec(); burst],
            partition_at,
            batch: batch.clone(),
            tail,
        })
    }

    /// Bytes of one request.
    pub(crate) fn size_bytes(&self) -> usize {
        self.heads.first().map_or(0, Vec::len) + self.batch.len() + self.tail.len()
    }

    /// Makes the request at a place of the burst another one.
    pub(crate) fn patch(&mut self, place: usize, correlation_id: i32, partition: i32) {
        let at = self.partition_at;
        if let Some(head) = self.heads.get_mut(place) {
            put(head, CORRELATION_AT, &correlation_id.to_be_bytes());
            put(head, at, &partition.to_be_bytes());
        }
    }

    /// The first requests of the burst, ready for one vectored write.
    pub(crate) fn slices(&self, count: usize) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(count * 3);
        for head in self.heads.iter().take(count) {
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(&self.batch));
            if !self.tail.is_empty() {
                slices.push(IoSlice::new(&self.tail));
            }
        }
        slices
    }
}

/// A request for one partition.
pub(crate) struct FetchRequestBytes {
    frame: Vec<u8>,
    partition_at: usize,
    offset_at: usize,
}

impl FetchRequestBytes {
    pub(crate) fn new(
        topic: &TopicName,
        version: i16,
        bytes_max: i32,
        wait_ms: i32,
    ) -> Result<Self, DriverError> {
        let partition = FetchPartition::default()
            .with_partition(PARTITION_MARK)
            .with_fetch_offset(OFFSET_MARK)
            .with_partition_max_bytes(bytes_max);
        let topic = FetchTopic::default()
            .with_topic(topic.into())
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(bytes_max)
            .with_session_epoch(NO_SESSION)
            .with_topics(vec![topic]);
        let frame = encode(ApiKey::Fetch, version, &request)?;
        let unexpected = || DriverError::Plan("the codec wrote an unexpected request".to_owned());
        Ok(FetchRequestBytes {
            partition_at: locate(&frame, &PARTITION_MARK.to_be_bytes()).ok_or_else(unexpected)?,
            offset_at: locate(&frame, &OFFSET_MARK.to_be_bytes()).ok_or_else(unexpected)?,
            frame,
        })
    }

    /// The request for one partition from an offset on.
    pub(crate) fn patched(&mut self, correlation_id: i32, partition: i32, offset: i64) -> &[u8] {
        put(
            &mut self.frame,
            CORRELATION_AT,
            &correlation_id.to_be_bytes(),
        );
        put(&mut self.frame, self.partition_at, &partition.to_be_bytes());
        put(&mut self.frame, self.offset_at, &offset.to_be_bytes());
        &self.frame
    }
}

/// A request with its size prefix, in one piece.
pub(crate) fn encode<T: Encodable>(
    api_key: ApiKey,
    api_version: i16,
    body: &T,
) -> Result<Vec<u8>, DriverError> {
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id: 0,
        client_id: Some(StrBytes::from_static_str("tidelog-bench")),
    };
    encode_request(&header, body)
        .map(|pieces| pieces.concat())
        .map_err(|error| DriverError::Plan(error.to_string()))
}

/// Where the mark stands, if it stands there alone.
fn locate(frame: &[u8], mark: &[u8]) -> Option<usize> {
    let mut found = frame
        .windows(mark.len())
        .enumerate()
        .filter(|(_, window)| *window == mark)
        .map(|(at, _)| at);
    found.next().filter(|_| found.next().is_none())
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = frame.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::compression::Compression;
    use tidelog_protocol::frame::{decode_request, read_request_header};

    use super::*;
    use crate::batch::PreparedBatch;

    #[test]
    fn every_version_of_produce_is_patched_in_the_right_places() {
        let batch = PreparedBatch::new(100, 5000, Compression::None).unwrap();
        for version in PRODUCE_VERSIONS.0..=PRODUCE_VERSIONS.1 {
            let topic = TopicName::from("orders");
            let mut requests = ProduceRequests::new(&topic, version, -1, &batch.bytes, 2).unwrap();
            requests.patch(1, 77, 5);
            let pieces = requests.slices(2);
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            assert_eq!(all.len(), 2 * requests.size_bytes());
            let mut second = Bytes::from(all[requests.size_bytes() + 4..].to_vec());
            let header = read_request_header(&mut second).unwrap();
            assert_eq!((header.correlation_id, header.api_version), (77, version));
            let request: ProduceRequest = decode_request(&mut second, version).unwrap();
            let data = &request.topic_data[0].partition_data[0];
            assert_eq!((request.acks, data.index), (-1, 5));
            assert_eq!(data.records.as_ref(), Some(&batch.bytes));
        }
    }

    #[test]
    fn every_version_of_fetch_is_patched_in_the_right_places() {
        for version in FETCH_VERSIONS.0..=FETCH_VERSIONS.1 {
            let topic = TopicName::from("orders");
            let mut request = FetchRequestBytes::new(&topic, version, 1 << 20, 500).unwrap();
            let mut frame = Bytes::copy_from_slice(&request.patched(9, 3, 1 << 40)[4..]);
            let header = read_request_header(&mut frame).unwrap();
            assert_eq!(header.correlation_id, 9);
            let request: FetchRequest = decode_request(&mut frame, version).unwrap();
            let partition = &request.topics[0].partitions[0];
            assert_eq!((partition.partition, partition.fetch_offset), (3, 1 << 40));
            assert_eq!(partition.partition_max_bytes, 1 << 20);
        }
    }
}
