//! One partition of `__consumer_offsets` as its coordinator sees it.
//!
//! The only place of the coordinators that knows [`Partition`] and its errors. Invariant: after an append that was
//! refused the log is as before; after one whose fate is unknown nobody may go on without reading it back.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::BytesMut;
use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::limits;
use tidelog_protocol::types::{LeaderEpoch, Offset};
use tidelog_replication::{Acks, AppendError, AppendRequest, Partition};
use tidelog_storage::log::LogId;
use tokio::sync::Notify;

use super::group::GroupError;

/// Boxed, because a log is chosen at run time.
pub(super) type LogFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why an append did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppendFailure {
    /// Nothing was written.
    Refused(GroupError),
    /// The records may be in the log or not.
    Unknown,
}

/// Why a log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadFailure {
    /// This broker does not lead the partition, or no longer in this epoch.
    #[error("not the leader")]
    NotLeader,
    /// The log is damaged or the disk fails.
    #[error("{0}")]
    Failed(String),
}

/// A coordinator's log. The double in the tests of [`super::shard`] keeps it in memory.
pub(super) trait OffsetsLog: fmt::Debug + Send + Sync + 'static {
    /// Identity of the log, different after the topic was deleted and created again.
    fn id(&self) -> LogId;
    /// Waits until everything that earlier leaders wrote is committed or gone; returns what can be read.
    fn ready(&self) -> LogFuture<Result<Range<Offset>, ReadFailure>>;
    /// Reads some batches from `from` on, at least one if there is one below `upto`. Blocks.
    fn read_blocking(&self, from: Offset, upto: Offset) -> Result<Vec<RecordBatch>, ReadFailure>;
    /// Appends a batch; resolves when it is committed, with the offset after it.
    fn append(&self, batch: RecordBatch) -> LogFuture<Result<Offset, AppendFailure>>;
}

/// A partition that this broker leads.
#[derive(Debug)]
pub(super) struct PartitionOffsetsLog {
    partition: Arc<Partition>,
    epoch: LeaderEpoch,
}

impl PartitionOffsetsLog {
    /// The partition, as long as it is led in this epoch.
    pub(super) fn new(partition: Arc<Partition>, epoch: LeaderEpoch) -> Self {
        PartitionOffsetsLog { partition, epoch }
    }
}

impl OffsetsLog for PartitionOffsetsLog {
    fn id(&self) -> LogId {
        self.partition.log().id()
    }

    fn ready(&self) -> LogFuture<Result<Range<Offset>, ReadFailure>> {
        let (partition, epoch) = (self.partition.clone(), self.epoch);
        Box::pin(async move {
            let notify = Arc::new(Notify::new());
            let _registration = partition.register_waiter(&notify);
            loop {
                let mut changed = std::pin::pin!(notify.notified());
                changed.as_mut().enable();
                let state = partition.state();
                if !state.is_leader() || state.leader_epoch != epoch {
                    return Err(ReadFailure::NotLeader);
                }
                if state.high_watermark >= state.epoch_start {
                    return Ok(state.log_start..state.high_watermark);
                }
                changed.await;
            }
        })
    }

    fn read_blocking(&self, from: Offset, upto: Offset) -> Result<Vec<RecordBatch>, ReadFailure> {
        let failed = |error: String| {
            ReadFailure::Failed(format!(
                "{} at offset {from}: {error}",
                self.partition.name()
            ))
        };
        let data = self
            .partition
            .log()
            .read_blocking(from, upto, limits::COORDINATOR_LOAD_BYTES, true)
            .map_err(|error| failed(error.to_string()))?;
        let mut bytes = BytesMut::with_capacity(data.size_bytes);
        for piece in &data.pieces {
            bytes.extend_from_slice(piece);
        }
        RecordBatch::split_all(bytes.freeze()).map_err(|error| failed(error.to_string()))
    }

    fn append(&self, batch: RecordBatch) -> LogFuture<Result<Offset, AppendFailure>> {
        let (partition, epoch) = (self.partition.clone(), self.epoch);
        let count = i64::from(batch.record_count());
        Box::pin(async move {
            let request = AppendRequest {
                batch,
                acks: Acks::All,
                epoch: Some(epoch),
            };
            let ticket = partition.submit(request).await.map_err(failure)?;
            let appended = ticket.await.map_err(failure)?;
            Ok(Offset(appended.base_offset.0.saturating_add(count)))
        })
    }
}

/// As Kafka does: whoever is not the leader any more is not the coordinator; what passes is worth a retry.
fn failure(error: AppendError) -> AppendFailure {
    AppendFailure::Refused(match error {
        AppendError::Unknown => return AppendFailure::Unknown,
        AppendError::NotLeader { .. }
        | AppendError::FencedEpoch { .. }
        | AppendError::UnknownEpoch { .. }
        | AppendError::ShuttingDown => GroupError::NotCoordinator,
        AppendError::NotEnoughReplicas { .. }
        | AppendError::NoSpace(_)
        | AppendError::Storage(_)
        | AppendError::Overloaded => GroupError::CoordinatorNotAvailable,
        // Batches of coordinators carry no producer id, and are small.
        AppendError::TooLarge { .. }
        | AppendError::OutOfOrderSequence { .. }
        | AppendError::InvalidProducerEpoch { .. }
        | AppendError::UnknownProducerId => GroupError::StorageFailed,
    })
}
