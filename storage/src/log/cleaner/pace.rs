//! How fast and in how much memory compaction works, all its threads together.
//!
//! Invariant: over any stretch longer than a second no more bytes are let through than were allowed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Longest sleep at once, so that a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(250);

/// Limits that the passes over all logs share.
#[derive(Debug)]
pub struct CleanerPace {
    map_bytes_max: AtomicU64,
    /// The bits of an `f64`.
    bytes_per_second: AtomicU64,
    /// When everything that was let through will have been paid for.
    paid_at: Mutex<Option<Instant>>,
    stopped: AtomicBool,
}

impl CleanerPace {
    /// Limits as configured, see [`CleanerPace::set`].
    pub fn new(map_bytes_max: u64, bytes_per_second: f64) -> CleanerPace {
        CleanerPace {
            map_bytes_max: AtomicU64::new(map_bytes_max),
            bytes_per_second: AtomicU64::new(bytes_per_second.to_bits()),
            paid_at: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Other limits: bytes for the map of newest offsets of one pass, which count from the next pass on, and bytes a
    /// second, reading and writing together, which count from the next read or write on.
    pub fn set(&self, map_bytes_max: u64, bytes_per_second: f64) {
        self.map_bytes_max.store(map_bytes_max, Ordering::Relaxed);
        self.bytes_per_second
            .store(bytes_per_second.to_bits(), Ordering::Relaxed);
    }

    /// Bytes for the map of newest offsets of one pass.
    pub(crate) fn map_bytes_max(&self) -> u64 {
        self.map_bytes_max.load(Ordering::Relaxed)
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
        let bytes_per_second = f64::from_bits(self.bytes_per_second.load(Ordering::Relaxed));
        let cost = bytes as f64 / bytes_per_second.max(1.0);
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
        let began = Instant::now();
        pace.set(0, 1e9);
        pace.spend(10_000_000);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "not 10 s as before"
        );
    }
}
