//! How long replies took: a histogram with three significant digits, exact at its ends.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer waits are counted as this long; a request that takes longer has failed anyway.
const LONGEST: Duration = Duration::from_secs(3600);
const SIGNIFICANT_DIGITS: u8 = 3;

/// Times of replies.
#[derive(Clone, Debug)]
pub struct Latencies {
    micros: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        let most = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
        let micros = Histogram::new_with_max(most, SIGNIFICANT_DIGITS)
            .expect("bounds and digits are ones that the histogram takes");
        Latencies { micros }
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, took: Duration) {
        self.micros
            .saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    pub(crate) fn merge(&mut self, other: &Latencies) {
        // Both have the same bounds, so that nothing can be out of range.
        self.micros.add(&other.micros).ok();
    }

    /// Number of replies.
    pub fn count(&self) -> u64 {
        self.micros.len()
    }

    /// The time within which this share (0 to 1) of the replies came.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.micros.value_at_quantile(share))
    }

    /// The slowest reply.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.micros.max())
    }

    /// Their mean.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.micros.mean() / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_keep_three_digits_over_all_magnitudes() {
        let mut latencies = Latencies::default();
        for micros in 1..=100_000 {
            latencies.record(Duration::from_micros(micros));
        }
        let mut all = Latencies::default();
        all.merge(&latencies);
        for (share, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let found = all.quantile(share).as_secs_f64() * 1e6;
            assert!((found - exact).abs() / exact < 0.002, "{share}: {found}");
        }
        assert_eq!(all.count(), 100_000);
        all.record(Duration::from_secs(100_000));
        assert!(all.max() >= LONGEST);
    }
}
