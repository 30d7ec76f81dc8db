//! How fast and in how much memory compaction works, all its threads together.
//!
//! Invariant: over any stretch longer than a second no more bytes are let through than were allowed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Longest sleep at once, so that a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(250);

/// Limits that the passes over all logs share.
#[derive(Debug)]
pub struct CleanerPace {
    /// Bytes for the map of newest offsets of one pass: `log.cleaner.dedupe.buffer.size` divided by the threads.
    pub map_bytes_max: u64,
    /// `log.cleaner.io.max.bytes.per.second`, reading and writing together.
    bytes_per_second: f64,
    /// When everything that was let through will have been paid for.
    paid_at: Mutex<Option<Instant>>,
    stopped: AtomicBool,
}

impl CleanerPace {
    /// Limits as configured.
    pub fn new(map_bytes_max: u64, bytes_per_second: f64) -> CleanerPace {
        CleanerPace {
            map_bytes_max,
            bytes_per_second,
            paid_at: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Ends all passes soon, and their sleep at once.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether passes are to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Notes bytes that were read or written, and sleeps as long as they ask for. Blocks.
    pub(crate) fn spend(&self, bytes: usize) {
        let cost = bytes as f64 / self.bytes_per_second.max(1.0);
        let cost = Duration::try_from_secs_f64(cost).unwrap_or(Duration::ZERO);
        if cost.is_zero() {
            return;
        }
        let until = {
            let mut paid_at = self.paid_at.lock();
            let until = paid_at.unwrap_or_else(Instant::now).max(Instant::now()) + cost;
            *paid_at = Some(until);
            until
        };
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !self.is_stopped()
        {
            std::thread::sleep(left.min(SLEEP_MAX));
        }
    }
}

impl Default for CleanerPace {
    /// 128 MiB, as fast as the disk goes.
    fn default() -> Self {
        CleanerPace::new(128 << 20, f64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_with_time() {
        let pace = CleanerPace::new(0, 1e6);
        let began = Instant::now();
        for _ in 0..10 {
            pace.spend(10_000);
        }
        assert!(began.elapsed() >= Duration::from_millis(95));
        CleanerPace::default().spend(1 << 40);
    }
}
