//! Fetch: committed batches, byte for byte as they are stored, now or when there are enough (rules 13 to 21).
//!
//! A request is read at once; if that is not enough for an answer it waits for one of its partitions to move, with a
//! deadline, holding no records. Nothing polls, except for memory when there is none.

mod disk;
mod preferred;
mod read;
mod response;
mod session;
pub mod sessions;
mod waiting;

use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;
use tidelog_protocol::ErrorCode;
use tidelog_protocol::messages::{FetchRequest, FetchResponse};
use tidelog_protocol::types::{LeaderEpoch, Offset, PartitionIndex};
use tokio::time::Instant;

use self::read::{PartitionRead, ReadRules, Reader};
use self::session::{PartitionKey, Wanted};
use self::sessions::FetchContext;
use self::waiting::Waiting;
use crate::config::ReplicaSelector;
use crate::kafka::context::RequestContext;
use crate::kafka::dispatch::{self, Reply};
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::partitions::TopicKey;

/// From this version on topics are named by id.
const TOPIC_ID_VERSION_MIN: i16 = 13;

/// From this version on consumers say where they are, and may be served by any replica.
const RACK_VERSION_MIN: i16 = 11;

/// Longest wait that a client may ask for.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Longest wait for many partitions, as they hold memory. Clients ask for half a second by default.
const LARGE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Partitions up to which a request may take the longest wait.
const LARGE_MIN: usize = 1_000;

/// What a request asks for, apart from its partitions.
struct Terms {
    wait: Duration,
    bytes_min: usize,
    rules: ReadRules,
}

/// Reads, waits if need be, and answers.
pub async fn serve(cx: RequestContext, body: Bytes) -> Result<Reply, HandlerError> {
    let request: FetchRequest = dispatch::decode(&cx, body)?;
    let by_id = cx.version() >= TOPIC_ID_VERSION_MIN;
    let sessions = &cx.broker.fetch_sessions;
    let session = (request.session_id, request.session_epoch);
    let now = std::time::Instant::now();
    let context = sessions.context(
        session,
        wanted(&request, by_id),
        &forgotten(&request, by_id),
        by_id,
        now,
    );
    let context = match context {
        Ok(context) => context,
        Err(code) => return refused(&cx, code),
    };
    let terms = terms(&cx, &request, context.wanted().len());
    // It may be large, and what follows may take long.
    drop(request);
    let reads = read_until_due(&cx, &context, &terms).await;
    let told: Vec<_> = reads
        .iter()
        .map(|read| (read.key.clone(), read.told()))
        .collect();
    let news = context.news(&told);
    match context.conclude(sessions, &told, std::time::Instant::now()) {
        Ok(session_id) => response::reply(&cx, session_id, reads, &news),
        Err(code) => refused(&cx, code),
    }
}

fn refused(cx: &RequestContext, code: ErrorCode) -> Result<Reply, HandlerError> {
    dispatch::reply(
        &cx.header,
        &FetchResponse::default().with_error_code(code.code()),
    )
}

fn terms(cx: &RequestContext, request: &FetchRequest, partitions: usize) -> Terms {
    let bytes_max = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .min(cx.broker.config().fetch.response_bytes_max);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    let wait_max = if partitions > LARGE_MIN {
        LARGE_WAIT_MAX
    } else {
        WAIT_MAX
    };
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(wait_max);
    Terms {
        wait,
        // More than a reply may hold is not waited for.
        bytes_min: bytes_min.min(bytes_max),
        rules: ReadRules {
            bytes_max,
            committed_only: request.isolation_level == 1,
            reader: reader(cx, request),
        },
    }
}

fn reader(cx: &RequestContext, request: &FetchRequest) -> Reader {
    let is_broker = request.replica_id.0 >= 0 || request.replica_state.replica_id.0 >= 0;
    if cx.version() < RACK_VERSION_MIN || is_broker {
        return Reader::OfLeader;
    }
    match cx.broker.config().fetch.replica_selector {
        ReplicaSelector::RackAware if !request.rack_id.is_empty() => {
            Reader::InRack(request.rack_id.clone())
        }
        ReplicaSelector::RackAware | ReplicaSelector::Leader => Reader::OfAny,
    }
}

/// The partitions that a request names, each once, as Kafka puts them into a map: the last mention counts.
fn wanted(request: &FetchRequest, by_id: bool) -> Vec<(PartitionKey, Wanted)> {
    let mut wanted = IndexMap::new();
    for topic in &request.topics {
        let key = TopicKey::of(by_id, &topic.topic, topic.topic_id);
        wanted.extend(topic.partitions.iter().map(|partition| {
            let terms = Wanted {
                offset: Offset(partition.fetch_offset),
                bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                current_epoch: partition.current_leader_epoch,
                last_fetched_epoch: LeaderEpoch(partition.last_fetched_epoch),
            };
            ((key.clone(), PartitionIndex(partition.partition)), terms)
        }));
    }
    wanted.into_iter().collect()
}

fn forgotten(request: &FetchRequest, by_id: bool) -> Vec<PartitionKey> {
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = TopicKey::of(by_id, &topic.topic, topic.topic_id);
        forgotten.extend(
            topic
                .partitions
                .iter()
                .map(|index| (key.clone(), PartitionIndex(*index))),
        );
    }
    forgotten
}

/// Rule 15: reads until there is enough, something cannot wait, or the time is up.
async fn read_until_due(
    cx: &RequestContext,
    context: &FetchContext,
    terms: &Terms,
) -> Vec<PartitionRead> {
    let deadline = Instant::now() + terms.wait;
    let reads = read::all(cx, context.wanted(), &terms.rules).await;
    if is_due(&reads, terms) {
        return reads;
    }
    // From here on nothing of what was read is held.
    let waiting = Waiting::begin(context.wanted(), reads, terms);
    waiting.until_due(cx, deadline).await;
    read::all(cx, context.wanted(), &terms.rules).await
}

fn is_due(reads: &[PartitionRead], terms: &Terms) -> bool {
    terms.wait.is_zero()
        || reads.iter().all(PartitionRead::is_unknown)
        || reads
            .iter()
            .any(|read| read.is_urgent() && !read.is_unknown())
        || reads.iter().map(|read| read.size_bytes).sum::<usize>() >= terms.bytes_min
}

#[cfg(test)]
mod tests {
    use tidelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use tidelog_protocol::types::{BrokerId, TopicName};

    use super::*;

    #[test]
    fn a_partition_that_is_named_again_is_fetched_once() {
        let partition = |index, offset| {
            FetchPartition::default()
                .with_partition(index)
                .with_fetch_offset(offset)
        };
        let topic = FetchTopic::default().with_partitions(vec![
            partition(0, 1),
            partition(1, 2),
            partition(0, 3),
        ]);
        let request = FetchRequest::default().with_topics(vec![topic.clone(), topic]);
        let wanted = wanted(&request, false);
        let found: Vec<_> = wanted
            .iter()
            .map(|((_, index), wanted)| (index.0, wanted.offset.0))
            .collect();
        assert_eq!(found, [(0, 3), (1, 2)]);
    }

    fn read_of(code: Option<ErrorCode>, size_bytes: usize) -> PartitionRead {
        PartitionRead {
            code,
            size_bytes,
            ..PartitionRead::refused(
                (TopicKey::Name(TopicName::from("t")), PartitionIndex(0)),
                ErrorCode::UnknownServerError.into(),
            )
        }
    }

    #[test]
    fn rule_15_an_unknown_partition_does_not_end_the_wait_of_others() {
        let terms = Terms {
            wait: Duration::from_secs(1),
            bytes_min: 10,
            rules: ReadRules {
                bytes_max: 100,
                committed_only: false,
                reader: Reader::OfAny,
            },
        };
        let due = |reads: &[PartitionRead]| is_due(reads, &terms);
        for unknown in [
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicId,
        ] {
            assert!(!due(&[read_of(Some(unknown), 0), read_of(None, 9)]));
            assert!(due(&[read_of(Some(unknown), 0), read_of(None, 10)]));
            assert!(due(&[read_of(Some(unknown), 0)]), "nothing to wait for");
        }
        assert!(due(&[
            read_of(Some(ErrorCode::OffsetOutOfRange), 0),
            read_of(None, 0)
        ]));
        assert!(due(&[]));
        let elsewhere = PartitionRead {
            preferred: Some(BrokerId(2)),
            ..read_of(None, 0)
        };
        assert!(due(&[elsewhere, read_of(None, 0)]));
    }
}
