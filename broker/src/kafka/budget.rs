//! The memory that requests may hold, all connections together (`queued.max.request.bytes`).
//!
//! Invariant: a frame's bytes are reserved before the first of them is read and given back when its reply is
//! written (or will never be). Waiters are served in the order in which they came, so a large frame is not
//! starved by small ones.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of bytes that can be reserved.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    free: Arc<Semaphore>,
    total_bytes: usize,
}

/// Reserved bytes; dropping gives them back.
#[derive(Debug)]
pub struct MemoryPermit {
    bytes: OwnedSemaphorePermit,
}

impl MemoryPermit {
    /// Adds `more` to `sum`, so that both are given back together.
    pub fn join(sum: &mut Option<MemoryPermit>, more: Option<MemoryPermit>) {
        match (sum, more) {
            (Some(sum), Some(more)) => sum.bytes.merge(more.bytes),
            (sum @ None, more) => *sum = more,
            (Some(_), None) => {}
        }
    }
}

impl MemoryBudget {
    /// A budget of `total_bytes`, all of them free.
    pub fn new(total_bytes: usize) -> MemoryBudget {
        let total_bytes = total_bytes.min(Semaphore::MAX_PERMITS);
        MemoryBudget {
            free: Arc::new(Semaphore::new(total_bytes)),
            total_bytes,
        }
    }

    /// Waits until `bytes` are free and takes them. More than the whole budget counts as the whole budget:
    /// such a frame travels alone instead of never.
    pub async fn reserve(&self, bytes: usize) -> MemoryPermit {
        let permits = self.permits(bytes);
        let taken = Arc::clone(&self.free).acquire_many_owned(permits).await;
        MemoryPermit {
            bytes: taken.expect("the semaphore is never closed"),
        }
    }

    /// Takes `bytes` if they are free now.
    pub fn try_reserve(&self, bytes: usize) -> Option<MemoryPermit> {
        let permits = self.permits(bytes);
        let taken = Arc::clone(&self.free)
            .try_acquire_many_owned(permits)
            .ok()?;
        Some(MemoryPermit { bytes: taken })
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
}
