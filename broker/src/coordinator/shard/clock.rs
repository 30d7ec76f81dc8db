//! The two clocks of a shard: the runtime's for deadlines, the system's for what is stored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidelog_protocol::types::TimestampMs;
use tokio::time::Instant;

use crate::coordinator::group::{MonotonicMs, Now};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock {
            origin: Instant::now(),
        }
    }

    pub(super) fn now(&self) -> Now {
        let mono = i64::try_from(self.origin.elapsed().as_millis()).unwrap_or(i64::MAX);
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        Now {
            mono: MonotonicMs(mono),
            wall: TimestampMs(wall),
        }
    }

    /// When the moment comes on the runtime's clock.
    pub(super) fn instant(&self, at: MonotonicMs) -> Instant {
        self.origin + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
    }
}
