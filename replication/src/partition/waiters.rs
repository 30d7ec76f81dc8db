//! Those who wait for a partition to move.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::shared::PartitionShared;

/// Registered waiters of one partition.
#[derive(Debug, Default)]
pub struct Waiters {
    /// Number of entries in `list`, to be read without the lock: most moves wake nobody.
    count: AtomicUsize,
    list: Mutex<Vec<Arc<Notify>>>,
}

impl Waiters {
    /// Adds a waiter; the same one may be there twice.
    pub fn add(&self, notify: &Arc<Notify>) {
        let mut list = self.list.lock();
        list.push(notify.clone());
        self.count.store(list.len(), Ordering::SeqCst);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Wakes all.
    pub fn notify(&self) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        self.list
            .lock()
            .iter()
            .for_each(|waiter| waiter.notify_one());
    }

    fn remove(&self, notify: &Arc<Notify>) {
        let mut list = self.list.lock();
        if let Some(position) = list.iter().position(|waiter| Arc::ptr_eq(waiter, notify)) {
            list.swap_remove(position);
        }
        if list.is_empty() {
            list.shrink_to_fit();
        }
        self.count.store(list.len(), Ordering::SeqCst);
    }
}

/// Deregisters when dropped.
pub struct WaiterRegistration {
    partition: Arc<PartitionShared>,
    notify: Arc<Notify>,
}

impl WaiterRegistration {
    pub(crate) fn new(partition: Arc<PartitionShared>, notify: &Arc<Notify>) -> Self {
        partition.waiters().add(notify);
        WaiterRegistration {
            partition,
            notify: notify.clone(),
        }
    }
}

impl fmt::Debug for WaiterRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaiterRegistration").finish_non_exhaustive()
    }
}

impl Drop for WaiterRegistration {
    fn drop(&mut self) {
        self.partition.waiters().remove(&self.notify);
    }
}
