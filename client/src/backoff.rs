//! Waiting between attempts: exponential, jittered, bounded by a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// Wait before the second attempt.
const FIRST_MS: u64 = 50;
/// Longest wait; a broker that comes back is noticed within it.
const LONGEST_MS: u64 = 1_000;

/// The waits of one call.
#[derive(Debug)]
pub(crate) struct Backoff {
    deadline: Instant,
    next_ms: u64,
}

impl Backoff {
    pub(crate) fn until(deadline: Instant) -> Self {
        Backoff {
            deadline,
            next_ms: FIRST_MS,
        }
    }

    /// Waits before the next attempt; false, at once, when the wait would pass the deadline.
    pub(crate) async fn wait(&mut self) -> bool {
        let wait = delay(self.next_ms);
        if Instant::now() + wait > self.deadline {
            return false;
        }
        self.next_ms = (self.next_ms * 2).min(LONGEST_MS);
        tokio::time::sleep(wait).await;
        true
    }
}

/// The wait before attempt number `attempts + 1`, for those who keep their own time.
pub(crate) fn delay_after(attempts: u32) -> Duration {
    let factor = 1u64 << attempts.min(10);
    delay(FIRST_MS.saturating_mul(factor).min(LONGEST_MS))
}

/// Between 80 % and 120 %, so that clients that failed together do not come back together.
fn delay(ms: u64) -> Duration {
    Duration::from_millis(ms * rand::random_range(80..=120) / 100)
}
