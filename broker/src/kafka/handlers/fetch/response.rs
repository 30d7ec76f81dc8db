//! The Fetch response: partitions that are news, with their records spliced in.

use tidelog_protocol::api::ApiKey;
use tidelog_protocol::encode::ReplyBuffer;
use tidelog_protocol::messages::FetchResponse;
use tidelog_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use tidelog_protocol::types::BrokerId;

use super::read::PartitionRead;
use crate::kafka::budget::MemoryPermit;
use crate::kafka::context::RequestContext;
use crate::kafka::dispatch::Reply;
use crate::kafka::handlers::partitions::TopicKey;
use crate::kafka::handlers::{HandlerError, endpoints};
use crate::kafka::request_metrics::count_partition_error;

/// Versions whose partitions can say where epochs diverge and who leads.
const LEADER_VERSION_MIN: i16 = 12;

/// Versions that name the addresses of leaders (rule 11).
const ENDPOINTS_VERSION_MIN: i16 = 16;

/// Builds and encodes the response; the memory of what was read stays reserved until it is written.
pub(super) fn reply(
    cx: &RequestContext,
    session_id: i32,
    reads: Vec<PartitionRead>,
    news: &[bool],
) -> Result<Reply, HandlerError> {
    let mut buffer = ReplyBuffer::new();
    let mut memory: Option<MemoryPermit> = None;
    let mut hinted: Vec<BrokerId> = Vec::new();
    let mut follower_bytes = 0;
    let mut topics: Vec<(TopicKey, Vec<PartitionData>)> = Vec::new();
    for (mut read, is_news) in reads.into_iter().zip(news) {
        if !is_news {
            continue;
        }
        MemoryPermit::join(&mut memory, read.memory.take());
        hinted.extend(read.leader.map(|(id, _)| id));
        if let Some(code) = read.code {
            count_partition_error(ApiKey::Fetch, code);
        }
        if read.is_follower {
            follower_bytes += read.size_bytes as u64;
        }
        let key = read.key.0.clone();
        let data = partition(cx.version(), read, &mut buffer)?;
        match topics.last_mut() {
            Some((last, partitions)) if *last == key => partitions.push(data),
            _ => topics.push((key, vec![data])),
        }
    }
    metrics::counter!("tidelog_fetched_bytes_total").increment(buffer.rope_bytes() as u64);
    if follower_bytes > 0 {
        metrics::counter!("tidelog_follower_fetched_bytes_total").increment(follower_bytes);
    }
    let response = FetchResponse::default()
        .with_session_id(session_id)
        .with_responses(topics.into_iter().map(topic).collect())
        .with_node_endpoints(node_endpoints(cx, hinted));
    let pieces = buffer.encode_response(&cx.header, &response)?;
    Ok(Reply::Frame { pieces, memory })
}

fn topic((key, partitions): (TopicKey, Vec<PartitionData>)) -> FetchableTopicResponse {
    let response = FetchableTopicResponse::default().with_partitions(partitions);
    match key {
        TopicKey::Id(id) => response.with_topic_id(id.0),
        TopicKey::Name(name) => response.with_topic((&name).into()),
    }
}

fn partition(
    version: i16,
    read: PartitionRead,
    buffer: &mut ReplyBuffer,
) -> Result<PartitionData, HandlerError> {
    let mut data = PartitionData::default()
        .with_partition_index(read.key.1.0)
        .with_error_code(read.code.map_or(0, |code| code.code()))
        .with_high_watermark(read.high_watermark.0)
        .with_last_stable_offset(read.last_stable_offset.0)
        .with_log_start_offset(read.log_start.0)
        .with_aborted_transactions(read.committed_only.then(Vec::new))
        .with_preferred_read_replica(read.preferred.map_or(-1, |id| id.0).into())
        .with_records(Some(buffer.register_rope(read.pieces)?));
    if version >= LEADER_VERSION_MIN {
        if let Some((epoch, end)) = read.diverging {
            data.diverging_epoch = EpochEndOffset::default()
                .with_epoch(epoch.0)
                .with_end_offset(end.0);
        }
        if let Some((leader, epoch)) = read.leader {
            data.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(leader.0.into())
                .with_leader_epoch(epoch.0);
        }
    }
    Ok(data)
}

fn node_endpoints(cx: &RequestContext, mut hinted: Vec<BrokerId>) -> Vec<NodeEndpoint> {
    if cx.version() < ENDPOINTS_VERSION_MIN || hinted.is_empty() {
        return Vec::new();
    }
    hinted.sort_unstable();
    hinted.dedup();
    let image = cx.broker.replication.image();
    let nodes = hinted
        .into_iter()
        .filter_map(|id| endpoints::node(&image, id, &cx.connection.listener));
    nodes
        .map(|node| {
            NodeEndpoint::default()
                .with_node_id(node.id.0.into())
                .with_host(node.host)
                .with_port(node.port)
                .with_rack(node.rack)
        })
        .collect()
}
