//! Watching free space: records are refused at the reserve, before a write can fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::SpaceReserve;
use crate::log::Shared;

/// Time between two looks: at 1 GB/s less than a half of the default reserve fills in it.
const INTERVAL: Duration = Duration::from_millis(500);

/// Less than this is a full disk, whatever the reserve.
const FREE_BYTES_MIN: u64 = 1 << 20;

/// Tells the background thread to end.
#[derive(Debug, Default)]
pub(super) struct Background {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Background {
    /// Ends the thread.
    pub fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }

    /// Looks at the free space until stopped.
    pub fn run(&self, shared: &Arc<Shared>, reserve: SpaceReserve) {
        let mut stopped = self.stopped.lock();
        while !*stopped {
            look(shared, reserve);
            // What would be taken is the key-value store's first: without it nothing can be deleted.
            if !shared.kv.is_short_of_room() {
                shared.queue.retry_parked();
            }
            self.changed.wait_for(&mut stopped, INTERVAL);
        }
    }
}

/// Compares the free space with the reserve.
pub(super) fn look(shared: &Shared, reserve: SpaceReserve) {
    let space = match shared.fs.space(&shared.directory) {
        Ok(space) => space,
        Err(error) => {
            tracing::warn!(%error, "free space is not known");
            return;
        }
    };
    let low = space.available_bytes < reserve.bytes(space.total_bytes).max(FREE_BYTES_MIN)
        || shared.kv.is_short_of_room();
    let available_bytes = space.available_bytes;
    if low != shared.space_low.swap(low, Ordering::Relaxed) {
        if low {
            tracing::error!(
                available_bytes,
                "free space is at the reserve: records are refused"
            );
        } else {
            tracing::info!(available_bytes, "free space is above the reserve again");
        }
    }
    metrics::gauge!("tidelog_storage_space_available_bytes").set(available_bytes as f64);
}
