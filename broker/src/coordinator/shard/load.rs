//! Loading: the snapshot, then what the log says after it.
//!
//! Blocks, so it runs beside the runtime's threads. Everything read back is checked before it is believed.

use std::ops::Range;
use std::sync::Arc;

use tidelog_protocol::batch::RecordBatch;
use tidelog_protocol::types::Offset;
use tidelog_storage::kv::KeyValueStore;

use super::groups::Groups;
use super::snapshot;
use crate::coordinator::group::GroupSettings;
use crate::coordinator::offsets_log::{OffsetsLog, ReadFailure};
use crate::coordinator::records;

/// Groups as the log has them.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The groups, not yet alive.
    pub(super) groups: Groups,
    /// The first offset that is not in them.
    pub(super) next_offset: Offset,
    /// Records replayed from the log: what a newer snapshot would save.
    pub(super) replayed: usize,
}

/// Reads everything committed in `range`.
pub(super) fn load_blocking(
    log: &dyn OffsetsLog,
    store: &dyn KeyValueStore,
    settings: &Arc<GroupSettings>,
    range: Range<Offset>,
) -> Result<Loaded, ReadFailure> {
    let (mut groups, mut next_offset) = from_snapshot(log, store, settings, &range);
    let mut replayed = 0;
    while next_offset < range.end {
        let batches = log.read_blocking(next_offset, range.end)?;
        let before = next_offset;
        for batch in &batches {
            if batch.last_offset() < next_offset {
                continue;
            }
            replayed += replay(batch, next_offset, &mut groups)?;
            next_offset = Offset(batch.last_offset().0.saturating_add(1));
        }
        if next_offset == before {
            // Offsets that nothing holds any more, at the end of what is kept.
            break;
        }
    }
    Ok(Loaded {
        groups,
        next_offset: next_offset.max(range.end),
        replayed,
    })
}

fn from_snapshot(
    log: &dyn OffsetsLog,
    store: &dyn KeyValueStore,
    settings: &Arc<GroupSettings>,
    range: &Range<Offset>,
) -> (Groups, Offset) {
    let mut groups = Groups::new(settings.clone());
    match snapshot::read_blocking(store, log.id()) {
        Ok(Some(snapshot)) if (range.start..=range.end).contains(&snapshot.next_offset) => {
            for (group, record) in snapshot.records {
                groups.load(group, record);
            }
            (groups, snapshot.next_offset)
        }
        Ok(Some(snapshot)) => {
            tracing::warn!(
                log = log.id().0,
                at = snapshot.next_offset.0,
                start = range.start.0,
                end = range.end.0,
                "coordinator snapshot does not fit its log; reading the whole log"
            );
            (groups, range.start)
        }
        Ok(None) => (groups, range.start),
        Err(error) => {
            tracing::warn!(log = log.id().0, %error, "coordinator snapshot cannot be read; reading the whole log");
            (Groups::new(settings.clone()), range.start)
        }
    }
}

/// Replays the records of a batch from an offset on; says how many.
fn replay(batch: &RecordBatch, from: Offset, groups: &mut Groups) -> Result<usize, ReadFailure> {
    let failed = |what: String| {
        ReadFailure::Failed(format!("batch at offset {}: {what}", batch.base_offset()))
    };
    if !batch.checksum_matches() {
        return Err(failed("the checksum does not match".to_owned()));
    }
    if batch.is_control() {
        return Ok(0);
    }
    let mut count = 0;
    for record in batch
        .read_records()
        .map_err(|error| failed(error.to_string()))?
    {
        if record.offset < from {
            continue;
        }
        let key = record.key.as_deref().unwrap_or_default();
        let decoded = records::decode(key, record.value.as_deref())
            .map_err(|error| failed(error.to_string()))?;
        count += 1;
        if let Some((group, record)) = decoded {
            groups.load(group, record);
        }
    }
    Ok(count)
}
