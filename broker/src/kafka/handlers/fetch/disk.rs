//! Reads from segments for a Fetch, never more than there is memory for.
//!
//! Invariant: memory is reserved before it is filled, and nothing waits for memory: the request holds some itself,
//! and so might all others that wait.

use std::sync::Arc;

use tidelog_protocol::types::Offset;
use tidelog_storage::log::{LogError, PartitionLog, ReadData};

use crate::kafka::budget::{MemoryBudget, MemoryPermit};

/// Least that is worth a read behind the first batch of a reply.
const READ_BYTES_MIN: usize = 64 * 1024;

/// Reads up to this size are done on the runtime's thread if no disk has to be waited for: half a millisecond at most.
/// At 1 MiB that halves what a fetch costs the broker, as the bytes are sent by the processor whose cache holds them.
pub(super) const READ_HERE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What to read of one partition.
#[derive(Clone, Copy)]
pub(super) struct DiskRead {
    pub(super) from: Offset,
    pub(super) upto: Offset,
    /// Most bytes, if the first batch has no more.
    pub(super) bytes_max: usize,
    /// The first batch counts whatever its size.
    pub(super) at_least_one: bool,
    /// Size that batches of the topic normally keep below.
    pub(super) batch_bytes_max: usize,
}

impl DiskRead {
    /// What was read, with its memory; `None` if there is no memory for it now.
    pub(super) async fn run(
        mut self,
        log: &Arc<PartitionLog>,
        budget: &MemoryBudget,
    ) -> Result<Option<(ReadData, MemoryPermit)>, LogError> {
        let (least, most) = if self.at_least_one {
            let least = self.batch_bytes_max;
            (least, self.bytes_max.max(least))
        } else {
            (self.bytes_max.min(READ_BYTES_MIN), self.bytes_max)
        };
        let mut memory = match budget.try_reserve_some(least, most) {
            Some(memory) => {
                self.bytes_max = self.bytes_max.min(memory.size_bytes());
                memory
            }
            None if self.at_least_one => {
                let Some(spare) = budget.try_spare_read() else {
                    return Ok(None);
                };
                self.bytes_max = 0;
                let data = self.read(log).await?;
                return Ok(Some((data, spare)));
            }
            None => return Ok(None),
        };
        let data = self.read(log).await?;
        memory.shrink_to(data.size_bytes);
        let missing = data.size_bytes.saturating_sub(memory.size_bytes());
        if missing == 0 {
            return Ok(Some((data, memory)));
        }
        // A batch from before its topic's limit was lowered.
        let more = budget
            .try_reserve(missing)
            .or_else(|| budget.try_spare_read());
        let mut memory = Some(memory);
        let is_covered = more.is_some();
        MemoryPermit::join(&mut memory, more);
        Ok(memory.filter(|_| is_covered).map(|memory| (data, memory)))
    }

    async fn read(self, log: &Arc<PartitionLog>) -> Result<ReadData, LogError> {
        if self.bytes_max <= READ_HERE_BYTES_MAX
            && let Some(read) =
                log.try_read_resident(self.from, self.upto, self.bytes_max, self.at_least_one)
        {
            return read;
        }
        let log = Arc::clone(log);
        let read = tokio::task::spawn_blocking(move || {
            log.read_blocking(self.from, self.upto, self.bytes_max, self.at_least_one)
        });
        read.await
            .unwrap_or_else(|failed| Err(LogError::Io(failed.to_string().into())))
    }
}
