//! Waiting changes of many groups become one batch.

use std::collections::VecDeque;

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::batch::{BatchBuilder, BuildError, NewRecord};
use tidelog_protocol::compression::Compression;
use tidelog_protocol::limits;
use tidelog_protocol::types::TimestampMs;

use super::groups::Change;
use crate::coordinator::group::{AppendId, GroupId};

/// A batch and whose changes are in it, in order.
#[derive(Debug)]
pub(super) struct GatheredBatch {
    /// The batch; an error if it cannot be built, which changes nothing.
    pub(super) batch: Result<RecordBatch, BuildError>,
    /// The changes.
    pub(super) changes: Vec<(GroupId, AppendId)>,
}

/// Takes as many changes as fit into one batch, at least one; `None` if none waits.
pub(super) fn gather(waiting: &mut VecDeque<Change>, now: TimestampMs) -> Option<GatheredBatch> {
    let mut builder = BatchBuilder::new(Compression::None);
    let mut changes = Vec::new();
    let mut pushed = Ok(());
    while let Some(next) = waiting.front() {
        let fits = builder.section_bytes() + next.size_bytes <= limits::COORDINATOR_BATCH_BYTES;
        if !changes.is_empty() && !fits {
            break;
        }
        let Some(change) = waiting.pop_front() else {
            break;
        };
        changes.push((change.group, change.append));
        pushed = change.records.iter().try_for_each(|record| {
            builder.push(NewRecord {
                timestamp: now,
                key: Some(&record.key),
                value: record.value.as_deref(),
                headers: &[],
            })
        });
        if pushed.is_err() {
            break;
        }
    }
    if changes.is_empty() {
        return None;
    }
    let batch = pushed.and_then(|()| builder.build());
    Some(GatheredBatch { batch, changes })
}
