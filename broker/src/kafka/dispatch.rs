//! From a header to a handler: which APIs are built, how each is ordered, how its messages are decoded and encoded.
//!
//! `APIS` is the one list: an API that has no line here is neither advertised nor answered, whatever
//! `protocol::api::SERVED` allows. A served request goes through two stages: what has to happen in order, awaited
//! before the next request of the connection is read, and the rest, which runs beside it.

use std::future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tidelog_protocol::api::{self, ApiKey};
use tidelog_protocol::encode;
use tidelog_protocol::frame::{self, RequestHeader};
use tidelog_protocol::{Encodable, Request};
use tokio_util::sync::CancellationToken;

use crate::kafka::budget::MemoryPermit;
use crate::kafka::context::RequestContext;
use crate::kafka::handlers::{
    HandlerError, alter_configs, alter_partition_reassignments, api_versions, create_partitions,
    create_topics, delete_groups, delete_records, delete_topics, describe_cluster,
    describe_configs, describe_groups, describe_log_dirs, describe_producers, describe_quorum,
    describe_topic_partitions, elect_leaders, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_config_resources,
    list_groups, list_offsets, list_partition_reassignments, metadata, offset_commit,
    offset_delete, offset_fetch, offset_for_leader_epoch, produce, sync_group, unregister_broker,
    update_features,
};
use crate::kafka::memory;

/// How long a parked group request may go on when the broker drains. A rebalance may take minutes; its members
/// come back to the broker that takes over, or to this one after its restart.
const PARKED_TIME_MAX: Duration = Duration::from_millis(500);

/// What goes back to the client.
#[derive(Debug)]
pub enum Reply {
    /// A reply frame, size prefix included, in pieces.
    Frame {
        /// The pieces, to be written one after the other.
        pieces: Vec<Bytes>,
        /// Memory of pieces that were read for this reply; given back once they are written.
        memory: Option<MemoryPermit>,
    },
    /// Nothing: a produce with `acks=0`.
    Silence,
}

/// The part of a request that runs beside others: its reply, or the reason to close.
pub type ReplyFuture = BoxFuture<'static, Result<Reply, HandlerError>>;

/// The part of a request that is ordered; what is left of the request comes out.
type Ordered = BoxFuture<'static, ReplyFuture>;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A handler: boxed, as its future borrows the context.
type Handler<Q, A> = for<'a> fn(&'a RequestContext, Q) -> BoxFuture<'a, Result<A, HandlerError>>;

/// One API that is built.
struct Api {
    key: ApiKey,
    start: fn(RequestContext, Bytes) -> Ordered,
}

const fn api(key: ApiKey, start: fn(RequestContext, Bytes) -> Ordered) -> Api {
    Api { key, start }
}

/// The APIs that are built, one line each.
///
/// [`whole`]: the request is done before the next one starts. [`begun`]: what its handler does before its first
/// wait is done before the next one starts (a send to a mailbox takes its place in that first step). Requests that
/// change what a later one reads are whole: clients pipeline a commit and a read of it.
#[rustfmt::skip]
static APIS: &[Api] = &[
    api(ApiKey::Produce, |cx, body| Box::pin(produce::start(cx, body))),
    api(ApiKey::Fetch, |cx, body| first_step(Box::pin(fetch::serve(cx, body)))),
    api(ApiKey::ListOffsets, |cx, body| whole(cx, body, |cx, q| Box::pin(list_offsets::handle(cx, q)))),
    api(ApiKey::Metadata, |cx, body| whole(cx, body, |cx, q| Box::pin(metadata::handle(cx, q)))),
    api(ApiKey::OffsetCommit, |cx, body| whole(cx, body, |cx, q| Box::pin(offset_commit::handle(cx, q)))),
    api(ApiKey::OffsetFetch, |cx, body| begun(cx, body, |cx, q| Box::pin(offset_fetch::handle(cx, q)))),
    api(ApiKey::FindCoordinator, |cx, body| begun(cx, body, |cx, q| Box::pin(find_coordinator::handle(cx, q)))),
    api(ApiKey::JoinGroup, |cx, body| begun(cx, body, |cx, q| Box::pin(join_group::handle(cx, q)))),
    api(ApiKey::Heartbeat, |cx, body| begun(cx, body, |cx, q| Box::pin(heartbeat::handle(cx, q)))),
    api(ApiKey::LeaveGroup, |cx, body| whole(cx, body, |cx, q| Box::pin(leave_group::handle(cx, q)))),
    api(ApiKey::SyncGroup, |cx, body| begun(cx, body, |cx, q| Box::pin(sync_group::handle(cx, q)))),
    api(ApiKey::DescribeGroups, |cx, body| begun(cx, body, |cx, q| Box::pin(describe_groups::handle(cx, q)))),
    api(ApiKey::ListGroups, |cx, body| begun(cx, body, |cx, q| Box::pin(list_groups::handle(cx, q)))),
    api(ApiKey::DeleteGroups, |cx, body| whole(cx, body, |cx, q| Box::pin(delete_groups::handle(cx, q)))),
    api(ApiKey::OffsetDelete, |cx, body| whole(cx, body, |cx, q| Box::pin(offset_delete::handle(cx, q)))),
    api(ApiKey::ApiVersions, |cx, body| whole(cx, body, |cx, q| Box::pin(api_versions::handle(cx, q)))),
    api(ApiKey::InitProducerId, |cx, body| whole(cx, body, |cx, q| Box::pin(init_producer_id::handle(cx, q)))),
    api(ApiKey::OffsetForLeaderEpoch, |cx, body| whole(cx, body, |cx, q| Box::pin(offset_for_leader_epoch::handle(cx, q)))),
    api(ApiKey::DescribeCluster, |cx, body| whole(cx, body, |cx, q| Box::pin(describe_cluster::handle(cx, q)))),
    api(ApiKey::CreateTopics, |cx, body| whole(cx, body, |cx, q| Box::pin(create_topics::handle(cx, q)))),
    api(ApiKey::DeleteTopics, |cx, body| whole(cx, body, |cx, q| Box::pin(delete_topics::handle(cx, q)))),
    api(ApiKey::DeleteRecords, |cx, body| whole(cx, body, |cx, q| Box::pin(delete_records::handle(cx, q)))),
    api(ApiKey::DescribeConfigs, |cx, body| whole(cx, body, |cx, q| Box::pin(describe_configs::handle(cx, q)))),
    api(ApiKey::AlterConfigs, |cx, body| whole(cx, body, |cx, q| Box::pin(alter_configs::handle(cx, q)))),
    api(ApiKey::DescribeLogDirs, |cx, body| whole(cx, body, |cx, q| Box::pin(describe_log_dirs::handle(cx, q)))),
    api(ApiKey::CreatePartitions, |cx, body| whole(cx, body, |cx, q| Box::pin(create_partitions::handle(cx, q)))),
    api(ApiKey::IncrementalAlterConfigs, |cx, body| whole(cx, body, |cx, q| Box::pin(incremental_alter_configs::handle(cx, q)))),
    api(ApiKey::DescribeProducers, |cx, body| whole(cx, body, |cx, q| Box::pin(describe_producers::handle(cx, q)))),
    api(ApiKey::ListConfigResources, |cx, body| whole(cx, body, |cx, q| Box::pin(list_config_resources::handle(cx, q)))),
    api(ApiKey::ElectLeaders, |cx, body| whole(cx, body, |cx, q| Box::pin(elect_leaders::handle(cx, q)))),
    api(ApiKey::AlterPartitionReassignments, |cx, body| whole(cx, body, |cx, q| Box::pin(alter_partition_reassignments::handle(cx, q)))),
    api(ApiKey::ListPartitionReassignments, |cx, body| whole(cx, body, |cx, q| Box::pin(list_partition_reassignments::handle(cx, q)))),
    api(ApiKey::DescribeQuorum, |cx, body| begun(cx, body, |cx, q| Box::pin(describe_quorum::handle(cx, q)))),
    api(ApiKey::UpdateFeatures, |cx, body| whole(cx, body, |cx, q| Box::pin(update_features::handle(cx, q)))),
    api(ApiKey::UnregisterBroker, |cx, body| whole(cx, body, |cx, q| Box::pin(unregister_broker::handle(cx, q)))),
    api(ApiKey::DescribeTopicPartitions, |cx, body| whole(cx, body, |cx, q| Box::pin(describe_topic_partitions::handle(cx, q)))),
];

/// The APIs that there are handlers for.
pub fn built() -> impl Iterator<Item = ApiKey> {
    APIS.iter().map(|api| api.key)
}

/// Whether there is a handler for the API.
pub fn is_built(key: ApiKey) -> bool {
    built().any(|built| built == key)
}

/// Starts a request: what must happen in order has happened when this returns. The memory is what the request takes
/// beside its frame until it is answered.
pub async fn start(cx: RequestContext, body: Bytes) -> (ReplyFuture, Option<MemoryPermit>) {
    let Some(api) = APIS.iter().find(|api| api.key == cx.header.api_key) else {
        let unserved = format!("{:?} is not served", cx.header.api_key);
        return (ready(Err(HandlerError::InvalidRequest(unserved))), None);
    };
    match memory::of_elements(&cx, &body).await {
        Ok(memory) => ((api.start)(cx, body).await, memory),
        Err(error) => (ready(Err(error)), None),
    }
}

/// The reply to an ApiVersions request of a version that is not served.
pub fn api_versions_unsupported(correlation_id: i32) -> Result<Reply, HandlerError> {
    let header = RequestHeader {
        api_key: ApiKey::ApiVersions,
        api_version: 0,
        correlation_id,
        client_id: None,
    };
    reply(&header, &api::api_versions_unsupported())
}

/// Encodes a response without records.
pub fn reply<A: Encodable>(header: &RequestHeader, response: &A) -> Result<Reply, HandlerError> {
    let pieces = encode::encode_response(header, response)?;
    Ok(Reply::Frame {
        pieces,
        memory: None,
    })
}

/// Decodes a request's body.
pub fn decode<Q: Request>(cx: &RequestContext, mut body: Bytes) -> Result<Q, HandlerError> {
    Ok(frame::decode_request(&mut body, cx.version())?)
}

/// A future that is done already.
pub fn ready(result: Result<Reply, HandlerError>) -> ReplyFuture {
    Box::pin(future::ready(result))
}

async fn run<Q, A>(
    cx: RequestContext,
    body: Bytes,
    handler: Handler<Q, A>,
) -> Result<Reply, HandlerError>
where
    Q: Request + Send,
    A: Encodable + Send,
{
    let request = decode(&cx, body)?;
    let response = handler(&cx, request).await?;
    memory::of_reply(&cx, reply(&cx.header, &response)?).await
}

#[expect(
    clippy::async_yields_async,
    reason = "what is left of the request comes out"
)]
fn whole<Q, A>(cx: RequestContext, body: Bytes, handler: Handler<Q, A>) -> Ordered
where
    Q: Request + Send + 'static,
    A: Encodable + Send + 'static,
{
    Box::pin(async move { ready(run(cx, body, handler).await) })
}

fn begun<Q, A>(cx: RequestContext, body: Bytes, handler: Handler<Q, A>) -> Ordered
where
    Q: Request + Send + 'static,
    A: Encodable + Send + 'static,
{
    let draining = cx.broker.draining.clone();
    first_step(Box::pin(async move {
        tokio::select! {
            biased;
            reply = run(cx, body, handler) => reply,
            () = patience(draining) => Err(HandlerError::ShuttingDown),
        }
    }))
}

/// Ends when the broker has been draining for a while.
async fn patience(draining: CancellationToken) {
    draining.cancelled().await;
    tokio::time::sleep(PARKED_TIME_MAX).await;
}

/// Takes the first step of a future now; whoever awaits the rest wakes it.
#[expect(
    clippy::async_yields_async,
    reason = "what is left of the request comes out"
)]
pub fn first_step(mut rest: ReplyFuture) -> Ordered {
    Box::pin(async move {
        match future::poll_fn(|task| Poll::Ready(rest.as_mut().poll(task))).await {
            Poll::Ready(result) => ready(result),
            Poll::Pending => rest,
        }
    })
}
