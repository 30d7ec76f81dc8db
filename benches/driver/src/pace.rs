//! When requests are meant to be sent: as fast as replies come, or at a rate that does not care about replies.
//!
//! At a rate, a request that could not be sent in time counts from the moment at which it should have been: a broker
//! that stalls cannot make its own figures better by keeping the driver from asking.

use std::time::{Duration, Instant};

/// The requests of one connection in time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Whenever there is room in the window.
    Closed,
    /// At fixed moments.
    Open {
        /// Of the first request.
        first: Instant,
        /// From one to the next.
        every: Duration,
    },
}

impl Pace {
    /// One connection's part of `per_second` requests in all: its moments lie between those of the others.
    pub(crate) fn open(start: Instant, per_second: f64, connection: usize, of: usize) -> Self {
        let between = 1.0 / per_second;
        Pace::Open {
            first: start + Duration::from_secs_f64(between * connection as f64),
            every: Duration::from_secs_f64(between * of as f64),
        }
    }

    /// When the request with this number is meant to be sent; `None` means at any time.
    pub(crate) fn moment(&self, number: u64) -> Option<Instant> {
        match self {
            Pace::Closed => None,
            Pace::Open { first, every } => Some(*first + every.mul_f64(number as f64)),
        }
    }

    /// How many requests may be sent now when `sent` have been, `most` at once.
    pub(crate) fn due(&self, now: Instant, sent: u64, most: usize) -> usize {
        match self {
            Pace::Closed => most,
            Pace::Open { .. } => (sent..)
                .take(most)
                .take_while(|number| self.moment(*number).is_none_or(|moment| moment <= now))
                .count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_a_rate_evenly() {
        let start = Instant::now();
        let paces: Vec<_> = (0..4).map(|c| Pace::open(start, 100.0, c, 4)).collect();
        let mut moments: Vec<_> = paces
            .iter()
            .flat_map(|pace| (0..25).filter_map(|number| pace.moment(number)))
            .collect();
        moments.sort();
        for (number, moment) in moments.iter().enumerate() {
            let expected = Duration::from_millis(10 * number as u64);
            assert!((*moment - start).abs_diff(expected) < Duration::from_micros(1));
        }
    }

    #[test]
    fn what_is_late_is_due_at_once() {
        let start = Instant::now();
        let pace = Pace::open(start, 1000.0, 0, 1);
        let now = start + Duration::from_micros(10_500);
        assert_eq!(pace.due(now, 0, 100), 11);
        assert_eq!(pace.due(now, 10, 100), 1);
        assert_eq!(pace.due(now, 11, 100), 0);
        assert_eq!(pace.due(now, 0, 4), 4);
        assert_eq!(Pace::Closed.due(now, 5, 7), 7);
    }
}
