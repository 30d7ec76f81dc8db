//! Reading the partitions of one Fetch, within its limits.
//!
//! Recent batches come from memory at once; older ones from a segment, beside the runtime if a disk may have to be
//! waited for. What is read from a segment counts against the memory of requests.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_protocol::compression::Compression;
use tidelog_protocol::types::{BrokerId, LeaderEpoch, Offset};
use tidelog_protocol::{ErrorCode, StrBytes};
use tidelog_replication::{MetadataImage, Partition, PartitionState};
use tidelog_storage::log::LogError;

use super::disk::{DiskRead, READ_HERE_BYTES_MAX};
use super::preferred;
use super::session::{PartitionKey, Told, Wanted};
use crate::kafka::budget::MemoryPermit;
use crate::kafka::context::RequestContext;
use crate::kafka::errors;
use crate::kafka::handlers::partitions::{Refusal, check_epoch, held_here, led_here};

/// From this version on clients know zstd (rule 12).
const ZSTD_VERSION_MIN: i16 = 10;

/// Limits and isolation of a request.
pub(super) struct ReadRules {
    /// Most record bytes of the whole response.
    pub(super) bytes_max: usize,
    /// Read committed: up to the last stable offset.
    pub(super) committed_only: bool,
    /// Which replicas may answer.
    pub(super) reader: Reader,
}

/// Who reads (KIP-392).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// One that has to be served by the leader: a client from before that, or another broker.
    OfLeader,
    /// A consumer that any replica may serve.
    OfAny,
    /// The same, which leaders send to a replica in its rack, if there is one.
    InRack(StrBytes),
}

/// What was found for one partition.
pub(super) struct PartitionRead {
    pub(super) key: PartitionKey,
    pub(super) code: Option<ErrorCode>,
    pub(super) leader: Option<(BrokerId, LeaderEpoch)>,
    pub(super) diverging: Option<(LeaderEpoch, Offset)>,
    /// The replica that is to be asked in this one's place.
    pub(super) preferred: Option<BrokerId>,
    pub(super) high_watermark: Offset,
    pub(super) last_stable_offset: Offset,
    pub(super) log_start: Offset,
    pub(super) pieces: Vec<Bytes>,
    pub(super) size_bytes: usize,
    /// Where the read ended, and where the consumer's view ends.
    pub(super) next_offset: Offset,
    pub(super) visible_end: Offset,
    /// Memory of what was read from disk.
    pub(super) memory: Option<MemoryPermit>,
    /// The partition, where there is something to wait for.
    pub(super) partition: Option<Arc<Partition>>,
    /// Whether another broker leads it.
    pub(super) is_follower: bool,
    /// Whether the response has an aborted-transactions list.
    pub(super) committed_only: bool,
}

impl PartitionRead {
    pub(super) fn refused(key: PartitionKey, refusal: Refusal) -> PartitionRead {
        PartitionRead {
            key,
            code: Some(refusal.code),
            leader: refusal.leader,
            diverging: None,
            preferred: None,
            high_watermark: Offset::NONE,
            last_stable_offset: Offset::NONE,
            log_start: Offset::NONE,
            pieces: Vec::new(),
            size_bytes: 0,
            next_offset: Offset::NONE,
            visible_end: Offset::NONE,
            memory: None,
            partition: None,
            is_follower: false,
            committed_only: false,
        }
    }

    /// Whether there is no such partition, which says nothing about the others (rule 15).
    pub(super) fn is_unknown(&self) -> bool {
        matches!(
            self.code,
            Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId)
        )
    }

    /// Whether its answer cannot wait: it has an error, a diverging epoch, or sends the consumer elsewhere.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_special() || self.preferred.is_some()
    }

    /// Whether it has an error or a diverging epoch.
    pub(super) fn is_special(&self) -> bool {
        self.code.is_some() || self.diverging.is_some()
    }

    /// What the reply says of it.
    pub(super) fn told(&self) -> Told {
        Told {
            high_watermark: self.high_watermark,
            log_start: self.log_start,
            has_records: self.size_bytes > 0,
            is_special: self.is_special(),
            names_preferred: self.preferred.is_some(),
        }
    }
}

/// Bytes that are left for the partitions that come after.
#[derive(Clone, Copy)]
pub(super) struct Allowance {
    bytes_left: usize,
    /// Nothing was read yet: the next batch counts whatever its size (rule 13).
    at_least_one: bool,
    /// Memory for reads from disk ran out.
    pub(super) is_starved: bool,
}

impl Allowance {
    pub(super) fn of(rules: &ReadRules) -> Allowance {
        Allowance {
            bytes_left: rules.bytes_max,
            at_least_one: true,
            is_starved: false,
        }
    }

    pub(super) fn take(&mut self, bytes: usize) {
        if bytes > 0 {
            self.at_least_one = false;
            self.bytes_left = self.bytes_left.saturating_sub(bytes);
        }
    }
}

/// Reads all partitions in order.
pub(super) async fn all(
    cx: &RequestContext,
    wanted: &[(PartitionKey, Wanted)],
    rules: &ReadRules,
) -> Vec<PartitionRead> {
    let image = cx.broker.replication.image();
    let mut allowance = Allowance::of(rules);
    let mut reads = Vec::with_capacity(wanted.len());
    let mut bytes_in_turn = 0;
    for (key, wanted) in wanted {
        if bytes_in_turn >= READ_HERE_BYTES_MAX {
            tokio::task::yield_now().await;
            bytes_in_turn = 0;
        }
        let read = match one(cx, &image, key, wanted, rules, &mut allowance).await {
            Ok(read) => read,
            Err(refusal) => PartitionRead::refused(key.clone(), refusal),
        };
        bytes_in_turn += read.size_bytes;
        reads.push(read);
    }
    reads
}

async fn one(
    cx: &RequestContext,
    image: &MetadataImage,
    key: &PartitionKey,
    wanted: &Wanted,
    rules: &ReadRules,
    allowance: &mut Allowance,
) -> Result<PartitionRead, Refusal> {
    let (partition, mut state) = served(cx, image, key, wanted, rules)?;
    let beyond = wanted.offset > state.log_end || wanted.last_fetched_epoch > state.leader_epoch;
    if beyond && partition.leads_in_name() {
        // It may be this replica that lacks something: nobody has voted for it.
        let confirmed = partition.confirm_leadership().await;
        confirmed.map_err(|error| Refusal {
            code: ErrorCode::NotLeaderOrFollower,
            leader: error.leader.map(|leader| (leader, error.epoch)),
        })?;
        state = partition.state();
    }
    let mut read = PartitionRead {
        code: None,
        preferred: preferred::replica(cx, image, key, &partition, &state, wanted, rules),
        high_watermark: state.high_watermark,
        last_stable_offset: state.last_stable_offset,
        log_start: state.log_start,
        is_follower: !state.is_leader(),
        committed_only: rules.committed_only,
        ..PartitionRead::refused(key.clone(), ErrorCode::UnknownServerError.into())
    };
    if read.preferred.is_some() {
        return Ok(read);
    }
    read.diverging = diverging(&partition, wanted)?;
    if read.diverging.is_none() {
        read.next_offset = wanted.offset;
        read.visible_end = visible_end(&state, wanted, rules)?;
        fill(cx, image, &partition, &mut read, wanted, allowance).await?;
    }
    read.partition = Some(partition);
    Ok(read)
}

/// How many bytes of a partition a reply would hold from `wanted.offset` on, and the offset behind them.
pub(super) async fn count(
    cx: &RequestContext,
    image: &MetadataImage,
    partition: &Partition,
    (key, wanted): (&PartitionKey, &Wanted),
    upto: Offset,
    allowance: &mut Allowance,
) -> Result<(usize, Offset), Refusal> {
    let mut read = PartitionRead {
        next_offset: wanted.offset,
        visible_end: upto,
        ..PartitionRead::refused(key.clone(), ErrorCode::UnknownServerError.into())
    };
    fill(cx, image, partition, &mut read, wanted, allowance).await?;
    Ok((read.size_bytes, read.next_offset))
}

/// The partition, if it may be read here by this client.
pub(super) fn served(
    cx: &RequestContext,
    image: &MetadataImage,
    key: &PartitionKey,
    wanted: &Wanted,
    rules: &ReadRules,
) -> Result<(Arc<Partition>, PartitionState), Refusal> {
    let topic = key.0.find(image)?;
    let (partition, state) = match rules.reader {
        Reader::OfLeader => led_here(cx, topic, key.1)?,
        Reader::OfAny | Reader::InRack(_) => held_here(cx, topic, key.1)?,
    };
    check_epoch(wanted.current_epoch, &state)?;
    if cx.version() < ZSTD_VERSION_MIN
        && cx.broker.topic_settings(topic).compression == Some(Compression::Zstd)
    {
        return Err(ErrorCode::UnsupportedCompressionType.into());
    }
    Ok((partition, state))
}

/// Rule 24: the consumer's last record is of an epoch that ended before its offset here.
pub(super) fn diverging(
    partition: &Partition,
    wanted: &Wanted,
) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    let last = wanted.last_fetched_epoch;
    if last.0 < 0 {
        return Ok(None);
    }
    match partition.log().end_offset_for_epoch(last) {
        None => Err(ErrorCode::OffsetOutOfRange),
        Some((epoch, end)) if epoch < last || end < wanted.offset => Ok(Some((epoch, end))),
        Some(_) => Ok(None),
    }
}

/// Rule 16: where the consumer's view ends.
pub(super) fn visible_end(
    state: &PartitionState,
    wanted: &Wanted,
    rules: &ReadRules,
) -> Result<Offset, ErrorCode> {
    if wanted.offset < state.log_start || wanted.offset > state.log_end {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    Ok(if rules.committed_only {
        state.last_stable_offset
    } else {
        state.high_watermark
    })
}

async fn fill(
    cx: &RequestContext,
    image: &MetadataImage,
    partition: &Partition,
    read: &mut PartitionRead,
    wanted: &Wanted,
    allowance: &mut Allowance,
) -> Result<(), Refusal> {
    let (from, upto) = (wanted.offset, read.visible_end);
    let bytes_max = wanted.bytes_max.min(allowance.bytes_left);
    let at_least_one = allowance.at_least_one;
    if from >= upto || (bytes_max == 0 && !at_least_one) {
        return Ok(());
    }
    let log = partition.log();
    let refuse = |error: LogError| refuse_read(partition, &error);
    let data = match log.try_read_cached(from, upto, bytes_max, at_least_one) {
        Some(data) => data.map_err(refuse)?,
        None if allowance.is_starved => return Ok(()),
        None => {
            let topic = read.key.0.find(image)?;
            let disk = DiskRead {
                from,
                upto,
                bytes_max,
                at_least_one,
                batch_bytes_max: cx.broker.topic_settings(topic).max_message_bytes,
            };
            let Some((data, memory)) = disk.run(log, &cx.broker.memory).await.map_err(refuse)?
            else {
                allowance.is_starved = true;
                return Ok(());
            };
            read.memory = Some(memory);
            data
        }
    };
    allowance.take(data.size_bytes);
    read.size_bytes = data.size_bytes;
    read.next_offset = data.next_offset;
    read.pieces = data.pieces;
    Ok(())
}

fn refuse_read(partition: &Partition, error: &LogError) -> Refusal {
    if !matches!(error, LogError::OffsetOutOfRange { .. } | LogError::Removed) {
        tracing::error!(partition = %partition.name(), %error, "a fetch cannot be served");
    }
    errors::read(error).into()
}
