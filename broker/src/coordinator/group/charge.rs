//! The memory that members of groups may hold, all groups of a broker together.
//!
//! A member outlives the request that brought it, and old clients bring a new one with each request. Invariant: what
//! is charged is given back when the last copy of the member, or of its join, is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the members of all groups may hold together.
#[derive(Clone, Debug)]
pub struct MemberBudget {
    used_bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// What one member, or one join on its way, holds. The default holds nothing.
#[derive(Debug, Default)]
pub struct MemberCharge {
    used_bytes: Arc<AtomicUsize>,
    bytes: usize,
}

impl MemberBudget {
    /// Nothing is held yet.
    pub fn new(bytes_max: usize) -> MemberBudget {
        MemberBudget {
            used_bytes: Arc::default(),
            bytes_max,
        }
    }

    /// Charges a newcomer; `None` if too much is held already. A quarter is left to those that come back.
    pub fn charge_newcomer(&self, bytes: usize) -> Option<MemberCharge> {
        self.charge(bytes, self.bytes_max / 4 * 3)
    }

    /// Charges somebody with a member id; `None` if too much is held already.
    pub fn charge_member(&self, bytes: usize) -> Option<MemberCharge> {
        self.charge(bytes, self.bytes_max)
    }

    /// Bytes that are held.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    fn charge(&self, bytes: usize, bytes_max: usize) -> Option<MemberCharge> {
        let charge = MemberCharge::of(&self.used_bytes, bytes);
        (self.used_bytes() <= bytes_max).then_some(charge)
    }
}

impl MemberCharge {
    fn of(used_bytes: &Arc<AtomicUsize>, bytes: usize) -> MemberCharge {
        used_bytes.fetch_add(bytes, Ordering::Relaxed);
        MemberCharge {
            used_bytes: used_bytes.clone(),
            bytes,
        }
    }

    /// Gives back what is charged above `bytes`.
    pub(super) fn shrink_to(mut self, bytes: usize) -> MemberCharge {
        let excess = self.bytes.saturating_sub(bytes);
        self.used_bytes.fetch_sub(excess, Ordering::Relaxed);
        self.bytes -= excess;
        self
    }
}

impl Clone for MemberCharge {
    fn clone(&self) -> MemberCharge {
        MemberCharge::of(&self.used_bytes, self.bytes)
    }
}

impl Drop for MemberCharge {
    fn drop(&mut self) {
        self.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
