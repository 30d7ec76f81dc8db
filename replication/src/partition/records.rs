//! Records that cannot be sent entry by entry, because compaction made their group forget the entries: a replica that needs
//! them reads them from another one, a piece at a time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tidelog_protocol::types::{BrokerId, Offset};
use tidelog_storage::log::LogError;

use super::Partition;
use crate::limits::RECORDS_PIECE_BYTES;
use crate::raft::log_store::blocking;
use crate::raft::types::GroupId;

/// How long nothing is compacted after another replica has read a piece: what was read before and after would not belong
/// together.
const HOLD: Duration = Duration::from_secs(60);

/// Which records are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsWanted {
    /// Of this partition.
    pub group: GroupId,
    /// The first offset that is missing.
    pub from: Offset,
    /// Nothing at or above it.
    pub upto: Offset,
    /// Bytes to leave out, of a piece of which the beginning was read.
    pub skip: u32,
}

/// Some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsRead {
    /// What compaction has left, by name: pieces of different names do not belong together.
    pub mark: u32,
    /// The first offset behind the whole piece.
    pub next: Offset,
    /// Bytes of the whole piece, which consists of whole batches.
    pub piece_bytes: u32,
    /// Those from `skip` on, as many as fit.
    pub bytes: Bytes,
}

/// Where records of other replicas are read.
pub trait RecordSource: Debug + Send + Sync + 'static {
    /// Asks a broker for records. The error says why there are none.
    fn read(
        &self,
        from: BrokerId,
        wanted: RecordsWanted,
    ) -> BoxFuture<'_, Result<RecordsRead, String>>;
}

impl Partition {
    /// Reads records for another replica. Compaction waits for a while from now on.
    pub(crate) async fn read_records(
        &self,
        wanted: RecordsWanted,
    ) -> Result<RecordsRead, LogError> {
        self.compaction.lock().read_at = Some(Instant::now());
        // Less than is wanted would be taken for all that compaction has left.
        let high_watermark = self.shared.high_watermark();
        if high_watermark < wanted.upto {
            let text = format!("committed is up to {high_watermark} here, less than is wanted");
            return Err(LogError::Io(text.into()));
        }
        let log = self.log().clone();
        blocking(move || {
            let mark = log.settled_mark();
            let from = wanted.from.max(log.bounds().log_start);
            if from >= wanted.upto {
                // All of it was deleted.
                return Ok(RecordsRead {
                    mark,
                    next: wanted.upto,
                    piece_bytes: 0,
                    bytes: Bytes::new(),
                });
            }
            let data = log.read_blocking(from, wanted.upto, RECORDS_PIECE_BYTES, true)?;
            let whole: Bytes = data.pieces.concat().into();
            let skip = usize::try_from(wanted.skip)
                .unwrap_or(usize::MAX)
                .min(whole.len());
            let end = whole.len().min(skip + RECORDS_PIECE_BYTES);
            // Nothing at all is left up to the end.
            let next = if whole.is_empty() {
                wanted.upto
            } else {
                data.next_offset
            };
            Ok(RecordsRead {
                mark,
                next,
                piece_bytes: u32::try_from(whole.len()).unwrap_or(u32::MAX),
                bytes: whole.slice(skip..end),
            })
        })
        .await
    }

    /// Whether another replica reads records.
    pub(super) fn is_read_by_others(&self) -> bool {
        let read_at = self.compaction.lock().read_at;
        read_at.is_some_and(|at| at.elapsed() < HOLD)
    }
}
