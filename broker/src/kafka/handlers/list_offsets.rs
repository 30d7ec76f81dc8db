//! ListOffsets: the offsets at the ends of a partition, and by time (rule 22).

use std::collections::HashSet;

use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::list_offsets_request::ListOffsetsPartition;
use tidelog_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use tidelog_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs};
use tidelog_replication::{MetadataImage, Partition, PartitionState};
use tidelog_storage::log::{LogError, TimestampOffset};

use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::partitions::{TopicKey, check_epoch, led_here};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

const READ_COMMITTED: i8 = 1;

/// From this version on a reply has room for the epoch.
const LEADER_EPOCH_VERSION_MIN: i16 = 4;
/// From this version on an offset that is not known yet has an error code of its own.
const NOT_AVAILABLE_VERSION_MIN: i16 = 5;

/// An offset, with its record's timestamp and its epoch, where there is one.
type Found = (TimestampMs, Offset, LeaderEpoch);

const NOTHING: Found = (TimestampMs::NONE, Offset::NONE, LeaderEpoch::NONE);

/// Answers each partition by itself; lookups by time read the disk beside the runtime.
pub async fn handle(
    cx: &RequestContext,
    request: ListOffsetsRequest,
) -> Result<ListOffsetsResponse, HandlerError> {
    let image = cx.broker.replication.image();
    let committed_only = request.isolation_level == READ_COMMITTED;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let key = TopicKey::of(false, &topic.name, uuid::Uuid::nil());
        let mut seen = HashSet::new();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let found = if seen.insert(asked.partition_index) {
                lookup(cx, &image, &key, &asked, committed_only).await
            } else {
                Err(ErrorCode::InvalidRequest)
            };
            partitions.push(response(asked.partition_index, found, cx.version()));
        }
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions),
        );
    }
    Ok(ListOffsetsResponse::default().with_topics(topics))
}

fn response(
    index: i32,
    found: Result<Found, ErrorCode>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let (timestamp, offset, mut epoch) = *found.as_ref().unwrap_or(&NOTHING);
    if version < LEADER_EPOCH_VERSION_MIN {
        epoch = LeaderEpoch::NONE;
    }
    ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(found.err().map_or(0, |code| code.code()))
        .with_timestamp(timestamp.0)
        .with_offset(offset.0)
        .with_leader_epoch(epoch.0)
}

async fn lookup(
    cx: &RequestContext,
    image: &MetadataImage,
    topic: &TopicKey,
    asked: &ListOffsetsPartition,
    committed_only: bool,
) -> Result<Found, ErrorCode> {
    if !is_supported(asked.timestamp, cx.version()) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let topic = topic.find(image)?;
    let (partition, state) = led_here(cx, topic, PartitionIndex(asked.partition_index))
        .map_err(|refusal| refusal.code)?;
    check_epoch(asked.current_leader_epoch, &state).map_err(|refusal| refusal.code)?;
    let end = if committed_only {
        state.last_stable_offset
    } else {
        state.high_watermark
    };
    match asked.timestamp {
        EARLIEST | EARLIEST_LOCAL => Ok((
            TimestampMs::NONE,
            state.log_start,
            epoch_at(&partition, state.log_start),
        )),
        LATEST_TIERED => Ok(NOTHING),
        LATEST => {
            known_end(cx, &state)?;
            Ok((TimestampMs::NONE, end, state.leader_epoch))
        }
        timestamp => match by_time(&partition, timestamp, end).await {
            Ok(Some(found)) => Ok((found.timestamp, found.offset, found.epoch)),
            Ok(None) => known_end(cx, &state).map(|()| NOTHING),
            Err(error) => Err(errors::read(&error)),
        },
    }
}

/// Which special timestamps a version knows; real ones are never negative.
fn is_supported(timestamp: i64, version: i16) -> bool {
    match timestamp {
        LATEST | EARLIEST => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL => version >= 8,
        LATEST_TIERED => version >= 9,
        timestamp => timestamp >= 0,
    }
}

/// After an election, what is committed is known only once the high watermark reaches the epoch's start.
fn known_end(cx: &RequestContext, state: &PartitionState) -> Result<(), ErrorCode> {
    if state.high_watermark >= state.epoch_start {
        Ok(())
    } else if cx.version() >= NOT_AVAILABLE_VERSION_MIN {
        Err(ErrorCode::OffsetNotAvailable)
    } else {
        Err(ErrorCode::LeaderNotAvailable)
    }
}

async fn by_time(
    partition: &Partition,
    timestamp: i64,
    end: Offset,
) -> Result<Option<TimestampOffset>, LogError> {
    let log = partition.log().clone();
    let read = tokio::task::spawn_blocking(move || match timestamp {
        MAX_TIMESTAMP => log.max_timestamp(end),
        timestamp => log.offset_for_timestamp(TimestampMs(timestamp), end),
    });
    read.await
        .unwrap_or_else(|failed| Err(LogError::Io(failed.to_string().into())))
}

/// Epoch of the record at an offset; of the last epoch that begins at or before it.
fn epoch_at(partition: &Partition, offset: Offset) -> LeaderEpoch {
    let starts = partition.log().epoch_starts();
    let before = starts
        .iter()
        .take_while(|(_, start)| *start <= offset)
        .last();
    before.map_or(LeaderEpoch::NONE, |(first, _)| first.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_come_with_versions() {
        assert!(is_supported(LATEST, 1) && is_supported(EARLIEST, 1) && is_supported(0, 1));
        assert!(!is_supported(MAX_TIMESTAMP, 6) && is_supported(MAX_TIMESTAMP, 7));
        assert!(!is_supported(EARLIEST_LOCAL, 7) && is_supported(EARLIEST_LOCAL, 8));
        assert!(!is_supported(LATEST_TIERED, 8) && is_supported(LATEST_TIERED, 9));
        assert!(!is_supported(-6, 10) && !is_supported(i64::MIN, 10));
    }
}
