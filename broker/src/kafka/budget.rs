//! The memory that requests may hold, all connections together (`queued.max.request.bytes`).
//!
//! Invariants: a frame's bytes are reserved before its body is read and given back when its reply is written (or
//! will never be); large frames that have not arrived whole hold at most half of the budget (or one of them more), so
//! that slow senders leave room for small requests; what is read from disk for a reply is reserved before it is read.
//! Waiters are served in the order in which they came, so a large frame is not starved by small ones.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Frames and decoded requests up to this size do not count as large: clients with default settings have no larger
/// ones.
const LARGE_BYTES_MIN: usize = 1024 * 1024;

/// Replies that may hold one batch each beside the budget, so that consumers get on while it is exhausted.
const SPARE_READS_MAX: usize = 4;

/// A number of bytes that can be reserved.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    /// Bytes that large frames may hold while they arrive.
    arriving: Arc<Semaphore>,
    spare_reads: Arc<Semaphore>,
    /// Bytes that large decoded requests may hold.
    decoded: Arc<Semaphore>,
    total_bytes: usize,
}

/// Reserved bytes; dropping gives them back.
#[derive(Debug)]
pub struct MemoryPermit {
    bytes: OwnedSemaphorePermit,
    /// Reads of one batch beside the budget.
    spare: Option<OwnedSemaphorePermit>,
    /// Bytes of large decoded requests.
    decoded: Option<OwnedSemaphorePermit>,
}

/// Memory of a frame that has not arrived whole.
#[derive(Debug)]
pub struct ArrivingPermit {
    memory: MemoryPermit,
    _arriving: Option<OwnedSemaphorePermit>,
}

impl ArrivingPermit {
    /// The frame is whole: it no longer counts among those that arrive.
    pub fn into_memory(self) -> MemoryPermit {
        self.memory
    }
}

impl MemoryPermit {
    /// Adds `more` to `sum`, so that both are given back together.
    pub fn join(sum: &mut Option<MemoryPermit>, more: Option<MemoryPermit>) {
        match (sum, more) {
            (Some(sum), Some(more)) => {
                sum.bytes.merge(more.bytes);
                merge(&mut sum.spare, more.spare);
                merge(&mut sum.decoded, more.decoded);
            }
            (sum @ None, more) => *sum = more,
            (Some(_), None) => {}
        }
    }

    /// Bytes that are reserved.
    pub fn size_bytes(&self) -> usize {
        self.bytes.num_permits()
    }

    /// Gives back what is reserved above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(
            self.bytes
                .split(self.bytes.num_permits().saturating_sub(bytes)),
        );
    }
}

impl MemoryBudget {
    /// A budget of `total_bytes`, all of them free.
    pub fn new(total_bytes: usize) -> MemoryBudget {
        let total_bytes = total_bytes.min(Semaphore::MAX_PERMITS);
        MemoryBudget {
            free: Arc::new(Semaphore::new(total_bytes)),
            arriving: Arc::new(Semaphore::new(arriving_bytes_max(total_bytes))),
            spare_reads: Arc::new(Semaphore::new(SPARE_READS_MAX)),
            decoded: Arc::new(Semaphore::new(decoded_bytes_max(total_bytes))),
            total_bytes,
        }
    }

    /// Waits for the memory of a frame that begins to arrive.
    pub async fn reserve_frame(&self, bytes: usize) -> ArrivingPermit {
        let arriving = if bytes > LARGE_BYTES_MIN {
            let most = arriving_bytes_max(self.total_bytes);
            let permits = u32::try_from(bytes.min(most)).unwrap_or(u32::MAX);
            // Never closed; without a permit the frame only counts as a small one.
            Arc::clone(&self.arriving)
                .acquire_many_owned(permits)
                .await
                .ok()
        } else {
            None
        };
        ArrivingPermit {
            memory: self.reserve(bytes).await,
            _arriving: arriving,
        }
    }

    /// Waits until `bytes` are free and takes them. More than the whole budget counts as the whole budget:
    /// such a frame travels alone instead of never.
    pub async fn reserve(&self, bytes: usize) -> MemoryPermit {
        let permits = self.permits(bytes);
        let taken = Arc::clone(&self.free).acquire_many_owned(permits).await;
        MemoryPermit {
            bytes: taken.expect("the semaphore is never closed"),
            spare: None,
            decoded: None,
        }
    }

    /// Takes `bytes` if they are free now.
    pub fn try_reserve(&self, bytes: usize) -> Option<MemoryPermit> {
        let permits = self.permits(bytes);
        let taken = Arc::clone(&self.free)
            .try_acquire_many_owned(permits)
            .ok()?;
        Some(MemoryPermit {
            bytes: taken,
            spare: None,
            decoded: None,
        })
    }

    /// Takes what a request is decoded to, if that is free now. As requests may wait for a long time, large ones
    /// together take no more than a quarter of the budget; one that is larger takes that.
    pub fn try_reserve_decoded(&self, bytes: usize) -> Option<MemoryPermit> {
        let bytes = bytes.min(decoded_bytes_max(self.total_bytes));
        let decoded = if bytes > LARGE_BYTES_MIN {
            let permits = self.permits(bytes);
            Some(
                Arc::clone(&self.decoded)
                    .try_acquire_many_owned(permits)
                    .ok()?,
            )
        } else {
            None
        };
        Some(MemoryPermit {
            decoded,
            ..self.try_reserve(bytes)?
        })
    }

    /// Takes `most` bytes, or half of those that are free now if that is less, but not fewer than `least`.
    pub fn try_reserve_some(&self, least: usize, most: usize) -> Option<MemoryPermit> {
        let half = self.free.available_permits() / 2;
        self.try_reserve(most.min(half.max(least)))
    }

    /// Leave to hold one batch beside the budget, if few others do so.
    pub fn try_spare_read(&self) -> Option<MemoryPermit> {
        let spare = Arc::clone(&self.spare_reads).try_acquire_owned().ok()?;
        Some(MemoryPermit {
            spare: Some(spare),
            ..self.try_reserve(0)?
        })
    }

    /// Bytes that are reserved now.
    pub fn used_bytes(&self) -> usize {
        self.total_bytes - self.free.available_permits().min(self.total_bytes)
    }

    /// Size of the budget.
    pub fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.total_bytes)).unwrap_or(u32::MAX)
    }
}

fn merge(sum: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (sum, more) {
        (Some(sum), Some(more)) => sum.merge(more),
        (sum @ None, more) => *sum = more,
        (Some(_), None) => {}
    }
}

fn decoded_bytes_max(total_bytes: usize) -> usize {
    (total_bytes / 4).max(1)
}

fn arriving_bytes_max(total_bytes: usize) -> usize {
    (total_bytes / 2).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn bytes_come_back_when_the_permit_is_dropped() {
        let budget = MemoryBudget::new(100);
        let first = budget.reserve(60).await;
        assert_eq!(budget.used_bytes(), 60);
        assert!(budget.try_reserve(41).is_none());
        assert!(
            timeout(Duration::from_millis(20), budget.reserve(41))
                .await
                .is_err()
        );
        drop(first);
        let _second = budget.reserve(41).await;
        assert_eq!(budget.used_bytes(), 41);
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_budget_travels_alone() {
        let budget = MemoryBudget::new(100);
        let huge = budget.reserve(1_000).await;
        assert_eq!(budget.used_bytes(), 100);
        assert!(budget.try_reserve(1).is_none());
        drop(huge);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_large_frame_is_not_starved_by_small_ones() {
        let budget = MemoryBudget::new(100);
        let small = budget.reserve(50).await;
        let large = tokio::spawn({
            let budget = budget.clone();
            async move { budget.reserve(80).await }
        });
        while budget.free.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(
            budget.try_reserve(1).is_none(),
            "small frames queue behind the large one"
        );
        drop(small);
        large.await.unwrap();
    }

    #[tokio::test]
    async fn large_frames_that_arrive_leave_half_to_small_ones() {
        const MIB: usize = 1024 * 1024;
        let budget = MemoryBudget::new(100 * MIB);
        let first = budget.reserve_frame(30 * MIB).await;
        let second = budget.reserve_frame(20 * MIB).await;
        let mut third = Box::pin(budget.reserve_frame(30 * MIB));
        assert!(
            timeout(Duration::from_millis(20), &mut third)
                .await
                .is_err()
        );
        let small = timeout(Duration::from_secs(5), budget.reserve_frame(MIB)).await;
        drop(small.expect("a small frame does not queue behind large ones that arrive"));
        let memory = first.into_memory();
        let third = timeout(Duration::from_secs(5), third).await.unwrap();
        assert_eq!(
            budget.used_bytes(),
            80 * MIB,
            "the whole one is still in use"
        );
        drop((memory, second, third));
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn reads_take_what_is_there_and_a_few_take_one_batch_beside_it() {
        let budget = MemoryBudget::new(100);
        let mut read = budget.try_reserve_some(10, 1_000).unwrap();
        assert_eq!(read.size_bytes(), 50, "half of what is free");
        read.shrink_to(20);
        assert_eq!((read.size_bytes(), budget.used_bytes()), (20, 20));
        let _rest = budget.try_reserve(75).unwrap();
        assert!(budget.try_reserve_some(10, 1_000).is_none());
        let mut spare = budget.try_spare_read();
        let others: Vec<_> = std::iter::from_fn(|| budget.try_spare_read()).collect();
        assert_eq!(others.len(), SPARE_READS_MAX - 1);
        MemoryPermit::join(&mut spare, Some(read));
        drop(spare);
        assert!(budget.try_spare_read().is_some());
        assert_eq!(budget.used_bytes(), 75);
    }

    #[tokio::test]
    async fn large_decoded_requests_take_a_quarter_together() {
        const MIB: usize = 1024 * 1024;
        let budget = MemoryBudget::new(100 * MIB);
        let mut first = budget.try_reserve_decoded(10 * MIB);
        let second = budget.try_reserve_decoded(15 * MIB);
        assert!(budget.try_reserve_decoded(2 * MIB).is_none());
        let small = budget.try_reserve_decoded(MIB);
        assert_eq!(budget.used_bytes(), 26 * MIB);
        MemoryPermit::join(&mut first, second);
        drop((first, small));
        assert!(budget.try_reserve_decoded(1_000 * MIB).is_some());
        assert_eq!(budget.used_bytes(), 0);
    }
}
