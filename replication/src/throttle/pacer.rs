//! One replica's bytes on their way through the throttles.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tidelog_protocol::types::BrokerId;

use super::{Side, Throttles};
use crate::limits::PACED_BYTES;
use crate::partition::shared::PartitionShared;

/// Pays for bytes before they are read, as nobody knows how many that will be: for as many as one read yields, whenever what
/// was paid for is used up. For one reader after the other.
#[derive(Debug)]
pub struct Pacer {
    throttles: Arc<Throttles>,
    shared: Arc<PartitionShared>,
    /// The side that this broker's replica is on.
    side: Side,
    /// Bytes that are paid for; below zero, those that are owed.
    paid: AtomicI64,
}

impl Pacer {
    /// For the bytes between a partition's replica here, which is on that side, and one elsewhere.
    pub fn new(throttles: Arc<Throttles>, shared: Arc<PartitionShared>, side: Side) -> Pacer {
        Pacer {
            throttles,
            shared,
            side,
            paid: AtomicI64::new(0),
        }
    }

    /// Waits until the next bytes may go to or come from the replica of a broker.
    pub async fn before(&self, other: BrokerId) {
        if self.shared.throttled().is_none() {
            return;
        }
        let paid = self.paid.load(Ordering::Relaxed);
        if paid <= 0 {
            let due = u32::try_from(PACED_BYTES - paid).unwrap_or(u32::MAX);
            let group = self.shared.group();
            self.throttles.pass(self.side, group, other, due).await;
            self.paid.fetch_add(due.into(), Ordering::Relaxed);
        }
    }

    /// So many went.
    pub fn after(&self, bytes: usize) {
        // What went without a throttle is not owed.
        if self.shared.throttled().is_some() {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.paid.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
