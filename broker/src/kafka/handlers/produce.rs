//! Produce: batches are validated and given to their partitions in the order of arrival, and answered when they are
//! as safe as `acks` asks (rules 1 to 12).

mod inflate;
mod response;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use tidelog_protocol::ErrorCode;
use tidelog_protocol::batch::validate::{self, ProduceRejection, ValidatedBatch};
use tidelog_protocol::messages::ProduceRequest;
use tidelog_protocol::messages::produce_request::PartitionProduceData;
use tidelog_protocol::types::{Offset, PartitionIndex, TimestampMs};
use tidelog_replication::{
    Acks, AppendError, AppendRequest, AppendTicket, MetadataImage, Partition,
};
use tokio::time::{Instant, timeout_at};

use self::response::{PartitionAnswer, TopicAnswer};
use crate::kafka::context::RequestContext;
use crate::kafka::dispatch::{self, Reply, ReplyFuture};
use crate::kafka::errors;
use crate::kafka::handlers::HandlerError;
use crate::kafka::handlers::partitions::{Refusal, TopicKey, led_here};
use crate::topics::is_internal;

/// From this version on topics are named by id.
const TOPIC_ID_VERSION_MIN: i16 = 13;

/// Longest wait that a client may ask for. Its own request time-out is far below.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// A partition's part of a request, found good.
struct Checked {
    index: i32,
    partition: Arc<Partition>,
    valid: ValidatedBatch,
    acks: Acks,
    log_start: Offset,
}

/// A partition's part of a request, submitted.
enum Submitted {
    Answered(PartitionAnswer),
    Waiting {
        index: i32,
        ticket: AppendTicket,
        log_append_time: TimestampMs,
        log_start: Offset,
    },
}

struct SubmittedTopic {
    key: TopicKey,
    partitions: Vec<Submitted>,
}

/// The ordered part: on return every batch has its place in its partition, or was refused.
pub async fn start(cx: RequestContext, body: Bytes) -> ReplyFuture {
    let frame_bytes = body.len();
    let request: ProduceRequest = match dispatch::decode(&cx, body) {
        Ok(request) => request,
        Err(error) => return dispatch::ready(Err(error)),
    };
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(timeout_ms).min(TIMEOUT_MAX);
    let acks = acks_of(request.acks);
    let topics = submit_all(&cx, request, frame_bytes, acks).await;
    Box::pin(finish(cx, topics, acks, deadline))
}

fn acks_of(acks: i16) -> Option<Acks> {
    match acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    }
}

async fn submit_all(
    cx: &RequestContext,
    request: ProduceRequest,
    frame_bytes: usize,
    acks: Option<Acks>,
) -> Vec<SubmittedTopic> {
    let (checked, kept_bytes) = check_all(cx, request, acks).await;
    // A batch stays in memory for as long as it is among the newest, and with it the frame that it was cut from: one
    // that is mostly something else is not kept.
    let detach = kept_bytes < frame_bytes / 2;
    let mut topics = Vec::with_capacity(checked.len());
    for (key, parts) in checked {
        let mut partitions = Vec::with_capacity(parts.len());
        for part in parts {
            let submitted = match part {
                Ok(checked) => submit(cx, checked, detach).await,
                Err(answer) => Err(answer),
            };
            partitions.push(submitted.unwrap_or_else(Submitted::Answered));
        }
        topics.push(SubmittedTopic { key, partitions });
    }
    topics
}

type CheckedTopic = (TopicKey, Vec<Result<Checked, PartitionAnswer>>);

/// Validates every batch; says how many bytes of good ones there are.
async fn check_all(
    cx: &RequestContext,
    request: ProduceRequest,
    acks: Option<Acks>,
) -> (Vec<CheckedTopic>, usize) {
    let image = cx.broker.replication.image();
    let by_id = cx.version() >= TOPIC_ID_VERSION_MIN;
    let transactional = request.transactional_id.is_some();
    let mut kept_bytes = 0;
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let key = TopicKey::of(by_id, &topic.name, topic.topic_id);
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            if !(topics.is_empty() && partitions.is_empty()) {
                // A request may have thousands of batches, each of which takes its time to be checked.
                tokio::task::yield_now().await;
            }
            let index = data.index;
            let refused = |code: ErrorCode| Err(PartitionAnswer::refused(index, code.into()));
            let checked = match acks {
                None => refused(ErrorCode::InvalidRequiredAcks),
                Some(_) if transactional => Err(no_transactions(index)),
                Some(acks) => check(cx, &image, &key, data, acks).await,
            };
            kept_bytes += checked
                .as_ref()
                .map_or(0, |checked| checked.valid.batch.size_bytes());
            partitions.push(checked);
        }
        topics.push((key, partitions));
    }
    (topics, kept_bytes)
}

async fn check(
    cx: &RequestContext,
    image: &MetadataImage,
    topic: &TopicKey,
    data: PartitionProduceData,
    acks: Acks,
) -> Result<Checked, PartitionAnswer> {
    let index = data.index;
    let refuse = |refusal: Refusal| PartitionAnswer::refused(index, refusal);
    let topic = topic.find(image).map_err(|code| refuse(code.into()))?;
    if is_internal(topic.name.as_str()) {
        let message = format!("Cannot append to internal topic {}", topic.name);
        return Err(refuse(ErrorCode::InvalidTopicException.into()).with_message(message));
    }
    let (partition, state) = led_here(cx, topic, PartitionIndex(index)).map_err(refuse)?;
    let rules = cx
        .broker
        .topic_settings(topic)
        .produce_rules(cx.version(), now());
    let reject = |rejection: ProduceRejection| PartitionAnswer::rejected(index, rejection);
    let batch = validate::single_batch(data.records).map_err(reject)?;
    if batch.is_transactional() {
        return Err(no_transactions(index));
    }
    let valid = inflate::validate(cx, batch, &rules).await.map_err(reject)?;
    Ok(Checked {
        index,
        partition,
        valid,
        acks,
        log_start: state.log_start,
    })
}

async fn submit(
    cx: &RequestContext,
    checked: Checked,
    detach: bool,
) -> Result<Submitted, PartitionAnswer> {
    let Checked {
        index,
        partition,
        valid,
        acks,
        log_start,
    } = checked;
    let traffic = cx.broker.request_metrics.traffic();
    (traffic.produced_records).increment(valid.batch.record_count().max(0) as u64);
    (traffic.produced_bytes).increment(valid.batch.size_bytes() as u64);
    let batch = if detach {
        valid.batch.detached()
    } else {
        valid.batch
    };
    let request = AppendRequest {
        batch,
        acks,
        epoch: None,
    };
    let ticket = partition
        .submit(request)
        .await
        .map_err(|error| refused_append(index, &error))?;
    Ok(Submitted::Waiting {
        index,
        ticket,
        log_append_time: valid.log_append_time,
        log_start,
    })
}

/// Waits for every batch, and answers all of them together.
async fn finish(
    cx: RequestContext,
    topics: Vec<SubmittedTopic>,
    acks: Option<Acks>,
    deadline: Instant,
) -> Result<Reply, HandlerError> {
    let answers = join_all(topics.into_iter().map(|topic| async move {
        let partitions = topic
            .partitions
            .into_iter()
            .map(|partition| settle(partition, deadline));
        TopicAnswer {
            key: topic.key,
            partitions: join_all(partitions).await,
        }
    }))
    .await;
    if acks == Some(Acks::None) {
        return silence(&answers);
    }
    dispatch::reply(&cx.header, &response::build(&cx, answers))
}

async fn settle(submitted: Submitted, deadline: Instant) -> PartitionAnswer {
    let (index, ticket, log_append_time, log_start) = match submitted {
        Submitted::Answered(answer) => return answer,
        Submitted::Waiting {
            index,
            ticket,
            log_append_time,
            log_start,
        } => (index, ticket, log_append_time, log_start),
    };
    let mut ticket = ticket;
    match timeout_at(deadline, &mut ticket).await {
        Ok(Ok(appended)) => {
            let log_start = log_start.max(appended.log_start);
            PartitionAnswer::appended(index, appended.base_offset, log_append_time, log_start)
        }
        Ok(Err(error)) => refused_append(index, &error),
        Err(_) if ticket.is_committed() => {
            let message = "committed, but on fewer replicas than min.insync.replicas".to_owned();
            let code = ErrorCode::NotEnoughReplicasAfterAppend;
            PartitionAnswer::refused(index, code.into()).with_message(message)
        }
        // Rule 7: unknown, not failed. A retry of an idempotent producer finds its original.
        Err(_) => PartitionAnswer::refused(index, ErrorCode::RequestTimedOut.into()),
    }
}

/// Rule 6: no reply, and on an error the connection is closed.
fn silence(answers: &[TopicAnswer]) -> Result<Reply, HandlerError> {
    let failed = answers
        .iter()
        .flat_map(|topic| &topic.partitions)
        .find(|partition| partition.code.is_some());
    match failed.and_then(|partition| partition.code) {
        Some(code) => Err(HandlerError::UnacknowledgedProduce(code.to_string())),
        None => Ok(Reply::Silence),
    }
}

fn refused_append(index: i32, error: &AppendError) -> PartitionAnswer {
    let leader = match error {
        AppendError::NotLeader { leader, epoch } => leader.map(|leader| (leader, *epoch)),
        _ => None,
    };
    let refusal = Refusal {
        code: errors::append(error),
        leader,
    };
    PartitionAnswer::refused(index, refusal).with_message(error.to_string())
}

fn no_transactions(index: i32) -> PartitionAnswer {
    let message = "transactions are not supported by this broker yet";
    PartitionAnswer::refused(index, ErrorCode::InvalidTxnState.into())
        .with_message(message.to_owned())
}

fn now() -> TimestampMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
